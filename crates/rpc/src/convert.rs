//! Between gRPC's statuses and the manager's and agent's errors. Texts pass unchanged unless they are very long: clients parse them.

use skep_manager::command::{Code as CommandCode, CommandError};
use skep_model::dispatch::DispatchError;
use skep_wire::proto;
use tonic::{Code, Status, metadata::MetadataValue};

use crate::{
    connection::DialError,
    error::{ErrorChain, RpcError},
    limits::TEXT_BYTES_MAX,
};

/// Metadata of a refusal that says: nothing was done, ask again.
const NOT_EXECUTED: &str = "skep-not-executed";
/// The dispatcher's texts, by which agents and we tell cases of one code apart.
const TOO_OFTEN: &str = "node registered too recently";
const NODE_NOT_FOUND: &str = "node not found";

/// What is told when the connection to the leader broke under a call; the transport's words help nobody.
const CONNECTION_LOST: &str = "the connection to the leader broke while it carried out the request; it \
                               is not known whether it took effect";

/// Label of the spec in a request to roll back, which Swarm leaves empty: the revision to go to.
const ROLLBACK_TO: &str = "skep.rollback.to";

/// A request to roll back names its revision in the spec that it does not need.
pub(crate) fn revision_request(number: u64) -> Option<proto::ServiceSpec> {
    let labels = [(ROLLBACK_TO.to_owned(), number.to_string())];
    Some(proto::ServiceSpec {
        annotations: Some(proto::Annotations {
            labels: labels.into(),
            ..proto::Annotations::default()
        }),
        ..proto::ServiceSpec::default()
    })
}

/// The revision such a request names.
pub(crate) fn requested_revision(spec: &proto::ServiceSpec) -> Option<u64> {
    let labels = &spec.annotations.as_ref()?.labels;
    labels.get(ROLLBACK_TO)?.parse().ok()
}

/// A refusal for want of a leader, or by a manager that does not run: certainly nothing was done.
pub(crate) fn not_executed(message: &str) -> Status {
    let mut status = Status::unavailable(message);
    status
        .metadata_mut()
        .insert(NOT_EXECUTED, MetadataValue::from_static("true"));
    status
}

/// Whether the manager said that nothing was done.
pub(crate) fn is_not_executed(status: &Status) -> bool {
    status.metadata().contains_key(NOT_EXECUTED)
}

/// There is no leader.
pub(crate) fn no_leader() -> Status {
    not_executed(skep_manager::core::NO_LEADER)
}

/// What a message that does not convert is answered with.
pub(crate) fn malformed(error: skep_wire::Error) -> Status {
    Status::invalid_argument(ErrorChain(&error).to_string())
}

/// What a caller is told when a manager behind us cannot be reached.
pub(crate) fn unreachable(error: &DialError) -> Status {
    not_executed(&ErrorChain(error).to_string())
}

// === commands ===

pub(crate) fn status_of_command(error: CommandError) -> Status {
    let code = match error.code {
        CommandCode::Unknown => Code::Unknown,
        CommandCode::InvalidArgument => Code::InvalidArgument,
        CommandCode::NotFound => Code::NotFound,
        CommandCode::AlreadyExists => Code::AlreadyExists,
        CommandCode::DeadlineExceeded => Code::DeadlineExceeded,
        CommandCode::PermissionDenied => Code::PermissionDenied,
        CommandCode::ResourceExhausted => Code::ResourceExhausted,
        CommandCode::FailedPrecondition => Code::FailedPrecondition,
        CommandCode::Aborted => Code::Aborted,
        CommandCode::OutOfRange => Code::OutOfRange,
        CommandCode::Unimplemented => Code::Unimplemented,
        // The manager's promise about this code.
        CommandCode::Unavailable => return not_executed(&error.message),
    };
    Status::new(code, fitting(error.message))
}

/// An error's text, cut where it would be too long.
fn fitting(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push('…');
    }
    text
}

