//! What can be asked and how the daemon is reached; dispatch to the commands.

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, Subcommand};
use skep_docker_api::client::Client;

use crate::commands::{cluster, exec, job, local, net, node, service, stack, swarm, system};

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
    /// Drain nodes, forget dead ones
    Node(node::Args),
    /// Run a command beside a task, on whatever node it is
    Exec(exec::Args),
    /// List jobs, run one now
    Job(job::Args),
    /// Examine a node's networks
    Net(net::Args),
    /// See how services are, and return to specs they had
    Service(service::Args),
    /// Deploy applications of compose files
    Stack(stack::Args),
    /// Manage how nodes join
    Swarm(swarm::Args),
    /// Back up and restore the cluster
    Cluster(cluster::Args),
}

/// Which daemon to ask.
#[derive(Debug, Clone, Args)]
pub struct Connection {
    /// The daemon's address: unix:///PATH [default: DOCKER_HOST, else unix:///run/skep/skep.sock]
    #[arg(
        short = 'H',
        long,
        global = true,
        value_name = "ADDR",
        env = "SKEP_HOST"
    )]
    pub host: Option<String>,
    /// As the docker command finds its daemon
    #[arg(long, global = true, hide = true, env = "DOCKER_HOST")]
    pub docker_host: Option<String>,
}

impl Connection {
    /// Whether somebody said which daemon.
    pub(crate) fn is_named(&self) -> bool {
        self.named().is_some()
    }

    fn named(&self) -> Option<&str> {
        let named = [&self.host, &self.docker_host];
        let mut named = named.into_iter().flatten().map(String::as_str);
        named.find(|host| !host.is_empty())
    }

    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let host = self.named().unwrap_or(DEFAULT_HOST);
        let path = host.strip_prefix("unix://").map(PathBuf::from);
        let path = path.with_context(|| format!("`{host}` is not a unix:// address"))?;
        Ok(Client::unix(path))
    }
}

/// Runs `command`, writes what it found to `out`, and returns the program's exit code.
pub async fn run(command: &Command, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    match command {
        Command::Version(connection) => system::version(&connection.client()?, out).await?,
        Command::Info(connection) => system::info(&connection.client()?, out).await?,
        Command::Local(args) => return local::run(args, out).await,
        Command::Exec(args) => return exec::run(args, out).await,
        Command::Job(args) => return job::run(args, out).await,
        Command::Net(args) => return net::run(args, out).await,
        Command::Node(args) => return node::run(args, out).await,
        Command::Service(args) => return service::run(args, out).await,
        Command::Stack(args) => return stack::run(args, out).await,
        Command::Swarm(args) => return swarm::run(args, out).await,
        Command::Cluster(args) => return cluster::run(args, out).await,
    }
    Ok(ExitCode::SUCCESS)
}
