//! Log lines on their way to a client.

use bytes::Bytes;
use skep_model::{NodeId, ServiceId, TaskId, Timestamp};

/// Where a line was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogSource {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line, or a part of a very long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogMessage {
    /// Which stream.
    pub source: LogSource,
    /// When it was written.
    pub time: Timestamp,
    /// The text with its newline; a part of a longer line has none.
    pub data: Bytes,
    /// Driver's details (`labels`, `env` options), sorted by key.
    pub attributes: Vec<(String, String)>,
    /// Whose line it is; set for service logs, `None` for container logs.
    pub origin: Option<LogOrigin>,
}

/// The task a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOrigin {
    /// Its node.
    pub node: NodeId,
    /// Its service.
    pub service: ServiceId,
    /// The task.
    pub task: TaskId,
}

/// Which lines are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// Include standard output.
    pub stdout: bool,
    /// Include standard error.
    pub stderr: bool,
    /// Keep the stream open for new lines.
    pub follow: bool,
    /// Only lines at or after this time.
    pub since: Option<Timestamp>,
    /// Only lines at or before this time.
    pub until: Option<Timestamp>,
    /// How many old lines.
    pub tail: Tail,
    /// Fill in [`LogMessage::attributes`].
    pub details: bool,
}

/// How many old lines are wanted; per task for service logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tail {
    /// All.
    #[default]
    All,
    /// The last so many.
    Lines(u64),
}
