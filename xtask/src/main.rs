//! The project's own tasks: `cargo xtask verify` is the gate, `cargo xtask fix` its writing counterpart.
//!
//! Structural rules are tests in `tests/tidy.rs`, so that the gate runs them with all others.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod chaos;
mod failover;
mod fix;
mod local_cluster;
mod mesh;
mod metadata;
mod peer;
mod smoke;
mod step;
mod verify;

#[derive(Debug, Parser)]
#[command(about = "The project's own tasks")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
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

#[expect(
    clippy::print_stderr,
    reason = "a command-line tool says what went wrong"
)]
fn main() -> ExitCode {
    let outcome = match Args::parse().task {
        Task::Verify => verify::run(),
        Task::Fix => fix::run(),
        Task::Bench(options) => bench::run(&options),
        Task::Failover(options) => failover::run(&options),
        Task::Chaos(options) => chaos::run(&options),
        Task::Mesh(options) => mesh::run(&options),
        Task::Peer(options) => peer::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
