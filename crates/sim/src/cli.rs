//! The command line: `run`, `replay`, `hunt`, `scale`.

use std::{
    fs,
    io::Write,
    panic,
    path::PathBuf,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};

use crate::{
    bug::Bug,
    run::{Outcome, run_seed},
    scale,
    world::{CONVERGENCE_MAX, Options},
};

/// Failures shown in full; the rest are counted.
const FAILURES_SHOWN_MAX: usize = 10;

/// Simulates Skep clusters, one seed each.
#[derive(Debug, Parser)]
#[command(name = "skep-sim")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run seeds.
    Run {
        /// `A..B`, or how many from 0.
        #[arg(long, default_value = "1000")]
        seeds: String,
        /// Stop each after so many events.
        #[arg(long)]
        steps: Option<u64>,
        /// Put a bug in.
        #[arg(long, value_enum)]
        bug: Option<Bug>,
        /// Threads; default: one per core.
        #[arg(long)]
        threads: Option<usize>,
        /// Jobs and stacks in every seed, and more commands.
        #[arg(long)]
        busy: bool,
    },
    /// Run one seed and print its trace.
    Replay {
        /// The seed.
        #[arg(long)]
        seed: u64,
        /// Print every event.
        #[arg(long)]
        trace: bool,
        /// Put a bug in.
        #[arg(long, value_enum)]
        bug: Option<Bug>,
        /// As the seed was run.
        #[arg(long)]
        busy: bool,
    },
    /// Run new seeds for a while.
    Hunt {
        /// How long.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// The first seed; default: from the clock.
        #[arg(long)]
        from: Option<u64>,
        /// Threads; default: one per core.
        #[arg(long)]
        threads: Option<usize>,
        /// Jobs and stacks in every seed, and more commands.
        #[arg(long)]
        busy: bool,
    },
    /// Start many tasks on many nodes; print real CPU time and memory.
    Scale {
        /// Nodes.
        #[arg(long, default_value_t = 1000)]
        nodes: usize,
        /// Tasks.
        #[arg(long, default_value_t = 10_000)]
        tasks: u64,
    },
    /// Create many services at once; print when all tasks run and what the manager's steps cost.
    Burst {
        /// Nodes.
        #[arg(long, default_value_t = 100)]
        nodes: usize,
        /// Services.
        #[arg(long, default_value_t = 500)]
        services: u64,
        /// Tasks of each.
        #[arg(long, default_value_t = 10)]
        replicas: u64,
    },
}

/// What seeds to run, and when to stop.
struct Plan {
    from: u64,
    to: u64,
    until: Option<Instant>,
    threads: usize,
    options: Options,
}

impl Args {
    /// Does what was asked; false when something was found.
    ///
    /// # Errors
    /// The arguments make no sense, or the output cannot be written.
    pub fn run(self, out: &mut dyn Write) -> Result<bool> {
        match self.verb {
            Verb::Run {
                seeds,
                steps,
                bug,
                threads,
                busy,
            } => {
                let (from, to) = parse_seeds(&seeds)?;
                let options = Options {
                    bug,
                    steps_max: steps,
                    is_busy: busy,
                    ..Options::default()
                };
                let plan = Plan {
                    from,
                    to,
                    until: None,
                    threads: threads.unwrap_or_else(cores),
                    options,
                };
                run_plan(&plan, out)
            }
            Verb::Replay {
                seed,
                trace,
                bug,
                busy,
            } => {
                let options = Options {
                    is_traced: trace,
                    bug,
                    is_busy: busy,
                    ..Options::default()
                };
                replay(seed, &options, out)
            }
            Verb::Hunt {
                minutes,
                from,
                threads,
                busy,
            } => {
                let options = Options {
                    is_busy: busy,
                    ..Options::default()
                };
                let plan = Plan {
                    from: from.unwrap_or_else(seed_of_now),
                    to: u64::MAX,
                    until: Some(now() + Duration::from_secs(60 * minutes)),
                    threads: threads.unwrap_or_else(cores),
                    options,
                };
                run_plan(&plan, out)
            }
            Verb::Scale { nodes, .. } | Verb::Burst { nodes, .. } if nodes < 2 => {
                bail!("this takes at least 2 nodes");
            }
            Verb::Scale { nodes, tasks } => scale::run(nodes, tasks, out),
            Verb::Burst {
                nodes,
                services,
                replicas,
            } => scale::burst(nodes, services, replicas, out),
        }
    }
}

fn parse_seeds(text: &str) -> Result<(u64, u64)> {
    let number = |text: &str| {
        text.parse::<u64>()
            .with_context(|| format!("`{text}` is not a number"))
    };
    let (from, to) = match text.split_once("..") {
        Some((from, to)) => (number(from)?, number(to)?),
        None => (0, number(text)?),
    };
    if from >= to {
        bail!("`{text}` holds no seed");
    }
    Ok((from, to))
}

