//! What agents and dispatchers say.

use skep_model::{
    ConfigId, NodeId, SecretId, SessionId, TaskId,
    dispatch::{
        AssignmentChange, AssignmentSequence, AssignmentsKind, AssignmentsMessage, SessionMessage,
        SessionRequest, StatusUpdate, WeightedPeer,
    },
};

use crate::arbitrary::Draw;

impl Draw {
    /// An agent's registration.
    pub fn session_request(&mut self) -> SessionRequest {
        SessionRequest {
            description: self.node_description(),
            session_id: self.option(|draw| SessionId::random(&mut draw.0)),
        }
    }

    /// A dispatcher's word on the session.
    pub fn session_message(&mut self) -> SessionMessage {
        SessionMessage {
            session_id: SessionId::random(&mut self.0),
            node: self.option(|draw| draw.node().into()),
            managers: self.list(|draw| WeightedPeer {
                node_id: NodeId::random(&mut draw.0),
                addr: draw.text(),
                weight: draw.signed(),
            }),
            network_bootstrap_keys: self.list(Self::encryption_key),
            root_ca: self.bytes(),
        }
    }

    /// Assignments of a node.
    pub fn assignments_message(&mut self) -> AssignmentsMessage {
        AssignmentsMessage {
            kind: self.one_of(&[AssignmentsKind::Complete, AssignmentsKind::Incremental]),
            applies_to: AssignmentSequence(self.number()),
            results_in: AssignmentSequence(self.number()),
            changes: self.list(|draw| match draw.0.below(6) {
                0 => AssignmentChange::UpdateTask(draw.task().into()),
                1 => AssignmentChange::RemoveTask(TaskId::random(&mut draw.0)),
                2 => AssignmentChange::UpdateSecret(draw.secret().into()),
                3 => AssignmentChange::RemoveSecret(SecretId::random(&mut draw.0)),
                4 => AssignmentChange::UpdateConfig(draw.config().into()),
                _ => AssignmentChange::RemoveConfig(ConfigId::random(&mut draw.0)),
            }),
        }
    }

    /// An agent's report.
    pub fn status_update(&mut self) -> StatusUpdate {
        StatusUpdate {
            session_id: SessionId::random(&mut self.0),
            updates: self.list(|draw| (TaskId::random(&mut draw.0), draw.task_status())),
        }
    }
}
