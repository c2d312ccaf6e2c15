//! `skep node drain`

use std::{
    io::Write,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use skep_docker_api::client::{Client, Error};

use self::kept::{Kept, Surroundings};
use crate::{cluster_spec::is_stale, duration, url::escape};

mod kept;

/// Between two looks at the node's tasks.
const POLL: Duration = Duration::from_millis(250);
/// Attempts against others who change the node at the same time.
const ATTEMPT_COUNT_MAX: u32 = 10;
/// The count of tasks may stay the same this long before people are told why; a task that moves to
/// a node with its image takes less.
const STALL: Duration = Duration::from_secs(3);

/// Which node.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// The node's name or id
    node: String,
    /// Wait until no task is left on it
    #[arg(long)]
    wait: bool,
    /// How long to wait at most
    #[arg(long, requires = "wait", default_value = "10m", value_parser = duration::parse)]
    timeout: Duration,
}

pub(super) async fn run(client: &Client, args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let id = drain(client, &args.node).await?;
    if args.wait {
        wait(client, &id, args, out).await?;
    }
    Ok(())
}

/// Sets the node's availability; returns its id.
async fn drain(client: &Client, name: &str) -> anyhow::Result<String> {
    for _ in 0..ATTEMPT_COUNT_MAX {
        let node = client.get(&format!("/nodes/{}", escape(name))).await?;
        let id = node["ID"].as_str().context("the node has no id")?;
        let mut spec = node["Spec"].clone();
        if spec["Availability"] == "drain" {
            return Ok(id.to_owned());
        }
        spec["Availability"] = "drain".into();
        let version = &node["Version"]["Index"];
        let path = format!("/nodes/{id}/update?version={version}");
        match client.post(&path, &spec).await {
            Ok(_) => return Ok(id.to_owned()),
            Err(error) if is_stale(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bail!("others change node `{name}` all the time")
}

/// Waits until all tasks of the node have ended; says how many are left whenever that changes, and
/// what keeps them when it does not.
async fn wait(client: &Client, id: &str, args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let start = Instant::now();
    let (mut shown, mut since, mut told) = (None, start, Vec::new());
    loop {
        // A change of leader may come in between: the next look finds the new one.
        let kept = while_there_is_a_leader(Kept::of(client, id).await)?;
        if let Some(kept) = &kept {
            let count = kept.count();
            if shown != Some(count) {
                show(&args.node, kept, out)?;
                (shown, since) = (Some(count), Instant::now());
            }
            if count == 0 {
                return Ok(());
            }
            if since.elapsed() >= args.patience() {
                let around = while_there_is_a_leader(Surroundings::of(client, kept).await)?;
                let reasons = around.map_or(told.clone(), |around| kept.reasons(&around));
                for reason in reasons.iter().filter(|reason| !told.contains(*reason)) {
                    writeln!(out, "{}: {reason}", args.node)?;
                }
                out.flush()?;
                (told, since) = (reasons, Instant::now());
            }
        }
        if start.elapsed() > args.timeout {
            let count = match shown {
                None => "an unknown number of tasks is".to_owned(),
                Some(1) => "1 task is".to_owned(),
                Some(count) => format!("{count} tasks are"),
            };
            let node = client.get(&format!("/nodes/{id}")).await?;
            let state = node["Status"]["State"].as_str().unwrap_or("unknown");
            let limit = args.timeout;
            let reasons = match told.as_slice() {
                [] => String::new(),
                told => format!(" ({})", told.join("; ")),
            };
            bail!("{count} left after {limit:?}; the node is {state}{reasons}");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Nothing while the cluster has no leader.
fn while_there_is_a_leader<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.status().is_some_and(|status| status.as_u16() == 503) => Ok(None),
        Err(error) => Err(error),
    }
}

fn show(node: &str, kept: &Kept, out: &mut dyn Write) -> anyhow::Result<()> {
    let states: Vec<String> = kept
        .states()
        .iter()
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    match kept.count() {
        0 => writeln!(out, "{node}: no task is left")?,
        1 => writeln!(out, "{node}: 1 task is left ({})", states.join(", "))?,
        count => writeln!(
            out,
            "{node}: {count} tasks are left ({})",
            states.join(", ")
        )?,
    }
    out.flush()?;
    Ok(())
}

// === impl Args ===

impl Args {
    /// How long the count may stay as it is before tasks are named. Shorter than the time to wait.
    fn patience(&self) -> Duration {
        STALL.min(self.timeout / 2)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fake_daemon::FakeDaemon;

    const NODE: &str = r#"{"ID":"n1","Version":{"Index":7},"Status":{"State":"ready"},
        "Spec":{"Labels":{"a":"b"},"Role":"worker","Availability":"active"}}"#;

    fn args(timeout: Duration) -> Args {
        Args {
            node: "node one".to_owned(),
            wait: true,
            timeout,
        }
    }

    fn tasks(states: &[&str]) -> String {
        let one = |state: &&str| json!({"Slot": 1, "ServiceID": "web", "Status": {"State": state}});
        Value::Array(states.iter().map(one).collect()).to_string()
    }

    #[tokio::test]
    async fn a_drained_node_is_waited_for_until_its_last_task_has_ended() {
        let stale = r#"{"message":"rpc error: code = Unknown desc = update out of sequence"}"#;
        let leaderless = r#"{"message":"The swarm does not have a leader"}"#;
        let daemon = FakeDaemon::new(vec![
            ("GET /nodes/node%20one ", 200, NODE.to_owned()),
            ("POST /nodes/n1/update?version=7 ", 500, stale.to_owned()),
            ("GET /nodes/node%20one ", 200, NODE.replace('7', "8")),
            ("POST /nodes/n1/update?version=8 ", 200, String::new()),
            (
                "GET /tasks?filters=",
                200,
                tasks(&["running", "starting", "failed"]),
            ),
            ("GET /tasks?filters=", 503, leaderless.to_owned()),
            ("GET /tasks?filters=", 200, tasks(&["shutdown", "orphaned"])),
        ]);
        let mut out = Vec::new();
        let args = args(Duration::from_secs(60));
        run(&daemon.client(), &args, &mut out).await.unwrap();
        let requests = daemon.requests().await;
        let sent = requests[3].rsplit_once("\r\n").unwrap().1;
        let sent: Value = serde_json::from_str(sent).unwrap();
        let expected = json!({"Labels":{"a":"b"},"Role":"worker","Availability":"drain"});
        assert_eq!(sent, expected);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "node one: 2 tasks are left (1 running, 1 starting)\nnode one: no task is left\n"
        );
    }

    #[tokio::test]
    async fn waiting_ends_with_the_reason() {
        let drained = NODE.replace("active", "drain").replace("ready", "down");
        let daemon = FakeDaemon::new(vec![
            ("GET /nodes/node%20one ", 200, drained.clone()),
            ("GET /tasks?filters=", 200, tasks(&["running"])),
            ("GET /tasks?filters=", 200, tasks(&["running"])),
            ("GET /services ", 200, "[]".to_owned()),
            ("GET /nodes ", 200, "[]".to_owned()),
            ("GET /nodes/n1 ", 200, drained),
        ]);
        let args = args(Duration::from_nanos(1));
        let error = run(&daemon.client(), &args, &mut Vec::new()).await;
        let text = error.expect_err("a task is left").to_string();
        assert_eq!(
            text,
            "1 task is left after 1ns; the node is down \
             (web.1: it waits until other tasks of its service have moved)"
        );
        daemon.requests().await;
    }
}
