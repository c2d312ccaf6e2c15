//! Log lines of services and tasks, from the nodes they were written on to the API of any manager.
//!
//! [`Cluster::logs`](crate::Cluster::logs) asks the leader's broker. Each node runs [`serve`], which hears from the broker what is
//! wanted, reads it from its [`LogSource`] and sends it back. Each place where lines meet puts them into the order of their times
//! ([`Confluence`]). Memory is bounded on the way: a slow reader slows the nodes that read for it. Design: `docs/design/logs.md`.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use skep_manager::command::CommandError;
use skep_model::{NodeId, ServiceId, TaskId, Timestamp};
use tokio::sync::mpsc;

pub(crate) mod confluence;
pub(crate) mod convert;
pub(crate) mod merge;
pub(crate) mod positions;
mod publisher;
mod reader;

pub use self::{
    confluence::{Confluence, Inlet, Unread},
    convert::Malformed,
    merge::{Merge, Patience},
    publisher::serve,
};

/// Whose lines are wanted; all of what is named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogSelector {
    /// All tasks of these services.
    pub services: Vec<ServiceId>,
    /// All tasks on these nodes.
    pub nodes: Vec<NodeId>,
    /// These tasks.
    pub tasks: Vec<TaskId>,
}

/// Which of their lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// Include standard output.
    pub stdout: bool,
    /// Include standard error.
    pub stderr: bool,
    /// Go on with new lines, and with tasks that come later.
    pub follow: bool,
    /// Only so many last lines of each task; `None` for all.
    pub tail: Option<u64>,
    /// Only lines at or after this time.
    pub since: Option<Timestamp>,
    /// Only lines at or before this time. The reader's manager sees to it; nodes are not told.
    pub until: Option<Timestamp>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogMessage {
    /// Service of the task, if it has one.
    pub service_id: Option<ServiceId>,
    /// Node of the task.
    pub node_id: NodeId,
    /// The task.
    pub task_id: TaskId,
    /// When it was written.
    pub time: Timestamp,
    /// Whether it was written to standard error.
    pub is_stderr: bool,
    /// The text with its newline.
    pub data: Bytes,
    /// Details of the log driver, sorted by key.
    pub attributes: Vec<(String, String)>,
}

/// Lines in the order of their times; ends after an error.
pub type LogStream = mpsc::Receiver<Result<Vec<LogMessage>, CommandError>>;

/// What a node finds in its logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEvent {
    /// Lines.
    Lines(Vec<LogMessage>),
    /// All that was there when it was asked has been given; said once, only where new lines are followed.
    CaughtUp,
    /// A task's log cannot be read.
    Unreadable(Unreadable),
}

/// A task whose log cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Its service, if it has one.
    pub service_id: Option<ServiceId>,
    /// Its node.
    pub node_id: NodeId,
    /// The task.
    pub task_id: TaskId,
    /// Why not.
    pub reason: String,
}

/// The containers of this node, as far as their logs go.
pub trait LogSource: Send + Sync + 'static {
    /// The lines of this node's tasks that `selector` names, by time, each task's in its own order. Ends when all are read; with
    /// `follow` it goes on with tasks that arrive later, and never ends by itself. Dropping it ends the reading.
    fn read(
        &self,
        selector: LogSelector,
        options: LogOptions,
    ) -> Pin<Box<dyn Stream<Item = LogEvent> + Send>>;
}
