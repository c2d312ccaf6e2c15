//! Why a layer was refused.

use std::io;

use rustix::io::Errno;

use crate::image::{compression, tar_stream};

/// A layer archive was refused or could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A path or hard link leads, or could lead, outside the layer.
    #[error("unsafe path `{path}` in layer: {reason}")]
    UnsafePath {
        /// As in the archive, lossy.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The archive ends too early.
    #[error("layer archive is truncated")]
    Truncated,
    /// The archive is damaged, or compressed data is.
    #[error("malformed layer archive: {0}")]
    Malformed(String),
    /// The archive has something we do not unpack.
    #[error("unsupported layer archive: {0}")]
    Unsupported(&'static str),
    /// More comes out than the store allows.
    #[error("layer exceeds the limit of {limit} {unit}")]
    TooLarge {
        /// How many.
        limit: u64,
        /// Of what.
        unit: &'static str,
    },
    /// The disk is full.
    #[error("no space left on device while unpacking `{path}`")]
    NoSpace {
        /// The entry.
        path: String,
    },
    /// The file system refused an entry.
    #[error("failed to {operation} `{path}` of layer")]
    Write {
        /// What was tried.
        operation: &'static str,
        /// The entry.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The archive could not be read.
    #[error("failed to read layer archive")]
    Read(#[source] io::Error),
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

pub(super) fn unsafe_path(path: &[u8], reason: &'static str) -> Error {
    Error::UnsafePath {
        path: shown(path),
        reason,
    }
}

pub(super) fn parent_error(error: Errno, path: &[u8]) -> Error {
    match error {
        Errno::LOOP => unsafe_path(path, "a parent is a symbolic link"),
        Errno::NOTDIR => unsafe_path(path, "a parent is not a directory"),
        Errno::XDEV => unsafe_path(path, "outside the layer"),
        other => write_error("open parent of", path)(other),
    }
}

pub(super) fn write_error<'a>(
    operation: &'static str,
    path: &'a [u8],
) -> impl FnOnce(Errno) -> Error + 'a {
    move |error| write_io(operation, path, error.into())
}

pub(super) fn write_io(operation: &'static str, path: &[u8], source: io::Error) -> Error {
    let path = shown(path);
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::NoSpace { path },
        _ => Error::Write {
            operation,
            path,
            source,
        },
    }
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
