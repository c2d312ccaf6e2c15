//! `skep swarm`: arguments, and which command gets them.

use std::{io::Write, process::ExitCode};

use clap::Subcommand;

use crate::args::Connection;

mod join_token;

/// What to do with membership.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Subcommand)]
enum Verb {
    /// Show a join token, limit it, or replace it
    JoinToken(join_token::Args),
}

/// Runs a command of `skep swarm`.
pub(crate) async fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let client = args.connection.client()?;
    match &args.verb {
        Verb::JoinToken(args) => join_token::run(&client, args, out).await?,
    }
    Ok(ExitCode::SUCCESS)
}
