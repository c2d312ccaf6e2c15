//! A rolling update, and scaling up and down.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};

use super::{
    Target,
    http::Client,
    machine::Usage,
    sample::Report,
    workload::{PREFIX, create, disturbance, filtered, is_empty, running_count, spec, wait},
};

/// Replicas that are updated, and that scaling starts from and returns to.
const FEW: usize = 10;
/// Replicas after scaling up.
const MANY: usize = 50;
/// Tasks that are replaced at once.
const PARALLELISM: u64 = 2;
/// Between two questions; far below what is measured.
const PAUSE: Duration = Duration::from_millis(5);

/// Times of one service, in seconds.
struct Times {
    replaced: f64,
    completed: f64,
    up: f64,
    down: f64,
}

/// Updates a service of ten replicas two by two, scales it to fifty and back.
pub(super) fn rollouts(target: &Target<'_>, report: &mut Report) -> anyhow::Result<()> {
    let mut all = Vec::new();
    let usage = Usage::now(target.root)?;
    for run in 0..target.options.runs {
        all.push(roll(target, &format!("{PREFIX}update-{run}"))?);
    }
    let around = disturbance([&usage.spent(target.root)?]);
    let mut add = |name: &str, figure: fn(&Times) -> f64| {
        let samples: Vec<f64> = all.iter().map(figure).collect();
        report.add(name.to_owned(), "s", &samples, around);
    };
    add("update of 10, 2 at once: all replaced", |t| t.replaced);
    add("update of 10, 2 at once: completed", |t| t.completed);
    add("scale from 10 to 50", |t| t.up);
    add("scale from 50 to 10", |t| t.down);
    Ok(())
}

fn roll(target: &Target<'_>, name: &str) -> anyhow::Result<Times> {
    let mut client = Client::connect(&target.options.host)?;
    let mut wanted: Value = serde_json::from_str(&spec(target.options, name, FEW))?;
    wanted["UpdateConfig"] = json!({ "Parallelism": PARALLELISM });
    let id = create(&mut client, &wanted.to_string())?;
    let tasks = filtered("/tasks?", "service", &id);
    wait(&mut client, &tasks, PAUSE, |tasks| {
        running_count(tasks) == FEW
    })?;

    wanted["TaskTemplate"]["ForceUpdate"] = 1.into();
    let start = Instant::now();
    update(&mut client, &id, &wanted)?;
    wait(&mut client, &tasks, PAUSE, |tasks| {
        renewed_count(tasks) == FEW
    })?;
    let replaced = start.elapsed().as_secs_f64();
    let service = format!("/services/{id}");
    wait(&mut client, &service, PAUSE, |service| {
        service["UpdateStatus"]["State"] == "completed"
    })?;
    let completed = start.elapsed().as_secs_f64();

    let mut scale = |replicas: usize| -> anyhow::Result<f64> {
        wanted["Mode"]["Replicated"]["Replicas"] = replicas.into();
        let start = Instant::now();
        update(&mut client, &id, &wanted)?;
        wait(&mut client, &tasks, PAUSE, |tasks| {
            running_count(tasks) == replicas
        })?;
        Ok(start.elapsed().as_secs_f64())
    };
    let times = Times {
        replaced,
        completed,
        up: scale(MANY)?,
        down: scale(FEW)?,
    };
    client.request("DELETE", &service, None)?;
    let label = format!("com.docker.swarm.service.id%3D{id}");
    let containers = filtered("/containers/json?all=1&", "label", &label);
    wait(&mut client, &containers, PAUSE, is_empty)?;
    Ok(times)
}

/// Stores `wanted` as the service's spec.
fn update(client: &mut Client, id: &str, wanted: &Value) -> anyhow::Result<()> {
    let service = client.json(&format!("/services/{id}"))?;
    let version = service.pointer("/Version/Index").context("a version")?;
    let path = format!("/services/{id}/update?version={version}");
    client.request("POST", &path, Some(&wanted.to_string()))?;
    Ok(())
}

/// Running tasks of the update.
fn renewed_count(tasks: &Value) -> usize {
    let tasks = tasks.as_array().map(Vec::as_slice).unwrap_or_default();
    let renewed = tasks.iter().filter(|task| {
        task.pointer("/Status/State") == Some(&"running".into())
            && task.pointer("/Spec/ForceUpdate") == Some(&1.into())
    });
    renewed.count()
}
