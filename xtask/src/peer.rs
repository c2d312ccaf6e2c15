//! `xtask peer …`: what the benchmark of the data plane runs inside network namespaces of nodes and containers.
//!
//! Every peer ends when its standard input does, so that none outlives the benchmark.

use std::io;
use std::net::SocketAddr;
use std::process;
use std::thread;
use std::time::Duration;

mod dns;
mod pump;
mod watch;

/// Which peer.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, clap::Subcommand)]
enum Role {
    /// Answers measurements.
    Serve { address: SocketAddr },
    /// Measures the way to a serving peer: `<Gb/s> <µs> <connections/s>`.
    Measure {
        target: SocketAddr,
        /// Milliseconds of the measurement of throughput.
        #[arg(long, default_value_t = 1000)]
        millis: u64,
    },
    /// Asks a web server some times, on a new connection each; prints its answers.
    Ask {
        target: SocketAddr,
        #[arg(long, default_value_t = 1)]
        times: usize,
    },
    /// Tells again and again what a name and a virtual address lead to.
    Watch { name: String, target: SocketAddr },
}

/// Runs a peer.
#[expect(clippy::print_stdout, reason = "a peer tells on standard output")]
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    thread::spawn(end_with_input);
    match &options.role {
        Role::Serve { address } => pump::serve(*address),
        Role::Measure { target, millis } => {
            let figures = pump::measure(*target, Duration::from_millis(*millis))?;
            println!(
                "{} {} {}",
                figures.gigabits, figures.micros, figures.connections
            );
            Ok(())
        }
        Role::Ask { target, times } => {
            for _ in 0..*times {
                println!("{}", watch::ask(*target)?.trim());
            }
            Ok(())
        }
        Role::Watch { name, target } => watch::run(name, *target),
    }
}

#[expect(
    clippy::exit,
    reason = "the other threads are blocked in calls that nothing else ends"
)]
fn end_with_input() {
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    process::exit(0);
}
