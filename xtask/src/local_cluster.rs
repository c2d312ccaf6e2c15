//! A cluster on this machine through `skep local`, for measuring it and for torturing it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::bench::http::Client;

/// How long a cluster may take to be whole again.
const WHOLE_TIME_MAX: Duration = Duration::from_secs(180);
/// Between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// How long an answer may take while nothing is disturbed.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);

/// Nodes `node1` to `nodeN`; gone when dropped.
#[derive(Debug)]
pub(crate) struct LocalCluster {
    skep: PathBuf,
    name: String,
    node_count: usize,
    manager_count: usize,
}

// === impl LocalCluster ===

impl LocalCluster {
    /// Starts a cluster with the test images.
    pub(crate) fn start(
        skep: &Path,
        name: &str,
        node_count: usize,
        manager_count: usize,
    ) -> anyhow::Result<Self> {
        let cluster = Self::new(skep, name, node_count, manager_count)?;
        let (nodes, managers) = (node_count.to_string(), manager_count.to_string());
        cluster.skep(&["up", "--nodes", &nodes, "--managers", &managers])?;
        with_images(|images| {
            for name in ["busybox", "web"] {
                let archive = images.join(format!("{name}.tar")).display().to_string();
                cluster.skep(&["load", &archive])?;
            }
            Ok(())
        })?;
        Ok(cluster)
    }

    /// Namespaces of nodes with the links between them, and nothing that runs in them.
    pub(crate) fn bare(skep: &Path, name: &str, node_count: usize) -> anyhow::Result<Self> {
        let cluster = Self::new(skep, name, node_count, 0)?;
        cluster.skep(&["up", "--no-swarm", "--nodes", &node_count.to_string()])?;
        for number in cluster.nodes() {
            cluster.skep(&["stop", &format!("node{number}")])?;
        }
        Ok(cluster)
    }

    fn new(
        skep: &Path,
        name: &str,
        node_count: usize,
        manager_count: usize,
    ) -> anyhow::Result<Self> {
        let skep = skep.canonicalize();
        let cluster = Self {
            skep: skep.context("no such program; build it with `cargo build --release`")?,
            name: name.to_owned(),
            node_count,
            manager_count,
        };
        cluster.skep(&["down"])?;
        Ok(cluster)
    }

    /// A command that will run in a node's namespaces.
    pub(crate) fn inside(&self, number: usize, program: &Path) -> Command {
        let mut command = Command::new(&self.skep);
        command
            .args(["local", "--name", &self.name, "exec"])
            .arg(format!("node{number}"))
            .arg(program);
        command
    }

