//! A service as stored.

use std::sync::Arc;

use crate::{
    id::{ServiceId, SpecVersion, Version},
    object::Meta,
    spec::{EndpointSpec, PortConfig, ServiceSpec},
    time::Timestamp,
};

/// A service as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Its id.
    pub id: ServiceId,
    /// Bookkeeping.
    pub meta: Meta,
    /// What is wanted.
    pub spec: Arc<ServiceSpec>,
    /// Version of the service when `spec` was set; 0 for the first spec.
    pub spec_version: SpecVersion,
    /// What was wanted before, for rollback.
    pub previous_spec: Option<Arc<ServiceSpec>>,
    /// `spec_version` of `previous_spec`.
    pub previous_spec_version: Option<SpecVersion>,
    /// Allocated ports and addresses.
    pub endpoint: Option<Endpoint>,
    /// Progress of an update or rollback.
    pub update_status: Option<UpdateStatus>,
    /// Progress of a job.
    pub job_status: Option<JobStatus>,
    /// Removal is under way; kept for formats written by Docker.
    pub is_pending_delete: bool,
}

impl Service {
    /// The service's name.
    pub fn name(&self) -> &str {
        &self.spec.annotations.name
    }
}

/// Allocated ports and addresses of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// The spec they were allocated for.
    pub spec: Option<EndpointSpec>,
    /// Ports with published numbers filled in.
    pub ports: Vec<PortConfig>,
    /// Virtual addresses, one per network.
    pub virtual_ips: Vec<VirtualIp>,
}

/// A virtual address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VirtualIp {
    /// Network id.
    pub network_id: String,
    /// Address in CIDR form.
    pub addr: String,
}

/// Progress of an update or rollback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateStatus {
    /// Where it stands.
    pub state: UpdateState,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// Text for people.
    pub message: String,
}

/// Stages of an update, with Swarm's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UpdateState {
    /// Not known.
    #[default]
    Unknown,
    /// `updating`.
    Updating,
    /// `paused`.
    Paused,
    /// `completed`.
    Completed,
    /// `rollback_started`.
    RollbackStarted,
    /// `rollback_paused`.
    RollbackPaused,
    /// `rollback_completed`.
    RollbackCompleted,
}

/// Progress of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobStatus {
    /// Bumped by every update.
    pub job_iteration: Version,
    /// When the job last started.
    pub last_execution: Option<Timestamp>,
}
