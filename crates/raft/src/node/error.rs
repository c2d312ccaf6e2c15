//! Why a node refuses.

use crate::admission::Inadmissible;

/// Why a proposal was refused. Nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This member does not lead.
    #[error("node is not the leader")]
    NotLeader {
        /// Who does, as far as known.
        leader: Option<u64>,
    },
    /// This member was removed from the group.
    #[error("node was removed from the group")]
    Stopped,
    /// There is no data: that would look like a leader's first entry.
    #[error("proposal is empty")]
    Empty,
    /// The entry would be over [`Node::ENTRY_BYTES_MAX`](super::Node::ENTRY_BYTES_MAX).
    #[error("proposal of {bytes} bytes is over the limit of {max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Too much is uncommitted already; try again when some of it is committed.
    #[error("too many proposals are waiting")]
    Backlog,
    /// Leadership is being handed over.
    #[error("leadership is being transferred")]
    Transferring,
    /// The previous membership change (or, early in a term, possibly one) is not applied yet.
    #[error("another membership change is pending")]
    ConfChangePending,
    /// The leader cannot remove itself: transfer leadership first.
    #[error("leader cannot propose its own removal")]
    RemovesLeader,
    /// The member to be changed or removed does not exist, or the change is malformed.
    #[error("no member `{0}` in the group")]
    UnknownMember(u64),
}

/// Why a message was not processed. Harmless to the group: messages may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// This member was removed from the group.
    #[error("node was removed from the group")]
    Stopped,
    /// No correct member sends this.
    #[error(transparent)]
    Inadmissible(#[from] Inadmissible),
    /// An answer from someone who is no member.
    #[error("sender `{0}` is not a member")]
    UnknownPeer(u64),
}

/// Why this member cannot campaign, or transfer leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeadershipError {
    /// This member was removed from the group.
    #[error("node was removed from the group")]
    Stopped,
    /// It must be the leader for this.
    #[error("node is not the leader")]
    NotLeader,
    /// The only voter leads at once, so its log must be on disk, and nobody campaigns before a snapshot is: write what is ready first.
    #[error("log is not on disk yet")]
    NotPersisted,
    /// Only a voter can lead (and leadership is handed to another one).
    #[error("member `{0}` is not an eligible voter")]
    NotVoter(u64),
}

/// Why a snapshot cannot be taken at an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The index is not applied yet.
    #[error("entry `{index}` is beyond the applied index `{applied}`")]
    NotApplied {
        /// The index asked for.
        index: u64,
        /// The last one handed out.
        applied: u64,
    },
    /// There is a snapshot there or later already.
    #[error("entry `{0}` is already in a snapshot")]
    Outdated(u64),
}
