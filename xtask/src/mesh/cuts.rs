//! A node that is cut off while it serves: how long requests through the others fail, and how soon it serves again when it is back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;
use skep_conformance::{Load, Tally};

use super::around;
use super::faults::{Count, Faults};
use super::lab::{Lab, WEB_PORT};
use crate::bench::sample::Report;

/// The node that is cut off.
const VICTIM: usize = 3;
/// How long it is alone: long enough to be found down, and for its task to be replaced.
const ALONE: Duration = Duration::from_secs(10);
/// How long it may take until all is as before.
const WHOLE: Duration = Duration::from_secs(6);
/// How long one request may take: a packet that is dropped is not answered.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two requests of a client.
const PAUSE: Duration = Duration::from_millis(5);
/// Clients of each node.
const CLIENT_COUNT: usize = 4;

/// Measures with a task on each node.
pub(super) fn measure(
    lab: &Lab,
    round_count: usize,
    report: &mut Report,
    faults: &mut Faults,
) -> anyhow::Result<()> {
    let mode = json!({ "Replicated": { "Replicas": 3 } });
    lab.create(&lab.web(&mode, "stop-first"), 3)?;
    let (mut outages, mut returns) = (Vec::new(), Vec::new());
    for _ in 0..round_count {
        let (outage, back) = round(lab, faults)?;
        outages.push(outage);
        returns.push(back);
        lab.cluster.wait_whole()?;
        lab.settled("web", 3)?;
        // The node that was away has no task, or not its own share.
        for count in [0, 3] {
            super::changes::scale(lab, "web", count)?;
        }
    }
    let name = "cut off: others' requests fail for";
    report.add(name, "s", &outages, around());
    report.add("healed: serves again after", "s", &returns, around());
    lab.remove("web")
}

/// Seconds until the last failure of the other nodes, and until the victim serves for good.
fn round(lab: &Lab, faults: &mut Faults) -> anyhow::Result<(f64, f64)> {
    let load = Load {
        targets: lab.targets(),
        path: "/".to_owned(),
        client_count: CLIENT_COUNT,
        is_kept_alive: false,
        pause: PAUSE,
        patience: PATIENCE,
    };
    let is_over = AtomicBool::new(false);
    let name = format!("node{VICTIM}");
    let (done, tallies) = thread::scope(|scope| {
        let start = Instant::now();
        let tallies = scope.spawn(|| load.run(&is_over));
        let disturb = || {
            thread::sleep(Duration::from_secs(1));
            let cut = start.elapsed();
            lab.cluster.skep(&["cut", &name])?;
            thread::sleep(ALONE);
            let heal = start.elapsed();
            lab.cluster.skep(&["heal"])?;
            thread::sleep(WHOLE);
            anyhow::Ok((cut, heal, start.elapsed()))
        };
        let done = disturb();
        is_over.store(true, Ordering::Relaxed);
        (done, tallies.join().expect("a load does not panic"))
    });
    let (cut, heal, end) = done?;
    let after = |time: Option<Duration>, since: Duration| {
        time.map_or(0.0, |time| time.saturating_sub(since).as_secs_f64())
    };
    let victim = SocketAddr::from((lab.addresses[VICTIM - 1], WEB_PORT));
    let outage = tallies
        .iter()
        .filter(|(target, _)| **target != victim)
        .map(|(_, tally)| after(tally.failed_last, cut))
        .fold(0.0, f64::max);
    ensure!(tallies.contains_key(&victim), "nobody asked the node");
    let back = after(tallies[&victim].answered_since, heal);
    faults.add(
        "cut off and healed",
        "connection each",
        unwell(&tallies, end),
    );
    Ok((outage, back))
}

/// Nodes that do not serve at the end.
fn unwell(tallies: &BTreeMap<SocketAddr, Tally>, end: Duration) -> Count {
    let mut count = Count::default();
    for (target, tally) in tallies {
        count.answered += tally.answered;
        let is_well = tally
            .answered_since
            .is_some_and(|since| since + PATIENCE < end);
        if !is_well {
            *count.failed.entry("not back").or_default() += 1;
            let last = tally.told.last().cloned().unwrap_or_default();
            count
                .told
                .push(format!("{target} fails at the end; told last: {last}"));
        }
    }
    count
}
