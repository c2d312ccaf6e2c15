//! The scale rig: many nodes and tasks in virtual time, with real CPU time and memory.

use std::{io::Write, sync::Arc, time::Instant};

use anyhow::{Context as _, Result};
use skep_manager::command::Command;
use skep_model::{Annotations, Rng, ServiceMode, ServiceSpec, TaskSpec};

use crate::{
    event::Event,
    profile::Profile,
    world::{Options, World},
};

/// Services the tasks are split over.
const SERVICES: u64 = 10;

/// Starts `nodes` nodes and `tasks` tasks and waits for all of them to run.
pub(crate) fn run(nodes: usize, tasks: u64, out: &mut dyn Write) -> Result<bool> {
    let mut rng = Rng::from_seed(1);
    let profile = Profile::quiet(nodes);
    let mut world = World::new(rng.split(), profile, &Options::default());
    world.ctx.invariants.clear();
    for index in 0..SERVICES {
        let replicas = tasks / SERVICES + u64::from(index < tasks % SERVICES);
        let command = Box::new(Command::CreateService {
            spec: Box::new(spec(index, replicas)),
        });
        let event = Event::Command {
            manager: 0,
            request: index + 1,
            command,
            is_relayed: false,
        };
        world
            .ctx
            .queue
            .after(std::time::Duration::from_secs(5), event);
    }
    world.calm_after(std::time::Duration::from_secs(6));
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
