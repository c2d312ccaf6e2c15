//! Errors of the parts below, as the API tells them.

use skep_docker_api::error::{ApiError, ErrorKind};
use skep_executor::local_network;
use skep_manager::command::{Code, CommandError};

/// How moby shows a gRPC error of the control plane: class to status, text with the code's name.
pub(crate) fn from_command(error: &CommandError) -> ApiError {
    let kind = match error.code {
        Code::InvalidArgument | Code::FailedPrecondition => ErrorKind::InvalidArgument,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::Conflict,
        Code::OutOfRange => ErrorKind::TooLarge,
        Code::Unimplemented => ErrorKind::NotImplemented,
        Code::Unavailable => ErrorKind::Unavailable,
        Code::PermissionDenied => ErrorKind::Forbidden,
        Code::Unknown | Code::ResourceExhausted | Code::Aborted | Code::DeadlineExceeded => {
            ErrorKind::System
        }
    };
    ApiError::new(kind, error.to_string())
}

/// Status of what a network of this node cannot be, as Docker has it.
pub(crate) fn from_local_network(error: local_network::Error) -> ApiError {
    use local_network::Error;
    let kind = match &error {
        Error::Invalid(_) | Error::PoolsExhausted | Error::AddressesExhausted { .. } => {
            ErrorKind::InvalidArgument
        }
        Error::Forbidden(_) => ErrorKind::Forbidden,
        Error::NameTaken(_) => ErrorKind::Conflict,
        Error::NotFound(_) | Error::NoSettings(_) => ErrorKind::NotFound,
        Error::Kernel { .. } | Error::Files(_) => ErrorKind::System,
    };
    ApiError::new(kind, error.to_string())
}
