//! The blocking reader of a json-file log and its rotated files.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{LogEntry, OutputStream};
use crate::monitor::rotated;

/// Bytes of one read.
const BLOCK_BYTES: usize = 64 << 10;

/// Bytes after which a batch is handed over. Readers of many logs hold one each.
const BATCH_BYTES: usize = 64 << 10;

/// An entry is at most 16 KiB of text, six times that escaped; a longer line is damage and is skipped.
const LINE_BYTES_MAX: usize = 256 << 10;

/// A position in a log.
#[derive(Debug)]
pub(super) struct LogFiles {
    path: PathBuf,
    max_files: u32,
    /// Files still to read, oldest first; the first one is being read.
    queue: VecDeque<File>,
    offset: u64,
    line: Vec<u8>,
    is_positioned: bool,
}

#[derive(Deserialize)]
struct Line {
    log: String,
    stream: String,
    time: String,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
}

impl LogFiles {
    pub(super) fn new(path: PathBuf, max_files: u32) -> Self {
        let (queue, line) = (VecDeque::new(), Vec::new());
        Self {
            path,
            max_files,
            queue,
            offset: 0,
            line,
            is_positioned: false,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The next entries; none at the end of what is written. The first call goes to the start, or `tail` entries before the end.
    pub(super) fn read(&mut self, tail: Option<u64>) -> io::Result<Vec<LogEntry>> {
        if !self.is_positioned {
            self.queue = self.open_newer_than(None);
            if let Some(count) = tail {
                self.seek_tail(count)?;
            }
            self.is_positioned = true;
        }
        let (mut entries, mut taken) = (Vec::new(), 0);
        let mut block = vec![0; BLOCK_BYTES];
        while taken < BATCH_BYTES {
            let count = self.fill(&mut block)?;
            if count == 0 && !self.advance()? {
                break;
            }
            taken += count;
            self.split(&block[..count], &mut entries);
        }
        Ok(entries)
    }

    fn fill(&mut self, block: &mut [u8]) -> io::Result<usize> {
        let Some(file) = self.queue.front() else {
            return Ok(0);
        };
        if file.metadata()?.len() < self.offset {
            // Truncated in place: rotation with one file.
            self.offset = 0;
            self.line.clear();
        }
        let count = file.read_at(block, self.offset)?;
        self.offset += u64::try_from(count).unwrap_or(0);
        Ok(count)
    }

    /// At a file's end: goes to the next one, if there is one. False when this is the newest.
    fn advance(&mut self) -> io::Result<bool> {
        let current = self.queue.front().map(File::metadata).transpose()?;
        let current = current.map(|meta| (meta.dev(), meta.ino()));
        if self.queue.len() <= 1 {
            let newest = match std::fs::metadata(&self.path) {
                Ok(newest) => (newest.dev(), newest.ino()),
                // Between the two steps of a rotation, or nothing was logged yet.
                Err(_) => return Ok(false),
            };
            if current == Some(newest) {
                return Ok(false);
            }
            let newer = self.open_newer_than(current);
            self.queue.extend(newer);
        }
        // What was written between the last read and the rotation comes first.
        let is_read = self.queue.front().map(File::metadata).transpose()?;
        if current.is_some() && is_read.is_none_or(|meta| meta.len() <= self.offset) {
            self.queue.pop_front();
            self.offset = 0;
            self.line.clear();
        }
        Ok(!self.queue.is_empty())
    }

    /// Opens the log's files from the newest back to the one with this identity, which is left out. Oldest first.
    fn open_newer_than(&self, known: Option<(u64, u64)>) -> VecDeque<File> {
        let mut found = VecDeque::new();
        let names = (0..self.max_files).map(|index| match index {
            0 => self.path.clone(),
            _ => rotated(&self.path, index),
        });
        for name in names {
            let Ok(file) = File::open(name) else { continue };
            let identity = file.metadata().ok().map(|meta| (meta.dev(), meta.ino()));
            if known.is_some() && identity == known {
                break;
            }
            found.push_front(file);
        }
        found
    }

    /// Drops everything before the last `count` lines. Reads blocks from the end only.
    fn seek_tail(&mut self, count: u64) -> io::Result<()> {
        let mut missing = count;
        for index in (0..self.queue.len()).rev() {
            let (start, seen) = tail_start(&self.queue[index], missing)?;
            if seen >= missing {
                self.queue.drain(..index);
                self.offset = start;
                return Ok(());
            }
            missing -= seen;
        }
        Ok(())
    }

    fn split(&mut self, mut bytes: &[u8], entries: &mut Vec<LogEntry>) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.line.extend_from_slice(&bytes[..end]);
            entries.extend(parse(&self.line));
            self.line.clear();
            bytes = &bytes[end + 1..];
        }
        if self.line.len() + bytes.len() <= LINE_BYTES_MAX {
            self.line.extend_from_slice(bytes);
        } else {
            self.line.clear();
        }
    }
}

