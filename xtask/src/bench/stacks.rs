//! A stack of a Compose file, deployed by the docker command until every task runs, and removed.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use super::{
    Target,
    http::Client,
    machine::Usage,
    sample::Report,
    workload::{PREFIX, disturbance, filtered, is_empty, running_count, wait},
};

/// The label of everything that belongs to a stack.
const LABEL: &str = "com.docker.stack.namespace";
/// Between two questions; far below what is measured.
const PAUSE: Duration = Duration::from_millis(5);

/// Deploys `file` and removes it, again and again.
pub(super) fn stacks(target: &Target<'_>, file: &Path, report: &mut Report) -> anyhow::Result<()> {
    let (mut deployed, mut accepted, mut removed) = (Vec::new(), Vec::new(), Vec::new());
    let usage = Usage::now(target.root)?;
    for run in 0..target.options.runs {
        let name = format!("{PREFIX}stack-{run}");
        let mut client = Client::connect(&target.options.host)?;
        let of_stack = |path: &str| filtered(path, "label", &format!("{LABEL}%3D{name}"));
        let start = Instant::now();
        let deploy = ["deploy", "--resolve-image", "never", "-c"];
        docker(target, &deploy, &[&file.to_string_lossy(), &name])?;
        accepted.push(start.elapsed().as_secs_f64());
        let services = client.json(&of_stack("/services?"))?;
        let task_count = task_count(&services)?;
        wait(&mut client, &of_stack("/tasks?"), PAUSE, |tasks| {
            running_count(tasks) == task_count
        })?;
        deployed.push(start.elapsed().as_secs_f64());

        let start = Instant::now();
        docker(target, &["rm"], &[&name])?;
        let containers = of_stack("/containers/json?all=1&");
        wait(&mut client, &containers, PAUSE, is_empty)?;
        removed.push(start.elapsed().as_secs_f64());
        // Docker removes networks only when no task is left on them; the next run must not meet them.
        let start = Instant::now();
        while docker(target, &["rm"], &[&name]).is_err()
            || !is_empty(&client.json(&of_stack("/networks?"))?)
        {
            if start.elapsed() > Duration::from_secs(60) {
                bail!("the stack's networks are not removed");
            }
        }
    }
    let around = disturbance([&usage.spent(target.root)?]);
    report.add("stack: docker stack deploy returns", "s", &accepted, around);
    report.add("stack: every task runs", "s", &deployed, around);
    report.add("stack: no container is left", "s", &removed, around);
    Ok(())
}

/// Runs `docker stack`.
fn docker(target: &Target<'_>, verb: &[&str], arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("docker");
    command.arg("--host").arg(&target.options.host).arg("stack");
    let output = command.args(verb).args(arguments).output();
    let output = output.context("failed to run docker")?;
    if !output.status.success() {
        bail!("docker stack: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// How many tasks replicated services want.
fn task_count(services: &Value) -> anyhow::Result<usize> {
    let services = services.as_array().context("a list of services")?;
    let counts = services.iter().map(|service| {
        let count = service.pointer("/Spec/Mode/Replicated/Replicas");
        count
            .and_then(Value::as_u64)
            .context("services of the stack are replicated")
    });
    let sum: u64 = counts.sum::<anyhow::Result<u64>>()?;
    Ok(usize::try_from(sum)?)
}
