//! What the agent needs of a node: [`Executor`] for the node, [`Controller`] for one task's container.
//!
//! The agent owns these traits and `skep-executor` implements them; the simulator and the tests have
//! fakes. The agent calls one operation of a controller at a time, except that the status readers
//! may run right after an operation. When the desired state overtakes a running operation the agent
//! **drops its future**: every method must be safe to drop at any await and to be called again.
//! Dropping a controller or an executor never touches a container; containers outlive the daemon.

use std::sync::Arc;

use async_trait::async_trait;
use skep_model::{ContainerStatus, Node, NodeDescription, PortConfig, Task, TaskId};

pub use crate::core::Supplies;

/// A node that can run tasks.
#[async_trait]
pub trait Executor: Send + Sync + 'static {
    /// Resources, platform, engine version and plugins. Called at start and about every 20 s; must
    /// be stable while nothing changed, since a change re-opens the session.
    async fn describe(&self) -> Result<NodeDescription, ExecError>;

    /// The node object changed (labels, role, data-path port). Idempotent.
    async fn configure(&self, node: &Node) -> Result<(), ExecError>;

    /// Secrets and configs that tasks may use from now on, and those they may not any more. Cheap, no
    /// IO that can wait. What a container was made with stays with it until it is removed.
    fn supply(&self, supplies: Supplies);

    /// The controller of `task`. Cheap, no IO that can wait; adopts a container of that task if
    /// there is one. [`ControllerError::Unsupported`] rejects the task.
    fn controller(&self, task: &Task) -> Result<Arc<dyn Controller>, ControllerError>;

    /// Tasks of which this node has containers, running or not.
    async fn known_tasks(&self) -> Vec<TaskId>;

    /// Stops and deletes whatever this node has of a task the cluster no longer knows. Idempotent;
    /// an error is retried.
    async fn remove_orphan(&self, task: TaskId) -> Result<(), ControllerError>;
}

/// One task's container.
#[async_trait]
pub trait Controller: Send + Sync + 'static {
    /// The task's settings changed (endpoint, annotations, desired state); its spec never does.
    async fn update(&self, task: &Task) -> Result<(), ControllerError>;

    /// Pulls the image and creates the container.
    /// [`ControllerError::AlreadyPrepared`] counts as success.
    async fn prepare(&self) -> Result<(), ControllerError>;

    /// Starts the container; with a health check, returns once it has passed. Not yet ready is
    /// [`ControllerError::Temporary`].
    /// [`ControllerError::AlreadyStarted`] counts as success. For a container that ended before it
    /// was healthy: [`ControllerError::Exited`].
    async fn start(&self) -> Result<(), ControllerError>;

    /// Returns when the container ended, and ends one that becomes unhealthy:
    /// [`Waited::Ended`] for exit code 0, [`ControllerError::Exited`] for others. Returns also when the container
    /// is ready and `is_ready` is false, or the other way round. Returns at once for a container that has already
    /// ended, and [`ControllerError::Fatal`] for one that does not exist.
    async fn wait(&self, is_ready: bool) -> Result<Waited, ControllerError>;

    /// Waits for connections the task serves, as its service's policy says; then stop signal, grace
    /// period, SIGKILL; returns when the container ended. `Ok` when there is no container. Return
    /// [`ControllerError::Temporary`] unless nothing can be running any more.
    async fn shutdown(&self) -> Result<(), ControllerError>;

    /// SIGKILL now. `Ok` when there is no container.
    async fn terminate(&self) -> Result<(), ControllerError>;

    /// Deletes the container and its anonymous volumes. Idempotent; an error is retried.
    async fn remove(&self) -> Result<(), ControllerError>;

    /// The container's id, pid and exit code; `None` while there is none.
    async fn container_status(&self) -> Option<ContainerStatus>;

    /// Host-mode ports in use.
    async fn port_status(&self) -> Vec<PortConfig>;
}

/// What [`Controller::wait`] saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waited {
    /// The container ended with code 0.
    Ended,
    /// It is ready now.
    Ready,
    /// It is not ready any more, for this reason.
    NotReady(String),
}

