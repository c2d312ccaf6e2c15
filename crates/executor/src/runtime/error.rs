//! What can go wrong between the daemon and a container.

use std::{fmt, io, path::PathBuf};

use super::{config::ContainerId, spec, user};
use crate::monitor::protocol::RefusalKind;

/// One failed operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no OCI runtime found on this node: install `crun` or `runc`")]
    NoOciRuntime,
    #[error("OCI runtime `{path}` does not work: {message}")]
    BrokenOciRuntime { path: PathBuf, message: String },
    /// The container or exec session never ran. `message` is Docker's sentence, `code` the exit code clients see (126, 127, 128).
    #[error("{message}")]
    NotRun { code: i32, message: String },
    #[error("no such container: {0}")]
    NotFound(ContainerId),
    #[error("container `{0}` already exists")]
    Exists(ContainerId),
    #[error("container {0} is not running")]
    NotRunning(ContainerId),
    /// The monitor said no.
    #[error("{message}")]
    Refused { kind: RefusalKind, message: String },
    #[error("the monitor of container `{0}` is gone")]
    MonitorGone(ContainerId),
    #[error("container `{id}` did not {what} in time")]
    TimedOut { id: ContainerId, what: &'static str },
    /// The exec session was killed.
    #[error("the process did not end within its time limit")]
    TimeLimit,
    #[error("failed to {action} `{path}`")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to talk to the monitor")]
    Protocol(#[source] io::Error),
    #[error("invalid mount config for type \"bind\": bind source path does not exist: {}", .0.display())]
    MissingSource(PathBuf),
    /// A mount is to be shared that the host does not share. The text is Docker's.
    #[error("path {} is mounted on {} but it is not a {wanted} mount", .path.display(), .mount.display())]
    NotShared {
        path: PathBuf,
        mount: PathBuf,
        wanted: &'static str,
    },
    #[error("{0}")]
    Top(String),
    /// Docker's words.
    #[error("configured logging driver does not support reading")]
    NoLog,
    #[error(transparent)]
    Spec(#[from] spec::Error),
    #[error(transparent)]
    User(#[from] user::Error),
}

/// Every failure of an undo that went on regardless.
#[derive(Debug)]
pub struct ErrorList(pub Vec<Error>);

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

impl fmt::Display for ErrorList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ErrorList {}
