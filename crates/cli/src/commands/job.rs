//! `skep job`: arguments, and which command gets them.

use std::{io::Write, process::ExitCode};

use clap::Subcommand;

use crate::args::Connection;

mod ls;
mod run;

/// What to do with jobs.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Subcommand)]
enum Verb {
    /// List jobs, how their last run went and when the next one is
    Ls,
    /// Run a job now
    Run(run::Args),
}

/// Runs a command of `skep job`.
pub(crate) async fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let client = args.connection.client()?;
    match &args.verb {
        Verb::Ls => ls::run(&client, out).await?,
        Verb::Run(run) => run::run(&client, run, out).await?,
    }
    Ok(ExitCode::SUCCESS)
}
