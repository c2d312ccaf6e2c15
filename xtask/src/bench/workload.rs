//! What is measured: services from request to running, their removal, rates of reads and writes, single answers.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::http::Client;
use super::machine::{Memory, Spent, Usage, load, memory, monitors};
use super::sample::{Disturbance, Report, mean, millis, percentile};
use super::{Options, Target};

/// Services have this prefix and a number.
pub(super) const PREFIX: &str = "bench-";

/// How long a service may take to start or to go.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(180);

/// Connections that prepare and clean up.
const CLEAN_CONNECTION_COUNT: usize = 8;

/// Services that exist while lists are read.
const LISTED_SERVICE_COUNT: usize = 200;

/// How long each measurement of a rate lasts.
const RATE_TIME: Duration = Duration::from_secs(2);

/// Single answers per sample.
const SINGLE_ANSWER_COUNT: usize = 200;

/// One start and one removal of a service.
#[derive(Debug)]
struct Life {
    start_seconds: f64,
    start: Spent,
    stop_seconds: f64,
    monitors: Vec<Memory>,
}

pub(super) fn spec(options: &Options, name: &str, replica_count: usize) -> String {
    json!({
        "Name": name,
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": options.image,
                "Command": ["sleep", "1000000"],
                "StopSignal": "SIGKILL",
            },
            "RestartPolicy": { "Condition": "none" },
        },
        "Mode": { "Replicated": { "Replicas": replica_count } },
    })
    .to_string()
}

pub(super) fn create(client: &mut Client, spec: &str) -> anyhow::Result<String> {
    let answer = client.request("POST", "/services/create", Some(spec))?;
    let answer: Value = serde_json::from_slice(answer).context("an id")?;
    let id = answer.get("ID").and_then(Value::as_str);
    Ok(id.context("a created service has an id")?.to_owned())
}

/// A filter as the API wants it: JSON in the query.
pub(super) fn filtered(path: &str, key: &str, value: &str) -> String {
    format!("{path}filters=%7B%22{key}%22%3A%5B%22{value}%22%5D%7D")
}

/// Asks until `is_done`, with pauses so short that they do not count and so long that asking does not cost much.
pub(super) fn wait(
    client: &mut Client,
    path: &str,
    pause: Duration,
    is_done: impl Fn(&Value) -> bool,
) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let answer = client.json(path)?;
        if is_done(&answer) {
            return Ok(());
        }
        if start.elapsed() > SETTLE_TIME_MAX {
            bail!("`{path}` did not settle; the last answer was {answer}");
        }
        thread::sleep(pause);
    }
}

pub(super) fn running_count(tasks: &Value) -> usize {
    let tasks = tasks.as_array().map(Vec::as_slice).unwrap_or_default();
    let states = tasks.iter().map(|task| task.pointer("/Status/State"));
    states
        .filter(|state| state.and_then(Value::as_str) == Some("running"))
        .count()
}

fn has_task_of(tasks: &Value, service: &str) -> bool {
    let tasks = tasks.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut owners = tasks.iter().filter_map(|task| task.get("ServiceID"));
    owners.any(|owner| owner == service)
}

pub(super) fn is_empty(list: &Value) -> bool {
    list.as_array().is_some_and(Vec::is_empty)
}

/// Starts a service, waits until all its tasks run, removes it, waits until its tasks and containers are gone.
fn live(target: &Target<'_>, name: &str, replica_count: usize) -> anyhow::Result<Life> {
    let mut client = Client::connect(&target.options.host)?;
    let pause = Duration::from_millis(2).max(Duration::from_micros(200) * count(replica_count));
    let spec = spec(target.options, name, replica_count);
    let usage = Usage::now(target.root)?;
    let start = Instant::now();
    let id = create(&mut client, &spec)?;
    let tasks = filtered("/tasks?", "service", &id);
    wait(&mut client, &tasks, pause, |tasks| {
        running_count(tasks) == replica_count
    })?;
    let start_seconds = start.elapsed().as_secs_f64();
    let start = usage.spent(target.root)?;
    let holders = target.root.map(monitors).unwrap_or_default();
    let monitors = holders.into_iter().flat_map(memory).collect();
    let removal = Instant::now();
    client.request("DELETE", &format!("/services/{id}"), None)?;
    let label = format!("com.docker.swarm.service.id%3D{id}");
    let containers = filtered("/containers/json?all=1&", "label", &label);
    wait(&mut client, &containers, pause, is_empty)?;
    // A filter by a service that is gone is refused, so the driver filters.
    wait(&mut client, "/tasks", pause, |tasks| {
        !has_task_of(tasks, &id)
    })?;
    Ok(Life {
        start_seconds,
        start,
        stop_seconds: removal.elapsed().as_secs_f64(),
        monitors,
    })
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

pub(super) fn disturbance<'a>(spent: impl IntoIterator<Item = &'a Spent>) -> Disturbance {
    Disturbance {
        load: load(),
        foreign: mean(spent.into_iter().filter_map(|spent| spent.foreign)),
    }
}

