//! Consensus among managers, and the durable, encrypted log under it. Design: `docs/design/raft.md`.
//!
//! [`Node`] is the sans-IO core (one raft group member); [`Storage`] is what it needs of a disk, implemented by [`Disk`] (redb,
//! sealed under a [`Dek`]) and [`MemoryDisk`] (for the simulator). The crate knows nothing of what the entries mean, opens no
//! sockets, starts no tasks and reads no clock: the manager's shell ticks the node, carries its messages and calls the disk.
//! Types of the `raft` and `protobuf` crates never leave it.

mod key;
mod seal;

mod conf_change;
mod entry;
mod message;
mod snapshot;

mod admission;
mod convert;
mod election_timer;
mod log_bridge;
mod memory_log;
mod node;
mod ready;
mod restored;

mod disk;
mod memory_disk;
mod snapshot_files;
mod storage;

pub use crate::{
    admission::Inadmissible,
    conf_change::{ConfChange, ConfChangeKind},
    disk::Disk,
    entry::{Entry, EntryKind, HardState},
    key::{Dek, Kek, KeyFile, KeyFileError},
    memory_disk::{Crash, MemoryDisk},
    message::{Message, MessageKind},
    node::{
        Config, LeadershipError, Node, PeerProgress, ProposeError, Proposed, Role, SnapshotError,
        StepError,
    },
    ready::Ready,
    restored::{RestoreError, Restored},
    snapshot::{ConfState, Snapshot, SnapshotMetadata},
    snapshot_files::{SnapshotDir, SnapshotFiles},
    storage::{DiskError, SLOW_FOLLOWER_ENTRIES, Storage, compaction_point},
};
