//! What a reconciler proposes, and why it waits.

use std::{fmt, sync::Arc};

use skep_model::{
    Cluster, Network, NetworkId, Node, NodeId, Protocol, Service, ServiceId, Task, TaskId,
    Timestamp, Version, reserved::service::rollout,
};

use crate::{job::JobWait, key::Key};

/// One step of a plan. Each carries the version of the object it was computed from and is refused
/// when the object was written since.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Creates a task.
    CreateTask(Arc<Task>),
    /// Replaces a task; `meta.version` is the one it was computed from.
    UpdateTask(Arc<Task>),
    /// Removes a task that still has the version.
    RemoveTask(TaskId, Version),
    /// Replaces a service; `meta.version` is the one it was computed from.
    UpdateService(Box<Service>),
    /// Replaces a network; `meta.version` is the one it was computed from.
    UpdateNetwork(Box<Network>),
    /// Replaces a node; `meta.version` is the one it was computed from.
    UpdateNode(Box<Node>),
    /// Removes a node that still has the version.
    RemoveNode(NodeId, Version),
    /// Replaces the cluster object; `meta.version` is the one it was computed from.
    UpdateCluster(Box<Cluster>),
    /// All or none, in one entry: between two of them the store would tell another story.
    Together(Vec<Self>),
}

/// The outcome of one activation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// What to write, in order.
    pub changes: Vec<Change>,
    /// When to look again even if nothing changes.
    pub wake_at: Option<Timestamp>,
    /// Other keys that must be looked at because of what this one saw.
    pub follow_up: Vec<Key>,
    /// What is being waited for.
    pub report: Report,
}

/// Why a key is not as wished and nothing is done about it right now. Empty: all is well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order they were found; at most [`Report::WAITS_MAX`].
    pub waits: Vec<Wait>,
}

/// One thing waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// A replacement starts when the restart delay is over.
    RestartDelay {
        /// The replacement.
        task: TaskId,
        /// When.
        until: Timestamp,
    },
    /// A replacement starts when the delay of a crash loop is over.
    CrashLoop {
        /// The replacement.
        task: TaskId,
        /// Tasks before it that failed quickly.
        failures: u32,
        /// Why the last of them did.
        cause: String,
        /// When.
        until: Timestamp,
    },
    /// A replacement starts when the task before it has stopped.
    OldTask {
        /// The replacement.
        task: TaskId,
        /// The task before it.
        old: TaskId,
        /// When it starts regardless.
        until: Timestamp,
    },
    /// The restart policy is exhausted or does not ask for a restart.
    RestartPolicy {
        /// The task that stays ended.
        task: TaskId,
    },
    /// A task on a node being drained stays until others of its service have moved.
    Drain {
        /// The task.
        task: TaskId,
    },
    /// A task on a node being drained stays until its replacement can take over.
    Replacement {
        /// The task.
        task: TaskId,
        /// Its replacement.
        replacement: TaskId,
    },
    /// An updated task has not come up yet.
    UpdatedTask {
        /// The task.
        task: TaskId,
        /// When it will have failed.
        until: Option<Timestamp>,
    },
    /// The configured pause between two updated tasks.
    UpdateDelay {
        /// When it is over.
        until: Timestamp,
    },
    /// All tasks are updated and watched for failure.
    UpdateMonitor {
        /// When the update is complete.
        until: Timestamp,
    },
    /// The update is paused until the next one.
    UpdatePaused,
    /// No node takes the task.
    NoNode {
        /// The task.
        task: TaskId,
        /// What `service ps` shows.
        explanation: String,
    },
    /// A network the service wants does not exist, or has not got what it needs itself.
    NoNetwork {
        /// What the service calls it.
        target: String,
    },
    /// All addresses of a network are in use.
    NoAddress {
        /// The network.
        network: NetworkId,
        /// Its name.
        name: String,
    },
    /// All slices of the node network are in use.
    NoSlice {
        /// The node that gets none.
        node: NodeId,
    },
    /// The address a task asks for is in use, or none of its network's.
    AddressTaken {
        /// The address, as given.
        address: String,
        /// Name of the network.
        network: String,
    },
    /// All ports that are given out are in use.
    NoPort {
        /// Of this protocol.
        protocol: Protocol,
    },
    /// The service gets its addresses first.
    Endpoint {
        /// The service.
        service: ServiceId,
    },
    /// A network cannot get what it needs.
    Network {
        /// The network.
        network: NetworkId,
        /// Why.
        reason: String,
    },
    /// A job has nothing to do right now.
    Job(JobWait),
}

