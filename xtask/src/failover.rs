//! `cargo xtask failover`: how long a cluster on this machine is without what it lost: its leader, a worker's tasks, a dead leader's
//! tasks; and how many services its managers create.
//!
//! `docs/benchmarks.md` says what the figures mean.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::bench::machine::load;
use crate::bench::sample::{Disturbance, Report, millis, percentile};
use crate::local_cluster::{LocalCluster, service, signal};

/// How long a manager may leave a command unanswered.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// Between two commands of a writer: small against what is measured, and no load.
const WRITE_PAUSE: Duration = Duration::from_millis(2);
/// Successful commands before and after a disturbance.
const CALM_WRITE_COUNT: usize = 50;
/// How long a disturbance may last.
const OUTAGE_TIME_MAX: Duration = Duration::from_secs(120);
/// Replicas of the service whose tasks move: as many on each node.
const REPLICAS_PER_NODE: usize = 4;
/// Clients that create services, spread over the managers.
const CREATE_CLIENT_COUNT: usize = 16;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The program, best a release build.
    #[arg(long, default_value = "target/release/skep")]
    skep: PathBuf,
    /// Samples per figure; the median counts.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Creates per sample.
    #[arg(long, default_value_t = 5000)]
    creates: usize,
    /// Only measure creates.
    #[arg(long)]
    creates_only: bool,
}

/// Where clients ask.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// All at the leader, as Docker was measured.
    Leader,
    /// At all managers alike.
    Spread,
}

/// How the leader is lost.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Kill,
    Stop,
    Cut,
}

/// Measures, and prints a table and a line of JSON.
#[expect(clippy::print_stdout, reason = "the figures are the command's output")]
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let mut report = Report::default();
    if options.creates_only {
        let cluster = LocalCluster::start(&options.skep, "failover", 3, 3)?;
        for place in [Place::Leader, Place::Spread] {
            creates(&cluster, options, place, &mut report)?;
        }
    } else {
        losses(options, &mut report)?;
    }
    println!("{}", report.table());
    println!("{}", report.json("failover"));
    Ok(())
}

/// What is lost with a leader, and with a worker.
#[expect(clippy::print_stderr, reason = "progress belongs on standard error")]
fn losses(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    {
        let cluster = LocalCluster::start(&options.skep, "failover", 3, 3)?;
        for (loss, name) in [
            (Loss::Kill, "leader killed: no write for"),
            (Loss::Stop, "leader stopped: no write for"),
            (Loss::Cut, "leader cut off: no write for"),
        ] {
            eprintln!("{name}");
            let samples = repeat(options, || outage(&cluster, loss))?;
            add(report, name, "ms", &samples);
        }
        eprintln!("creates");
        for place in [Place::Leader, Place::Spread] {
            creates(&cluster, options, place, report)?;
        }
    }
    let cluster = LocalCluster::start(&options.skep, "failover", 4, 3)?;
    let create = service("move", REPLICAS_PER_NODE * 4);
    cluster
        .connect(1)?
        .request("POST", "/services/create", Some(&create))?;
    eprintln!("tasks of a dead worker");
    let samples = repeat(options, || moved(&cluster, |_| 4))?;
    add(report, "worker off: its tasks run after", "s", &samples);
    eprintln!("tasks of a dead leader");
    let samples = repeat(options, || moved(&cluster, |leader| leader))?;
    add(report, "leader off: its tasks run after", "s", &samples);
    Ok(())
}

fn add(report: &mut Report, name: &str, unit: &'static str, samples: &[f64]) {
    let around = Disturbance {
        load: load(),
        foreign: None,
    };
    report.add(name, unit, samples, around);
}

fn repeat(
    options: &Options,
    measure: impl Fn() -> anyhow::Result<f64>,
) -> anyhow::Result<Vec<f64>> {
    (0..options.runs).map(|_| measure()).collect()
}

