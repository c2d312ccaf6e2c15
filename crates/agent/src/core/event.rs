//! What happens to an agent, as its core hears it.

use skep_model::{
    NodeDescription, TaskId,
    dispatch::{AssignmentsMessage, DispatchError, HeartbeatResponse, SessionMessage},
};

use super::Attempt;
#[cfg(doc)]
use super::Effect;
use crate::exec::{Op, Outcome};

/// What happens to an agent.
#[derive(Debug, Clone)]
pub enum Event {
    /// Answer to [`Effect::Describe`]; `None` when the node could not be described.
    Described(Option<NodeDescription>),
    /// A message on the session stream.
    Session {
        /// The attempt it belongs to.
        attempt: Attempt,
        /// The message.
        message: SessionMessage,
    },
    /// The session or assignments stream could not be opened, broke, or ended.
    SessionEnded {
        /// The attempt it belongs to.
        attempt: Attempt,
        /// Why.
        error: DispatchError,
    },
    /// A message on the assignments stream.
    Assignments {
        /// The attempt it belongs to.
        attempt: Attempt,
        /// The message.
        message: AssignmentsMessage,
    },
    /// Answer to [`Effect::SendHeartbeat`].
    Heartbeat {
        /// The attempt it belongs to.
        attempt: Attempt,
        /// The answer.
        result: Result<HeartbeatResponse, DispatchError>,
    },
    /// Answer to [`Effect::SendStatuses`].
    StatusesSent {
        /// The attempt it belongs to.
        attempt: Attempt,
        /// The answer.
        result: Result<(), DispatchError>,
    },
    /// Answer to [`Effect::Run`].
    OpDone {
        /// The task.
        task: TaskId,
        /// Which operation.
        op: Op,
        /// How it ended.
        outcome: Outcome,
    },
    /// What the node says of itself may have changed: ask anew.
    Redescribe,
    /// The node leaves the cluster: kill and delete all tasks, keep no session.
    Leave,
    /// The time of `next_deadline` has come.
    Tick,
}