    /// `skep local …`; what it printed.
    pub(crate) fn skep(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.skep);
        command
            .args(["local", "--name", &self.name])
            .args(arguments);
        let output = command.output().context("failed to run skep")?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            bail!("`skep local {}`: {}", arguments.join(" "), text.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub(crate) fn nodes(&self) -> std::ops::RangeInclusive<usize> {
        1..=self.node_count
    }

    pub(crate) fn managers(&self) -> std::ops::RangeInclusive<usize> {
        1..=self.manager_count
    }

    /// A node's socket.
    pub(crate) fn host(&self, number: usize) -> String {
        format!(
            "unix:///run/skep-local/{}/node{number}/skep.sock",
            self.name
        )
    }

    /// A connection to a node's daemon; answers take at most `limit`.
    pub(crate) fn connect_for(&self, number: usize, limit: Duration) -> anyhow::Result<Client> {
        Client::connect_for(&self.host(number), limit)
    }

    /// A connection to a node's daemon.
    pub(crate) fn connect(&self, number: usize) -> anyhow::Result<Client> {
        self.connect_for(number, ANSWER_TIME_MAX)
    }

    /// The pid of a node's daemon.
    pub(crate) fn pid(&self, number: usize) -> anyhow::Result<u64> {
        let lines = self.skep(&["ps", "--format", "json"])?;
        let mut rows = lines.lines().map(serde_json::from_str::<Value>);
        let row = rows.nth(number - 1).context("no such node")??;
        row["Pid"].as_u64().context("the daemon does not run")
    }

    /// Waits until every manager tells of all nodes that they are ready, of all managers that they are
    /// reachable, and of the same leader; returns the leader.
    pub(crate) fn wait_whole(&self) -> anyhow::Result<usize> {
        let start = Instant::now();
        loop {
            let leaders: anyhow::Result<Vec<usize>> = self
                .managers()
                .map(|number| self.whole_as_seen_by(number))
                .collect();
            let state = match leaders {
                Ok(leaders) if leaders.windows(2).all(|pair| pair[0] == pair[1]) => {
                    return leaders.first().copied().context("no managers");
                }
                Ok(leaders) => format!("leaders are {leaders:?}"),
                Err(error) => format!("{error:#}"),
            };
            if start.elapsed() > WHOLE_TIME_MAX {
                bail!("the cluster is not whole again: {state}");
            }
            thread::sleep(LOOK_PAUSE);
        }
    }

    fn whole_as_seen_by(&self, number: usize) -> anyhow::Result<usize> {
        let nodes = self.connect(number)?.json("/nodes")?;
        let nodes = nodes.as_array().context("no list of nodes")?;
        let name = |node: &Value| {
            node["Description"]["Hostname"]
                .as_str()
                .unwrap_or("?")
                .to_owned()
        };
        let is_unwell = |node: &&Value| {
            let manager = &node["ManagerStatus"];
            node["Status"]["State"] != "ready"
                || (manager.is_object() && manager["Reachability"] != "reachable")
        };
        if let Some(node) = nodes.iter().find(is_unwell) {
            bail!(
                "node{number} says {} is {}",
                name(node),
                node["Status"]["State"]
            );
        }
        if nodes.len() != self.node_count {
            bail!("node{number} knows {} nodes", nodes.len());
        }
        let leader = nodes
            .iter()
            .find(|node| node["ManagerStatus"]["Leader"] == true);
        let leader = leader.map(name).context("no leader")?;
        let digits = leader
            .strip_prefix("node")
            .and_then(|digits| digits.parse().ok());
        digits.context("the leader's name")
    }

    /// A node's id.
    pub(crate) fn id(&self, number: usize) -> anyhow::Result<String> {
        let info = self.connect(number)?.json("/info")?;
        let id = info.pointer("/Swarm/NodeID").and_then(Value::as_str);
        Ok(id.context("a node's id")?.to_owned())
    }
}

impl Drop for LocalCluster {
    #[expect(
        clippy::print_stderr,
        reason = "there is nobody to return the failure to"
    )]
    fn drop(&mut self) {
        if let Err(error) = self.skep(&["down"]) {
            eprintln!("failed to remove the cluster: {error:#}");
        }
    }
}

/// Builds the test images, lets `work` use them and removes them.
pub(crate) fn with_images<T>(work: impl FnOnce(&Path) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let images = std::env::temp_dir().join(format!("skep-images-{}", std::process::id()));
    let built = Command::new("fixtures/build-images")
        .arg(&images)
        .stdout(Stdio::null())
        .status();
    if !built.context("failed to build images")?.success() {
        bail!("`fixtures/build-images` failed");
    }
    let outcome = work(&images);
    std::fs::remove_dir_all(&images).context("failed to remove images")?;
    outcome
}

/// A service of `replica_count` replicas of `sleep`.
pub(crate) fn service(name: &str, replica_count: usize) -> String {
    serde_json::json!({
        "Name": name,
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "skep/busybox",
                "Command": ["sleep", "1000000"],
                "StopSignal": "SIGKILL",
            },
        },
        "Mode": { "Replicated": { "Replicas": replica_count } },
    })
    .to_string()
}

/// Sends a signal by name.
pub(crate) fn signal(pid: u64, name: &str) -> anyhow::Result<()> {
    let status = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status();
    if !status.context("failed to run kill")?.success() {
        bail!("failed to send {name} to {pid}");
    }
    Ok(())
}