/// Milliseconds between the last successful command before and the first after the loss of the leader, on the managers that are
/// left; the longer of the two.
fn outage(cluster: &LocalCluster, loss: Loss) -> anyhow::Result<f64> {
    let leader = cluster.wait_whole()?;
    let pid = cluster.pid(leader)?;
    let others: Vec<usize> = cluster
        .managers()
        .filter(|number| *number != leader)
        .collect();
    let is_over = AtomicBool::new(false);
    let counts: Vec<AtomicUsize> = others.iter().map(|_| AtomicUsize::new(0)).collect();
    let gaps = thread::scope(|scope| {
        let writers: Vec<_> = others
            .iter()
            .zip(&counts)
            .map(|(number, count)| scope.spawn(|| write(cluster, *number, count, &is_over)))
            .collect();
        let disturbed = wait_for_writes(&counts).and_then(|()| lose(cluster, leader, pid, loss));
        let calm = disturbed.and_then(|()| wait_for_writes(&counts));
        is_over.store(true, Ordering::Relaxed);
        let gaps: Vec<_> = writers
            .into_iter()
            .map(|writer| writer.join().expect("a writer does not panic"))
            .collect();
        calm?;
        gaps.into_iter().collect::<anyhow::Result<Vec<Duration>>>()
    })?;
    cluster.skep(&["heal"])?;
    cluster.skep(&["start", &format!("node{leader}")])?;
    Ok(gaps.into_iter().max().map_or(f64::NAN, millis))
}

fn lose(cluster: &LocalCluster, leader: usize, pid: u64, loss: Loss) -> anyhow::Result<()> {
    match loss {
        Loss::Kill => signal(pid, "KILL"),
        Loss::Stop => signal(pid, "TERM"),
        Loss::Cut => cluster.skep(&["cut", &format!("node{leader}")]).map(drop),
    }
}

/// Waits until every writer has had some more successes.
fn wait_for_writes(counts: &[AtomicUsize]) -> anyhow::Result<()> {
    let before: Vec<usize> = counts
        .iter()
        .map(|count| count.load(Ordering::Relaxed))
        .collect();
    let start = Instant::now();
    let is_calm = |(count, before): (&AtomicUsize, &usize)| {
        count.load(Ordering::Relaxed) >= before + CALM_WRITE_COUNT
    };
    while !counts.iter().zip(&before).all(is_calm) {
        if start.elapsed() > OUTAGE_TIME_MAX {
            bail!("a manager takes no commands for {OUTAGE_TIME_MAX:?}");
        }
        thread::sleep(WRITE_PAUSE);
    }
    Ok(())
}

/// Creates and removes services on one manager; the longest time between two successes.
fn write(
    cluster: &LocalCluster,
    number: usize,
    count: &AtomicUsize,
    is_over: &AtomicBool,
) -> anyhow::Result<Duration> {
    let mut longest = Duration::ZERO;
    let mut last: Option<Instant> = None;
    let mut client = None;
    for index in 0.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("w{number}-{index}");
        let is_done = {
            let client = match &mut client {
                Some(client) => client,
                none => none.insert(cluster.connect_for(number, ANSWER_TIME_MAX)?),
            };
            let created = client.request("POST", "/services/create", Some(&service(&name, 0)));
            created.map(drop)
        };
        if is_done.is_ok() {
            let now = Instant::now();
            longest = longest.max(last.map_or(Duration::ZERO, |last| now - last));
            last = Some(now);
            count.fetch_add(1, Ordering::Relaxed);
            if let Some(client) = &mut client {
                let _ = client.request("DELETE", &format!("/services/{name}"), None);
            }
        } else {
            client = None;
        }
        thread::sleep(WRITE_PAUSE);
    }
    Ok(longest)
}

/// Seconds until the tasks of a node that is switched off run elsewhere.
fn moved(cluster: &LocalCluster, choose: impl Fn(usize) -> usize) -> anyhow::Result<f64> {
    let leader = cluster.wait_whole()?;
    let victim = choose(leader);
    let id = cluster.id(victim)?;
    let total = REPLICAS_PER_NODE * 4;
    balance(cluster, total)?;
    let asked = cluster.managers().find(|number| *number != victim);
    let asked = asked.context("there is another manager")?;
    let name = format!("node{victim}");
    let start = Instant::now();
    cluster.skep(&["stop", "--power-off", &name])?;
    wait_running(cluster, asked, total, Some(&id))?;
    let elapsed = start.elapsed();
    cluster.skep(&["start", &name])?;
    Ok(elapsed.as_secs_f64())
}

