//! The node's image store: pull, load, import, save, list, inspect, tag, remove, prune, and layer directories for containers.
//!
//! Design, layout on disk, crash safety: `docs/design/images.md`. Entry point: [`ImageStore`], cheap to clone. Except for
//! [`ImageStore::pull`] and [`ImageStore::resolve_remote`] its methods block on the disk: call those that move layers (`load`,
//! `save`, `import`, `remove`, `prune`) through `spawn_blocking`. The store runs no tasks of its own.
//!
//! Left out: push, builds, images with parents. `docs/design/images.md` has the list.

mod archive;
mod change;
mod compression;
mod config;
mod digest;
mod disk;
mod document;
mod error;
#[cfg(test)]
mod faults;
mod glob;
mod import;
mod listing;
mod load;
mod manifest;
mod metadata;
mod pins;
mod platform;
mod progress;
mod pull;
mod reference;
mod registry;
mod removal;
mod save;
mod store;
mod tar_stream;
mod unpack;

pub use archive::Error as ArchiveError;
pub use change::Error as ChangeError;
pub use config::{
    ARCHIVE_BYTES_MAX, BLOB_BYTES_MAX, ENTRIES_MAX, LAYER_BYTES_MAX, PULL_CONCURRENCY, PULL_TRIES,
    StoreConfig,
};
pub use digest::{Digest, ImageId, ParseError as DigestParseError};
pub use document::{Empty, Healthcheck, HistoryStep, ImageConfig, ImageDocument, RootFs};
pub use error::{Error, ErrorKind, Result};
pub use import::ImportOptions;
pub use listing::{Filters, GraphDriver, HistoryEntry, ImageDetails, ImageSummary};
pub use load::{Loaded, LoadedImage};
pub use platform::Platform;
pub use progress::{Progress, PullEvent};
pub use pull::{Pulled, RemoteImage};
pub use reference::{
    AnyReference, DEFAULT_DOMAIN, DEFAULT_TAG, ParseError as ReferenceParseError, Reference,
};
pub use registry::{Error as RegistryError, RegistryAuth};
pub use removal::{Pruned, Removed};
pub use store::{Image, ImageStore};
pub use unpack::Error as UnpackError;

#[cfg(test)]
mod tests;
