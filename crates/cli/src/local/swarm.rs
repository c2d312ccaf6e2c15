//! Makes one cluster of a machine's daemons, over their API.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use skep_docker_api::client::Client;
use tokio::task::JoinSet;

use crate::local::{layout::node_name, machine::Machine};

/// A request that changes membership answers within 20 s, or says that it goes on.
const CHANGE_WAIT_MAX: Duration = Duration::from_secs(60);
/// From the last join until the managers have heard from all nodes; after a restart, an election more.
const READY_WAIT_MAX: Duration = Duration::from_secs(90);
/// Any other question is answered far sooner.
pub(crate) const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
/// Between two looks.
const READY_POLL: Duration = Duration::from_millis(50);

/// What a daemon says of its membership.
#[derive(Debug, Clone, Default)]
pub(crate) struct Membership {
    /// `inactive`, `pending`, `active`, `error` or `locked`.
    pub(crate) state: String,
    pub(crate) node_id: String,
    pub(crate) is_manager: bool,
    pub(crate) error: String,
}

// === impl Membership ===

impl Membership {
    /// Asks a daemon.
    pub(crate) async fn of(client: &Client) -> anyhow::Result<Self> {
        let info = asked(ANSWER_WAIT_MAX, client.get("/info")).await?;
        let swarm = &info["Swarm"];
        let text = |key: &str| swarm[key].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            state: text("LocalNodeState"),
            node_id: text("NodeID"),
            is_manager: swarm["ControlAvailable"] == true,
            error: text("Error"),
        })
    }
}

/// The answer to `question`, within `limit`.
pub(crate) async fn asked<T>(
    limit: Duration,
    question: impl Future<Output = Result<T, skep_docker_api::client::Error>>,
) -> anyhow::Result<T> {
    let answer = tokio::time::timeout(limit, question).await;
    Ok(answer.with_context(|| format!("the daemon did not answer within {limit:?}"))??)
}

/// Makes every daemon a member: the first nodes managers, the others workers.
pub(crate) async fn form(machine: &Machine) -> anyhow::Result<()> {
    let mut members = BTreeMap::new();
    for number in machine.state.numbers() {
        let member = Membership::of(&machine.client(number)).await?;
        if member.state == "locked" {
            let socket = machine.layout.socket(number);
            let name = node_name(number);
            bail!(
                "{name} is locked: `docker -H unix://{} swarm unlock` unlocks it",
                socket.display()
            );
        }
        members.insert(number, member);
    }
    let is_in = |member: &Membership| member.state != "inactive";
    if !members.values().any(is_in) {
        init(machine, 1).await?;
        members.insert(1, Membership::of(&machine.client(1)).await?);
    }
    let manager = members
        .iter()
        .find(|(_, member)| member.state == "active" && member.is_manager)
        .map(|(number, _)| *number);
    let outside: Vec<u8> = members
        .iter()
        .filter(|(_, member)| !is_in(member))
        .map(|(number, _)| *number)
        .collect();
    if !outside.is_empty() {
        let manager = manager.context("no manager answers that could let nodes join")?;
        join_all(machine, manager, &outside).await?;
    }
    wait_ready(machine).await
}

async fn init(machine: &Machine, number: u8) -> anyhow::Result<()> {
    let body = json!({
        "ListenAddr": "0.0.0.0:2377",
        "AdvertiseAddr": machine.layout.address(number).to_string(),
        "Spec": {},
    });
    let client = machine.client(number);
    let answer = asked(CHANGE_WAIT_MAX, client.post("/swarm/init", &body)).await;
    answer.context("failed to start a cluster")?;
    Ok(())
}

/// Managers one after the other, as raft takes them; workers at once.
async fn join_all(machine: &Machine, manager: u8, outside: &[u8]) -> anyhow::Result<()> {
    let swarm = asked(CHANGE_WAIT_MAX, machine.client(manager).get("/swarm")).await;
    let swarm = swarm.context("failed to ask for join tokens")?;
    let mut workers = JoinSet::new();
    for &number in outside {
        let is_manager = number <= machine.state.manager_count;
        let role = if is_manager { "Manager" } else { "Worker" };
        let body = json!({
            "ListenAddr": "0.0.0.0:2377",
            "AdvertiseAddr": machine.layout.address(number).to_string(),
            "RemoteAddrs": [machine.layout.control_address(manager)],
            "JoinToken": swarm["JoinTokens"][role],
            "Availability": "active",
        });
        let client = machine.client(number);
        if is_manager {
            join(client, number, body).await?;
        } else {
            workers.spawn(join(client, number, body));
        }
    }
    while let Some(joined) = workers.join_next().await {
        joined??;
    }
    Ok(())
}

async fn join(client: Client, number: u8, body: Value) -> anyhow::Result<()> {
    let answer = asked(CHANGE_WAIT_MAX, client.post("/swarm/join", &body)).await;
    answer.with_context(|| format!("{} failed to join", node_name(number)))?;
    Ok(())
}

/// Waits until managers count every node as ready and all managers as reachable.
async fn wait_ready(machine: &Machine) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let waiting = match unready(machine).await {
            Ok(None) => return Ok(()),
            Ok(Some(waiting)) => waiting,
            Err(error) => format!("{error:#}"),
        };
        if start.elapsed() > READY_WAIT_MAX {
            bail!("not all nodes are ready after {READY_WAIT_MAX:?}: {waiting}");
        }
        tokio::time::sleep(READY_POLL).await;
    }
}

/// A node that is not ready, and how it is.
async fn unready(machine: &Machine) -> anyhow::Result<Option<String>> {
    let mut manager = None;
    let mut ids = BTreeMap::new();
    for number in machine.state.numbers() {
        let client = machine.client(number);
        let member = Membership::of(&client).await?;
        if member.state != "active" {
            let (name, error) = (node_name(number), member.error);
            return Ok(Some(format!("{name} is {} {error}", member.state)));
        }
        if member.is_manager && manager.is_none() {
            manager = Some(client);
        }
        ids.insert(member.node_id, number);
    }
    let manager = manager.context("no manager answers")?;
    let nodes = asked(ANSWER_WAIT_MAX, manager.get("/nodes")).await?;
    let nodes = nodes.as_array().map(Vec::as_slice).unwrap_or_default();
    for (id, number) in ids {
        let node = nodes.iter().find(|node| node["ID"] == id.as_str());
        let name = node_name(number);
        let Some(node) = node else {
            return Ok(Some(format!("{name} is not listed")));
        };
        let (state, manager) = (&node["Status"]["State"], &node["ManagerStatus"]);
        if state != "ready" {
            return Ok(Some(format!("{name} is {state}")));
        }
        if manager.is_object() && manager["Reachability"] != "reachable" {
            return Ok(Some(format!(
                "manager {name} is {}",
                manager["Reachability"]
            )));
        }
    }
    Ok(None)
}
