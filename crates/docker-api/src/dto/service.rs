//! Services.

use serde::{Deserialize, Serialize};

use crate::dto::{
    is_default,
    meta::{Meta, Version},
    network::AttachmentConfig,
    task::TaskSpec,
};

/// A service.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Service {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) meta: Meta,
    pub(crate) spec: ServiceSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) previous_spec: Option<ServiceSpec>,
    pub(crate) endpoint: Endpoint,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) update_status: Option<UpdateStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service_status: Option<ServiceStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) job_status: Option<JobStatus>,
}

/// The user's wish for a service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ServiceSpec {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) name: String,
    pub(crate) labels: crate::dto::Map,
    pub(crate) task_template: TaskSpec,
    pub(crate) mode: ServiceMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) update_config: Option<UpdateConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rollback_config: Option<UpdateConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint_spec: Option<EndpointSpec>,
    /// Deprecated place of `TaskTemplate.Networks`.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) networks: Vec<AttachmentConfig>,
}

/// How many tasks; exactly one field is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ServiceMode {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replicated: Option<Replicated>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) global: Option<Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replicated_job: Option<ReplicatedJob>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) global_job: Option<Empty>,
}

/// A mode without settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Empty {}

/// A number of slots.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Replicated {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replicas: Option<u64>,
}

/// Tasks that run to completion.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ReplicatedJob {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_concurrent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) total_completions: Option<u64>,
}

/// How an update proceeds; durations in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct UpdateConfig {
    pub(crate) parallelism: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) delay: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) failure_action: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) monitor: i64,
    #[serde(serialize_with = "go_float")]
    pub(crate) max_failure_ratio: f32,
    pub(crate) order: String,
}

/// Writes a float as Go does: whole numbers without a fraction.
fn go_float<S: serde::Serializer>(value: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    if *value == 0.0 {
        serializer.serialize_u8(0)
    } else if *value == 1.0 {
        serializer.serialize_u8(1)
    } else {
        serializer.serialize_f32(*value)
    }
}

/// How a service is reached.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct EndpointSpec {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) mode: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) ports: Vec<PortConfig>,
}

/// One port.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct PortConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) protocol: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) target_port: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) published_port: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) publish_mode: String,
}

/// Allocated ports and addresses.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Endpoint {
    #[serde(rename = "Spec")]
    pub(crate) spec: EndpointSpec,
    #[serde(rename = "Ports", skip_serializing_if = "is_default")]
    pub(crate) ports: Vec<PortConfig>,
    #[serde(rename = "VirtualIPs", skip_serializing_if = "is_default")]
    pub(crate) virtual_ips: Vec<VirtualIp>,
}

/// A virtual address.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct VirtualIp {
    #[serde(rename = "NetworkID", skip_serializing_if = "is_default")]
    pub(crate) network_id: String,
    #[serde(rename = "Addr", skip_serializing_if = "is_default")]
    pub(crate) addr: String,
}

/// Progress of an update.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct UpdateStatus {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) completed_at: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) message: String,
}

/// Counts of a service's tasks.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ServiceStatus {
    pub(crate) running_tasks: u64,
    pub(crate) desired_tasks: u64,
    pub(crate) completed_tasks: u64,
}

/// Progress of a job.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct JobStatus {
    pub(crate) job_iteration: Version,
    pub(crate) last_execution: String,
}

/// Answer to a creation.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct CreateResponse {
    #[serde(rename = "ID", skip_serializing_if = "is_default")]
    pub(crate) id: String,
    #[serde(rename = "Warnings", skip_serializing_if = "is_default")]
    pub(crate) warnings: Vec<String>,
}

/// Answer to an update.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct UpdateResponse {
    /// `null` without warnings.
    #[serde(rename = "Warnings")]
    pub(crate) warnings: Option<Vec<String>>,
}
