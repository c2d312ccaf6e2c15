//! Writes Docker's json-file log: encoding, rotation, and a full disk that costs entries, not the container.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::config::LogFile;

/// Bytes gathered before a write: one read of output at its worst expansion stays in few writes.
const BATCH_BYTES: usize = 64 << 10;

/// The log of one container.
#[derive(Debug)]
pub(super) struct JsonLog {
    config: LogFile,
    file: Option<File>,
    size: u64,
    batch: Vec<u8>,
    batch_entries: u64,
    dropped: u64,
    /// As it stands in every entry; empty for none.
    details: Vec<u8>,
    time: String,
    time_nanos: i64,
}

impl JsonLog {
    /// Opens or continues the log. A log that cannot be opened drops everything rather than stop the container.
    pub(super) fn open(config: LogFile) -> Self {
        let mut log = Self {
            details: encode_details(&config.details),
            config,
            file: None,
            size: 0,
            batch: Vec::new(),
            batch_entries: 0,
            dropped: 0,
            time: String::new(),
            time_nanos: -1,
        };
        log.reopen();
        log
    }

    /// Changes rotation from the next entry on.
    pub(super) fn set_rotation(&mut self, max_size: u64, max_files: u32) {
        self.config.max_size = max_size;
        self.config.max_files = max_files.max(1);
    }

    /// Entries lost so far.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Adds one entry; it is in the file after the next `flush` at the latest.
    pub(super) fn append(&mut self, stream: &str, piece: &[u8], is_end: bool, now_nanos: i64) {
        let reached = self.size + u64::try_from(self.batch.len()).unwrap_or(u64::MAX);
        if self.config.max_size > 0 && reached >= self.config.max_size {
            self.flush();
            if self.size >= self.config.max_size {
                self.rotate();
            }
        }
        if self.time_nanos != now_nanos {
            self.time = rfc3339_nanos(now_nanos);
            self.time_nanos = now_nanos;
        }
        let stamp = (&*self.details, &*self.time);
        encode(&mut self.batch, stream, piece, is_end, stamp);
        self.batch_entries += 1;
        if self.batch.len() >= BATCH_BYTES {
            self.flush();
        }
    }

    /// Writes what was gathered. A write that fails half-way is cut off again, so no torn line stays behind.
    pub(super) fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if self.file.is_none() {
            self.reopen();
        }
        // Somebody may have truncated the file (`> log`): its true end counts.
        self.size = self
            .file
            .as_ref()
            .and_then(|f| f.metadata().ok())
            .map_or(0, |m| m.len());
        let written = match &self.file {
            Some(file) => write_or_undo(file, &self.batch, self.size),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        match written {
            Ok(()) => self.size += u64::try_from(self.batch.len()).unwrap_or(0),
            Err(_) => self.dropped += self.batch_entries,
        }
        self.batch.clear();
        if self.batch.capacity() > 2 * BATCH_BYTES {
            self.batch = Vec::new();
        }
        self.batch_entries = 0;
    }

    fn reopen(&mut self) {
        self.file = open_append(&self.config.path).ok();
        self.size = self
            .file
            .as_ref()
            .and_then(|f| f.metadata().ok())
            .map_or(0, |m| m.len());
    }

    fn rotate(&mut self) {
        if self.config.max_files <= 1 {
            if let Some(file) = &self.file
                && file.set_len(0).is_ok()
            {
                self.size = 0;
            }
            return;
        }
        // Renaming onto the oldest removes it. A failed rename leaves a longer file: nothing is lost.
        for index in (1..self.config.max_files).rev() {
            let from = match index {
                1 => self.config.path.clone(),
                _ => rotated(&self.config.path, index - 1),
            };
            let _ = fs::rename(from, rotated(&self.config.path, index));
        }
        self.reopen();
    }
}

/// `path.1` is the youngest rotated file.
pub(crate) fn rotated(path: &Path, index: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{index}"));
    PathBuf::from(name)
}

fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

fn write_or_undo(mut file: &File, bytes: &[u8], size_before: u64) -> io::Result<()> {
    file.write_all(bytes).inspect_err(|_| {
        let _ = file.set_len(size_before);
    })
}

/// One entry with Docker's escapes: the text is the line and, unless it is a piece, its newline.
fn encode(
    out: &mut Vec<u8>,
    stream: &str,
    piece: &[u8],
    is_end: bool,
    (details, time): (&[u8], &str),
) {
    out.extend_from_slice(b"{\"log\":\"");
    escape(out, piece);
    if is_end {
        out.extend_from_slice(b"\\n");
    }
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(stream.as_bytes());
    out.extend_from_slice(b"\",");
    out.extend_from_slice(details);
    out.extend_from_slice(b"\"time\":\"");
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(b"\"}\n");
}

/// Labels and variables of the container between stream and time, where Docker has them.
fn encode_details(details: &BTreeMap<String, String>) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in details {
        out.extend_from_slice(if out.is_empty() {
            b"\"attrs\":{\""
        } else {
            b",\""
        });
        escape(&mut out, key.as_bytes());
        out.extend_from_slice(b"\":\"");
        escape(&mut out, value.as_bytes());
        out.push(b'"');
    }
    if !out.is_empty() {
        out.extend_from_slice(b"},");
    }
    out
}

/// JSON string escapes as Go's encoder with HTML safety: `<`, `>`, `&`, U+2028 and U+2029 escaped, broken UTF-8 replaced byte by byte.
fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '<' | '>' | '&' | '\0'..='\x1f' | '\u{2028}' | '\u{2029}' => {
                    out.extend_from_slice(format!("\\u{:04x}", u32::from(character)).as_bytes());
                }
                _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

/// Go's `RFC3339Nano` in UTC: trailing zeros of the fraction are left out.
pub(crate) fn rfc3339_nanos(nanos: i64) -> String {
    let (seconds, fraction) = (
        nanos.div_euclid(1_000_000_000),
        nanos.rem_euclid(1_000_000_000),
    );
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Gregorian date of a day count: years are counted from March so that leap days come last (H. Hinnant's `civil_from_days`).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if fraction > 0 {
        let digits = format!("{fraction:09}");
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

#[cfg(test)]
mod tests;
