//! A task as stored: one attempt to run a service's container.

use std::sync::Arc;

use ipnet::IpNet;

use crate::{
    id::{NodeId, ServiceId, SpecVersion, TaskId, Version},
    object::{Endpoint, Meta, NetworkAttachment},
    spec::{Annotations, Driver, GenericResource, PortConfig, TaskSpec},
    state::TaskState,
    time::Timestamp,
};

/// A task as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Bookkeeping.
    pub meta: Meta,
    /// What to run, shared with the service and its other tasks.
    pub spec: Arc<TaskSpec>,
    /// `Service::spec_version` this task was made from.
    pub spec_version: Option<SpecVersion>,
    /// Its service; `None` only for tasks made outside any service.
    pub service_id: Option<ServiceId>,
    /// Slot number from 1; 0 for tasks of global services.
    pub slot: u64,
    /// Node it is placed on.
    pub node_id: Option<NodeId>,
    /// Own name and labels; the name is empty and shown as `service.slot.id`.
    pub annotations: Arc<Annotations>,
    /// Name and labels of the service.
    pub service_annotations: Arc<Annotations>,
    /// What is.
    pub status: TaskStatus,
    /// What shall be. Only grows.
    pub desired_state: TaskState,
    /// Ports of the service.
    pub endpoint: Option<Arc<Endpoint>>,
    /// Effective log driver.
    pub log_driver: Option<Driver>,
    /// Its places on networks: allocated before it is placed on a node.
    pub networks: Vec<NetworkAttachment>,
    /// Generic resources handed to this task.
    pub assigned_generic_resources: Vec<GenericResource>,
    /// Iteration of the job it belongs to.
    pub job_iteration: Option<Version>,
}

/// Where a task stands in its service: a numbered slot, or a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// A slot of a replicated service, from 1.
    Number(u64),
    /// The one place of a global service on a node.
    Node(NodeId),
}

impl Task {
    /// Its addresses on the node network, if the leader gave it any: see
    /// [`crate::directory::TaskEntry`].
    pub fn node_addresses(&self) -> impl Iterator<Item = IpNet> {
        let mut places = self.networks.iter();
        let place = places.find(|place| place.network.spec.is_node_network());
        place
            .into_iter()
            .flat_map(|place| &place.addresses)
            .copied()
    }

    /// The slot the task fills. A global task not bound to a node has none.
    pub fn slot(&self) -> Option<Slot> {
        match (self.slot, self.node_id) {
            (0, Some(node)) => Some(Slot::Node(node)),
            (0, None) => None,
            (number, _) => Some(Slot::Number(number)),
        }
    }

    /// Swarm's name for the task: `service.slot.id`, or `service.node.id` for global services.
    pub fn name(&self) -> String {
        if !self.annotations.name.is_empty() {
            return self.annotations.name.clone();
        }
        let service = &self.service_annotations.name;
        match (self.slot, self.node_id) {
            (0, Some(node)) => format!("{service}.{node}.{}", self.id),
            (0, None) => format!("{service}.{}", self.id),
            (slot, _) => format!("{service}.{slot}.{}", self.id),
        }
    }

    /// Whether the task still holds its addresses: it has not ended, as far as anybody knows.
    pub fn holds_addresses(&self) -> bool {
        self.status.state <= TaskState::Running
    }

    /// Whether the task still holds its node's resources: placed, and not known to have ended.
    pub fn holds_resources(&self) -> bool {
        self.node_id.is_some() && self.status.state <= TaskState::Running
    }
}

/// [`TaskStatus::message`] of a task that runs and is to get no new connections until it is ready.
pub const NOT_READY_MESSAGE: &str = "not ready";

/// What is known of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskStatus {
    /// When this status was true, by the reporter's clock.
    pub timestamp: Timestamp,
    /// Observed state. Only grows.
    pub state: TaskState,
    /// What goes on, for people (`started`, `preparing`, …).
    pub message: String,
    /// Why it failed or waits, for people.
    pub err: String,
    /// The container.
    pub container: Option<ContainerStatus>,
    /// Host-mode ports in use.
    pub ports: Vec<PortConfig>,
    /// Manager that stored the status.
    pub applied_by: Option<NodeId>,
    /// When it was stored, by the leader's clock.
    pub applied_at: Option<Timestamp>,
}

impl TaskStatus {
    /// Whether the task runs and is ready for its share of the load.
    pub fn is_ready(&self) -> bool {
        self.state == TaskState::Running && self.message != NOT_READY_MESSAGE
    }
}

/// What is known of a task's container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerStatus {
    /// Engine's id of the container.
    pub container_id: String,
    /// Process id on the node; 0 when it does not run.
    pub pid: i32,
    /// Exit code; 0 while it runs.
    pub exit_code: i32,
}
