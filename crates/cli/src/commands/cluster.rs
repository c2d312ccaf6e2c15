//! `skep cluster`: arguments, and which command gets them.

use std::{io::Write, process::ExitCode};

use clap::Subcommand;

use crate::args::Connection;

mod backup;
mod restore;

/// What to do with the cluster as a whole.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Subcommand)]
enum Verb {
    /// Write the cluster's state and keys to a file
    Backup(backup::Args),
    /// Start a cluster from a backup on a node that is in none
    Restore(restore::Args),
}

/// Runs a command of `skep cluster`.
pub(crate) async fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let client = args.connection.client()?;
    match &args.verb {
        Verb::Backup(args) => backup::run(&client, args, out).await?,
        Verb::Restore(args) => restore::run(&client, args, out).await?,
    }
    Ok(ExitCode::SUCCESS)
}
