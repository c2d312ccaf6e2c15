//! Log entries and the hard state, as etcd's `raftpb` numbers them (`wire-fields.tsv`, raft.proto).

use std::fmt;

use bytes::Bytes;

use crate::conf_change::ConfChange;

/// One entry of the replicated log.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct Entry {
    /// What `data` is.
    #[prost(enumeration = "EntryKind", tag = "1")]
    pub kind: i32,
    /// Term of the leader that proposed it.
    #[prost(uint64, tag = "2")]
    pub term: u64,
    /// Position in the log, from 1.
    #[prost(uint64, tag = "3")]
    pub index: u64,
    /// The proposal, or an encoded [`ConfChange`]; empty in a new leader's first entry.
    #[prost(bytes = "bytes", tag = "4")]
    pub data: Bytes,
}

/// What an [`Entry`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum EntryKind {
    /// A proposal, or nothing.
    Normal = 0,
    /// A [`ConfChange`].
    ConfChange = 1,
    /// etcd's joint change; Swarm has none and neither do we. Refused.
    ConfChangeV2 = 2,
}

/// What a member must remember of its elections.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct HardState {
    /// Latest term seen.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// Raft id voted for in that term; 0 is none.
    #[prost(uint64, tag = "2")]
    pub vote: u64,
    /// Last index known to be committed; may lag on disk.
    #[prost(uint64, tag = "3")]
    pub commit: u64,
}

// === impl Entry ===

/// Entries carry secrets: only the length of the data is shown.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("kind", &self.kind())
            .field("term", &self.term)
            .field("index", &self.index)
            .field("data_bytes", &self.data.len())
            .finish()
    }
}

impl Entry {
    /// The membership change in this entry, if it is one and is well-formed.
    #[must_use]
    pub fn conf_change(&self) -> Option<ConfChange> {
        match self.kind() {
            EntryKind::ConfChange => ConfChange::parse(&self.data),
            EntryKind::Normal | EntryKind::ConfChangeV2 => None,
        }
    }

    /// Whether this is a proposal of the application (not a membership change, not a leader's empty entry).
    #[must_use]
    pub fn is_command(&self) -> bool {
        self.kind == EntryKind::Normal as i32 && !self.data.is_empty()
    }
}
