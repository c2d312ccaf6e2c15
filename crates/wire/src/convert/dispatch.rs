//! What agents and the dispatcher say to each other.

use std::sync::Arc;

use skep_model::{
    NodeId, SessionId, TaskId, TaskStatus,
    dispatch::{
        AssignmentChange, AssignmentSequence, AssignmentsKind, AssignmentsMessage,
        HeartbeatRequest, HeartbeatResponse, SessionMessage, SessionRequest, StatusUpdate,
        WeightedPeer,
    },
};

use crate::{
    convert::{
        field::{At, enum_pair, id, known, list, option, optional_id, or_default, to_list},
        time::{duration, to_duration},
    },
    error::{Error, Problem},
    proto::{
        self, assignment::Item, assignment_change::AssignmentAction, assignments_message::Type,
        update_task_status_request::TaskStatusUpdate,
    },
};

enum_pair!(
    AssignmentsKind,
    Type {
        Complete,
        Incremental
    }
);

impl From<&SessionRequest> for proto::SessionRequest {
    fn from(value: &SessionRequest) -> Self {
        Self {
            description: Some((&value.description).into()),
            session_id: text_of(value.session_id),
        }
    }
}

impl TryFrom<proto::SessionRequest> for SessionRequest {
    type Error = Error;

    fn try_from(value: proto::SessionRequest) -> Result<Self, Error> {
        Ok(Self {
            description: or_default(value.description).at("description")?,
            session_id: optional_id(&value.session_id).at("session_id")?,
        })
    }
}

impl From<&SessionMessage> for proto::SessionMessage {
    fn from(value: &SessionMessage) -> Self {
        Self {
            session_id: value.session_id.to_string(),
            node: value.node.as_deref().map(Into::into),
            managers: to_list(&value.managers),
            network_bootstrap_keys: to_list(&value.network_bootstrap_keys),
            root_ca: value.root_ca.clone(),
        }
    }
}

impl TryFrom<proto::SessionMessage> for SessionMessage {
    type Error = Error;

    fn try_from(value: proto::SessionMessage) -> Result<Self, Error> {
        Ok(Self {
            session_id: id(&value.session_id).at("session_id")?,
            node: option(value.node).at("node")?.map(Arc::new),
            managers: list(value.managers).at("managers")?,
            network_bootstrap_keys: list(value.network_bootstrap_keys)
                .at("network_bootstrap_keys")?,
            root_ca: value.root_ca,
        })
    }
}

impl From<&WeightedPeer> for proto::WeightedPeer {
    fn from(value: &WeightedPeer) -> Self {
        let peer = proto::Peer {
            node_id: value.node_id.to_string(),
            addr: value.addr.clone(),
        };
        Self {
            peer: Some(peer),
            weight: value.weight,
        }
    }
}

impl TryFrom<proto::WeightedPeer> for WeightedPeer {
    type Error = Error;

    fn try_from(value: proto::WeightedPeer) -> Result<Self, Error> {
        let peer = value.peer.at("peer")?;
        let node_id: Result<NodeId, _> = id(&peer.node_id).at("node_id");
        Ok(Self {
            node_id: node_id.at("peer")?,
            addr: peer.addr,
            weight: value.weight,
        })
    }
}

impl From<HeartbeatRequest> for proto::HeartbeatRequest {
    fn from(value: HeartbeatRequest) -> Self {
        Self {
            session_id: value.session_id.to_string(),
        }
    }
}

impl TryFrom<proto::HeartbeatRequest> for HeartbeatRequest {
    type Error = Error;

    fn try_from(value: proto::HeartbeatRequest) -> Result<Self, Error> {
        Ok(Self {
            session_id: id(&value.session_id).at("session_id")?,
        })
    }
}

impl From<HeartbeatResponse> for proto::HeartbeatResponse {
    fn from(value: HeartbeatResponse) -> Self {
        Self {
            period: Some(to_duration(value.period)),
        }
    }
}

impl TryFrom<proto::HeartbeatResponse> for HeartbeatResponse {
    type Error = Error;

    fn try_from(value: proto::HeartbeatResponse) -> Result<Self, Error> {
        let period = value.period.at("period")?;
        Ok(Self {
            period: duration(period).at("period")?,
        })
    }
}

impl From<&AssignmentsMessage> for proto::AssignmentsMessage {
    fn from(value: &AssignmentsMessage) -> Self {
        Self {
            r#type: Type::from(value.kind).into(),
            applies_to: text_of_sequence(value.applies_to),
            results_in: text_of_sequence(value.results_in),
            changes: to_list(&value.changes),
        }
    }
}

impl TryFrom<proto::AssignmentsMessage> for AssignmentsMessage {
    type Error = Error;

