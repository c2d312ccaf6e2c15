//! Commands on stacks as the calls of `skep.v1.Stacks` that carry them to the leader, and what is told when it is lost under one.
//!
//! Such a command is one entry or nothing, and most may be carried out twice: a deploy of what is deployed writes nothing.

use std::sync::Arc;

use skep_manager::command::{Answer, Code, Command, CommandError};
use skep_model::stack::StackOutcome;
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

/// Whether the command may be sent again when it is not known what became of it.
pub(super) fn is_repeatable(command: &Command) -> bool {
    match command {
        // Each would replace the tasks.
        Command::ApplyStack { options, .. } => !options.force,
        // Without a number the second would undo the first.
        Command::RollBackStack { number, .. } => number.is_some(),
        Command::RemoveStack { .. } => true,
        _ => false,
    }
}

/// The result of a command as its user is to know it; of one that is not of stacks as it is. `was_cut_off`: it was sent before, and it
/// is not known what became of that.
pub(super) fn told(
    command: &Command,
    result: Result<Answer, CommandError>,
    was_cut_off: bool,
) -> Result<Answer, CommandError> {
    let (name, deed) = match command {
        Command::ApplyStack { spec, .. } => (&spec.name, "deployed"),
        Command::RollBackStack { name, .. } => (name, "rolled back"),
        Command::RemoveStack { name } => (name, "removed"),
        _ => return result,
    };
    let Err(error) = result else { return result };
    let is_unknown = matches!(error.code, Code::Aborted | Code::DeadlineExceeded);
    if is_unknown || (was_cut_off && error.code == Code::Unavailable) {
        let advice = match command {
            _ if is_repeatable(command) => "asking again is safe".to_owned(),
            Command::RollBackStack { .. } => format!(
                "asking again may undo it: see `skep stack history {name}` first, or name the revision (`--to`)"
            ),
            _ => format!(
                "asking again would replace all tasks once more: see `skep stack ps {name}` first"
            ),
        };
        let message = format!(
            "the leader was lost or did not answer while stack {name} was {deed}; it is not known whether that took effect, but it did \
             wholly or not at all; {advice}"
        );
        return Err(CommandError::new(Code::Aborted, message));
    }
    if !was_cut_off {
        return Err(error);
    }
    match (command, error.code) {
        // The first did it.
        (Command::RemoveStack { .. }, Code::NotFound) => {
            Ok(Answer::Stack(Arc::new(StackOutcome::default())))
        }
        (Command::ApplyStack { options, .. }, Code::AlreadyExists) if options.expect.is_some() => {
            let message = format!(
                "{}; the leader was lost under a first try of this deploy, which may be what is in force: see `skep stack history {name}`",
                error.message
            );
            Err(CommandError::new(error.code, message))
        }
        _ => Err(error),
    }
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

#[cfg(test)]
mod tests {
    use skep_model::stack::{ApplyOptions, StackSpec};

    use super::*;

    fn apply(options: ApplyOptions) -> Command {
        let spec = StackSpec {
            name: "app".to_owned(),
            ..StackSpec::default()
        };
        let spec = Box::new(spec);
        Command::ApplyStack { spec, options }
    }

    fn lost(command: &Command, code: Code, was_cut_off: bool) -> Result<Answer, CommandError> {
        let error = CommandError::new(code, "connection error");
        told(command, Err(error), was_cut_off)
    }

    #[test]
    fn who_lost_the_leader_is_told_whether_to_ask_again() {
        let forced = apply(ApplyOptions {
            force: true,
            ..ApplyOptions::default()
        });
        let back = |number| Command::RollBackStack {
            name: "app".to_owned(),
            number,
        };
        let remove = Command::RemoveStack {
            name: "app".to_owned(),
        };
        let plain = apply(ApplyOptions::default());
        for (command, is_safe, part) in [
            (&plain, true, "stack app was deployed; "),
            (&forced, false, "would replace all tasks once more"),
            (&back(None), false, "asking again may undo it"),
            (&back(Some(2)), true, "was rolled back; "),
            (&remove, true, "was removed; "),
        ] {
            assert_eq!(is_repeatable(command), is_safe);
            let message = lost(command, Code::Aborted, false).unwrap_err().message;
            assert!(message.contains(part), "{message}");
            assert_eq!(
                message.ends_with("asking again is safe"),
                is_safe,
                "{message}"
            );
            assert!(!message.contains("connection error"), "{message}");
        }
        // No leader is no loss, but for a command that was on its way.
        let told = |was_cut_off| lost(&plain, Code::Unavailable, was_cut_off).unwrap_err();
        assert_eq!(told(false).message, "connection error");
        assert_eq!(told(true).code, Code::Aborted);
    }

    #[test]
    fn a_repeat_knows_of_the_first_try() {
        let remove = Command::RemoveStack {
            name: "app".to_owned(),
        };
        assert!(lost(&remove, Code::NotFound, true).is_ok());
        assert!(lost(&remove, Code::NotFound, false).is_err());
        let expecting = apply(ApplyOptions {
            expect: Some(1),
            ..ApplyOptions::default()
        });
        let message = |was_cut_off| {
            let result = lost(&expecting, Code::AlreadyExists, was_cut_off);
            result.unwrap_err().message
        };
        assert!(message(true).contains("may be what is in force"));
        assert_eq!(message(false), "connection error");
    }
}
