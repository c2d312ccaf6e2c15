//! The project's own tasks: `cargo xtask verify` is the gate, `cargo xtask fix` its writing counterpart.
//!
//! Structural rules are tests in `tests/tidy.rs`, so that the gate runs them with all others.

use std::process::ExitCode;

use clap::Parser;

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
mod task;
mod verify;

#[expect(
    clippy::print_stderr,
    reason = "a command-line tool says what went wrong"
)]
fn main() -> ExitCode {
    match task::Args::parse().task.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
