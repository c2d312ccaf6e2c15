//! What a node needs of a disk: the contract [`Disk`](crate::Disk) and [`MemoryDisk`](crate::MemoryDisk) both keep.

use std::{error::Error, fmt, io};

use crate::{ready::Ready, restored::Restored, snapshot::Snapshot};

/// Entries kept before a snapshot, so that a follower a little behind does not need the whole snapshot; `SwarmKit`'s
/// default. Larger costs memory and disk, smaller costs transfers.
pub const SLOW_FOLLOWER_ENTRIES: u64 = 500;

/// Where a member's state survives.
pub trait Storage: fmt::Debug + Send {
    /// What is stored.
    ///
    /// # Errors
    /// Something stored cannot be read.
    fn restored(&mut self) -> Result<Restored, DiskError>;

    /// Stores what a new group starts from. The storage must be empty.
    ///
    /// # Errors
    /// Nothing was stored; `NotEmpty` if there was something.
    fn bootstrap(&mut self, group: &Restored) -> Result<(), DiskError>;

    /// Stores a ready, all or nothing; on return it is durable. Does nothing if there is nothing to write.
    ///
    /// # Errors
    /// It was stored whole or not at all; the same ready may be tried again.
    fn write(&mut self, ready: &Ready) -> Result<(), DiskError>;

    /// Stores a snapshot of our own; the log now builds on it, but keeps its entries until [`Storage::compact`].
    ///
    /// # Errors
    /// It is in force or the previous one is; it may be tried again.
    fn save_snapshot(&mut self, snapshot: &Snapshot) -> Result<(), DiskError>;

    /// Drops entries before `index`, which is kept as the compaction point. Not beyond the snapshot.
    ///
    /// # Errors
    /// All of them were dropped or none; it may be tried again.
    fn compact(&mut self, index: u64) -> Result<(), DiskError>;

    /// The newest snapshot, for sending.
    ///
    /// # Errors
    /// It cannot be read.
    fn snapshot(&mut self) -> Result<Option<Snapshot>, DiskError>;
}

/// Up to which entry to compact after a snapshot at `snapshot_index`, keeping `kept` for slow followers.
#[must_use]
pub fn compaction_point(snapshot_index: u64, kept: u64) -> u64 {
    snapshot_index.saturating_sub(kept)
}

/// Why the disk did not do it.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// No space left, or the quota is used up. Works again when there is space.
    #[error("no space left on the device")]
    Full(#[source] io::Error),
    /// The data encryption key is not the one the data was written with.
    #[error("stored state was sealed with another key")]
    WrongKey,
    /// A record is damaged, or was moved.
    #[error("stored record `{0}` is damaged")]
    Corrupt(String),
    /// The file itself is damaged or cut off.
    #[error("log file is damaged")]
    Damaged(#[source] Box<dyn Error + Send + Sync>),
    /// Written by another version of the format.
    #[error("stored state has format `{found}`, this version reads `{supported}`")]
    Format {
        /// What is on disk.
        found: u32,
        /// What this version reads.
        supported: u32,
    },
    /// The log builds on a snapshot that is not there.
    #[error("snapshot `{0}` is missing")]
    SnapshotMissing(String),
    /// There are snapshots and no log: someone removed it.
    #[error("log file is missing beside its snapshots")]
    LogMissing,
    /// Another process has the log open.
    #[error("stored state is in use by another process")]
    Locked,
    /// A new group was to be stored over an existing one.
    #[error("storage already holds a group")]
    NotEmpty,
    /// The snapshot is not newer than the stored one, or compaction would go beyond it.
    #[error("index `{0}` does not fit the stored snapshot")]
    Misplaced(u64),
    /// The device failed.
    #[error("failed to access stored state")]
    Io(#[source] io::Error),
    /// The storage engine failed in another way.
    #[error("storage engine failed")]
    Engine(#[source] Box<dyn Error + Send + Sync>),
}
