//! An archive of images, staged: every file written aside and hashed, because the description of the files may come last.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use super::{
    Digest, StoreConfig, compression,
    disk::{Disk, Scratch},
    error::{Error as StoreError, Result},
    tar_stream::{self, Kind, TarStream},
};

/// Documents that say what the archive holds: each may come once.
const DOCUMENTS: [&str; 4] = ["manifest.json", "index.json", "oci-layout", "repositories"];
/// Longest chain of links between files; Docker writes one.
const LINK_DEPTH_MAX: usize = 8;
/// How much is copied at a time.
const COPY_BYTES: usize = 128 << 10;

/// An archive of images was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name leads outside the archive.
    #[error("unsafe path `{0}` in archive")]
    UnsafePath(String),
    /// A file comes twice with different content, or a document comes twice.
    #[error("archive has `{0}` twice")]
    Duplicate(String),
    /// A file that another one names is not there.
    #[error("archive has no file `{0}`")]
    Missing(String),
    /// Neither `manifest.json` nor `index.json` is there.
    #[error("archive holds no images: neither `manifest.json` nor `index.json` found")]
    NoImages,
    /// A document cannot be parsed.
    #[error("malformed `{name}` in archive: {reason}")]
    Document {
        /// Which.
        name: String,
        /// Why, in the parser's words.
        reason: String,
    },
    /// The image's config and its list of layers disagree.
    #[error("invalid manifest, layers length mismatch: expected {expected}, got {actual}")]
    LayerCount {
        /// In the config.
        expected: usize,
        /// In the manifest.
        actual: usize,
    },
    /// The archive ends too early.
    #[error("archive is truncated")]
    Truncated,
    /// The archive is damaged, or compressed data is.
    #[error("malformed archive: {0}")]
    Malformed(String),
    /// The archive has something we do not read.
    #[error("unsupported archive: {0}")]
    Unsupported(&'static str),
    /// Larger than the store allows.
    #[error("archive exceeds the limit of {limit} {unit}")]
    TooLarge {
        /// How many.
        limit: u64,
        /// Of what.
        unit: &'static str,
    },
    /// The archive could not be read.
    #[error("failed to read archive")]
    Read(#[source] io::Error),
}

/// The files of an archive. They vanish with this value unless they were published.
#[derive(Debug)]
pub(crate) struct Staged {
    _scratch: Scratch,
    files: BTreeMap<String, StagedFile>,
    /// Name → name.
    links: BTreeMap<String, String>,
}

/// A file of an archive.
#[derive(Debug, Clone)]
pub(crate) struct StagedFile {
    pub(crate) path: PathBuf,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

// === impl Staged ===

impl Staged {
    /// Reads all of `source`, whatever its compression.
    pub(crate) fn read(
        disk: &Disk,
        config: &StoreConfig,
        source: impl Read + Send,
    ) -> Result<Self> {
        let scratch = disk.scratch()?;
        let plain =
            compression::decompress(source, config.archive_bytes_max).map_err(Error::from)?;
        let mut stream = TarStream::new(plain, config.entries_max);
        let mut files: BTreeMap<String, StagedFile> = BTreeMap::new();
        let mut links = BTreeMap::new();
        while let Some(entry) = stream.next_entry().map_err(Error::from)? {
            let name = normalise("", &entry.path)?;
            match entry.kind {
                Kind::File => {
                    if entry.size > config.blob_bytes_max {
                        let limit = config.blob_bytes_max;
                        return Err(Error::TooLarge {
                            limit,
                            unit: "bytes for a file",
                        }
                        .into());
                    }
                    let path = scratch.path().join(files.len().to_string());
                    let file = stage_file(&mut stream, path)?;
                    check_name(&name, &file)?;
                    let digest = file.digest;
                    if let Some(earlier) = files.insert(name.clone(), file)
                        && (earlier.digest != digest || DOCUMENTS.contains(&name.as_str()))
                    {
                        return Err(Error::Duplicate(name).into());
                    }
                }
                Kind::Symlink => {
                    let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                    links.insert(name.clone(), normalise(directory, &entry.link)?);
                }
                Kind::HardLink => {
                    links.insert(name.clone(), normalise("", &entry.link)?);
                }
                Kind::Directory => {}
                Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                    return Err(Error::Unsupported("device").into());
                }
            }
        }
        Ok(Self {
            _scratch: scratch,
            files,
            links,
        })
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// A file by the name another file uses for it.
    pub(crate) fn file(&self, name: &str) -> Result<&StagedFile> {
        let mut at = normalise("", name.as_bytes())?;
        for _ in 0..LINK_DEPTH_MAX {
            if let Some(file) = self.files.get(&at) {
                return Ok(file);
            }
            match self.links.get(&at) {
                Some(target) => at.clone_from(target),
                None => break,
            }
        }
        Err(Error::Missing(name.to_owned()).into())
    }

    /// A document of at most `limit` bytes.
    pub(crate) fn document(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let file = self.file(name)?;
        if file.size > limit {
            return Err(Error::TooLarge {
                limit,
                unit: "bytes for a document",
            }
            .into());
        }
        fs::read(&file.path).map_err(StoreError::io("read", &file.path))
    }
}

fn stage_file<R: Read>(stream: &mut TarStream<R>, path: PathBuf) -> Result<StagedFile> {
    let (digest, size) = copy_hashed(stream, &path).map_err(|error| match error {
        CopyError::Read(error) => Error::from(tar_stream::Error::from_read(error)).into(),
        CopyError::Write(error) => StoreError::io("write", &path)(error),
    })?;
    Ok(StagedFile { path, digest, size })
}

/// Which side of a copy failed.
pub(crate) enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// Writes `source` to a new file, hashing.
pub(crate) fn copy_hashed(source: &mut dyn Read, path: &Path) -> Result<(Digest, u64), CopyError> {
    let mut file = File::create_new(path).map_err(CopyError::Write)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; COPY_BYTES];
    let mut size = 0;
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Read(error)),
        };
        hasher.update(&buffer[..count]);
        file.write_all(&buffer[..count]).map_err(CopyError::Write)?;
        size += count as u64;
    }
    Ok((Digest::finish(hasher), size))
}

