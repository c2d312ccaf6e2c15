//! A cluster under test: `skep local` in a sandbox, and the ways to talk to its nodes.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    docker::Output,
    dockerd,
    engine::{Engine, tail},
    http,
    images::{binary, images},
    node::remove_cgroups,
    poll::until,
    sandbox::Sandbox,
};

/// Gives `skep local` directories of its own: `$1/run` and `$1/data`. What else lies in `/run` and `/var/lib` is hidden.
const PREPARE: &str = "mkdir -p \"$1/run\" \"$1/data\" && mount -t tmpfs run /run && mount -t tmpfs lib /var/lib && \
    mkdir /run/skep-local /var/lib/skep-local && mount --bind \"$1/run\" /run/skep-local && \
    mount --bind \"$1/data\" /var/lib/skep-local";

/// Longest wait for an election, a node found dead, or one found alive again. Nodes are dead after three seconds of
/// silence; after a change of leader they have eight to come back.
const ELECTION_PATIENCE: Duration = Duration::from_secs(60);

/// Nodes `node1` to `nodeN` of a local cluster. Nothing of them is left when dropped.
#[derive(Debug)]
pub struct Cluster {
    engines: Vec<Engine>,
    sandbox: Option<Sandbox>,
    dir: TempDir,
}

// === impl Cluster ===

impl Cluster {
    /// A cluster with `skep/busybox` and `skep/httpd` on every node; the first nodes are managers.
    ///
    /// # Panics
    /// When it does not start, as all methods panic when something fails that the test does not ask about.
    pub fn start(node_count: usize, manager_count: usize) -> Self {
        let flags = format!("--nodes {node_count} --managers {manager_count}");
        Self::with(node_count, &flags)
    }

    /// The same, with further flags of the daemons.
    pub fn with_daemon_flags(node_count: usize, manager_count: usize, more: &str) -> Self {
        let flags = format!("--nodes {node_count} --managers {manager_count} -- {more}");
        Self::with(node_count, &flags)
    }

    /// Nodes that are in no swarm yet.
    pub fn outsiders(node_count: usize) -> Self {
        Self::with(node_count, &format!("--nodes {node_count} --no-swarm"))
    }

    fn with(node_count: usize, flags: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("skep-cluster-")
            .tempdir()
            .expect("a directory");
        let sandbox = Sandbox::new(dir.path());
        let engine = |number| {
            let (run, data) = (dir.path().join("run"), dir.path().join("data"));
            Engine {
                docker: "docker".into(),
                config: dir.path().join("docker"),
                socket: run.join(format!("default/node{number}/skep.sock")),
                log: data.join(format!("default/node{number}.log")),
            }
        };
        let cluster = Self {
            engines: (1..=node_count).map(engine).collect(),
            sandbox: Some(sandbox),
            dir,
        };
        let mut prepare = cluster.sandbox().command(Path::new("bash"));
        prepare.args(["-c", PREPARE, "prepare"]).arg(cluster.dir());
        assert!(prepare.status().expect("bash can be run").success());
        cluster.skep_ok(&format!("local up {flags}"));
        for name in ["busybox", "httpd"] {
            cluster.load(name);
        }
        cluster
    }

    /// Loads a further image of `fixtures/build-images` into all nodes.
    pub fn load(&self, name: &str) {
        self.load_archive(&images().join(format!("{name}.tar")));
    }

    /// Loads an image into all nodes.
    pub fn load_archive(&self, archive: &Path) {
        self.skep_ok(&format!("local load {}", archive.display()));
    }