    fn try_from(value: proto::AssignmentsMessage) -> Result<Self, Error> {
        Ok(Self {
            kind: known::<Type, _>(value.r#type).at("type")?,
            applies_to: sequence(&value.applies_to).at("applies_to")?,
            results_in: sequence(&value.results_in).at("results_in")?,
            changes: list(value.changes).at("changes")?,
        })
    }
}

impl From<&AssignmentChange> for proto::AssignmentChange {
    fn from(value: &AssignmentChange) -> Self {
        use AssignmentAction::{Remove, Update};
        let (item, action) = match value {
            AssignmentChange::UpdateTask(task) => (Item::Task(task.as_ref().into()), Update),
            AssignmentChange::UpdateSecret(secret) => {
                (Item::Secret(secret.as_ref().into()), Update)
            }
            AssignmentChange::UpdateConfig(config) => {
                (Item::Config(config.as_ref().into()), Update)
            }
            AssignmentChange::RemoveTask(id) => {
                let task = proto::Task {
                    id: id.to_string(),
                    ..Default::default()
                };
                (Item::Task(task), Remove)
            }
            AssignmentChange::RemoveSecret(id) => {
                let secret = proto::Secret {
                    id: id.to_string(),
                    ..Default::default()
                };
                (Item::Secret(secret), Remove)
            }
            AssignmentChange::RemoveConfig(id) => {
                let config = proto::Config {
                    id: id.to_string(),
                    ..Default::default()
                };
                (Item::Config(config), Remove)
            }
        };
        Self {
            assignment: Some(proto::Assignment { item: Some(item) }),
            action: action.into(),
        }
    }
}

impl TryFrom<proto::AssignmentChange> for AssignmentChange {
    type Error = Error;

    fn try_from(value: proto::AssignmentChange) -> Result<Self, Error> {
        let action = AssignmentAction::try_from(value.action)
            .map_err(|_| Problem::UnknownValue(value.action))
            .at("action")?;
        let item = value.assignment.and_then(|assignment| assignment.item);
        let read = match item.at("assignment")? {
            Item::Task(task) => assigned_task(task, action).at("task"),
            Item::Secret(secret) => assigned_secret(secret, action).at("secret"),
            Item::Config(config) => assigned_config(config, action).at("config"),
            Item::Volume(_) => Err(Problem::Unsupported).at("volume"),
        };
        read.at("assignment")
    }
}

fn assigned_task(task: proto::Task, action: AssignmentAction) -> Result<AssignmentChange, Error> {
    Ok(match action {
        AssignmentAction::Update => AssignmentChange::UpdateTask(Arc::new(task.try_into()?)),
        AssignmentAction::Remove => AssignmentChange::RemoveTask(id(&task.id).at("id")?),
    })
}

fn assigned_secret(
    secret: proto::Secret,
    action: AssignmentAction,
) -> Result<AssignmentChange, Error> {
    Ok(match action {
        AssignmentAction::Update => AssignmentChange::UpdateSecret(Arc::new(secret.try_into()?)),
        AssignmentAction::Remove => AssignmentChange::RemoveSecret(id(&secret.id).at("id")?),
    })
}

fn assigned_config(
    config: proto::Config,
    action: AssignmentAction,
) -> Result<AssignmentChange, Error> {
    Ok(match action {
        AssignmentAction::Update => AssignmentChange::UpdateConfig(Arc::new(config.try_into()?)),
        AssignmentAction::Remove => AssignmentChange::RemoveConfig(id(&config.id).at("id")?),
    })
}

impl From<&StatusUpdate> for proto::UpdateTaskStatusRequest {
    fn from(value: &StatusUpdate) -> Self {
        let update = |(task_id, status): &(TaskId, TaskStatus)| TaskStatusUpdate {
            task_id: task_id.to_string(),
            status: Some(status.into()),
        };
        Self {
            session_id: value.session_id.to_string(),
            updates: value.updates.iter().map(update).collect(),
        }
    }
}

impl TryFrom<proto::UpdateTaskStatusRequest> for StatusUpdate {
    type Error = Error;

    /// An update without a status says nothing and is passed over, as in Swarm.
    fn try_from(value: proto::UpdateTaskStatusRequest) -> Result<Self, Error> {
        let read = |update: TaskStatusUpdate| {
            let status = update.status?;
            let task_id: Result<TaskId, Error> = id(&update.task_id).at("task_id");
            let status = TaskStatus::try_from(status).at("status");
            Some(task_id.and_then(|task_id| Ok((task_id, status?))))
        };
        let updates: Result<Vec<_>, Error> = value.updates.into_iter().filter_map(read).collect();
        Ok(Self {
            session_id: id(&value.session_id).at("session_id")?,
            updates: updates.at("updates")?,
        })
    }
}

fn text_of(id: Option<SessionId>) -> String {
    id.map_or_else(String::new, |id| id.to_string())
}

fn text_of_sequence(sequence: AssignmentSequence) -> String {
    if sequence == AssignmentSequence::NONE {
        String::new()
    } else {
        sequence.to_string()
    }
}

fn sequence(text: &str) -> Result<AssignmentSequence, Problem> {
    if text.is_empty() {
        return Ok(AssignmentSequence::NONE);
    }
    let number = text.parse().map_err(|_| Problem::NotANumber)?;
    Ok(AssignmentSequence(number))
}