/// A blob's name is a promise.
fn check_name(name: &str, file: &StagedFile) -> Result<()> {
    let Some(hex) = name.strip_prefix("blobs/sha256/") else {
        return Ok(());
    };
    match Digest::from_hex(hex) {
        Ok(expected) if expected != file.digest => Err(StoreError::DigestMismatch {
            expected,
            actual: file.digest,
        }),
        _ => Ok(()),
    }
}

/// `path` relative to `directory` as a plain name within the archive.
fn normalise(directory: &str, path: &[u8]) -> Result<String> {
    let shown = || Error::UnsafePath(String::from_utf8_lossy(path).into_owned());
    let text = std::str::from_utf8(path).map_err(|_| shown())?;
    if text.starts_with('/') || text.contains('\0') {
        return Err(shown().into());
    }
    let mut parts: Vec<&str> = directory
        .split('/')
        .filter(|part| !part.is_empty())
        .collect();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(shown)?;
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

impl From<tar_stream::Error> for Error {
    fn from(error: tar_stream::Error) -> Self {
        match error {
            tar_stream::Error::Truncated => Self::Truncated,
            tar_stream::Error::Malformed(what) => Self::Malformed(what.to_owned()),
            tar_stream::Error::Unsupported(what) => Self::Unsupported(what),
            tar_stream::Error::TooManyEntries(limit) => Self::TooLarge {
                limit,
                unit: "entries",
            },
            tar_stream::Error::Read(error) => error.into(),
        }
    }
}

/// Errors of reading and decompressing.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        if let Some(inner) = error.get_ref() {
            if let Some(limit) = inner.downcast_ref::<compression::TooLarge>() {
                return Self::TooLarge {
                    limit: limit.0,
                    unit: "bytes",
                };
            }
            if let Some(unsupported) = inner.downcast_ref::<compression::Unsupported>() {
                return Self::Unsupported(unsupported.0);
            }
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
                Self::Malformed(error.to_string())
            }
            _ => Self::Read(error),
        }
    }
}
