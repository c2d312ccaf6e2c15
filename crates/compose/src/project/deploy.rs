//! How a cluster runs a service: `deploy`.

use std::{collections::BTreeMap, time::Duration};

use crate::word::words;

/// `deploy` of a service.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Deploy {
    /// `mode`.
    pub mode: DeployMode,
    /// `replicas`, or the service's `scale`.
    pub replicas: Option<u64>,
    /// `endpoint_mode`.
    pub endpoint_mode: Option<EndpointMode>,
    /// Labels of the service.
    pub labels: BTreeMap<String, String>,
    /// `update_config`.
    pub update_config: Option<UpdateConfig>,
    /// `rollback_config`.
    pub rollback_config: Option<UpdateConfig>,
    /// `resources.limits`; `None`: not said.
    pub limits: Option<Resources>,
    /// `resources.reservations`; `None`: not said.
    pub reservations: Option<Resources>,
    /// `restart_policy`.
    pub restart_policy: Option<RestartPolicy>,
    /// `placement`.
    pub placement: Placement,
}

words! {
    /// What makes up a service's tasks.
    DeployMode {
        /// So many.
        #[default]
        Replicated = "replicated",
        /// One on each node.
        Global = "global",
        /// So many that end.
        ReplicatedJob = "replicated-job",
        /// One on each node that ends.
        GlobalJob = "global-job",
    }
}

words! {
    /// How clients find a service's tasks.
    EndpointMode {
        /// A virtual address.
        #[default]
        Vip = "vip",
        /// Round robin over the tasks' own addresses.
        Dnsrr = "dnsrr",
    }
}

/// How tasks are replaced.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UpdateConfig {
    /// Tasks at a time; 0: all.
    pub parallelism: Option<u64>,
    /// Between groups.
    pub delay: Option<Duration>,
    /// What happens on failure.
    pub failure_action: Option<FailureAction>,
    /// How long a new task is watched.
    pub monitor: Option<Duration>,
    /// Failures that are borne, 0 to 1.
    pub max_failure_ratio: Option<f64>,
    /// Which starts or stops first.
    pub order: Option<Order>,
}

words! {
    /// What a failing update does.
    FailureAction {
        /// Waits for the operator.
        #[default]
        Pause = "pause",
        /// Goes on.
        Continue = "continue",
        /// Goes back.
        Rollback = "rollback",
    }
}

words! {
    /// Order of stop and start.
    Order {
        /// The old task ends before the new one starts.
        #[default]
        StopFirst = "stop-first",
        /// The new task runs before the old one ends.
        StartFirst = "start-first",
    }
}

/// Limits or reservations of one task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Billionths of a CPU.
    pub nano_cpus: Option<u64>,
    /// `memory`.
    pub memory_bytes: Option<u64>,
    /// `pids`, of limits.
    pub pids: Option<i64>,
    /// `generic_resources`, of reservations.
    pub generic: Vec<GenericResource>,
}

/// So many of something the nodes say they have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GenericResource {
    /// `discrete_resource_spec.kind`.
    pub kind: String,
    /// `discrete_resource_spec.value`.
    pub value: i64,
}

/// When a task that ended is replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestartPolicy {
    /// On which endings.
    pub condition: Option<RestartCondition>,
    /// Before the next.
    pub delay: Option<Duration>,
    /// How often within the window.
    pub max_attempts: Option<u64>,
    /// The window.
    pub window: Option<Duration>,
}

words! {
    /// Which endings are followed by a restart.
    RestartCondition {
        /// Every one.
        #[default]
        Any = "any",
        /// With another code than 0.
        OnFailure = "on-failure",
        /// None.
        None = "none",
    }
}

/// On which nodes tasks run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// `constraints`.
    pub constraints: Vec<String>,
    /// What to spread over (`node.labels.zone`), in order.
    pub spread: Vec<String>,
    /// `max_replicas_per_node`; 0: no limit.
    pub max_replicas_per_node: Option<u64>,
}
