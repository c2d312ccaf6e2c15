//! Why a call to a manager failed.

use tonic::Status;

use crate::connection::DialError;

/// A failed call to a manager.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// This node knows no manager.
    #[error("no manager is known")]
    NoManager,
    /// No connection could be made.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The manager refused, or the connection was lost.
    #[error("rpc error: code = {:?} desc = {}", .0.code(), .0.message())]
    Refused(Box<Status>),
    /// The answer is not what the protocol says.
    #[error("manager `{addr}` gave a malformed answer: {problem}")]
    Malformed {
        /// Which manager.
        addr: String,
        /// What is wrong.
        problem: String,
    },
    /// No answer in time.
    #[error("manager `{0}` did not answer in time")]
    Deadline(String),
}

impl RpcError {
    /// Whether the cluster knows this node no more, or denies it what it asks for.
    pub fn is_permission_denied(&self) -> bool {
        matches!(self, Self::Refused(status) if status.code() == tonic::Code::PermissionDenied)
    }
}

impl From<Status> for RpcError {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

/// An error with everything that caused it, in one line.
pub(crate) struct ErrorChain<'a>(pub(crate) &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
