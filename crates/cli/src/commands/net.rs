//! `skep net`: arguments, and which command gets them.

use std::{io::Write, process::ExitCode};

use clap::Subcommand;

use crate::args::Connection;

mod doctor;

/// What to do with networks.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Subcommand)]
enum Verb {
    /// Say what of a node's networks is not as it should be
    Doctor(doctor::Args),
}

/// Runs a command of `skep net`.
pub(crate) async fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::Doctor(doctor) => doctor::run(&args.connection, doctor, out).await,
    }
}
