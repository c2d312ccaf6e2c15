//! The scale rig: many nodes and tasks in virtual time, with real CPU time and memory.

use std::{
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use skep_manager::command::Command;
use skep_model::{Annotations, Rng, ServiceMode, ServiceSpec, TaskSpec, TaskState};
use skep_store::Store;

use crate::{
    event::Event,
    profile::Profile,
    world::{Options, World},
};

/// Services the tasks are split over.
const SERVICES: u64 = 10;
/// When all nodes of a burst have registered.
const SETTLED_AFTER: Duration = Duration::from_secs(10);
/// Longest wait for the tasks of a burst.
const BURST_MAX: Duration = Duration::from_secs(120);
/// How precisely the end of a burst is seen: some milliseconds of virtual time.
const EVENTS_BETWEEN_LOOKS: u64 = 100;

/// Starts `nodes` nodes and `tasks` tasks and waits for all of them to run.
pub(crate) fn run(nodes: usize, tasks: u64, out: &mut dyn Write) -> Result<bool> {
    let mut rng = Rng::from_seed(1);
    let profile = Profile::quiet(nodes);
    let mut world = World::new(rng.split(), profile, &Options::default());
    world.ctx.invariants.clear();
    for index in 0..SERVICES {
        let replicas = tasks / SERVICES + u64::from(index < tasks % SERVICES);
        create(&mut world, index, replicas, Duration::from_secs(5));
    }
    world.calm_after(Duration::from_secs(6));
    #[expect(
        clippy::disallowed_methods,
        reason = "the rig measures real time; it decides nothing by it"
    )]
    let started = Instant::now();
    world.run(None);
    let real = started.elapsed();
    let violation = world.violation().map(|violation| violation.problem.clone());
    writeln!(
        out,
        "{nodes} nodes, {tasks} tasks: {} events, {} entries, {:.1} s virtual, {:.2} s real, \
         {:.2} s CPU, {} MiB resident at most",
        world.event_count,
        world.ctx.facts.index(),
        world.elapsed().as_secs_f64(),
        real.as_secs_f64(),
        cpu_seconds()?,
        peak_mib()?,
    )?;
    if let Some(mut problem) = violation {
        problem.truncate(1000);
        writeln!(out, "did not converge: {problem}")?;
        return Ok(false);
    }
    Ok(true)
}

/// Has a client create a service after `delay`.
fn create(world: &mut World, index: u64, replicas: u64, delay: Duration) {
    let spec = Box::new(spec(index, replicas));
    let event = Event::Command {
        manager: 0,
        request: index + 1,
        command: Box::new(Command::CreateService { spec }),
        is_relayed: false,
    };
    world.ctx.queue.after(delay, event);
}

/// Creates `services` of `replicas` tasks in one moment on `nodes` nodes that are there already, and
/// waits for all of them to run.
pub(crate) fn burst(
    nodes: usize,
    services: u64,
    replicas: u64,
    out: &mut dyn Write,
) -> Result<bool> {
    let mut rng = Rng::from_seed(1);
    let profile = Profile::quiet(nodes);
    let mut world = World::new(rng.split(), profile, &Options::default());
    world.ctx.invariants.clear();
    // Nobody else asks for anything.
    world.calm_since = Some(world.ctx.now());
    while world.elapsed() < SETTLED_AFTER {
        run_on(&mut world);
    }
    for index in 0..services {
        create(&mut world, index, replicas, Duration::ZERO);
    }
    let (begun, entries) = (world.elapsed(), world.ctx.facts.index());
    world.ctx.meter.switch_on();
    let tasks = services * replicas;
    let is_done = |world: &World| world.managers[0].store().is_some_and(|s| run_all(s, tasks));
    while !is_done(&world) {
        if world.elapsed() > begun + BURST_MAX || world.violation().is_some() {
            writeln!(out, "not all tasks run {BURST_MAX:?} after the burst")?;
            return Ok(false);
        }
        run_on(&mut world);
    }
    let (spent, longest) = (world.ctx.meter.spent, world.ctx.meter.longest);
    let thousands = u32::try_from(tasks).unwrap_or(u32::MAX);
    writeln!(
        out,
        "{services} services of {replicas} on {nodes} nodes: all {tasks} tasks run after {:.2} s virtual, {} entries; \
         the manager's steps took {:.3} s CPU, {:.3} s for 1,000 tasks, the longest {:.0} ms",
        world.elapsed().saturating_sub(begun).as_secs_f64(),
        world.ctx.facts.index() - entries,
        spent.as_secs_f64(),
        (spent * 1000 / thousands).as_secs_f64(),
        longest.as_secs_f64() * 1000.0,
    )?;
    Ok(true)
}

/// A few events more.
fn run_on(world: &mut World) {
    let count = world.event_count + EVENTS_BETWEEN_LOOKS;
    world.run(Some(count));
}

fn run_all(store: &Store, count: u64) -> bool {
    let tasks = store.tasks();
    let running = tasks.filter(|task| task.status.state == TaskState::Running);
    u64::try_from(running.count()).is_ok_and(|running| running == count)
}

fn spec(index: u64, replicas: u64) -> ServiceSpec {
    let mut task = TaskSpec::default();
    "registry.example/app:1".clone_into(&mut task.container.image);
    ServiceSpec {
        annotations: Arc::new(Annotations {
            name: format!("service-{index}"),
            ..Annotations::default()
        }),
        task: Arc::new(task),
        mode: ServiceMode::Replicated { replicas },
        ..ServiceSpec::default()
    }
}

/// CPU time of this process so far; Linux counts in hundredths of a second.
fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("read /proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split(' ').collect();
    let ticks = |index: usize| -> f64 {
        let field = fields.get(index).and_then(|field| field.parse().ok());
        field.unwrap_or(0.0)
    };
    Ok((ticks(12) + ticks(13)) / 100.0)
}

fn peak_mib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    Ok(kib.context("VmHWM in /proc/self/status")? / 1024)
}
