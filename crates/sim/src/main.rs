//! `skep-sim`: runs, replays and hunts seeds. See `skep_sim::cli`.

use std::process::ExitCode;

use clap::Parser as _;
use skep_sim::cli::Args;

fn main() -> ExitCode {
    let mut out = std::io::stdout().lock();
    match Args::parse().run(&mut out) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nobody reads the output any more, or a file could not be written.
            let _ = std::io::Write::write_fmt(&mut out, format_args!("error: {error:#}\n"));
            ExitCode::from(2)
        }
    }
}
