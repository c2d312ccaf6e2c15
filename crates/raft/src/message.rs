//! Messages between members: etcd's `raftpb.Message`, without the fields where etcd and raft-rs disagree (13–16).

use bytes::Bytes;

use crate::{entry::Entry, snapshot::Snapshot};

/// One message from one member to another.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Message {
    /// What it says.
    #[prost(enumeration = "MessageKind", tag = "1")]
    pub kind: i32,
    /// Receiver's raft id.
    #[prost(uint64, tag = "2")]
    pub to: u64,
    /// Sender's raft id.
    #[prost(uint64, tag = "3")]
    pub from: u64,
    /// Sender's term.
    #[prost(uint64, tag = "4")]
    pub term: u64,
    /// Term of the entry at `index`.
    #[prost(uint64, tag = "5")]
    pub log_term: u64,
    /// Depends on the kind: the entry before `entries`, the acknowledged entry, the candidate's last entry.
    #[prost(uint64, tag = "6")]
    pub index: u64,
    /// Entries to append.
    #[prost(message, repeated, tag = "7")]
    pub entries: Vec<Entry>,
    /// Sender's commit index.
    #[prost(uint64, tag = "8")]
    pub commit: u64,
    /// The snapshot; without data until [`Message::attach_snapshot`].
    #[prost(message, optional, tag = "9")]
    pub snapshot: Option<Snapshot>,
    /// Whether the sender refuses.
    #[prost(bool, tag = "10")]
    pub reject: bool,
    /// Where the logs may agree, when refusing.
    #[prost(uint64, tag = "11")]
    pub reject_hint: u64,
    /// Of elections after a transfer, and of reads.
    #[prost(bytes = "bytes", tag = "12")]
    pub context: Bytes,
}

/// What a [`Message`] says; etcd's `MessageType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
#[expect(
    missing_docs,
    reason = "etcd's names; raft's own literature describes them"
)]
pub enum MessageKind {
    Hup = 0,
    Beat = 1,
    Propose = 2,
    Append = 3,
    AppendResponse = 4,
    RequestVote = 5,
    RequestVoteResponse = 6,
    Snapshot = 7,
    Heartbeat = 8,
    HeartbeatResponse = 9,
    Unreachable = 10,
    SnapStatus = 11,
    CheckQuorum = 12,
    TransferLeader = 13,
    TimeoutNow = 14,
    ReadIndex = 15,
    ReadIndexResponse = 16,
    RequestPreVote = 17,
    RequestPreVoteResponse = 18,
}

// === impl Message ===

impl Message {
    /// Whether this announces a snapshot whose data the shell must still attach.
    #[must_use]
    pub fn wants_snapshot(&self) -> bool {
        self.kind == MessageKind::Snapshot as i32
            && self
                .snapshot
                .as_ref()
                .is_some_and(|snapshot| snapshot.data.is_empty())
    }

    /// Puts the newest stored snapshot in. The membership is that of the sender's node, unless a newer snapshot was stored since
    /// the message was made: with an older membership the receiver would miss the changes in between, and win elections alone.
    pub fn attach_snapshot(&mut self, mut stored: Snapshot) {
        if let Some(announced) = self.snapshot.take()
            && announced.index() >= stored.index()
        {
            stored.metadata.conf_state = announced.metadata.conf_state;
        }
        self.snapshot = Some(stored);
    }
}
