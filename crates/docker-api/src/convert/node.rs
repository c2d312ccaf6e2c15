//! Nodes.

use skep_model::{
    Annotations, Availability, ManagerStatus, Node, NodeDescription, NodeSpec, NodeState,
    NodeTlsInfo, Reachability, Role, reserved::engine::operator_labels,
};

use crate::{
    convert::task_spec::resources,
    dto::{meta, node as dto},
    error::{ApiError, Result},
    http::base64,
};

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Worker => "worker",
        Role::Manager => "manager",
    }
}

pub(super) fn availability_name(availability: Availability) -> &'static str {
    match availability {
        Availability::Active => "active",
        Availability::Pause => "pause",
        Availability::Drain => "drain",
    }
}

pub(super) fn availability(name: &str) -> Result<Availability> {
    match name.to_ascii_lowercase().as_str() {
        "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        _ => Err(ApiError::invalid(format!("invalid Availability: {name:?}"))),
    }
}

/// The spec a client sent over the stored one: what Docker's object lacks stays as it is.
pub(crate) fn merge_node_spec(spec: dto::NodeSpec, stored: &NodeSpec) -> Result<NodeSpec> {
    let desired_role = match spec.role.to_ascii_lowercase().as_str() {
        "worker" => Role::Worker,
        "manager" => Role::Manager,
        _ => return Err(ApiError::invalid(format!("invalid Role: {:?}", spec.role))),
    };
    Ok(NodeSpec {
        annotations: Annotations {
            name: spec.name,
            labels: spec.labels,
        },
        desired_role,
        membership: stored.membership,
        availability: availability(&spec.availability)?,
    })
}

impl From<&Node> for dto::Node {
    fn from(node: &Node) -> Self {
        Self {
            id: node.id.to_string(),
            meta: node.meta.into(),
            spec: dto::NodeSpec {
                name: node.spec.annotations.name.clone(),
                labels: node.spec.annotations.labels.clone(),
                role: role_name(node.spec.desired_role).to_owned(),
                availability: availability_name(node.spec.availability).to_owned(),
            },
            description: node
                .description
                .as_ref()
                .map(Into::into)
                .unwrap_or_default(),
            status: dto::NodeStatus {
                state: match node.status.state {
                    NodeState::Unknown => "unknown",
                    NodeState::Down => "down",
                    NodeState::Ready => "ready",
                    NodeState::Disconnected => "disconnected",
                },
                message: node.status.message.clone(),
                addr: node.status.addr.clone(),
            },
            manager_status: node.manager_status.as_ref().map(Into::into),
        }
    }
}

impl From<&NodeDescription> for dto::NodeDescription {
    fn from(description: &NodeDescription) -> Self {
        let engine = &description.engine;
        let plugins = engine.plugins.iter().map(|plugin| dto::PluginDescription {
            kind: plugin.kind.clone(),
            name: plugin.name.clone(),
        });
        Self {
            hostname: description.hostname.clone(),
            platform: meta::Platform {
                architecture: description.platform.architecture.clone(),
                os: description.platform.os.clone(),
            },
            resources: resources(&description.resources),
            engine: dto::EngineDescription {
                engine_version: engine.engine_version.clone(),
                // What nodes of Skep tell each other is none of the operator's labels.
                labels: operator_labels(&engine.labels)
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect(),
                plugins: plugins.collect(),
            },
            tls_info: description
                .tls_info
                .as_ref()
                .map(Into::into)
                .unwrap_or_default(),
        }
    }
}

impl From<&NodeTlsInfo> for meta::TlsInfo {
    fn from(info: &NodeTlsInfo) -> Self {
        Self {
            trust_root: String::from_utf8_lossy(&info.trust_root).into_owned(),
            cert_issuer_subject: base64::encode(&info.cert_issuer_subject),
            cert_issuer_public_key: base64::encode(&info.cert_issuer_public_key),
        }
    }
}

impl From<&ManagerStatus> for dto::ManagerStatus {
    fn from(status: &ManagerStatus) -> Self {
        Self {
            leader: status.is_leader,
            reachability: match status.reachability {
                Reachability::Unknown => "unknown",
                Reachability::Unreachable => "unreachable",
                Reachability::Reachable => "reachable",
            },
            addr: status.addr.clone(),
        }
    }
}
