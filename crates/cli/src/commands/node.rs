//! `skep node`: arguments, and which command gets them.

use std::{io::Write, process::ExitCode};

use clap::Subcommand;

use crate::args::Connection;

mod drain;
mod rebalance;
mod ttl;

/// What to do with nodes.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Subcommand)]
enum Verb {
    /// Give a node's tasks to others
    Drain(drain::Args),
    /// Move running tasks to where they are spread better, once or from now on
    Rebalance(rebalance::Args),
    /// Show or set how long a worker may be down before it is removed
    Ttl(ttl::Args),
}

/// Runs a command of `skep node`.
pub(crate) async fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let client = args.connection.client()?;
    match &args.verb {
        Verb::Drain(args) => drain::run(&client, args, out).await?,
        Verb::Rebalance(args) => rebalance::run(&client, args, out).await?,
        Verb::Ttl(args) => ttl::run(&client, args, out).await?,
    }
    Ok(ExitCode::SUCCESS)
}
