//! `skep local exec`

use std::process::{Command, ExitCode};

use anyhow::Context;

use crate::local::{machine::Machine, namespace};

/// What runs when no command is named.
const SHELL: &str = "bash";
/// As shells say that a program died of a signal.
const KILLED: u8 = 137;

/// What to run, and where.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// The node
    node: String,
    /// The command; DOCKER_HOST is set to the node's daemon
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(super) fn run(machine: &Machine, args: &Args) -> anyhow::Result<ExitCode> {
    let number = machine.state.number_of(&args.node)?;
    let holder = machine.state.holder(number);
    let holder = holder.with_context(|| format!("{} is off", args.node))?;
    let shell = [SHELL.to_owned()];
    let line = if args.command.is_empty() {
        &shell[..]
    } else {
        &args.command
    };
    let (program, arguments) = line.split_first().context("no command")?;
    let socket = format!("unix://{}", machine.layout.socket(number).display());
    let mut command = Command::new(program);
    command.args(arguments).env("DOCKER_HOST", socket);
    let status = namespace::spawn_in(&holder, false, &mut command)?.wait()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.unwrap_or(KILLED).into())
}
