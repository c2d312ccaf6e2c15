//! `cargo xtask bench`: drives a daemon that speaks Docker's Engine API and measures it, so that Skep and Docker meet the same driver.
//!
//! It starts no daemon: `docs/benchmarks.md` says how, and holds the figures.

use std::path::PathBuf;

use crate::bench::sample::Report;

pub(crate) mod http;
mod logs;
pub(crate) mod machine;
mod rollouts;
pub(crate) mod sample;
mod stacks;
mod workload;

/// What to measure, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The daemon's address, `unix:///path`; it must be a swarm manager.
    #[arg(long)]
    host: String,
    /// An image with `sleep` that the daemon has, best by its id: a tag makes Docker ask a registry.
    #[arg(long)]
    image: String,
    /// The name of the measured daemon in the output.
    #[arg(long, default_value = "daemon")]
    label: String,
    /// A process of the daemon; repeat for daemons of several. The first one's pid namespace tells which processes are the daemon's.
    #[arg(long)]
    pid: Vec<u32>,
    /// Samples per figure; the median counts.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Creates per sample.
    #[arg(long, default_value_t = 2000)]
    creates: usize,
    /// Replicas of the services that are started; repeat for several.
    #[arg(long, default_values_t = [1, 10, 50])]
    replicas: Vec<usize>,
    /// A Compose file to deploy with `docker stack deploy`, whose images the daemon has; none, no stack is measured.
    #[arg(long)]
    stack: Option<PathBuf>,
    /// Parts to measure; all when none is named.
    #[arg(long, value_enum)]
    only: Vec<Part>,
}

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Memory of the daemon.
    Memory,
    /// Start and removal of services.
    Services,
    /// A rolling update, scaling up and down.
    Rollouts,
    /// A stack, with `--stack`.
    Stacks,
    /// Logs of a service.
    Logs,
    /// Reads of a list of services.
    Lists,
    /// Creates of services.
    Creates,
    /// Small reads.
    Answers,
}

/// A daemon and how it is measured.
#[derive(Debug)]
struct Target<'a> {
    options: &'a Options,
    /// The first of the daemon's processes; all below it are its own.
    root: Option<u32>,
}

/// Measures, and prints a table and a line of JSON.
#[expect(clippy::print_stdout, reason = "the figures are the command's output")]
#[expect(clippy::print_stderr, reason = "progress belongs on standard error")]
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let target = Target {
        options,
        root: options.pid.first().copied().map(machine::root_of),
    };
    let is_wanted = |part| options.only.is_empty() || options.only.contains(&part);
    let mut report = Report::default();
    workload::clear(&target)?;
    if is_wanted(Part::Memory) {
        workload::daemon_memory(&target, "idle", &mut report)?;
    }
    if is_wanted(Part::Answers) {
        eprintln!("small reads");
        workload::answers(&target, &mut report)?;
    }
    if is_wanted(Part::Services) {
        for replica_count in &options.replicas {
            eprintln!("services of {replica_count} replicas");
            workload::services(&target, *replica_count, &mut report)?;
        }
    }
    if is_wanted(Part::Rollouts) {
        eprintln!("updates and scaling");
        rollouts::rollouts(&target, &mut report)?;
    }
    if let Some(file) = options.stack.as_ref().filter(|_| is_wanted(Part::Stacks)) {
        eprintln!("stacks");
        stacks::stacks(&target, file, &mut report)?;
    }
    if is_wanted(Part::Logs) {
        eprintln!("logs");
        logs::logs(&target, &mut report)?;
    }
    if is_wanted(Part::Lists) {
        eprintln!("lists");
        workload::lists(&target, &mut report)?;
    }
    if is_wanted(Part::Creates) {
        eprintln!("creates");
        workload::creates(&target, &mut report)?;
    }
    if is_wanted(Part::Memory) {
        workload::daemon_memory(&target, "after all", &mut report)?;
    }
    println!("{}", report.table());
    println!("{}", report.json(&options.label));
    Ok(())
}
