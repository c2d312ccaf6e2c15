//! Requests to a published service while it is updated and scaled, while a node is drained, and while a daemon is killed: all of
//! them must be answered.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use skep_conformance::{Load, Tally};

use super::faults::{Count, Faults};
use super::lab::{Lab, Task};
use super::wrk::Wrk;

/// How long requests go on before and after a change.
const CALM: Duration = Duration::from_secs(1);
/// How long nothing happens, to compare.
const QUIET: Duration = Duration::from_secs(20);
/// Between two requests of one patient client.
const PAUSE: Duration = Duration::from_millis(2);
/// What no request may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Patient clients of each node.
const CLIENT_COUNT: usize = 2;

/// What happens under load.
#[derive(Debug, Clone, Copy)]
enum Change {
    /// Nothing, for a while.
    Nothing,
    /// All tasks are replaced.
    Update,
    /// One replica less, then as many as before.
    Scale,
    /// A node with a task is emptied, then used again.
    Drain,
    /// A node's daemon is killed and started again at once, or after its node was found down.
    Kill { away: Duration },
}

/// All changes, each with its service.
const CHANGES: [(&str, Change, &str, usize); 9] = [
    ("nothing, 3 replicas", Change::Nothing, "stop-first", 3),
    (
        "update, stop-first, 2 replicas",
        Change::Update,
        "stop-first",
        2,
    ),
    (
        "update, stop-first, 3 replicas",
        Change::Update,
        "stop-first",
        3,
    ),
    (
        "update, start-first, 1 replica",
        Change::Update,
        "start-first",
        1,
    ),
    (
        "update, start-first, 2 replicas",
        Change::Update,
        "start-first",
        2,
    ),
    ("scale 3 to 2 to 3", Change::Scale, "stop-first", 3),
    (
        "drain of a node, 3 replicas",
        Change::Drain,
        "stop-first",
        3,
    ),
    (
        "daemon killed, back at once",
        Change::Kill {
            away: Duration::ZERO,
        },
        "stop-first",
        3,
    ),
    (
        "daemon killed, away 6 s",
        Change::Kill {
            away: Duration::from_secs(6),
        },
        "stop-first",
        3,
    ),
];

/// All loads at work.
struct Loads {
    kept: Wrk,
    single: Wrk,
}

/// Every change once whose name has a text.
pub(super) fn round(lab: &Lab, text: &str, faults: &mut Faults) -> anyhow::Result<()> {
    let changes = CHANGES.into_iter().filter(|change| change.0.contains(text));
    for (name, change, order, replica_count) in changes {
        let mode = json!({ "Replicated": { "Replicas": replica_count } });
        let tasks = lab.create(&lab.web(&mode, order), replica_count)?;
        under_load(lab, name, faults, || apply(lab, change, &tasks))?;
    }
    lab.remove("web")
}

/// Lets all loads ask while `work` is done.
pub(super) fn under_load(
    lab: &Lab,
    name: &str,
    faults: &mut Faults,
    work: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let targets = lab.targets();
    let is_over = AtomicBool::new(false);
    let loads = Loads {
        kept: Wrk::start(targets[0], true)?,
        single: Wrk::start(targets[1], false)?,
    };
    let patient = |is_kept_alive| Load {
        targets: targets.clone(),
        path: "/".to_owned(),
        client_count: CLIENT_COUNT,
        is_kept_alive,
        pause: PAUSE,
        patience: PATIENCE,
    };
    let (kept, single) = (patient(true), patient(false));
    let (done, tallies) = thread::scope(|scope| {
        let kept = scope.spawn(|| kept.run(&is_over));
        let single = scope.spawn(|| single.run(&is_over));
        thread::sleep(CALM);
        let done = work();
        thread::sleep(CALM);
        is_over.store(true, Ordering::Relaxed);
        let join = |load: thread::ScopedJoinHandle<'_, _>| load.join().expect("no panic");
        (done, [join(kept), join(single)])
    });
    faults.add(name, "wrk, keep-alive, node1", loads.kept.finish()?);
    faults.add(name, "wrk, connection each, node2", loads.single.finish()?);
    let [kept, single] = tallies;
    for (kind, tallies) in [
        ("keep-alive, all nodes", kept),
        ("connection each, all nodes", single),
    ] {
        for (target, tally) in tallies {
            faults.add(name, kind, count(lab, target, tally));
        }
    }
    done
}

