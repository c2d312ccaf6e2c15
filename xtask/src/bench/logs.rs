//! Logs of a service, read whole: lines a second, and what the daemon needs for it.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::ensure;
use serde_json::json;

use super::{
    Target,
    http::Client,
    machine::Usage,
    sample::Report,
    workload::{PREFIX, create, disturbance, filtered, is_empty, wait},
};

/// Tasks that write, on as many nodes as there are up to this.
const TASKS: usize = 3;
/// Lines of all of them together.
const LINES: usize = 100_000;
/// Bytes of a frame's header.
const HEADER_BYTES: usize = 8;
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(200);
/// Bytes in a mebibyte.
const MEBIBYTE: f64 = 1_048_576.0;

/// Three tasks write 100,000 lines; they are read as the docker command reads them.
pub(super) fn logs(target: &Target<'_>, report: &mut Report) -> anyhow::Result<()> {
    let mut client = Client::connect(&target.options.host)?;
    let each = LINES.div_ceil(TASKS);
    let script = format!(
        "i=0; while [ $i -lt {each} ]; do echo \"line $i of what a service has to say about a request\"; i=$((i+1)); done; echo end; sleep 1000000"
    );
    let spec = json!({
        "Name": format!("{PREFIX}logs"),
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": target.options.image,
                "Command": ["sh", "-c", script],
                "StopSignal": "SIGKILL",
            },
            "RestartPolicy": { "Condition": "none" },
        },
        "Mode": { "Replicated": { "Replicas": TASKS } },
    });
    let id = create(&mut client, &spec.to_string())?;
    let last = format!("/services/{id}/logs?stdout=1&tail=1");
    let start = Instant::now();
    while texts(client.request("GET", &last, None)?)
        .filter(|text| *text == b"end\n")
        .count()
        < TASKS
    {
        ensure!(
            start.elapsed() < Duration::from_secs(180),
            "the tasks do not end"
        );
        std::thread::sleep(PAUSE);
    }

    let path = format!("/services/{id}/logs?stdout=1&stderr=1&details=1&timestamps=1");
    let (mut rates, mut inversions, mut peaks) = (Vec::new(), Vec::new(), Vec::new());
    let usage = Usage::now(target.root)?;
    for _ in 0..target.options.runs {
        target.options.pid.iter().for_each(|pid| reset_peak(*pid));
        let start = Instant::now();
        let body = client.request("GET", &path, None)?;
        let seconds = start.elapsed().as_secs_f64();
        let times: Vec<&[u8]> = texts(body)
            .map(|text| text.get(..30).unwrap_or_default())
            .collect();
        ensure!(
            times.len() == TASKS * (each + 1),
            "{} lines came",
            times.len()
        );
        rates.push(figure(times.len()) / seconds);
        let out_of_order = times.windows(2).filter(|pair| pair[0] > pair[1]).count();
        inversions.push(figure(out_of_order));
        let peak: Option<f64> = target.options.pid.iter().map(|pid| peak(*pid)).sum();
        peaks.extend(peak);
    }
    let spent = usage.spent(target.root)?;
    let around = disturbance([&spent]);
    let name = |what: &str| format!("service logs, {LINES} lines of {TASKS} tasks: {what}");
    report.add(name("rate"), "line/s", &rates, around);
    report.add(name("out of order"), "", &inversions, around);
    if !peaks.is_empty() {
        report.add(name("peak memory"), "MiB", &peaks, around);
    }

    client.request("DELETE", &format!("/services/{id}"), None)?;
    let label = format!("com.docker.swarm.service.id%3D{id}");
    let containers = filtered("/containers/json?all=1&", "label", &label);
    wait(&mut client, &containers, PAUSE, is_empty)
}

/// The texts of the frames in a body.
fn texts(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = body;
    std::iter::from_fn(move || {
        let length = rest.get(4..HEADER_BYTES)?;
        let length = u32::from_be_bytes(length.try_into().ok()?);
        let end = HEADER_BYTES + usize::try_from(length).ok()?;
        let text = rest.get(HEADER_BYTES..end)?;
        rest = rest.get(end..)?;
        Some(text)
    })
}

/// Makes the kernel forget the most memory a process ever had.
fn reset_peak(pid: u32) {
    // Without the right to, the figure is that of the process' whole life.
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// The most memory a process had, in MiB.
fn peak(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: f64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0 / MEBIBYTE)
}

fn figure(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}
