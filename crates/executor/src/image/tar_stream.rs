//! A tar stream, entry by entry, with bounded memory.
//!
//! Header fields are decoded by the `tar` crate. Its own iterator is not used because it reads extension records (long names, PAX)
//! of any declared length into memory. Sparse files are refused.

use std::io::{self, Read};

use tar::{EntryType, Header};

/// One block of a tar stream.
const BLOCK_BYTES: usize = 512;
/// 1 MiB: room for the largest attribute Linux has (64 KiB) many times over.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    CharDevice,
    BlockDevice,
    Fifo,
}

/// An entry's header, extensions applied.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// Permission bits including set-id and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
    /// Bytes of content.
    pub(crate) size: u64,
    pub(crate) link: Vec<u8>,
    /// Major and minor.
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The archive is damaged or of a kind we do not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("archive is truncated")]
    Truncated,
    #[error("malformed archive: {0}")]
    Malformed(&'static str),
    #[error("unsupported archive entry: {0}")]
    Unsupported(&'static str),
    #[error("archive exceeds the limit of {0} entries")]
    TooManyEntries(u64),
    #[error("failed to read archive")]
    Read(#[source] io::Error),
}

/// Reads entries; [`Read`] gives the current entry's content.
#[derive(Debug)]
pub(crate) struct TarStream<R> {
    source: R,
    /// Content of the current entry not read yet.
    remaining: u64,
    padding: u64,
    entry_count: u64,
    entries_max: u64,
}

/// Extension records that apply to the next entry.
#[derive(Debug, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

// === impl TarStream ===

impl<R: Read> TarStream<R> {
    pub(crate) fn new(source: R, entries_max: u64) -> Self {
        Self {
            source,
            remaining: 0,
            padding: 0,
            entry_count: 0,
            entries_max,
        }
    }

    /// The next entry, or `None` at the end. Skips what was not read of the one before.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        let mut extensions = Extensions::default();
        loop {
            self.skip()?;
            let Some(header) = self.read_header()? else {
                return Ok(None);
            };
            self.entry_count += 1;
            if self.entry_count > self.entries_max {
                return Err(Error::TooManyEntries(self.entries_max));
            }
            let size = number(&header.as_old().size, header.entry_size(), "size")?;
            let kind = header.entry_type();
            match kind {
                EntryType::GNULongName => extensions.path = Some(self.read_name(size)?),
                EntryType::GNULongLink => extensions.link = Some(self.read_name(size)?),
                EntryType::XHeader => {
                    let records = self.read_extension(size)?;
                    extensions.apply(&records)?;
                }
                EntryType::XGlobalHeader => {
                    self.read_extension(size)?;
                }
                _ => {
                    let entry = build_entry(&header, size, extensions)?;
                    self.expect(entry.size);
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Reads to the end of the source, so that its digest covers everything.
    pub(crate) fn drain(mut self) -> Result<R, Error> {
        io::copy(&mut self.source, &mut io::sink()).map_err(Error::Read)?;
        Ok(self.source)
    }

    fn expect(&mut self, size: u64) {
        self.remaining = size;
        let block = BLOCK_BYTES as u64;
        self.padding = size.wrapping_neg() % block;
    }

    fn skip(&mut self) -> Result<(), Error> {
        let expected = self.remaining.saturating_add(self.padding);
        let skipped = io::copy(&mut (&mut self.source).take(expected), &mut io::sink())
            .map_err(Error::Read)?;
        // The padding of the very last entry may be missing; its content may not.
        if skipped < self.remaining {
            return Err(Error::Truncated);
        }
        self.expect(0);
        Ok(())
    }

    fn read_header(&mut self) -> Result<Option<Header>, Error> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while filled < BLOCK_BYTES {
            match self.source.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(Error::Truncated),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Read(error)),
            }
        }
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| {
                if (148..156).contains(&at) {
                    32
                } else {
                    u32::from(*byte)
                }
            })
            .sum();
        if header.cksum().ok() != Some(sum) {
            return Err(Error::Malformed("header checksum"));
        }
        Ok(Some(header))
    }

    fn read_extension(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        if size > EXTENSION_BYTES_MAX {
            return Err(Error::Malformed("extension record too long"));
        }
        self.expect(size);
        let mut records = Vec::new();
        self.read_to_end(&mut records).map_err(Error::from_read)?;
        Ok(records)
    }

    fn read_name(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        let mut name = self.read_extension(size)?;
        if let Some(end) = name.iter().position(|b| *b == 0) {
            name.truncate(end);
        }
        Ok(name)
    }
}

impl<R: Read> Read for TarStream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.remaining == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let want = usize::try_from(self.remaining)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let count = self.source.read(&mut buffer[..want])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.remaining -= count as u64;
        Ok(count)
    }
}

