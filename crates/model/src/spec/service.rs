//! What a service is: name, mode, task template, updates, ports.

use std::{sync::Arc, time::Duration};

use crate::spec::{Annotations, NetworkAttachmentConfig, TaskSpec};

/// Swarm's default number of tasks updated at once.
pub const DEFAULT_UPDATE_PARALLELISM: u64 = 1;
/// Swarm's default time a new task is watched for failure.
pub const DEFAULT_UPDATE_MONITOR: Duration = Duration::from_secs(5);

/// The user's wish for a service.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServiceSpec {
    /// Name and labels, shared with the service's tasks.
    pub annotations: Arc<Annotations>,
    /// Task template, shared with the service's tasks.
    pub task: Arc<TaskSpec>,
    /// How many tasks and where.
    pub mode: ServiceMode,
    /// How updates proceed; `None`: Swarm's defaults.
    pub update: Option<UpdateConfig>,
    /// How rollbacks proceed; `None`: Swarm's defaults.
    pub rollback: Option<UpdateConfig>,
    /// Deprecated place of `task.networks`.
    pub networks: Vec<NetworkAttachmentConfig>,
    /// Published ports and resolution mode.
    pub endpoint: Option<EndpointSpec>,
}

/// The four modes of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceMode {
    /// `replicas` tasks in numbered slots.
    Replicated {
        /// Number of slots.
        replicas: u64,
    },
    /// One task on each eligible node.
    Global,
    /// Tasks that run to completion.
    ReplicatedJob {
        /// Tasks at once.
        max_concurrent: u64,
        /// Successful ends wanted.
        total_completions: u64,
    },
    /// One task to completion on each eligible node.
    GlobalJob,
}

impl Default for ServiceMode {
    fn default() -> Self {
        Self::Replicated { replicas: 1 }
    }
}

/// How an update or rollback proceeds.
#[derive(Debug, Clone, PartialEq)]
pub struct UpdateConfig {
    /// Tasks updated at once; 0 is all.
    pub parallelism: u64,
    /// Time between updates of tasks.
    pub delay: Duration,
    /// What to do when too many new tasks fail.
    pub failure_action: FailureAction,
    /// Time after a new task runs in which its failure counts; `None`: the default.
    pub monitor: Option<Duration>,
    /// Share of failures (0 to 1) that is tolerated.
    pub max_failure_ratio: f32,
    /// Whether the old task stops before the new one starts.
    pub order: UpdateOrder,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            parallelism: DEFAULT_UPDATE_PARALLELISM,
            delay: Duration::ZERO,
            failure_action: FailureAction::Pause,
            monitor: None,
            max_failure_ratio: 0.0,
            order: UpdateOrder::StopFirst,
        }
    }
}

/// What to do when an update fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FailureAction {
    /// Stop updating.
    #[default]
    Pause,
    /// Go on.
    Continue,
    /// Return to the previous spec.
    Rollback,
}

/// Order of stopping the old and starting the new task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UpdateOrder {
    /// Stop, then start.
    #[default]
    StopFirst,
    /// Start, then stop.
    StartFirst,
}

/// How a service is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Virtual address or DNS round robin.
    pub mode: ResolutionMode,
    /// Published ports.
    pub ports: Vec<PortConfig>,
}

/// How a service's name resolves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ResolutionMode {
    /// One virtual address.
    #[default]
    Vip,
    /// All task addresses.
    DnsRr,
}

impl ServiceSpec {
    /// Networks wanted by tasks made from `task`, a template of this service: the template's, or those
    /// in the deprecated place.
    pub fn networks_of<'a>(&'a self, task: &'a TaskSpec) -> &'a [NetworkAttachmentConfig] {
        if task.networks.is_empty() {
            &self.networks
        } else {
            &task.networks
        }
    }
}

/// One port of a service or task.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortConfig {
    /// Optional name.
    pub name: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port inside the container.
    pub target_port: u16,
    /// Port outside; 0 lets Skep choose.
    pub published_port: u16,
    /// On every node, or only where a task runs.
    pub publish_mode: PublishMode,
}

/// Transport protocol, with Swarm's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The lower-case name Docker's API uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// Where a port is published, with Swarm's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum PublishMode {
    /// On every node, through the routing mesh.
    #[default]
    Ingress,
    /// On the node of each task.
    Host,
}