    /// The cluster's own directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn sandbox(&self) -> &Sandbox {
        self.sandbox
            .as_ref()
            .expect("a cluster has namespaces until dropped")
    }

    /// A node's daemon; nodes are counted from 1.
    pub fn node(&self, number: usize) -> &Engine {
        &self.engines[number - 1]
    }

    /// The nodes' numbers.
    pub fn numbers(&self) -> impl Iterator<Item = usize> + use<> {
        1..=self.engines.len()
    }

    // --- commands ---

    /// Runs `skep`; `line` is read by a shell.
    pub fn skep(&self, line: &str) -> Output {
        let mut command = self.skep_command(line);
        command.output().expect("a shell").into()
    }

    /// `skep` with a line for a shell, to be started.
    pub fn skep_command(&self, line: &str) -> Command {
        let mut command = self.sandbox().command(Path::new("bash"));
        let script = format!("exec {} {line}", binary().display());
        command.args(["-c", &script]).stdin(Stdio::null());
        command
    }

    /// Runs `skep`, which must succeed; returns its standard output without blanks around.
    #[track_caller]
    pub fn skep_ok(&self, line: &str) -> String {
        let output = self.skep(line);
        assert!(output.status == 0, "skep {line}: {}", output.text());
        output.stdout.trim().to_owned()
    }

    /// Runs `skep`, which must fail; returns all it printed.
    #[track_caller]
    pub fn skep_fails(&self, line: &str) -> String {
        let output = self.skep(line);
        assert!(output.status != 0, "skep {line} succeeded: {output:?}");
        output.text()
    }

    /// A command that will run in the machine's namespaces.
    pub fn inside(&self, program: &Path) -> Command {
        self.sandbox().command(program)
    }

    /// Runs a shell script in the machine's namespaces, which must succeed.
    #[track_caller]
    pub fn inside_ok(&self, script: &str) -> String {
        let output = self.sandbox().run(script);
        assert!(output.status == 0, "{script}: {output:?}");
        output.stdout.trim().to_owned()
    }

    // --- the cluster ---

    /// A node's id.
    #[track_caller]
    pub fn id(&self, number: usize) -> String {
        let info = self.node(number).json("/info");
        let id = info["Swarm"]["NodeID"].as_str().unwrap_or_default();
        assert!(!id.is_empty(), "node{number} is no member: {info}");
        id.to_owned()
    }

    /// A node's address.
    #[track_caller]
    pub fn address(&self, number: usize) -> String {
        let info = self.node(number).json("/info");
        let address = info["Swarm"]["NodeAddr"].as_str();
        address.expect("a member has an address").to_owned()
    }

    /// Waits until `asked` names a leader; returns its number.
    #[track_caller]
    pub fn leader_as_seen_by(&self, asked: usize) -> usize {
        until("there is a leader", ELECTION_PATIENCE, || {
            let nodes = self.nodes_as_seen_by(asked)?;
            let leader = nodes
                .iter()
                .find(|node| node["ManagerStatus"]["Leader"] == true);
            let name = leader.and_then(|node| node["Description"]["Hostname"].as_str());
            let number = name.and_then(|name| name.strip_prefix("node")?.parse().ok());
            number.ok_or_else(|| brief(&nodes))
        })
    }

    /// Waits until `asked` lists exactly nodes in these states, by host name; `state` is what `docker node ls` shows and,
    /// of managers, their reachability.
    #[track_caller]
    pub fn listed(&self, asked: usize, expected: &[(&str, &str)]) {
        let what = format!("node{asked} lists {expected:?}");
        until(&what, ELECTION_PATIENCE, || {
            let nodes = self.nodes_as_seen_by(asked)?;
            let found: Vec<(String, String)> = nodes.iter().map(listing).collect();
            let is_found = |(name, state): &(&str, &str)| {
                found.iter().any(|line| line.0 == *name && line.1 == *state)
            };
            if found.len() == expected.len() && expected.iter().all(is_found) {
                Ok(())
            } else {
                Err(brief(&nodes))
            }
        });
    }

    /// Waits until a node itself says that it is a worker: it learns of its demotion after the managers.
    #[track_caller]
    pub fn is_worker(&self, number: usize) {
        until("the node is a worker", ELECTION_PATIENCE, || {
            match self.nodes_as_seen_by(number) {
                Err(message) if message.contains("Worker nodes can't be used") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// All nodes as a manager lists them now.
    ///
    /// # Errors
    /// The daemon's words, when it cannot say.
    pub fn nodes_as_seen_by(&self, asked: usize) -> Result<Vec<Value>, String> {
        let answer = http::request(&self.node(asked).socket, "GET", "/nodes", None);
        let answer = answer.map_err(|error| error.to_string())?;
        match answer.json() {
            Value::Array(nodes) if answer.status == 200 => Ok(nodes),
            _ => Err(answer.message()),
        }
    }

    /// Waits until exactly `count` tasks of a service are wanted and run; returns how many on which node.
    #[track_caller]
    pub fn placed(&self, asked: usize, service: &str, count: usize) -> BTreeMap<usize, usize> {
        self.placed_without(asked, service, count, &[])
    }

    /// Waits until exactly `count` tasks of a service are wanted and run, none of them on the nodes `without`; returns how
    /// many on which node.
    #[track_caller]
    pub fn placed_without(
        &self,
        asked: usize,
        service: &str,
        count: usize,
        without: &[usize],
    ) -> BTreeMap<usize, usize> {
        let what = format!("{count} tasks of {service} run, none on {without:?}");
        until(&what, ELECTION_PATIENCE, || {
            let names = self.names(asked)?;
            let tasks = self.node(asked).tasks(service);
            let wanted = tasks
                .iter()
                .filter(|task| task["DesiredState"] == "running");
            let mut placed = BTreeMap::new();
            let mut states = Vec::new();
            for task in wanted {
                let node = task["NodeID"].as_str().and_then(|id| names.get(id));
                let state = task["Status"]["State"].as_str().unwrap_or_default();
                states.push(format!("{state} on {node:?}"));
                if let (Some(node), "running") = (node, state) {
                    *placed.entry(*node).or_default() += 1;
                }
            }
            let is_elsewhere = !without.iter().any(|number| placed.contains_key(number));
            let running: usize = placed.values().sum();
            if states.len() == count && running == count && is_elsewhere {
                Ok(placed)
            } else {
                Err(states.join(", "))
            }
        })
    }

    /// Waits until every node runs exactly the containers that `asked` counts as running tasks on it.
    #[track_caller]
    pub fn converged(&self, asked: usize, service: &str, count: usize) {
        until("containers are as tasks say", ELECTION_PATIENCE, || {
            let placed = self.placed(asked, service, count);
            for number in self.numbers() {
                let expected = placed.get(&number).copied().unwrap_or_default();
                let output = self.node(number).docker("ps -q --no-trunc");
                let found = output.stdout.lines().count();
                if output.status == 0 && found != expected {
                    return Err(format!("node{number} has {found}, not {expected}"));
                }
            }
            Ok(())
        });
    }

    /// Numbers by id.
    fn names(&self, asked: usize) -> Result<BTreeMap<String, usize>, String> {
        let nodes = self.nodes_as_seen_by(asked)?;
        let numbered = nodes.iter().filter_map(|node| {
            let name = node["Description"]["Hostname"].as_str()?;
            let number = name.strip_prefix("node")?.parse().ok()?;
            Some((node["ID"].as_str()?.to_owned(), number))
        });
        Ok(numbered.collect())
    }

    fn data_dirs(&self) -> Vec<PathBuf> {
        let dir = self.dir().join("data/default");
        let name = |number| dir.join(format!("node{number}"));
        self.numbers().map(name).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = |number| format!("=== node{number}\n{}\n", tail(&self.node(number).log()));
            let logs: String = self.numbers().map(log).collect();
            let test = thread::current().name().unwrap_or("test").to_owned();
            let file = env::temp_dir().join(format!("skep-conformance-{test}.log"));
            let _ = fs::write(file, logs);
        }
        drop(self.sandbox.take());
        for dir in self.data_dirs() {
            remove_cgroups(&dir);
        }
        dockerd::remove_cgroups();
    }
}

/// Host name and state of a node.
fn listing(node: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut state = text(&node["Status"]["State"]);
    if node["ManagerStatus"].is_object() {
        state += " ";
        state += &text(&node["ManagerStatus"]["Reachability"]);
    }
    (text(&node["Description"]["Hostname"]), state)
}

/// Nodes for messages.
fn brief(nodes: &[Value]) -> String {
    let one = |node| {
        let (name, state) = listing(node);
        format!("{name}: {state}")
    };
    nodes.iter().map(one).collect::<Vec<_>>().join(", ")
}
