//! What an agent core wants done, and what it wants stored.

use std::sync::Arc;

use skep_model::{
    Config, ConfigId, Node, Secret, SecretId, SessionId, Task, TaskId, TaskStatus,
    dispatch::{HeartbeatRequest, SessionRequest, StatusUpdate, WeightedPeer},
};

use super::Attempt;
#[cfg(doc)]
use super::Event;
use crate::exec::Op;

/// What the owner of an agent core must do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Store it. Durable before any other effect of the same call is performed.
    Persist(Change),
    /// Ask the executor to describe the node; comes back as [`Event::Described`].
    Describe,
    /// Open a session stream; its messages come back as [`Event::Session`], its end as
    /// [`Event::SessionEnded`].
    OpenSession {
        /// To be repeated in every event of this attempt.
        attempt: Attempt,
        /// First message.
        request: SessionRequest,
    },
    /// Open the assignments stream of the session; its messages come back as
    /// [`Event::Assignments`], its end as [`Event::SessionEnded`].
    OpenAssignments {
        /// To be repeated in every event of this attempt.
        attempt: Attempt,
        /// The session.
        session_id: SessionId,
    },
    /// Drop the streams and requests of the attempt. Nothing comes back.
    CloseSession(Attempt),
    /// Send a heartbeat; comes back as [`Event::Heartbeat`].
    SendHeartbeat {
        /// To be repeated in the answer.
        attempt: Attempt,
        /// The heartbeat.
        request: HeartbeatRequest,
    },
    /// Send statuses; comes back as [`Event::StatusesSent`].
    SendStatuses {
        /// To be repeated in the answer.
        attempt: Attempt,
        /// The statuses.
        update: StatusUpdate,
    },
    /// The node object changed: tell the executor. Nothing comes back; repeated per session.
    Configure(Arc<Node>),
    /// The managers changed: remember them, also across restarts. Nothing comes back.
    ManagersChanged(Vec<WeightedPeer>),
    /// The secrets and configs that tasks may use changed: tell the executor, before any later effect.
    /// Nothing comes back.
    Supply(Supplies),
    /// Start the operation on the task's controller; comes back as [`Event::OpDone`], always.
    Run {
        /// The task as now assigned.
        task: Arc<Task>,
        /// Which.
        op: Op,
    },
    /// Drop the task's running operation; it still comes back as [`Event::OpDone`].
    Cancel(TaskId),
    /// Delete whatever the node has of a task nobody knows. Nothing comes back; what is still there
    /// is found again at the next start.
    RemoveOrphan(TaskId),
    /// All tasks are gone after [`Event::Leave`]. Nothing comes back.
    Left,
}

/// Secrets and configs for the node's tasks. Kept in memory only, as in Swarm.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Supplies {
    /// These are all: what was given before and is not here is to be forgotten.
    pub is_complete: bool,
    /// Secrets given.
    pub secrets: Vec<Arc<Secret>>,
    /// Configs given.
    pub configs: Vec<Arc<Config>>,
    /// Secrets to be forgotten.
    pub gone_secrets: Vec<SecretId>,
    /// Configs to be forgotten.
    pub gone_configs: Vec<ConfigId>,
}

/// A change of the worker's stored tasks.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The task was assigned or its assignment changed.
    Task(Arc<Task>),
    /// The task's observed status.
    Status(TaskId, TaskStatus),
    /// The task is no longer assigned; its removal goes on after a restart.
    Unassign(TaskId),
    /// Nothing of the task is left.
    Forget(TaskId),
}

/// A task as stored by an earlier run.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTask {
    /// The task as last assigned.
    pub task: Arc<Task>,
    /// Its last stored status.
    pub status: TaskStatus,
    /// False once its removal began.
    pub is_assigned: bool,
}
