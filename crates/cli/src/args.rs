//! What can be asked and how the daemon is reached; dispatch to the commands.

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, Subcommand};
use skep_docker_api::client::Client;

use crate::commands::{local, system};

/// Socket of a daemon with default settings.
const DEFAULT_HOST: &str = "unix:///run/skep/skep.sock";

/// What to ask the daemon.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Show the versions of this program and of the daemon
    Version(Connection),
    /// Show what the daemon knows of its node and cluster
    Info(Connection),
    /// Run a whole cluster on this machine, for trying out and testing
    Local(local::Args),
}

/// Which daemon to ask.
#[derive(Debug, Clone, Args)]
pub struct Connection {
    /// The daemon's address: unix:///PATH
    #[arg(short = 'H', long, value_name = "ADDR", env = "SKEP_HOST", default_value = DEFAULT_HOST)]
    pub host: String,
}

impl Connection {
    fn client(&self) -> anyhow::Result<Client> {
        let path = self.host.strip_prefix("unix://").map(PathBuf::from);
        let path = path.with_context(|| format!("`{}` is not a unix:// address", self.host))?;
        Ok(Client::unix(path))
    }
}

/// Runs `command`, writes what it found to `out`, and returns the program's exit code.
pub async fn run(command: &Command, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    match command {
        Command::Version(connection) => system::version(&connection.client()?, out).await?,
        Command::Info(connection) => system::info(&connection.client()?, out).await?,
        Command::Local(args) => return local::run(args, out).await,
    }
    Ok(ExitCode::SUCCESS)
}