/// An operation of a [`Controller`], as the task machine orders it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// Get the controller from the executor. Always the first.
    Resolve,
    /// [`Controller::update`] with the newest task.
    Update,
    /// [`Controller::prepare`].
    Prepare,
    /// [`Controller::start`].
    Start,
    /// [`Controller::wait`].
    Wait {
        /// What managers were told.
        is_ready: bool,
    },
    /// [`Controller::update`] with the newest task, then [`Controller::shutdown`].
    Shutdown,
    /// [`Controller::terminate`].
    Terminate,
    /// [`Controller::remove`].
    Remove,
}

/// How an [`Op`] ended. Every operation that was ordered ends in exactly one of these, also when it
/// was cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The operation's own result.
    pub result: OpResult,
    /// [`Controller::container_status`] right after it; not read after `Resolve`, `Update` and
    /// `Remove`.
    pub container: Option<ContainerStatus>,
    /// [`Controller::port_status`] right after it; read like `container`.
    pub ports: Vec<PortConfig>,
}

/// Result of an [`Op`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpResult {
    /// It succeeded.
    Done,
    /// The container goes on, but its readiness is another: why it is not ready, or `None` if it is. Only of
    /// [`Op::Wait`].
    Turned(Option<String>),
    /// It was dropped because the desired state overtook it.
    Cancelled,
    /// It failed.
    Failed(ControllerError),
}

impl Outcome {
    /// An outcome without container or ports.
    pub fn bare(result: OpResult) -> Self {
        Self {
            result,
            container: None,
            ports: Vec::new(),
        }
    }
}

/// Why an operation on a task's container failed. Its text is the task's `err` in Docker's API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControllerError {
    /// May work later; the operation is retried after a second.
    #[error("{0}")]
    Temporary(String),
    /// Will not work for this task: it is rejected before it started, failed afterwards.
    #[error("{0}")]
    Fatal(String),
    /// The container ended with a code other than 0. Text as Docker shows it.
    #[error("task: non-zero exit ({code}){}", cause_suffix(.cause.as_deref()))]
    Exited {
        /// Exit code; 128 + signal number for a signal.
        code: i32,
        /// What is known beyond the code, e.g. the runtime's error or [`OOM_CAUSE`].
        cause: Option<String>,
    },
    /// The container was created before.
    #[error("task already prepared")]
    AlreadyPrepared,
    /// The container was started before.
    #[error("task already started")]
    AlreadyStarted,
    /// The task asks for something this executor does not do.
    #[error("{0} is not supported")]
    Unsupported(String),
}

/// [`ControllerError::Exited`] cause for a container the kernel killed for lack of memory.
pub const OOM_CAUSE: &str = "OOMKilled";

/// [`ControllerError::Exited`] cause for a container that was stopped because its health check failed;
/// Docker's text.
pub const UNHEALTHY_CAUSE: &str = "dockerexec: unhealthy container";

impl ControllerError {
    /// The exit code to show with the container, if this error brings one.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Exited { code, .. } => Some(*code),
            Self::Temporary(_)
            | Self::Fatal(_)
            | Self::AlreadyPrepared
            | Self::AlreadyStarted
            | Self::Unsupported(_) => None,
        }
    }
}

fn cause_suffix(cause: Option<&str>) -> String {
    cause.map_or_else(String::new, |cause| format!(": {cause}"))
}

/// Why an operation on the node failed.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The node could not be described.
    #[error("failed to describe the node")]
    Describe(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The node's new settings could not be applied.
    #[error("failed to configure the node")]
    Configure(#[source] Box<dyn std::error::Error + Send + Sync>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_texts_are_dockers() {
        let plain = ControllerError::Exited {
            code: 1,
            cause: None,
        };
        assert_eq!(plain.to_string(), "task: non-zero exit (1)");
        let oom = ControllerError::Exited {
            code: 137,
            cause: Some(OOM_CAUSE.to_owned()),
        };
        assert_eq!(oom.to_string(), "task: non-zero exit (137): OOMKilled");
    }
}