fn run_plan(plan: &Plan, out: &mut dyn Write) -> Result<bool> {
    let started = now();
    // Panics of cores are caught and reported with their seed.
    panic::set_hook(Box::new(|_| {}));
    let next = AtomicU64::new(plan.from);
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..plan.threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= plan.to || plan.until.is_some_and(|until| now() >= until) {
                        return;
                    }
                    let outcome = run_seed(seed, &plan.options);
                    let mut outcomes = outcomes.lock().expect("no thread panics holding it");
                    outcomes.push(outcome);
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().expect("no thread panics holding it");
    outcomes.sort_by_key(|outcome| outcome.seed);
    let failed: Vec<&Outcome> = outcomes.iter().filter(|o| o.violation.is_some()).collect();
    for outcome in failed.iter().take(FAILURES_SHOWN_MAX) {
        report_failure(outcome, &plan.options, out)?;
    }
    let _ = panic::take_hook();
    summarise(&outcomes, failed.len(), started.elapsed(), out)?;
    Ok(failed.is_empty())
}

fn report_failure(outcome: &Outcome, options: &Options, out: &mut dyn Write) -> Result<()> {
    let Some(violation) = &outcome.violation else {
        return Ok(());
    };
    let traced = run_seed(
        outcome.seed,
        &Options {
            is_traced: true,
            ..options.clone()
        },
    );
    let path = std::env::temp_dir().join(format!("skep-sim-{}.log", outcome.seed));
    let written = write_trace(&path, &traced);
    writeln!(
        out,
        "FAILED seed {} at commit {}, {:.3} s in: {}: {}",
        outcome.seed,
        commit(),
        Duration::from_nanos(u64::try_from(violation.at_nanos).unwrap_or(u64::MAX)).as_secs_f64(),
        violation.invariant,
        violation.problem,
    )?;
    let bug = match options.bug {
        Some(bug) => format!(" --bug {bug}"),
        None => String::new(),
    };
    let busy = if options.is_busy { " --busy" } else { "" };
    writeln!(
        out,
        "  replay: skep-sim replay --seed {}{bug}{busy} --trace; events: {}",
        outcome.seed,
        match written {
            Ok(()) => path.display().to_string(),
            Err(error) => format!("not written: {error}"),
        },
    )?;
    Ok(())
}

fn write_trace(path: &PathBuf, outcome: &Outcome) -> std::io::Result<()> {
    fs::write(path, outcome.trace.as_deref().unwrap_or_default())
}

fn summarise(
    outcomes: &[Outcome],
    failed_count: usize,
    real: Duration,
    out: &mut dyn Write,
) -> Result<()> {
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    let virtual_time: Duration = outcomes.iter().map(|o| o.virtual_time).sum();
    let worst = outcomes
        .iter()
        .filter_map(|outcome| Some((outcome.converged_after?, outcome.seed)))
        .max();
    let hash = outcomes
        .iter()
        .fold(0_u64, |hash, o| hash.rotate_left(5) ^ o.hash);
    let seconds = real.as_secs_f64();
    let event_count = sum(|outcome| outcome.event_count);
    #[expect(
        clippy::cast_precision_loss,
        reason = "a rate for people needs no more than a float holds"
    )]
    let rate = event_count as f64 / seconds;
    writeln!(
        out,
        "{} seeds, {failed_count} failed; {event_count} events ({rate:.0}/s), {} entries, \
         {} commands; {:.1} h virtual in {seconds:.1} s ({:.0} x); trace {hash:016x}",
        outcomes.len(),
        sum(|outcome| outcome.entry_count),
        sum(|outcome| outcome.command_count),
        virtual_time.as_secs_f64() / 3600.0,
        virtual_time.as_secs_f64() / seconds,
    )?;
    if let Some((worst, seed)) = worst {
        writeln!(
            out,
            "worst convergence {:.1} s (seed {seed}); the limit is {} s",
            worst.as_secs_f64(),
            CONVERGENCE_MAX.as_secs()
        )?;
    }
    Ok(())
}

fn replay(seed: u64, options: &Options, out: &mut dyn Write) -> Result<bool> {
    let outcome = run_seed(seed, options);
    out.write_all(outcome.trace.as_deref().unwrap_or_default().as_bytes())?;
    writeln!(
        out,
        "seed {seed}: {} events, trace {:016x}, converged after {:?}",
        outcome.event_count, outcome.hash, outcome.converged_after
    )?;
    if let Some(violation) = &outcome.violation {
        writeln!(out, "{}: {}", violation.invariant, violation.problem)?;
    }
    Ok(outcome.violation.is_none())
}

/// The commit a failure belongs to, as far as git knows.
fn commit() -> String {
    let output = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output();
    let text = output.ok().filter(|output| output.status.success());
    let text = text.and_then(|output| String::from_utf8(output.stdout).ok());
    text.map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn seed_of_now() -> u64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "a hunt starts where none has been; the seed is printed"
    )]
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| elapsed.as_secs() << 20)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the command line measures its own speed; no run depends on it"
)]
fn now() -> Instant {
    Instant::now()
}