/// Services of so many replicas: time to running, processor time, removal, memory of what holds the containers.
pub(crate) fn services(
    target: &Target<'_>,
    replica_count: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut lives = Vec::new();
    for run in 0..target.options.runs {
        let name = format!("{PREFIX}{replica_count}-{run}");
        lives.push(live(target, &name, replica_count)?);
    }
    let around = disturbance(lives.iter().map(|life| &life.start));
    let of = |figure: fn(&Life) -> f64| lives.iter().map(figure).collect::<Vec<_>>();
    let name = |what: &str| format!("{replica_count} replicas: {what}");
    report.add(
        name("to running"),
        "s",
        &of(|life| life.start_seconds),
        around,
    );
    let per_container = f64::from(count(replica_count));
    let seconds: Vec<f64> = lives
        .iter()
        .map(|life| life.start.cpu_seconds / per_container)
        .collect();
    report.add(name("cpu per container"), "cpu s", &seconds, around);
    report.add(name("removal"), "s", &of(|life| life.stop_seconds), around);
    let monitors: Vec<&Memory> = lives.iter().flat_map(|life| &life.monitors).collect();
    if replica_count > 1 && !monitors.is_empty() {
        let mib = |figure: fn(&Memory) -> u64| {
            let sizes = monitors.iter().map(|memory| mib(figure(memory)));
            sizes.collect::<Vec<_>>()
        };
        report.add(
            name("monitor private"),
            "MiB",
            &mib(|m| m.private_kib),
            around,
        );
        report.add(name("monitor rss"), "MiB", &mib(|m| m.rss_kib), around);
    }
    Ok(())
}

fn mib(kib: u64) -> f64 {
    f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0
}

/// Memory of the daemon's processes, summed.
pub(crate) fn daemon_memory(
    target: &Target<'_>,
    when: &str,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut sum = Memory::default();
    for id in &target.options.pid {
        let one = memory(*id)?;
        sum.rss_kib += one.rss_kib;
        sum.pss_kib += one.pss_kib;
        sum.private_kib += one.private_kib;
    }
    let around = disturbance([]);
    for (what, kib) in [
        ("rss", sum.rss_kib),
        ("pss", sum.pss_kib),
        ("private", sum.private_kib),
    ] {
        report.add(format!("daemon {what}, {when}"), "MiB", &[mib(kib)], around);
    }
    Ok(())
}

/// Runs `work(connection, number)` on several connections until it says stop; answers each call's time in milliseconds.
fn parallel(
    target: &Target<'_>,
    connection_count: usize,
    work: impl Fn(&mut Client, usize) -> anyhow::Result<bool> + Sync,
) -> anyhow::Result<Vec<f64>> {
    let one = |number: usize| -> anyhow::Result<Vec<f64>> {
        let mut client = Client::connect(&target.options.host)?;
        let mut times = Vec::new();
        for step in 0.. {
            let start = Instant::now();
            if !work(&mut client, step * connection_count + number)? {
                break;
            }
            times.push(millis(start.elapsed()));
        }
        Ok(times)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..connection_count)
            .map(|number| scope.spawn(move || one(number)))
            .collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(
                thread
                    .join()
                    .expect("a connection's thread does not panic")?,
            );
        }
        Ok(all)
    })
}

/// A rate's samples over several rounds.
#[derive(Debug, Default)]
struct Rounds {
    rates: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    cpu_micros: Vec<f64>,
    spent: Vec<Spent>,
}

// === impl Rounds ===

