//! What a node wants done next.

use crate::{
    entry::{Entry, HardState},
    message::Message,
    snapshot::Snapshot,
};

/// One round of work for the shell. Send `messages`, give the whole to `Storage::write`, tell `Node::persisted`, apply
/// `snapshot` and then `committed`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "a node waits for `persisted` after each ready"]
pub struct Ready {
    /// For `Node::persisted`.
    pub number: u64,
    /// Can be sent at once: they promise nothing that is not on disk.
    pub messages: Vec<Message>,
    /// A snapshot of the leader's that replaces log and state.
    pub snapshot: Option<Snapshot>,
    /// To be appended; those stored at or after the first one's index are void.
    pub entries: Vec<Entry>,
    /// To be stored; present whenever something must be written.
    pub hard_state: Option<HardState>,
    /// To be applied, each exactly once, in order. They are on disk already.
    pub committed: Vec<Entry>,
}

// === impl Ready ===

impl Ready {
    /// Whether the disk must be written before `Node::persisted`.
    #[must_use]
    pub fn must_write(&self) -> bool {
        self.hard_state.is_some() || self.snapshot.is_some() || !self.entries.is_empty()
    }
}
