//! Snapshots: the state of the application as of an index, with the membership.

use std::fmt;

use bytes::Bytes;

/// A snapshot of the application.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct Snapshot {
    /// The application's state (SwarmKit's `Snapshot` message); absent in messages until attached.
    #[prost(bytes = "bytes", tag = "1")]
    pub data: Bytes,
    /// Where in the log it was taken.
    #[prost(message, required, tag = "2")]
    pub metadata: SnapshotMetadata,
}

/// Where a [`Snapshot`] stands in the log.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SnapshotMetadata {
    /// The membership, as of `index` or later (changes are idempotent).
    #[prost(message, required, tag = "1")]
    pub conf_state: ConfState,
    /// Last entry contained.
    #[prost(uint64, tag = "2")]
    pub index: u64,
    /// That entry's term.
    #[prost(uint64, tag = "3")]
    pub term: u64,
}

/// The members of the group.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfState {
    /// Members that vote.
    #[prost(uint64, repeated, packed = "false", tag = "1")]
    pub voters: Vec<u64>,
    /// Members that only receive.
    #[prost(uint64, repeated, packed = "false", tag = "2")]
    pub learners: Vec<u64>,
    /// Of joint changes, which are refused.
    #[prost(uint64, repeated, packed = "false", tag = "3")]
    pub voters_outgoing: Vec<u64>,
    /// Of joint changes, which are refused.
    #[prost(uint64, repeated, packed = "false", tag = "4")]
    pub learners_next: Vec<u64>,
    /// Of joint changes, which are refused.
    #[prost(bool, tag = "5")]
    pub auto_leave: bool,
}

// === impl Snapshot ===

/// Snapshots carry secrets: only the length of the data is shown.
impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("metadata", &self.metadata)
            .field("data_bytes", &self.data.len())
            .finish()
    }
}

impl Snapshot {
    /// Last entry contained.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.metadata.index
    }

    /// Term of the last entry contained.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.metadata.term
    }
}

// === impl ConfState ===

impl ConfState {
    /// Whether `id` is a voter or a learner.
    #[must_use]
    pub fn contains(&self, id: u64) -> bool {
        self.voters.contains(&id) || self.learners.contains(&id)
    }

    /// Whether this is a membership we can hold: no joint change, no duplicate, no id 0.
    pub(crate) fn is_simple(&self) -> bool {
        let mut ids: Vec<u64> = self.voters.iter().chain(&self.learners).copied().collect();
        ids.sort_unstable();
        let count = ids.len();
        ids.dedup();
        self.voters_outgoing.is_empty()
            && self.learners_next.is_empty()
            && !self.auto_leave
            && ids.len() == count
            && !ids.contains(&0)
    }
}
