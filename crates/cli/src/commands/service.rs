//! `skep service`: arguments, and which command gets them.

use std::{io::Write, process::ExitCode};

use clap::Subcommand;

use crate::args::Connection;

mod history;
mod ls;
mod rollback;

/// What to do with services.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Subcommand)]
enum Verb {
    /// Show the specs kept of a service, and what each changed since the one in force before it
    History(history::Args),
    /// Show services and what is wrong with them
    Ls,
    /// Return to a spec the service had
    Rollback(rollback::Args),
}

/// Runs a command of `skep service`.
pub(crate) async fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let client = args.connection.client()?;
    match &args.verb {
        Verb::History(args) => history::run(&client, args, out).await?,
        Verb::Ls => ls::run(&client, out).await?,
        Verb::Rollback(args) => rollback::run(&client, args, out).await?,
    }
    Ok(ExitCode::SUCCESS)
}
