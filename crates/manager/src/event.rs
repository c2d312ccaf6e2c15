//! What the leader core is told, and what it asks its shell to do.

use std::sync::Arc;

use skep_model::{
    NodeId, TaskId, TaskStatus,
    dispatch::{
        AssignmentsMessage, DispatchError, HeartbeatResponse, SessionMessage, SessionRequest,
    },
};
use skep_store::{Action, Change, Store};

use crate::{
    command::{Answer, Command, CommandError},
    group::Group,
};

/// A request awaiting an answer; the shell maps it back to its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyTo(pub u64);

/// One connection of an agent; the shell chooses a new number for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Number of a proposal, unique within this manager's life; SwarmKit's `InternalRaftRequest.id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// This manager became leader of `term`, with everything committed before already applied.
    Led {
        /// Raft term.
        term: u64,
    },
    /// This manager leads no more. Everything not committed is gone.
    Deposed,
    /// A raft entry was committed.
    Committed {
        /// Its index; also the version of objects written next.
        index: u64,
        /// Who proposed what; `None` for entries that carry no data.
        entry: Option<CommittedEntry>,
    },
    /// A proposal was not taken by raft.
    Refused {
        /// Which.
        request_id: RequestId,
        /// Why, for the clients that wait.
        reason: String,
    },
    /// The store was replaced by a snapshot, or read back after the log failed.
    Restored {
        /// Last index in it.
        index: u64,
        /// What it held.
        store: Store,
    },
    /// The raft group, or what is known of its members, changed.
    Group(Arc<Group>),
    /// A client wants something.
    Command {
        /// Who waits.
        reply_to: ReplyTo,
        /// What.
        command: Command,
    },
    /// An agent speaks.
    Agent {
        /// Over which connection.
        connection: ConnectionId,
        /// What it says.
        message: FromAgent,
    },
    /// An agent's connection ended.
    AgentGone {
        /// Which.
        connection: ConnectionId,
    },
}

/// A committed entry's content.
#[derive(Debug)]
pub struct CommittedEntry {
    /// The proposer's number.
    pub request_id: RequestId,
    /// What it does. Not read when this core proposed it and still leads.
    pub actions: Vec<Action>,
    /// Its size in the log.
    pub bytes: usize,
}

/// What an agent says to the dispatcher.
#[derive(Debug)]
pub enum FromAgent {
    /// Opens a session. Identity comes from the connection's certificate, not from the message.
    Register {
        /// Which node.
        node_id: NodeId,
        /// Where from.
        addr: String,
        /// What it says of itself.
        request: Box<SessionRequest>,
    },
    /// Still there.
    Heartbeat,
    /// Tasks changed.
    Statuses {
        /// To answer when they are stored.
        reply_to: ReplyTo,
        /// Which and how.
        updates: Vec<(TaskId, TaskStatus)>,
    },
}

/// What the dispatcher says to an agent.
#[derive(Debug, Clone)]
pub enum ToAgent {
    /// Session data; the first opens the session.
    Session(Arc<SessionMessage>),
    /// What to run.
    Assignments(AssignmentsMessage),
    /// Heartbeat taken.
    Heartbeat(HeartbeatResponse),
}

/// What the shell must do. [`Effect::Propose`] is answered, by `Committed`, `Refused` or `Deposed`.
#[derive(Debug)]
pub enum Effect {
    /// Propose these actions to raft as one entry.
    Propose {
        /// To be carried in the entry.
        request_id: RequestId,
        /// What it does.
        actions: Vec<Action>,
        /// Whether it must be one entry; see [`crate::entry::encode_whole`].
        is_whole: bool,
    },
    /// Remove a member from the raft group. Repeated until [`Event::Group`] shows it gone.
    RemoveMember {
        /// Which.
        raft_id: u64,
    },
    /// Hand leadership to a member, because this one is to be removed.
    Transfer {
        /// To which.
        raft_id: u64,
    },
    /// Answer a client.
    Reply {
        /// Whom.
        to: ReplyTo,
        /// With what.
        result: Result<Answer, CommandError>,
    },
    /// Tell an agent that its statuses are stored, or why not.
    StatusReply {
        /// Whom.
        to: ReplyTo,
        /// With what.
        result: Result<(), DispatchError>,
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
        reason: DispatchError,
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
    /// Take a snapshot of the store and compact the log behind it.
    Snapshot {
        /// Last index in it.
        index: u64,
        /// The store.
        store: Store,
    },
}

/// What a new cluster starts with.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// The cluster object.
    pub cluster: Box<skep_model::Cluster>,
    /// This node.
    pub node: Box<skep_model::Node>,
    /// Pool wanted for the node network.
    pub node_pool: Option<ipnet::Ipv4Net>,
}
