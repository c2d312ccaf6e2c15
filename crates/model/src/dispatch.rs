//! What agents and the dispatcher say to each other, as values.
//!
//! Neutral in transport: the gRPC shells convert from and to `docker.swarmkit.v1` messages, the
//! in-process shell and the simulator pass these as they are. A session is one registration of an
//! agent: `SessionRequest` opens it, `SessionMessage` and `AssignmentsMessage` stream down,
//! `HeartbeatRequest` and `StatusUpdate` go up, each answered once. Log subscriptions are not here.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    id::{ConfigId, NodeId, SecretId, SessionId, TaskId},
    object::{Config, EncryptionKey, Node, NodeDescription, Secret, Task, TaskStatus},
};

/// Most statuses in one [`StatusUpdate`]. A thousand take about 300 KiB on the wire, well below
/// gRPC's 4 MiB; a smaller number costs more requests after a reconnect.
pub const STATUS_UPDATES_PER_REQUEST_MAX: usize = 1000;

/// Opens a session, or re-opens it with a new description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRequest {
    /// What the node is.
    pub description: NodeDescription,
    /// The session the agent had before, if any. A dispatcher that still knows it keeps it.
    pub session_id: Option<SessionId>,
}

/// First answer on a session, and repeated whenever the node, the managers or the keys change.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionMessage {
    /// The session; all later requests carry it.
    pub session_id: SessionId,
    /// The node as stored, if it changed or was not yet sent.
    pub node: Option<Arc<Node>>,
    /// All managers. An agent forgets those not listed, so an empty list leaves it homeless.
    pub managers: Vec<WeightedPeer>,
    /// Keys of the data plane.
    pub network_bootstrap_keys: Vec<EncryptionKey>,
    /// Root certificates (PEM); empty when not sent.
    pub root_ca: Vec<u8>,
}

/// A manager an agent may connect to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WeightedPeer {
    /// Node id of the manager.
    pub node_id: NodeId,
    /// `host:port` of its control port.
    pub addr: String,
    /// Preference among managers; Swarm sends 10 for all.
    pub weight: i64,
}

/// Says that an agent is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatRequest {
    /// The session.
    pub session_id: SessionId,
}

/// Answers a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatResponse {
    /// When the next heartbeat is due, counted from the last. Jittered by the dispatcher.
    pub period: Duration,
}

/// Position in the stream of assignments of one session; the first message results in 1.
///
/// Zero stands for "nothing received", the empty string on the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssignmentSequence(pub u64);

impl AssignmentSequence {
    /// Before the first message.
    pub const NONE: Self = Self(0);

    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for AssignmentSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether an [`AssignmentsMessage`] is the whole set or a change to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssignmentsKind {
    /// The whole set: what is not in it is no longer assigned.
    Complete,
    /// A change to the set.
    Incremental,
}

/// What a node shall run.
#[derive(Debug, Clone, PartialEq)]
pub struct AssignmentsMessage {
    /// Whole set or change.
    pub kind: AssignmentsKind,
    /// Position this message builds on; `NONE` for the first.
    pub applies_to: AssignmentSequence,
    /// Position after this message.
    pub results_in: AssignmentSequence,
    /// The set, or the changes in order.
    pub changes: Vec<AssignmentChange>,
}

/// One change of a node's assignments.
#[derive(Debug, Clone, PartialEq)]
pub enum AssignmentChange {
    /// The task is assigned, or its desired state or settings changed.
    UpdateTask(Arc<Task>),
    /// The task is deleted from the cluster: stop and forget it.
    RemoveTask(TaskId),
    /// Tasks of the node use the secret.
    UpdateSecret(Arc<Secret>),
    /// No task of the node uses the secret any more: forget it.
    RemoveSecret(SecretId),
    /// Tasks of the node use the config.
    UpdateConfig(Arc<Config>),
    /// No task of the node uses the config any more: forget it.
    RemoveConfig(ConfigId),
}

/// Reports observed states of tasks. At most [`STATUS_UPDATES_PER_REQUEST_MAX`] of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusUpdate {
    /// The session.
    pub session_id: SessionId,
    /// Statuses, at most one per task.
    pub updates: Vec<(TaskId, TaskStatus)>,
}

/// Why a dispatcher refused, or could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DispatchError {
    /// The session is unknown, replaced or expired: register again.
    #[error("session invalid")]
    SessionInvalid,
    /// The node has no session (it missed its heartbeats, or the leader changed).
    #[error("node not registered")]
    NodeNotRegistered,
    /// The node is not part of the cluster (any more).
    #[error("node not found")]
    NodeNotFound,
    /// A task in the request is not this node's, or the caller may not do this.
    #[error("permission denied: {0}")]
    PermissionDenied(String),
    /// The node registers too often.
    #[error("node registered too recently")]
    RegisteredTooOften,
    /// This manager does not lead the cluster, or there is no leader now.
    #[error("no leader: {0}")]
    NoLeader(String),
    /// The dispatcher could not be reached, did not answer in time, or is stopping.
    #[error("dispatcher unavailable: {0}")]
    Unavailable(String),
}
