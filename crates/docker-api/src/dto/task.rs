//! Tasks and their templates.

use serde::{Deserialize, Serialize};

use crate::dto::{
    container_spec::ContainerSpec,
    is_default,
    meta::{Annotations, Driver, GenericResource, Meta, Platform, Version},
    network::{Attachment, AttachmentConfig},
    service::PortConfig,
};

/// A task.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Task {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) meta: Meta,
    #[serde(flatten)]
    pub(crate) annotations: Annotations,
    pub(crate) spec: TaskSpec,
    #[serde(rename = "ServiceID", skip_serializing_if = "is_default")]
    pub(crate) service_id: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) slot: u64,
    #[serde(rename = "NodeID", skip_serializing_if = "is_default")]
    pub(crate) node_id: String,
    pub(crate) status: TaskStatus,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) desired_state: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) networks_attachments: Vec<Attachment>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) generic_resources: Vec<GenericResource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) job_iteration: Option<Version>,
    /// Cluster volumes, which Skep does not have: `null`, as Go writes a nil slice.
    pub(crate) volumes: Option<Vec<()>>,
}

/// What is known of a task.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TaskStatus {
    pub(crate) timestamp: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) state: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) message: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) err: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) container_status: Option<ContainerStatus>,
    pub(crate) port_status: PortStatus,
}

/// What is known of a task's container.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct ContainerStatus {
    #[serde(rename = "ContainerID")]
    pub(crate) container_id: String,
    #[serde(rename = "PID")]
    pub(crate) pid: i32,
    #[serde(rename = "ExitCode")]
    pub(crate) exit_code: i32,
}

/// Host ports in use.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PortStatus {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) ports: Vec<PortConfig>,
}

/// The template of a service's tasks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct TaskSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) container_spec: Option<ContainerSpec>,
    #[serde(skip_serializing)]
    pub(crate) plugin_spec: Option<serde_json::Value>,
    #[serde(skip_serializing)]
    pub(crate) network_attachment_spec: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resources: Option<ResourceRequirements>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) restart_policy: Option<RestartPolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) placement: Option<Placement>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) networks: Vec<AttachmentConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_driver: Option<Driver>,
    pub(crate) force_update: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) runtime: String,
}

/// Limits and reservations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ResourceRequirements {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limits: Option<Limits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reservations: Option<Resources>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) swap_bytes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_swappiness: Option<i64>,
}

/// What a task may use at most.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Limits {
    #[serde(rename = "NanoCPUs", skip_serializing_if = "is_default")]
    pub(crate) nano_cpus: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) memory_bytes: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) pids: i64,
}

/// An amount of resources.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Resources {
    #[serde(rename = "NanoCPUs", skip_serializing_if = "is_default")]
    pub(crate) nano_cpus: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) memory_bytes: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) generic_resources: Vec<GenericResource>,
}

/// When tasks are replaced; durations in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct RestartPolicy {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) condition: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delay: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_attempts: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) window: Option<i64>,
}

/// Where tasks may run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Placement {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) constraints: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) preferences: Vec<PlacementPreference>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) max_replicas: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) platforms: Vec<Platform>,
}

/// One level of spreading.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct PlacementPreference {
    pub(crate) spread: Option<SpreadOver>,
}

/// The label to spread over.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct SpreadOver {
    pub(crate) spread_descriptor: String,
}
