//! What a member finds on its disk when it starts, and what a brand new group starts from.

use bytes::Bytes;
use prost::Message as _;

use crate::{
    admission::is_well_formed,
    conf_change::{ConfChange, ConfChangeKind},
    entry::{Entry, EntryKind, HardState},
    snapshot::Snapshot,
};

/// State of a member as of its last durable write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Term, vote and (lagging) commit index.
    pub hard_state: HardState,
    /// The snapshot the log builds on; the application starts from its data.
    pub snapshot: Option<Snapshot>,
    /// Contiguous. If the first one is not right after the snapshot, it is the compaction point: known by its term only.
    pub entries: Vec<Entry>,
}

/// Why stored state cannot be continued from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Entries are missing in the middle or before the first one.
    #[error("log has no entry `{0}`")]
    Gap(u64),
    /// The log ends before the snapshot, or the commit index.
    #[error("log ends at `{last}`, before `{needed}`")]
    Short {
        /// Last entry stored.
        last: u64,
        /// An entry that was known to exist.
        needed: u64,
    },
    /// An entry does not decode.
    #[error("entry `{0}` is malformed")]
    Malformed(u64),
    /// The snapshot's membership is joint, or has duplicates.
    #[error("snapshot has a malformed membership")]
    ConfState,
    /// The configuration given is impossible.
    #[error("raft configuration is invalid")]
    Config,
}

// === impl Restored ===

impl Restored {
    /// A new group of one: as `SwarmKit` begins, its first entry adds `id` with `context` (the encoded `RaftMember`).
    /// Give it to `Storage::bootstrap` first, then to `Node::new`.
    #[must_use]
    pub fn new_group(id: u64, context: impl Into<Bytes>) -> Self {
        let change = ConfChange::new(ConfChangeKind::AddNode, id, context);
        let first = Entry {
            kind: EntryKind::ConfChange as i32,
            term: 1,
            index: 1,
            data: change.encode_to_vec().into(),
        };
        let hard_state = HardState {
            term: 1,
            vote: 0,
            commit: 1,
        };
        Self {
            hard_state,
            snapshot: None,
            entries: vec![first],
        }
    }

    /// Whether nothing was ever stored: the member must bootstrap or join.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Last index in log or snapshot.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        let snapshot = self.snapshot.as_ref().map_or(0, Snapshot::index);
        self.entries.last().map_or(snapshot, |entry| entry.index)
    }

    /// Index and term of the entry before the first usable one, and how many of `entries` it takes.
    pub(crate) fn compaction_point(&self) -> (u64, u64, usize) {
        let (index, term) = self
            .snapshot
            .as_ref()
            .map_or((0, 0), |snapshot| (snapshot.index(), snapshot.term()));
        match self.entries.first() {
            Some(first) if first.index <= index => (first.index, first.term, 1),
            Some(_) | None => (index, term, 0),
        }
    }

    pub(crate) fn check(&self) -> Result<(), RestoreError> {
        let snapshot = self.snapshot.as_ref().map_or(0, Snapshot::index);
        if self
            .snapshot
            .as_ref()
            .is_some_and(|at| !at.metadata.conf_state.is_simple())
        {
            return Err(RestoreError::ConfState);
        }
        let first = self
            .entries
            .first()
            .map_or(0, |first| first.index.min(snapshot + 1));
        for (next, entry) in (first..).zip(&self.entries) {
            if entry.index != next || entry.index == 0 {
                return Err(RestoreError::Gap(next));
            }
            if !is_well_formed(entry) {
                return Err(RestoreError::Malformed(entry.index));
            }
        }
        let needed = snapshot.max(self.hard_state.commit);
        let last = self.last_index();
        if last < needed {
            Err(RestoreError::Short { last, needed })
        } else {
            Ok(())
        }
    }
}