/// A status of the leader as its own manager would have put it. `Unavailable` without the leader's word that nothing was done
/// becomes `Aborted`: the outcome is unknown.
pub(crate) fn command_error(status: &Status) -> CommandError {
    let code = match status.code() {
        Code::InvalidArgument => CommandCode::InvalidArgument,
        Code::NotFound => CommandCode::NotFound,
        Code::AlreadyExists => CommandCode::AlreadyExists,
        Code::DeadlineExceeded => CommandCode::DeadlineExceeded,
        Code::PermissionDenied | Code::Unauthenticated => CommandCode::PermissionDenied,
        Code::ResourceExhausted => CommandCode::ResourceExhausted,
        Code::FailedPrecondition => CommandCode::FailedPrecondition,
        Code::OutOfRange => CommandCode::OutOfRange,
        Code::Unimplemented => CommandCode::Unimplemented,
        Code::Unavailable if is_not_executed(status) => CommandCode::Unavailable,
        Code::Unavailable | Code::Aborted | Code::Cancelled => CommandCode::Aborted,
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => {
            if is_transport(status) {
                CommandCode::Aborted
            } else {
                CommandCode::Unknown
            }
        }
    };
    if code == CommandCode::Aborted && is_transport(status) {
        return CommandError::new(code, CONNECTION_LOST);
    }
    CommandError::new(code, status.message())
}

/// Whether a status was made here, because the connection broke, and not sent by the peer.
pub(crate) fn is_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

// === dispatcher ===

pub(crate) fn status_of_dispatch(error: &DispatchError) -> Status {
    match error {
        DispatchError::SessionInvalid => Status::invalid_argument(error.to_string()),
        DispatchError::NodeNotRegistered => Status::not_found(error.to_string()),
        DispatchError::NodeNotFound => Status::not_found(NODE_NOT_FOUND),
        DispatchError::PermissionDenied(reason) => Status::permission_denied(reason),
        DispatchError::RegisteredTooOften => Status::unavailable(TOO_OFTEN),
        DispatchError::NoLeader(reason) => not_executed(reason),
        DispatchError::Unavailable(reason) => Status::unavailable(reason),
    }
}

pub(crate) fn dispatch_error(status: &Status) -> DispatchError {
    let message = || status.message().to_owned();
    match status.code() {
        Code::InvalidArgument => DispatchError::SessionInvalid,
        Code::NotFound if status.message() == NODE_NOT_FOUND => DispatchError::NodeNotFound,
        Code::NotFound => DispatchError::NodeNotRegistered,
        Code::PermissionDenied | Code::Unauthenticated => {
            DispatchError::PermissionDenied(message())
        }
        Code::Unavailable if status.message() == TOO_OFTEN => DispatchError::RegisteredTooOften,
        Code::Unavailable if is_not_executed(status) => DispatchError::NoLeader(message()),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => DispatchError::Unavailable(message()),
    }
}

impl From<RpcError> for DispatchErrorOf {
    fn from(error: RpcError) -> Self {
        Self(match error {
            RpcError::Refused(status) => dispatch_error(&status),
            other => DispatchError::Unavailable(ErrorChain(&other).to_string()),
        })
    }
}

/// A failed call as an agent sees it.
pub(crate) struct DispatchErrorOf(pub(crate) DispatchError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dispatcher_says_reaches_the_agent_unchanged() {
        let errors = [
            DispatchError::SessionInvalid,
            DispatchError::NodeNotRegistered,
            DispatchError::NodeNotFound,
            DispatchError::PermissionDenied("why".to_owned()),
            DispatchError::RegisteredTooOften,
            DispatchError::NoLeader("none".to_owned()),
            DispatchError::Unavailable("stopping".to_owned()),
        ];
        for error in errors {
            assert_eq!(dispatch_error(&status_of_dispatch(&error)), error);
        }
    }

    #[test]
    fn only_a_refusal_that_says_so_counts_as_not_executed() {
        let refused = CommandError::new(CommandCode::Unavailable, "no leader");
        assert_eq!(command_error(&status_of_command(refused.clone())), refused);
        let lost = command_error(&Status::unavailable("connection reset"));
        assert_eq!(lost.code, CommandCode::Aborted);
    }
}
