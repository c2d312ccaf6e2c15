//! The one binary: the daemon, the per-container monitor, the tunnel and the command line.

use std::{env, io, process::ExitCode};

use clap::{Parser, Subcommand};

/// Docker Swarm's successor
#[derive(Debug, Parser)]
#[command(name = "skep", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Daemon(Box<skep_daemon::Args>),
    #[command(flatten)]
    Client(skep_cli::Command),
}

fn main() -> ExitCode {
    // Monitor and tunnel must stay small: they are entered before anything else is set up.
    let mut args = env::args_os().skip(1);
    match args.next() {
        Some(word) if word == "monitor" => return skep_executor::monitor::main(args.collect()),
        Some(word) if word == "tunnel" => return skep_network::tunnel::main(args.collect()),
        _ => {}
    }
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the last word of a failed program")]
            {
                eprintln!("skep: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Daemon(args) => skep_daemon::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Client(command) => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(skep_cli::run(&command, &mut io::stdout()))
        }
    }
}
