//! What can go wrong in the image store, and which of Docker's error classes it belongs to.

use std::{io, path::PathBuf};

use super::{
    archive, change,
    digest::{self, Digest},
    reference, registry, unpack,
};

/// Result of an image store operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The class of an error, for HTTP status and gRPC code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request can never work: 400.
    InvalidArgument,
    /// There is no such thing: 404.
    NotFound,
    /// The state forbids it: 409.
    Conflict,
    /// The registry wants other credentials: 401 for clients that log in, else 500.
    Unauthorized,
    /// The other side does not answer: 503 or 500.
    Unavailable,
    /// Anything else: 500.
    Internal,
}

/// An image operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A reference does not follow the grammar.
    #[error(transparent)]
    Reference(#[from] reference::ParseError),
    /// A digest does not follow the grammar.
    #[error(transparent)]
    Digest(#[from] digest::ParseError),
    /// No image has this name or id.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// Several images have ids that begin so.
    #[error("Multiple IDs found with provided prefix: {0}")]
    AmbiguousId(String),
    /// A container uses the only name of an image.
    #[error(
        "conflict: unable to remove repository reference \"{reference}\" (must force) - container {container} is using its referenced image {image}"
    )]
    ReferenceInUse {
        /// As the user wrote it.
        reference: String,
        /// Short container id.
        container: String,
        /// Short image id.
        image: String,
    },
    /// An image cannot be deleted.
    #[error("conflict: unable to delete {image} ({advice}) - {reason}")]
    DeleteConflict {
        /// Short image id.
        image: String,
        /// `must be forced` or `cannot be forced`.
        advice: &'static str,
        /// What stands against it.
        reason: String,
    },
    /// A tag cannot be made from this reference.
    #[error("refusing to create a tag with a digest reference")]
    TagWithDigest,
    /// The name could be mistaken for a digest.
    #[error("refusing to create an ambiguous tag using digest algorithm as name")]
    TagLikeDigest,
    /// A change of `docker import --change` is not one we know or is malformed.
    #[error(transparent)]
    Change(#[from] change::Error),
    /// An archive of images is not acceptable.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// A layer is not acceptable.
    #[error(transparent)]
    Unpack(#[from] unpack::Error),
    /// The registry or the way to it failed.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// Content is not what its digest says.
    #[error("digest mismatch: expected {expected}, got {actual}")]
    DigestMismatch {
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// A document (config, manifest, index) cannot be understood.
    #[error("malformed {what}: {reason}")]
    Document {
        /// Which one.
        what: &'static str,
        /// Why, in the parser's words.
        reason: String,
    },
    /// The media type of a manifest, config or layer is not one we handle.
    #[error("unsupported media type {0}")]
    MediaType(String),
    /// No manifest of an index fits the platform.
    #[error("no matching manifest for {0} in the manifest list entries")]
    NoPlatform(String),
    /// The image is for another platform.
    #[error(
        "image with reference {reference} was found but its platform ({actual}) does not match the specified platform ({wanted})"
    )]
    WrongPlatform {
        /// Familiar form.
        reference: String,
        /// The image's.
        actual: String,
        /// The user's.
        wanted: String,
    },
    /// The text is not a platform.
    #[error("\"{0}\" is not a valid platform")]
    Platform(String),
    /// Something is larger than the store's limits.
    #[error("{what} exceeds the limit of {limit}")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// The limit, in bytes or pieces.
        limit: u64,
    },
    /// The disk is full.
    #[error("no space left on device: {operation} `{}`", path.display())]
    NoSpace {
        /// What was tried.
        operation: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("failed to {operation} `{}`", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The metadata database refused.
    #[error("failed to access image metadata")]
    Metadata(#[source] Box<redb::Error>),
    /// The store was written by a newer version.
    #[error("image store has format {found}, this version reads {known}")]
    Format {
        /// On disk.
        found: u64,
        /// Ours.
        known: u64,
    },
    /// Another process has the store open.
    #[error("image store `{}` is in use by another process", .0.display())]
    Locked(PathBuf),
    /// A background task of an operation ended abnormally.
    #[error("image operation was interrupted")]
    Interrupted,
    /// A test pulled the plug here.
    #[cfg(test)]
    #[error("simulated crash before {0}")]
    Crash(&'static str),
}

impl Error {
    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unpack(unpack::Error::Write { .. } | unpack::Error::NoSpace { .. }) => {
                ErrorKind::Internal
            }
            Self::Reference(_)
            | Self::Digest(_)
            | Self::TagWithDigest
            | Self::TagLikeDigest
            | Self::Change(_)
            | Self::Archive(_)
            | Self::Unpack(_)
            | Self::Platform(_)
            | Self::Document { .. }
            | Self::MediaType(_)
            | Self::DigestMismatch { .. }
            | Self::TooLarge { .. } => ErrorKind::InvalidArgument,
            Self::NoSuchImage(_)
            | Self::AmbiguousId(_)
            | Self::NoPlatform(_)
            | Self::WrongPlatform { .. } => ErrorKind::NotFound,
            Self::ReferenceInUse { .. } | Self::DeleteConflict { .. } => ErrorKind::Conflict,
            Self::Registry(error) => error.kind(),
            _ => ErrorKind::Internal,
        }
    }

    /// Wraps an IO error; a full disk gets its own variant.
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { operation, path }
            }
            _ => Self::Io {
                operation,
                path,
                source,
            },
        }
    }

    pub(crate) fn document(what: &'static str) -> impl FnOnce(serde_json::Error) -> Self {
        move |error| Self::Document {
            what,
            reason: error.to_string(),
        }
    }
}

macro_rules! from_redb {
    ($($kind:ident),*) => {
        $(impl From<redb::$kind> for Error {
            fn from(error: redb::$kind) -> Self {
                Self::Metadata(Box::new(error.into()))
            }
        })*
    };
}
from_redb!(
    DatabaseError,
    TransactionError,
    TableError,
    StorageError,
    CommitError
);
