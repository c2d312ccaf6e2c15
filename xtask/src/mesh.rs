//! `cargo xtask mesh`: whom servers see behind published ports, what requests fail while services and nodes change, how soon a
//! change is seen everywhere, and what an overlay network costs beside the wire below it and beside Docker's.
//!
//! Wrong addresses and failed requests make it fail; times do not. `docs/benchmarks.md` says what the figures mean.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};

use crate::bench::machine::load;
use crate::bench::sample::{Disturbance, Report};

mod changes;
mod clients;
mod cuts;
mod docker_lab;
mod faults;
mod lab;
mod news;
mod paths;
mod wrk;

use faults::Faults;
use lab::Lab;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The program, best a release build.
    #[arg(long, default_value = "target/release/skep")]
    skep: PathBuf,
    /// Rounds of the way's figures, and of each change under load.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Endpoints that are added and removed again.
    #[arg(long, default_value_t = 20)]
    endpoints: usize,
    /// Milliseconds of each measurement of throughput.
    #[arg(long, default_value_t = 1000)]
    millis: u64,
    /// The longest a leaving task waits for its connections: label `skep.drain`.
    #[arg(long, default_value = "2s")]
    drain: String,
    /// Only changes whose names have this text.
    #[arg(long, default_value = "")]
    change: String,
    /// Do not measure Docker's overlay network beside.
    #[arg(long)]
    no_docker: bool,
    /// Parts; all when none is named.
    #[arg(long, value_enum)]
    only: Vec<Part>,
}

/// A part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Whom servers see.
    Clients,
    /// Requests while services and nodes change.
    Changes,
    /// Requests while a node is cut off.
    Cuts,
    /// How soon names and virtual addresses follow.
    News,
    /// Ways between containers.
    Paths,
}

/// Measures, and prints tables and a line of JSON.
#[expect(clippy::print_stdout, reason = "the figures are the command's output")]
#[expect(clippy::print_stderr, reason = "progress belongs on standard error")]
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    ensure!(
        is_root()?,
        "needs root: it makes namespaces and containers in them"
    );
    let is_wanted = |part| options.only.is_empty() || options.only.contains(&part);
    let mut report = Report::default();
    let mut faults = Faults::default();
    let lab = Lab::start(&options.skep, &options.drain)?;
    if is_wanted(Part::Clients) {
        eprintln!("whom servers see");
        clients::check(&lab, &mut faults)?;
    }
    if is_wanted(Part::Changes) {
        for round in 1..=options.rounds {
            eprintln!("changes under load, round {round}");
            changes::round(&lab, &options.change, &mut faults)?;
            eprintln!("{}", faults.table());
        }
    }
    if is_wanted(Part::Cuts) {
        eprintln!("a node cut off");
        cuts::measure(&lab, options.rounds, &mut report, &mut faults)?;
    }
    if is_wanted(Part::News) {
        eprintln!("endpoints that come and go");
        news::measure(&lab, options.endpoints, &mut report)?;
    }
    if is_wanted(Part::Paths) {
        eprintln!("ways between containers");
        paths::measure(&lab, options, &mut report)?;
    }
    println!("{}", faults.table());
    println!("{}", report.table());
    println!("{}", report.json("mesh"));
    match faults.count() {
        0 => Ok(()),
        count => bail!("{count} requests or answers were not as they must be"),
    }
}

/// What is going on elsewhere.
fn around() -> Disturbance {
    Disturbance {
        load: load(),
        foreign: None,
    }
}

fn is_root() -> anyhow::Result<bool> {
    let status = std::fs::read_to_string("/proc/self/status").context("failed to read status")?;
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let effective = user.and_then(|ids| ids.split_whitespace().nth(1));
    Ok(effective == Some("0"))
}
