//! Commands on stacks as the calls of `skep.v1.Stacks` that carry them to the leader.

use std::sync::Arc;

use skep_manager::command::{Answer, Code, Command, CommandError};
use skep_wire::peer::{
    ApplyStackRequest, RemoveStackRequest, RollBackStackRequest, stacks_client::StacksClient,
};

use crate::{connection::Connection, convert::command_error};

/// Whether the command is one of these.
pub(super) fn is_of_stacks(command: &Command) -> bool {
    matches!(
        command,
        Command::ApplyStack { .. } | Command::RollBackStack { .. } | Command::RemoveStack { .. }
    )
}

/// A command as the call that carries it.
pub(super) async fn call(
    mut client: StacksClient<Connection>,
    command: &Command,
) -> Result<Answer, CommandError> {
    let answer = match command {
        Command::ApplyStack { spec, options } => {
            let request = ApplyStackRequest {
                spec: Some((&**spec).into()),
                expect: options.expect,
                prune: options.prune,
                force: options.force,
            };
            Box::pin(client.apply(request)).await
        }
        Command::RollBackStack { name, number } => {
            let request = RollBackStackRequest {
                name: name.clone(),
                number: *number,
            };
            Box::pin(client.roll_back(request)).await
        }
        Command::RemoveStack { name } => {
            let request = RemoveStackRequest { name: name.clone() };
            Box::pin(client.remove(request)).await
        }
        _ => {
            let message = "this command is not passed on";
            return Err(CommandError::new(Code::Unimplemented, message));
        }
    };
    let answer = answer.map_err(|status| command_error(&status))?;
    Ok(Answer::Stack(Arc::new(answer.into_inner().into())))
}
