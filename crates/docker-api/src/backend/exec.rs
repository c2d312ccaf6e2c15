//! Commands run in a container beside its main process.

use std::fmt;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::backend::{BoxStream, ConsoleSize};

/// A command to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecConfig {
    /// Path and arguments; never empty.
    pub command: Vec<String>,
    /// `KEY=value` over the container's own.
    pub env: Vec<String>,
    /// User; empty: the container's.
    pub user: String,
    /// Directory; empty: the container's.
    pub working_dir: String,
    /// All privileges.
    pub is_privileged: bool,
    /// Allocate a terminal.
    pub has_tty: bool,
    /// Connect stdin.
    pub attach_stdin: bool,
    /// Connect stdout.
    pub attach_stdout: bool,
    /// Connect stderr.
    pub attach_stderr: bool,
    /// Initial size of the terminal.
    pub console_size: Option<ConsoleSize>,
}

/// How to start it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExecStart {
    /// Do not connect its streams.
    pub is_detached: bool,
    /// Initial size of the terminal.
    pub console_size: Option<ConsoleSize>,
}

/// A command that was prepared, runs, or ran.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecDetail {
    /// Exec id.
    pub id: String,
    /// Its container, whole id.
    pub container_id: String,
    /// What it runs.
    pub config: ExecConfig,
    /// Whether it runs.
    pub is_running: bool,
    /// Set once it has ended.
    pub exit_code: Option<i32>,
    /// Process id on the host; 0 when it does not run.
    pub pid: i32,
}

/// A command that runs beside a task, on whatever node. When it is dropped the command goes on unheard.
pub struct TaskExec {
    /// To the command.
    pub input: mpsc::Sender<TaskInput>,
    /// From the command; the last is [`TaskOutput::Exit`] or [`TaskOutput::Failed`].
    pub output: BoxStream<TaskOutput>,
}

/// What a command gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskInput {
    /// For its standard input.
    Data(Bytes),
    /// No more of it.
    End,
    /// Its terminal's size.
    Resize(ConsoleSize),
}

/// What a command gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskOutput {
    /// Standard output, or the terminal.
    Stdout(Bytes),
    /// Standard error.
    Stderr(Bytes),
    /// Its exit code.
    Exit(i32),
    /// It was lost, and why.
    Failed(String),
}

impl fmt::Debug for TaskExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskExec").finish_non_exhaustive()
    }
}