/// Has all tasks placed anew, so that every node has its share.
fn balance(cluster: &LocalCluster, total: usize) -> anyhow::Result<()> {
    let mut client = cluster.connect(1)?;
    for replica_count in [0, total] {
        let found = client.json("/services/move")?;
        let mut spec = found["Spec"].clone();
        spec["Mode"]["Replicated"]["Replicas"] = replica_count.into();
        let path = format!(
            "/services/move/update?version={}",
            found["Version"]["Index"]
        );
        client.request("POST", &path, Some(&spec.to_string()))?;
        wait_running(cluster, 1, replica_count, None)?;
    }
    Ok(())
}

/// Waits until `count` tasks of the service are wanted and run, none of them on the node `without`.
fn wait_running(
    cluster: &LocalCluster,
    asked: usize,
    count: usize,
    without: Option<&str>,
) -> anyhow::Result<()> {
    let start = Instant::now();
    let filters =
        "%7B%22service%22%3A%5B%22move%22%5D%2C%22desired-state%22%3A%5B%22running%22%5D%7D";
    loop {
        let tasks = cluster
            .connect(asked)
            .and_then(|mut client| client.json(&format!("/tasks?filters={filters}")));
        let runs = |task: &&Value| {
            task["Status"]["State"] == "running" && task["NodeID"].as_str() != without
        };
        let state = match tasks {
            Ok(Value::Array(tasks)) => {
                let running = tasks.iter().filter(runs).count();
                if running == count && tasks.len() == count {
                    return Ok(());
                }
                format!("{running} of {} run", tasks.len())
            }
            Ok(other) => other.to_string(),
            Err(error) => format!("{error:#}"),
        };
        if start.elapsed() > OUTAGE_TIME_MAX {
            bail!("{count} tasks do not run after {OUTAGE_TIME_MAX:?}: {state}");
        }
        thread::sleep(WRITE_PAUSE);
    }
}

/// Creates by many clients that are spread over the managers.
fn creates(
    cluster: &LocalCluster,
    options: &Options,
    place: Place,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (mut rates, mut p50, mut p99) = (Vec::new(), Vec::new(), Vec::new());
    let leader = cluster.wait_whole()?;
    for run in 0..options.runs {
        let series = format!("{place:?}-{run}").to_lowercase();
        let next = AtomicUsize::new(0);
        let start = Instant::now();
        let mut times = thread::scope(|scope| {
            let clients: Vec<_> = (0..CREATE_CLIENT_COUNT)
                .map(|client| {
                    let (next, managers) = (&next, cluster.managers().count());
                    let number = match place {
                        Place::Leader => leader,
                        Place::Spread => client % managers + 1,
                    };
                    let series = &series;
                    scope.spawn(move || create(cluster, number, series, next, options.creates))
                })
                .collect();
            let mut times = Vec::new();
            for client in clients {
                times.extend(client.join().expect("a client does not panic")?);
            }
            anyhow::Ok(times)
        })?;
        let seconds = start.elapsed().as_secs_f64();
        let count = u32::try_from(times.len()).context("a count")?;
        times.sort_by(f64::total_cmp);
        rates.push(f64::from(count) / seconds);
        p50.push(percentile(&times, 50));
        p99.push(percentile(&times, 99));
    }
    let at = match place {
        Place::Leader => "at the leader",
        Place::Spread => "at all managers",
    };
    let name = format!("creates, {CREATE_CLIENT_COUNT} clients {at}");
    add(report, &name, "1/s", &rates);
    add(report, &format!("{name}: p50"), "ms", &p50);
    add(report, &format!("{name}: p99"), "ms", &p99);
    Ok(())
}

fn create(
    cluster: &LocalCluster,
    number: usize,
    series: &str,
    next: &AtomicUsize,
    limit: usize,
) -> anyhow::Result<Vec<f64>> {
    let mut client = cluster.connect_for(number, ANSWER_TIME_MAX)?;
    let mut times = Vec::new();
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= limit {
            return Ok(times);
        }
        let body = service(&format!("create-{series}-{index}"), 0);
        let start = Instant::now();
        client.request("POST", "/services/create", Some(&body))?;
        times.push(millis(start.elapsed()));
    }
}
