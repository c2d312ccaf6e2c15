//! What goes in and out of a replica besides events: the disk's work, messages, answers.

use std::sync::Arc;

use skep_raft::{DiskError, Message, Ready, Restored, SnapshotMetadata};
use skep_store::{Change, Store};
use skep_wire::member::Member;

use super::Joined;
use crate::{
    command::CommandError,
    entry,
    event::{ConnectionId, ReplyTo, ToAgent},
};

/// Work for the disk, to be done in order.
#[derive(Debug)]
pub enum DiskRequest {
    /// Make a ready durable.
    Write(Ready),
    /// Store a snapshot and drop the log behind it.
    Snapshot {
        /// What to store.
        content: Box<SnapshotContent>,
        /// Where in the log it stands.
        metadata: SnapshotMetadata,
        /// Entries up to here are dropped.
        compact_to: u64,
    },
    /// Put the newest stored snapshot into a message ([`Message::attach_snapshot`]).
    Attach(Message),
    /// Read everything back, after a failed write.
    Restore,
}

/// A snapshot not yet encoded: that takes long, and is for the disk's thread.
#[derive(Debug, Clone)]
pub struct SnapshotContent {
    pub(super) store: Store,
    pub(super) membership: skep_wire::snapshot::Membership,
}

impl SnapshotContent {
    /// The bytes of the snapshot.
    pub fn encode(&self) -> Vec<u8> {
        entry::encode_snapshot(&self.store, &self.membership)
    }
}

/// What became of a [`DiskRequest`].
#[derive(Debug)]
pub enum DiskDone {
    /// The ready with this number is durable.
    Written(u64),
    /// The write failed; nothing of it is stored.
    WriteFailed(DiskError),
    /// The snapshot is in force.
    SnapshotSaved {
        /// Where in the log it stands.
        metadata: SnapshotMetadata,
        /// Entries up to here are gone.
        compact_to: u64,
    },
    /// The snapshot failed; the older one is in force.
    SnapshotFailed(DiskError),
    /// The message can be sent.
    Attached(Message),
    /// There is no snapshot to send.
    AttachFailed {
        /// To whom it was to go.
        to: u64,
    },
    /// What is stored.
    Restored(Result<Restored, DiskError>),
}

/// What the shell must do.
#[derive(Debug)]
pub enum Output {
    /// Send a message to a member.
    Message {
        /// To whom.
        to: Member,
        /// What.
        message: Message,
    },
    /// Let the disk work.
    Disk(DiskRequest),
    /// Answer a client.
    Reply {
        /// Whom.
        to: ReplyTo,
        /// With what.
        result: Result<crate::command::Answer, CommandError>,
    },
    /// Answer a member that joins.
    Joined {
        /// Whom.
        to: ReplyTo,
        /// With what.
        result: Result<Joined, CommandError>,
    },
    /// Tell an agent that its statuses are stored, or why not.
    StatusReply {
        /// Whom.
        to: ReplyTo,
        /// With what.
        result: Result<(), skep_model::dispatch::DispatchError>,
    },
    /// Speak to an agent.
    Send {
        /// Over which connection.
        connection: ConnectionId,
        /// What.
        message: ToAgent,
    },
    /// End an agent's connection.
    Close {
        /// Which.
        connection: ConnectionId,
        /// Why.
        reason: skep_model::dispatch::DispatchError,
    },
    /// The committed store changed: readers get this one.
    Publish {
        /// Last index in it.
        index: u64,
        /// The store.
        store: Store,
        /// What changed; `None`: the store came whole, from a snapshot.
        changes: Option<Arc<Vec<Change>>>,
    },
    /// Leadership, fault or group changed; see the accessors.
    Status,
}

/// Why a message of a peer was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StepRefused {
    /// The sender was removed from the group, and must stop. SwarmKit compares this text.
    #[error("raft: member was removed from the cluster")]
    SenderRemoved,
    /// This member was removed, or has stopped.
    #[error("raft: node is stopped")]
    Stopped,
    /// No correct member sends this.
    #[error("raft: message is inadmissible")]
    Inadmissible,
}
