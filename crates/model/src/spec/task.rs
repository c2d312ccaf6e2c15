//! How a task runs: container, resources, restart policy, placement.

use std::{collections::BTreeMap, time::Duration};

use crate::spec::{ContainerSpec, Driver, Platform, ResourceRequirements};

/// Swarm's default delay before a task is replaced.
pub const DEFAULT_RESTART_DELAY: Duration = Duration::from_secs(5);

/// The template of a service's tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskSpec {
    /// The container to run. (Swarm's plugin and attachment runtimes are refused.)
    pub container: ContainerSpec,
    /// Limits and reservations.
    pub resources: ResourceRequirements,
    /// What happens when a task ends.
    pub restart: RestartPolicy,
    /// Where tasks may run.
    pub placement: Placement,
    /// Log driver; `None`: the cluster's default, else the node's.
    pub log_driver: Option<Driver>,
    /// Networks to attach.
    pub networks: Vec<NetworkAttachmentConfig>,
    /// Counter bumped by `service update --force`.
    pub force_update: u64,
}

/// When and how tasks are replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Which ends lead to a restart.
    pub condition: RestartCondition,
    /// Time between the end of a task and the start of its replacement.
    pub delay: Duration,
    /// Restarts within `window`; 0 is unlimited.
    pub max_attempts: u64,
    /// Time over which attempts count; zero: all history of this spec version.
    pub window: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            condition: RestartCondition::Any,
            delay: DEFAULT_RESTART_DELAY,
            max_attempts: 0,
            window: Duration::ZERO,
        }
    }
}

/// Which ends of a task lead to a restart, with Swarm's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RestartCondition {
    /// None.
    None,
    /// Failures only.
    OnFailure,
    /// All.
    #[default]
    Any,
}

/// Where tasks may run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// Expressions that must all hold, see [`crate::constraint`].
    pub constraints: Vec<String>,
    /// Labels to spread over, outermost first (`node.labels.rack`).
    pub spread_over: Vec<String>,
    /// Platforms the image supports; empty: any.
    pub platforms: Vec<Platform>,
    /// Tasks of the service per node; 0 is unlimited.
    pub max_replicas: u64,
}

/// Attachment of a task to a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkAttachmentConfig {
    /// Network id or name.
    pub target: String,
    /// Extra DNS names.
    pub aliases: Vec<String>,
    /// Wanted addresses.
    pub addresses: Vec<String>,
    /// Driver options.
    pub driver_options: BTreeMap<String, String>,
}
