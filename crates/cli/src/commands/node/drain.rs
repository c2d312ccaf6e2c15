//! `skep node drain`

use std::{
    collections::BTreeMap,
    io::Write,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use skep_docker_api::client::{Client, Error};

use crate::{cluster_spec::is_stale, duration, url::escape};

/// Between two looks at the node's tasks.
const POLL: Duration = Duration::from_millis(250);
/// Attempts against others who change the node at the same time.
const ATTEMPT_COUNT_MAX: u32 = 10;
/// States in which a task has ended, or never began.
const ENDED: [&str; 6] = [
    "complete", "shutdown", "failed", "rejected", "remove", "orphaned",
];

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

/// Waits until all tasks of the node have ended; says how many are left whenever that changes.
async fn wait(client: &Client, id: &str, args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut shown = None;
    loop {
        let left = match left(client, id).await {
            Ok(left) => Some(left),
            // A change of leader may come in between: the next look finds the new one.
            Err(error) if error.status().is_some_and(|status| status.as_u16() == 503) => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(left) = &left {
            let count: usize = left.values().sum();
            if shown != Some(count) {
                show(&args.node, left, out)?;
                shown = Some(count);
            }
            if count == 0 {
                return Ok(());
            }
        }
        if start.elapsed() > args.timeout {
            let count = shown.map_or("unknown".to_owned(), |count| count.to_string());
            let node = client.get(&format!("/nodes/{id}")).await?;
            let state = node["Status"]["State"].as_str().unwrap_or("unknown");
            let limit = args.timeout;
            bail!("{count} tasks are left after {limit:?}; the node is {state}");
        }
        tokio::time::sleep(POLL).await;
    }
}

fn show(node: &str, left: &BTreeMap<String, usize>, out: &mut dyn Write) -> anyhow::Result<()> {
    let states: Vec<String> = left
        .iter()
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    match left.values().sum::<usize>() {
        0 => writeln!(out, "{node}: no task is left")?,
        count => writeln!(
            out,
            "{node}: {count} tasks are left ({})",
            states.join(", ")
        )?,
    }
    out.flush()?;
    Ok(())
}

/// The node's tasks that have not ended: how many in which state.
async fn left(client: &Client, id: &str) -> Result<BTreeMap<String, usize>, Error> {
    let filters = escape(&json!({ "node": { id: true } }).to_string());
    let tasks = client.get(&format!("/tasks?filters={filters}")).await?;
    let mut left = BTreeMap::new();
    for task in tasks.as_array().map(Vec::as_slice).unwrap_or_default() {
        let state = state(task);
        if !ENDED.contains(&state) {
            *left.entry(state.to_owned()).or_default() += 1;
        }
    }
    Ok(left)
}

fn state(task: &Value) -> &str {
    task["Status"]["State"].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
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
        let one = |state: &&str| json!({"Status": {"State": state}});
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
            ("GET /nodes/n1 ", 200, drained),
        ]);
        let args = args(Duration::from_nanos(1));
        let error = run(&daemon.client(), &args, &mut Vec::new()).await;
        let text = error.expect_err("a task is left").to_string();
        assert_eq!(text, "1 tasks are left after 1ns; the node is down");
        daemon.requests().await;
    }
}