// === impl Plan ===

impl Plan {
    /// Lowers the deadline to `at`.
    pub(crate) fn wake_by(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |old| old.min(at)));
    }

    /// Appends all of another plan for the same key.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.changes.extend(other.changes);
        self.follow_up.extend(other.follow_up);
        if let Some(at) = other.wake_at {
            self.wake_by(at);
        }
        for wait in other.report.waits {
            self.report.push(wait);
        }
    }
}

// === impl Wait ===

impl Wait {
    /// All addresses of `network` are in use.
    pub(crate) fn no_address(network: &Network) -> Self {
        Self::NoAddress {
            network: network.id,
            name: network.name().to_owned(),
        }
    }
}

// === impl Report ===

impl Report {
    /// Reports are for people; more lines than this help nobody, so the rest is dropped.
    pub const WAITS_MAX: usize = 100;

    /// Adds what `wait` makes, if there is room.
    pub(crate) fn push_with(&mut self, wait: impl FnOnce() -> Wait) {
        if self.waits.len() < Self::WAITS_MAX {
            self.waits.push(wait());
        }
    }

    pub(crate) fn push(&mut self, wait: Wait) {
        if self.waits.len() < Self::WAITS_MAX {
            self.waits.push(wait);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.waits.is_empty() {
            return f.write_str("nothing to do");
        }
        for (index, wait) in self.waits.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            wait.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RestartDelay { task, until } => {
                write!(f, "task {task} starts after the restart delay at {until:?}")
            }
            Self::CrashLoop {
                task,
                failures,
                cause,
                until,
            } => {
                let looping = rollout::crash_loop_text(*failures, cause, None);
                write!(f, "task {task} is {looping}, next try at {until:?}")
            }
            Self::OldTask { task, old, until } => write!(
                f,
                "task {task} starts when task {old} has stopped, at the latest at {until:?}"
            ),
            Self::RestartPolicy { task } => {
                write!(f, "restart policy leaves task {task} stopped")
            }
            Self::Drain { task } => {
                write!(
                    f,
                    "task {task} leaves its node when others of its service have moved"
                )
            }
            Self::Replacement { task, replacement } => {
                write!(
                    f,
                    "task {task} leaves its node when task {replacement} can take over"
                )
            }
            Self::UpdatedTask { task, until: None } => {
                write!(f, "updated task {task} is not running yet")
            }
            Self::UpdatedTask {
                task,
                until: Some(until),
            } => write!(
                f,
                "updated task {task} is not running yet, and fails the update at {until:?}"
            ),
            Self::UpdateDelay { until } => write!(f, "update delay lasts until {until:?}"),
            Self::UpdateMonitor { until } => write!(f, "updated tasks are watched until {until:?}"),
            Self::UpdatePaused => f.write_str("update is paused"),
            Self::NoNode { task, explanation } => write!(f, "task {task}: {explanation}"),
            Self::NoNetwork { target } => write!(f, "network {target} not found"),
            Self::NoAddress { name, .. } => {
                write!(f, "no available address in network {name}: all are in use")
            }
            Self::NoSlice { node } => {
                write!(f, "node {node}: no slice of the node network is left")
            }
            Self::AddressTaken { address, network } => {
                write!(f, "address {address} is not available in network {network}")
            }
            Self::NoPort { protocol } => {
                write!(f, "no {} port is left to publish", protocol.name())
            }
            Self::Endpoint { service } => {
                write!(f, "service {service} has not got its addresses yet")
            }
            Self::Network { network, reason } => write!(f, "network {network}: {reason}"),
            Self::Job(wait) => wait.fmt(f),
        }
    }
}
