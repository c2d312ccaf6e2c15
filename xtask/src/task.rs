//! The tasks by name, and what runs each.

use clap::{Parser, Subcommand};

use crate::{bench, chaos, failover, fix, mesh, peer, verify};

#[derive(Debug, Parser)]
#[command(about = "The project's own tasks")]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) task: Task,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Checks everything a change must pass; never writes the tree.
    Verify,
    /// Formats, applies what clippy knows to fix, and rewrites expected test output.
    Fix,
    /// Measures a daemon that speaks Docker's Engine API.
    Bench(bench::Options),
    /// Measures what a cluster on this machine loses with a leader or a node.
    Failover(failover::Options),
    /// Kills and cuts off managers of a cluster on this machine, and checks that nothing was lost.
    Chaos(chaos::Options),
    /// Measures networks and published ports of a cluster on this machine, and checks whom servers see.
    Mesh(mesh::Options),
    /// A part of `mesh` that runs in another network namespace.
    #[command(hide = true)]
    Peer(peer::Options),
}

impl Task {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Verify => verify::run(),
            Self::Fix => fix::run(),
            Self::Bench(options) => bench::run(&options),
            Self::Failover(options) => failover::run(&options),
            Self::Chaos(options) => chaos::run(&options),
            Self::Mesh(options) => mesh::run(&options),
            Self::Peer(options) => peer::run(&options),
        }
    }
}