impl Rounds {
    fn add(&mut self, mut times: Vec<f64>, spent: Spent) {
        let number = f64::from(count(times.len()));
        times.sort_by(f64::total_cmp);
        self.rates.push(number / spent.seconds);
        self.p50.push(percentile(&times, 50));
        self.p99.push(percentile(&times, 99));
        self.cpu_micros.push(spent.cpu_seconds * 1e6 / number);
        self.spent.push(spent);
    }

    fn report(&self, name: &str, report: &mut Report) {
        let around = disturbance(&self.spent);
        report.add(name, "1/s", &self.rates, around);
        report.add(format!("{name}: p50"), "ms", &self.p50, around);
        report.add(format!("{name}: p99"), "ms", &self.p99, around);
        report.add(
            format!("{name}: daemon cpu"),
            "µs",
            &self.cpu_micros,
            around,
        );
    }
}

/// `GET /services` with 200 services.
pub(crate) fn lists(target: &Target<'_>, report: &mut Report) -> anyhow::Result<()> {
    let name = |number| spec(target.options, &format!("{PREFIX}list-{number}"), 0);
    parallel(target, CLEAN_CONNECTION_COUNT, |client, number| {
        if number >= LISTED_SERVICE_COUNT {
            return Ok(false);
        }
        create(client, &name(number))?;
        Ok(true)
    })?;
    for connection_count in [1, 8] {
        let mut rounds = Rounds::default();
        for _ in 0..target.options.runs {
            let usage = Usage::now(target.root)?;
            let start = Instant::now();
            let times = parallel(target, connection_count, |client, _| {
                client.request("GET", "/services", None)?;
                Ok(start.elapsed() < RATE_TIME)
            })?;
            rounds.add(times, usage.spent(target.root)?);
        }
        rounds.report(&format!("GET /services, {connection_count} conn"), report);
    }
    clear(target)
}

/// Creates of services without replicas.
pub(crate) fn creates(target: &Target<'_>, report: &mut Report) -> anyhow::Result<()> {
    for connection_count in [1, 16] {
        let mut rounds = Rounds::default();
        for run in 0..target.options.runs {
            let usage = Usage::now(target.root)?;
            let times = parallel(target, connection_count, |client, number| {
                if number >= target.options.creates {
                    return Ok(false);
                }
                let name = format!("{PREFIX}create-{run}-{number}");
                client.request(
                    "POST",
                    "/services/create",
                    Some(&spec(target.options, &name, 0)),
                )?;
                Ok(true)
            })?;
            rounds.add(times, usage.spent(target.root)?);
            clear(target)?;
        }
        rounds.report(&format!("creates, {connection_count} conn"), report);
    }
    Ok(())
}

/// One connection's answers to small reads.
pub(crate) fn answers(target: &Target<'_>, report: &mut Report) -> anyhow::Result<()> {
    for path in ["/_ping", "/version", "/info"] {
        let mut rounds = Rounds::default();
        for _ in 0..target.options.runs {
            let usage = Usage::now(target.root)?;
            let times = parallel(target, 1, |client, number| {
                client.request("GET", path, None)?;
                Ok(number < SINGLE_ANSWER_COUNT)
            })?;
            rounds.add(times, usage.spent(target.root)?);
        }
        let around = disturbance(&rounds.spent);
        report.add(format!("GET {path}: p50"), "ms", &rounds.p50, around);
        report.add(format!("GET {path}: p99"), "ms", &rounds.p99, around);
    }
    Ok(())
}

/// Removes every service that has the driver's prefix.
pub(crate) fn clear(target: &Target<'_>) -> anyhow::Result<()> {
    let services = Client::connect(&target.options.host)?.json("/services")?;
    let services = services.as_array().map(Vec::as_slice).unwrap_or_default();
    let ours = services.iter().filter(|service| {
        let name = service.pointer("/Spec/Name").and_then(Value::as_str);
        name.is_some_and(|name| name.starts_with(PREFIX))
    });
    let ids: Vec<&str> = ours
        .filter_map(|service| service.get("ID")?.as_str())
        .collect();
    parallel(target, CLEAN_CONNECTION_COUNT, |client, number| {
        let Some(id) = ids.get(number) else {
            return Ok(false);
        };
        client.request("DELETE", &format!("/services/{id}"), None)?;
        Ok(true)
    })?;
    Ok(())
}