/// One line of the file; damage is skipped.
fn parse(line: &[u8]) -> Option<LogEntry> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let time = line.time.parse::<jiff::Timestamp>().ok()?.as_nanosecond();
    let stream = match line.stream.as_str() {
        "stdout" => OutputStream::Stdout,
        "stderr" => OutputStream::Stderr,
        _ => return None,
    };
    let time = i64::try_from(time).ok()?;
    Some(LogEntry {
        stream,
        time,
        bytes: line.log.into_bytes().into(),
        details: line.attrs,
    })
}

/// Where the last `count` lines of a file begin, and how many of them it has.
fn tail_start(file: &File, count: u64) -> io::Result<(u64, u64)> {
    let length = file.metadata()?.len();
    if count == 0 {
        return Ok((length, 0));
    }
    let (mut position, mut newlines) = (length, 0);
    let mut block = vec![0; BLOCK_BYTES];
    while position > 0 {
        let size = position.min(BLOCK_BYTES as u64);
        position -= size;
        let part = &mut block[..usize::try_from(size).unwrap_or(BLOCK_BYTES)];
        file.read_exact_at(part, position)?;
        for (index, _) in part
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, byte)| **byte == b'\n')
        {
            newlines += 1;
            // The newline before the first wanted line.
            if newlines > count {
                return Ok((position + u64::try_from(index).unwrap_or(0) + 1, count));
            }
        }
    }
    Ok((0, newlines))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn line(n: u32) -> String {
        format!(
            "{{\"log\":\"{n}\\n\",\"stream\":\"stdout\",\"time\":\"2024-01-01T00:00:{n:02}Z\"}}\n"
        )
    }

    fn lines(range: std::ops::Range<u32>) -> String {
        range.map(line).collect()
    }

    #[track_caller]
    fn check(files: &mut LogFiles, tail: Option<u64>, expected: std::ops::Range<u32>) {
        let seen: Vec<String> = std::iter::repeat_with(|| files.read(tail).unwrap())
            .take_while(|batch| !batch.is_empty())
            .flatten()
            .map(|entry| String::from_utf8(entry.bytes.to_vec()).unwrap())
            .collect();
        assert_eq!(seen, expected.map(|n| format!("{n}\n")).collect::<Vec<_>>());
    }

    fn rotated_log() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(rotated(&path, 2), lines(0..10)).unwrap();
        fs::write(rotated(&path, 1), lines(10..20)).unwrap();
        fs::write(&path, lines(20..25)).unwrap();
        (dir, path)
    }

    #[test]
    fn rotated_files_are_read_oldest_first() {
        let (_dir, path) = rotated_log();
        check(&mut LogFiles::new(path, 3), None, 0..25);
    }

    #[test]
    fn tail_counts_back_through_rotated_files() {
        let (_dir, path) = rotated_log();
        check(&mut LogFiles::new(path.clone(), 3), Some(3), 22..25);
        check(&mut LogFiles::new(path.clone(), 3), Some(5), 20..25);
        check(&mut LogFiles::new(path.clone(), 3), Some(7), 18..25);
        check(&mut LogFiles::new(path.clone(), 3), Some(99), 0..25);
        check(&mut LogFiles::new(path, 3), Some(0), 25..25);
    }

    #[test]
    fn two_rotations_between_reads_lose_nothing_that_still_exists() {
        let (_dir, path) = rotated_log();
        let mut files = LogFiles::new(path.clone(), 3);
        check(&mut files, None, 0..25);
        fs::write(&path, lines(20..27)).unwrap();
        fs::rename(rotated(&path, 1), rotated(&path, 2)).unwrap();
        fs::rename(&path, rotated(&path, 1)).unwrap();
        fs::rename(rotated(&path, 1), rotated(&path, 2)).unwrap();
        fs::write(rotated(&path, 1), lines(27..30)).unwrap();
        fs::write(&path, lines(30..31)).unwrap();
        check(&mut files, None, 25..31);
    }

    #[test]
    fn truncation_in_place_is_followed_and_half_lines_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut files = LogFiles::new(path.clone(), 1);
        check(&mut files, None, 0..0);
        fs::write(&path, lines(0..9)).unwrap();
        check(&mut files, None, 0..9);
        let (first, second) = (line(9), line(10));
        fs::write(&path, &first[..20]).unwrap();
        check(&mut files, None, 0..0);
        fs::write(&path, first + &second).unwrap();
        check(&mut files, None, 9..11);
    }
}
