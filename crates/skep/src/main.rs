//! The one binary: the daemon, the per-container monitor and the command line.

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
    // The monitor must stay small: it is entered before anything else is set up.
    let mut args = env::args_os().skip(1);
    if args.next().is_some_and(|word| word == "monitor") {
        return skep_executor::monitor::main(args.collect());
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