// === impl Error ===

impl Error {
    /// An error of reading content: the end of the source is a truncated archive.
    pub(crate) fn from_read(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::Truncated
        } else {
            Self::Read(error)
        }
    }
}

// === impl Extensions ===

impl Extensions {
    /// Applies PAX records, each `<length> <key>=<value>\n`.
    fn apply(&mut self, mut records: &[u8]) -> Result<(), Error> {
        let malformed = || Error::Malformed("extended header");
        while !records.is_empty() {
            let space = records
                .iter()
                .position(|b| *b == b' ')
                .ok_or_else(malformed)?;
            let length: usize = parse_number(&records[..space]).ok_or_else(malformed)?;
            if length > records.len() || length < space + 2 || records[length - 1] != b'\n' {
                return Err(malformed());
            }
            let record = &records[space + 1..length - 1];
            records = &records[length..];
            let equals = record
                .iter()
                .position(|b| *b == b'=')
                .ok_or_else(malformed)?;
            self.apply_record(&record[..equals], &record[equals + 1..])
                .ok_or_else(malformed)??;
        }
        Ok(())
    }

    /// `None` when the value is malformed.
    fn apply_record(&mut self, key: &[u8], value: &[u8]) -> Option<Result<(), Error>> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(parse_number(value)?),
            b"uid" => self.uid = Some(parse_number(value)?),
            b"gid" => self.gid = Some(parse_number(value)?),
            b"mtime" => self.mtime = Some(parse_time(value)?),
            key if key.starts_with(b"GNU.sparse.") => {
                return Some(Err(Error::Unsupported("sparse file")));
            }
            key => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Some(Ok(()))
    }
}

fn build_entry(header: &Header, size: u64, extensions: Extensions) -> Result<Entry, Error> {
    let kind = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Link => Kind::HardLink,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Char => Kind::CharDevice,
        EntryType::Block => Kind::BlockDevice,
        EntryType::Directory => Kind::Directory,
        EntryType::Fifo => Kind::Fifo,
        EntryType::GNUSparse => return Err(Error::Unsupported("sparse file")),
        _ => return Err(Error::Unsupported("unknown type")),
    };
    let path = extensions
        .path
        .unwrap_or_else(|| header.path_bytes().into_owned());
    // Before POSIX a directory was a file whose name ends in a slash.
    let kind = if kind == Kind::File && path.ends_with(b"/") {
        Kind::Directory
    } else {
        kind
    };
    let fields = header.as_old();
    let owner = |field: &[u8], value| {
        u32::try_from(number(field, value, "owner")?).map_err(|_| Error::Malformed("owner"))
    };
    let device = |value: io::Result<Option<u32>>| value.ok().flatten().unwrap_or(0);
    Ok(Entry {
        kind,
        mode: number(&fields.mode, header.mode(), "mode")? & 0o7777,
        uid: extensions
            .uid
            .map_or_else(|| owner(&fields.uid, header.uid()), Ok)?,
        gid: extensions
            .gid
            .map_or_else(|| owner(&fields.gid, header.gid()), Ok)?,
        mtime: extensions.mtime.unwrap_or_else(|| {
            (
                header
                    .mtime()
                    .ok()
                    .and_then(|s| i64::try_from(s).ok())
                    .unwrap_or(0),
                0,
            )
        }),
        size: if kind == Kind::File {
            extensions.size.unwrap_or(size)
        } else {
            0
        },
        link: extensions.link.unwrap_or_else(|| {
            header
                .link_name_bytes()
                .map(|name| name.into_owned())
                .unwrap_or_default()
        }),
        device: (device(header.device_major()), device(header.device_minor())),
        xattrs: extensions.xattrs,
        path,
    })
}

/// A header's number. A field nobody filled in is 0.
fn number<T: Default>(field: &[u8], value: io::Result<T>, name: &'static str) -> Result<T, Error> {
    if field.iter().all(|b| matches!(b, 0 | b' ')) {
        return Ok(T::default());
    }
    value.map_err(|_| Error::Malformed(name))
}

fn parse_number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `-12.3456789` → seconds rounded down and nanoseconds.
fn parse_time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (text, is_negative) = match text.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = parse_number(whole.as_bytes())?;
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanos: u32 = digits.parse().ok()?;
    match (is_negative, nanos) {
        (false, _) => Some((seconds, nanos)),
        (true, 0) => Some((-seconds, 0)),
        (true, _) => Some((-seconds - 1, 1_000_000_000 - nanos)),
    }
}
