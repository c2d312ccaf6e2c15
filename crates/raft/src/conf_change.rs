//! Membership changes, with etcd's numbers (raft-rs counts differently: `AddLearner` is 2 there).

use bytes::Bytes;
use prost::Message as _;

/// One change of the membership (etcd's version 1; Swarm uses no joint changes).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfChange {
    /// Chosen by the proposer; raft ignores it.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// What happens to the member.
    #[prost(enumeration = "ConfChangeKind", tag = "2")]
    pub kind: i32,
    /// The member's raft id.
    #[prost(uint64, tag = "3")]
    pub node_id: u64,
    /// Opaque to raft; SwarmKit's encoded `RaftMember`.
    #[prost(bytes = "bytes", tag = "4")]
    pub context: Bytes,
}

/// What a [`ConfChange`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ConfChangeKind {
    /// The member becomes a voter.
    AddNode = 0,
    /// The member leaves for good.
    RemoveNode = 1,
    /// The member's context (address) changes; nothing changes for raft.
    UpdateNode = 2,
    /// The member receives the log but does not vote.
    AddLearnerNode = 3,
}

// === impl ConfChange ===

impl ConfChange {
    /// A change of `kind` of the member `node_id`.
    #[must_use]
    pub fn new(kind: ConfChangeKind, node_id: u64, context: impl Into<Bytes>) -> Self {
        Self {
            id: 0,
            kind: kind as i32,
            node_id,
            context: context.into(),
        }
    }

    /// Decodes a change; `None` if it is malformed, of an unknown kind, or names no member.
    #[must_use]
    pub(crate) fn parse(data: &Bytes) -> Option<Self> {
        let change = Self::decode(data.clone()).ok()?;
        (change.node_id != 0 && ConfChangeKind::try_from(change.kind).is_ok()).then_some(change)
    }
}
