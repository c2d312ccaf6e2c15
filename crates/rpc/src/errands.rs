//! What a manager has a node do at once: a command in a task's container, an examination of its networks. Design:
//! `docs/design/remote-exec.md`.
//!
//! [`Cluster::errand`](crate::Cluster::errand) asks the leader. Each node runs [`serve`], which hears from the leader that there is
//! something to do and dials it for the two-way stream; the leader passes both directions on. An errand is given out once, and its
//! streams are as slow as their slowest end.

use async_trait::async_trait;
use bytes::Bytes;
use skep_model::TaskId;
use tokio::sync::mpsc;

mod carrier;
pub(crate) mod convert;
mod request;

pub use self::{carrier::serve, request::Session};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// A command in a task's container.
    Command(TaskCommand),
    /// A look at the node's networks, and the repair of what can be repaired.
    Examination {
        /// Repair too.
        heal: bool,
    },
}

/// A command beside a task's main process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskCommand {
    /// In whose container.
    pub task_id: TaskId,
    /// Program and arguments; never empty.
    pub args: Vec<String>,
    /// Variables over the container's own.
    pub env: Vec<String>,
    /// Empty: the container's.
    pub user: String,
    /// Empty: the container's.
    pub dir: String,
    /// With a terminal.
    pub has_tty: bool,
    /// With input.
    pub has_input: bool,
    /// With all privileges.
    pub is_privileged: bool,
    /// Nobody waits for its output and its end.
    pub is_detached: bool,
    /// Of the terminal at first.
    pub size: Option<WindowSize>,
}

/// A terminal's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// What is sent to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// For its standard input.
    Data(Bytes),
    /// No more input.
    End,
    /// Its terminal has another size.
    Resize(WindowSize),
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// The command runs.
    Started,
    /// It wrote to standard output, or its terminal.
    Stdout(Bytes),
    /// It wrote to standard error.
    Stderr(Bytes),
    /// The last.
    End(End),
}

/// How an errand ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The command ended.
    Exit(i32),
    /// What an examination found, in the words of the node's API.
    Report(String),
    /// It was not done, or not to its end.
    Failed(Failure),
}

/// Why an errand was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// For the user.
    pub message: String,
}

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Ours.
    System,
    /// What is named does not exist on the node.
    NotFound,
    /// Its state forbids it.
    Conflict,
    /// The wish itself is wrong.
    Invalid,
    /// The node cannot be reached.
    Unavailable,
}

/// A node, as far as errands go.
#[async_trait]
pub trait Runner: Send + Sync + 'static {
    /// Does it. Whoever wants it may go: then nobody hears of `news`, no input comes, and a command goes on.
    async fn run(&self, work: Work, input: mpsc::Receiver<Input>, news: mpsc::Sender<News>) -> End;
}

impl Failure {
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self {
            kind: FailureKind::Unavailable,
            message: message.into(),
        }
    }
}