/// A patient load's tally; servers that saw another client count as failures.
fn count(lab: &Lab, target: SocketAddr, tally: Tally) -> Count {
    let own = lab.own.to_string();
    let seen = tally.clients.iter().filter(|(client, _)| **client != own);
    let wrong: u64 = seen.map(|(_, count)| count).sum();
    let mut count = Count {
        answered: tally.answered - wrong,
        ..Count::default()
    };
    for (failure, number) in &tally.failed {
        count.failed.insert(failure.name(), *number);
    }
    if wrong > 0 {
        count.failed.insert("address", wrong);
        count.told.push(format!("{target}: {:?}", tally.clients));
    }
    let told = tally.told.iter().map(|line| format!("{target}: {line}"));
    count.told.extend(told);
    count
}

fn apply(lab: &Lab, change: Change, tasks: &[Task]) -> anyhow::Result<()> {
    match change {
        Change::Nothing => {
            thread::sleep(QUIET);
            Ok(())
        }
        Change::Update => update(lab, tasks),
        Change::Scale => {
            for count in [tasks.len() - 1, tasks.len()] {
                scale(lab, "web", count)?;
            }
            Ok(())
        }
        Change::Drain => drain(lab, tasks),
        Change::Kill { away } => {
            // Of the node that wrk asks with new connections, and that has a task.
            let node = "node2";
            lab.cluster.skep(&["stop", "--kill", node])?;
            thread::sleep(away);
            lab.cluster.skep(&["start", node])?;
            lab.cluster.wait_whole()?;
            lab.settled("web", tasks.len()).map(drop)
        }
    }
}

/// Replaces all tasks.
fn update(lab: &Lab, tasks: &[Task]) -> anyhow::Result<()> {
    let before: BTreeSet<&str> = tasks.iter().map(|task| task.id.as_str()).collect();
    lab.update("/services/web", |spec| {
        let count = spec["TaskTemplate"]["ForceUpdate"].as_u64().unwrap_or(0);
        spec["TaskTemplate"]["ForceUpdate"] = (count + 1).into();
    })?;
    lab.wait("all tasks are new", || {
        let now = lab.settled("web", tasks.len())?;
        let is_old = now.iter().any(|task| before.contains(task.id.as_str()));
        ensure!(!is_old, "an old task is left");
        Ok(())
    })
}

/// Sets the number of replicas and waits for them.
pub(super) fn scale(lab: &Lab, name: &str, count: usize) -> anyhow::Result<()> {
    lab.update(&format!("/services/{name}"), |spec| {
        spec["Mode"]["Replicated"]["Replicas"] = count.into();
    })?;
    lab.settled(name, count).map(drop)
}

/// Empties the node of the last task, then lets it have tasks again.
fn drain(lab: &Lab, tasks: &[Task]) -> anyhow::Result<()> {
    let Some(victim) = tasks.last().map(|task| task.node) else {
        return Ok(());
    };
    let path = format!("/nodes/{}", lab.cluster.id(victim)?);
    let set = |availability: &str| {
        lab.update(&path, |spec: &mut Value| {
            spec["Availability"] = availability.into();
        })
    };
    set("drain")?;
    let emptied = lab.wait("the node is empty", || {
        let now = lab.settled("web", tasks.len())?;
        ensure!(now.iter().all(|task| task.node != victim), "it has a task");
        Ok(())
    });
    set("active")?;
    emptied
}
