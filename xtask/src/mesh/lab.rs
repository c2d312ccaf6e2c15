//! The cluster that is measured: three nodes on this machine, an overlay network, and the ways to run peers in their namespaces.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::local_cluster::LocalCluster;

/// The overlay network all services are on.
pub(super) const NETWORK: &str = "mesh";
/// Where the web service is published.
pub(super) const WEB_PORT: u16 = 8080;
/// How long a change of a service may take.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// Attempts of an update against others who change the object.
const ATTEMPT_COUNT_MAX: usize = 10;
/// States of a task that has, or will have, a container.
const LIVE: [&str; 9] = [
    "new",
    "allocated",
    "pending",
    "assigned",
    "accepted",
    "preparing",
    "ready",
    "starting",
    "running",
];

/// The cluster.
#[derive(Debug)]
pub(super) struct Lab {
    pub(super) cluster: LocalCluster,
    /// The nodes' addresses, node1's first.
    pub(super) addresses: Vec<Ipv4Addr>,
    /// This machine's address as the nodes see it.
    pub(super) own: IpAddr,
    /// The network's id.
    pub(super) network: String,
    drain: String,
}

/// Where a peer runs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// This machine.
    Machine,
    /// A node's own namespaces.
    Node(usize),
    /// The network namespace of a process, by its pid in the node.
    Process { node: usize, pid: u64 },
}

/// A process in a namespace; ends when dropped, because its standard input does.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) child: Child,
}

/// A task that runs.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) id: String,
    /// Number of its node.
    pub(super) node: usize,
    pub(super) container: String,
    /// When its state became RUNNING, as its node said: RFC 3339.
    pub(super) running_since: String,
    /// Its address on the network.
    pub(super) address: Option<Ipv4Addr>,
}

// === impl Lab ===

impl Lab {
    /// Three nodes, all managers.
    pub(super) fn start(skep: &Path, drain: &str) -> anyhow::Result<Self> {
        let cluster = LocalCluster::start(skep, "mesh", 3, 3)?;
        let mut lab = Self {
            addresses: Vec::new(),
            own: Ipv4Addr::UNSPECIFIED.into(),
            network: String::new(),
            drain: drain.to_owned(),
            cluster,
        };
        for number in lab.cluster.nodes() {
            let id = lab.cluster.id(number)?;
            let node = lab.get(&format!("/nodes/{id}"))?;
            let address = node.pointer("/Status/Addr").and_then(Value::as_str);
            let address = address.context("a node has an address")?.parse()?;
            lab.addresses.push(address);
        }
        lab.own = own_address(lab.addresses[0].into())?;
        lab.add_v6()?;
        let body = json!({"Name": NETWORK, "Driver": "overlay", "CheckDuplicate": true});
        let answer = lab.post("/networks/create", &body)?;
        lab.network = answer["Id"].as_str().context("a network's id")?.to_owned();
        Ok(lab)
    }

    /// Gives nodes and this machine IPv6 addresses on the network between them, where the kernel has IPv6.
    fn add_v6(&self) -> anyhow::Result<()> {
        if !Path::new("/proc/sys/net/ipv6").exists() {
            return Ok(());
        }
        let IpAddr::V4(own) = self.own else {
            return Ok(());
        };
        let script = |address: Ipv4Addr| {
            let [_, _, subnet, number] = address.octets();
            format!(
                "link=$(ip -o -4 addr show to {address} | cut -d ' ' -f 2) && \
                 ip -6 addr replace fd78:{subnet:x}::{number:x}/64 dev $link nodad"
            )
        };
        let mut commands = vec![(Command::new("sh"), own)];
        for (number, address) in self.cluster.nodes().zip(&self.addresses) {
            commands.push((self.cluster.inside(number, Path::new("sh")), *address));
        }
        for (mut command, address) in commands {
            let status = command.args(["-c", &script(address)]).status();
            let status = status.context("failed to run ip")?;
            ensure!(status.success(), "no IPv6 address for {address}");
        }
        // A daemon that starts tells the others which addresses its node has.
        for number in self.cluster.nodes() {
            self.cluster.skep(&["stop", &format!("node{number}")])?;
            self.cluster.skep(&["start", &format!("node{number}")])?;
            self.cluster.wait_whole()?;
        }
        Ok(())
    }

    /// The published web service through each node.
    pub(super) fn targets(&self) -> Vec<SocketAddr> {
        self.addresses
            .iter()
            .map(|address| SocketAddr::from((*address, WEB_PORT)))
            .collect()
    }

    // --- requests ---

    pub(super) fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.cluster.connect(1)?.json(path)
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let mut client = self.cluster.connect(1)?;
        let answer = client.request("POST", path, Some(&body.to_string()))?;
        Ok(serde_json::from_slice(answer).unwrap_or(Value::Null))
    }

    /// Changes the spec of `/services/…` or `/nodes/…`.
    pub(super) fn update(&self, path: &str, change: impl Fn(&mut Value)) -> anyhow::Result<()> {
        let mut last = None;
        for _ in 0..ATTEMPT_COUNT_MAX {
            let found = self.get(path)?;
            let mut spec = found["Spec"].clone();
            change(&mut spec);
            let version = &found["Version"]["Index"];
            match self.post(&format!("{path}/update?version={version}"), &spec) {
                Ok(_) => return Ok(()),
                Err(error) if error.to_string().contains("out of sequence") => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.context("no attempt")?)
    }

    // --- services ---

    /// A web service with a published port, that is updated one task after another.
    pub(super) fn web(&self, mode: &Value, order: &str) -> Value {
        json!({
            "Name": "web",
            "Labels": { "skep.drain": self.drain },
            "TaskTemplate": {
                "ContainerSpec": { "Image": "skep/web" },
                "Networks": [{ "Target": self.network }],
            },
            "Mode": mode,
            "UpdateConfig": {
                "Parallelism": 1,
                "Monitor": 500_000_000,
                "Order": order,
                "FailureAction": "pause",
            },
            "EndpointSpec": {
                "Mode": "vip",
                "Ports": [{
                    "Protocol": "tcp",
                    "TargetPort": 80,
                    "PublishedPort": WEB_PORT,
                    "PublishMode": "ingress",
                }],
            },
        })
    }

    /// Creates a service and waits for its tasks.
    pub(super) fn create(&self, spec: &Value, count: usize) -> anyhow::Result<Vec<Task>> {
        let name = spec["Name"].as_str().context("a service has a name")?;
        self.remove(name)?;
        self.post("/services/create", spec)?;
        self.settled(name, count)
    }

    /// Removes a service, if there is one, and waits until nothing of it is left.
    pub(super) fn remove(&self, name: &str) -> anyhow::Result<()> {
        let mut client = self.cluster.connect(1)?;
        let removed = client.request("DELETE", &format!("/services/{name}"), None);
        if let Err(error) = removed {
            ensure!(error.to_string().contains(": 404 "), error);
            return Ok(());
        }
        self.wait(&format!("nothing of {name} is left"), || {
            for number in self.cluster.nodes() {
                let list = self
                    .cluster
                    .connect(number)?
                    .json("/containers/json?all=1")?;
                let label = "com.docker.swarm.service.name";
                let of = |container: &&Value| container["Labels"][label] == name;
                if list.as_array().into_iter().flatten().any(|one| of(&one)) {
                    bail!("node{number} has a container");
                }
            }
            Ok(())
        })
    }

    /// Waits until a service has exactly `count` tasks that run, and no others on their way out; returns them.
    pub(super) fn settled(&self, name: &str, count: usize) -> anyhow::Result<Vec<Task>> {
        self.wait(&format!("{count} tasks of {name} run, no others"), || {
            let service = self.get(&format!("/services/{name}"))?;
            let update = service["UpdateStatus"]["State"].as_str();
            if let Some(state) = update.filter(|state| *state != "completed") {
                bail!("its update is {state}");
            }
            let filters = format!("%7B%22service%22%3A%5B%22{name}%22%5D%7D");
            let tasks = self.get(&format!("/tasks?filters={filters}"))?;
            let mut running = Vec::new();
            for task in tasks.as_array().context("no list of tasks")? {
                let state = task["Status"]["State"].as_str().unwrap_or_default();
                let is_wanted = task["DesiredState"] == "running";
                if is_wanted && state == "running" {
                    running.push(self.task(task)?);
                } else if LIVE.contains(&state) {
                    bail!("a task is {state}: {}", task["Status"]["Err"]);
                }
            }
            ensure!(running.len() == count, "{} tasks run", running.len());
            Ok(running)
        })
    }

    fn task(&self, task: &Value) -> anyhow::Result<Task> {
        let text = |pointer: &str| {
            let value = task.pointer(pointer).and_then(Value::as_str);
            value.map(str::to_owned).with_context(|| pointer.to_owned())
        };
        let node = self.get(&format!("/nodes/{}", text("/NodeID")?))?;
        let name = node.pointer("/Description/Hostname");
        let name = name.and_then(Value::as_str).unwrap_or_default();
        let number = name.strip_prefix("node").map(str::parse);
        Ok(Task {
            id: text("/ID")?,
            node: number.context("a node's name")??,
            container: text("/Status/ContainerStatus/ContainerID")?,
            running_since: text("/Status/Timestamp")?,
            address: address_on(task, &self.network),
        })
    }

    /// A task's address on a network.
    pub(super) fn address_on(&self, task: &Task, network: &str) -> anyhow::Result<Ipv4Addr> {
        let task = self.get(&format!("/tasks/{}", task.id))?;
        address_on(&task, network).context("a task has an address")
    }

    /// A service's virtual address on the network.
    pub(super) fn vip(&self, name: &str) -> anyhow::Result<Ipv4Addr> {
        let service = self.get(&format!("/services/{name}"))?;
        let all = service.pointer("/Endpoint/VirtualIPs");
        let all = all.and_then(Value::as_array).into_iter().flatten();
        let mut own = all.filter(|vip| vip["NetworkID"] == self.network.as_str());
        let text = own.next().and_then(|vip| vip["Addr"].as_str());
        let text = text.and_then(|text| text.split('/').next());
        Ok(text.context("no virtual address")?.parse()?)
    }

    /// Waits for a condition that says why it does not hold.
    pub(super) fn wait<T>(
        &self,
        what: &str,
        mut look: impl FnMut() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let start = Instant::now();
        loop {
            match look() {
                Ok(value) => return Ok(value),
                Err(error) if start.elapsed() > SETTLE_TIME_MAX => {
                    bail!("not within {SETTLE_TIME_MAX:?}: {what}: {error:#}")
                }
                Err(_) => thread::sleep(LOOK_PAUSE),
            }
        }
    }

    // --- peers ---

    /// The namespace of a task's container.
    pub(super) fn place(&self, task: &Task) -> anyhow::Result<Place> {
        let path = format!("/containers/{}/json", task.container);
        let container = self.cluster.connect(task.node)?.json(&path)?;
        let pid = container.pointer("/State/Pid").and_then(Value::as_u64);
        let pid = pid.filter(|pid| *pid > 0).context("it does not run")?;
        let node = task.node;
        Ok(Place::Process { node, pid })
    }

    /// Starts a peer; its standard output is piped.
    pub(super) fn peer(&self, place: Place, words: &[&str]) -> anyhow::Result<Peer> {
        Peer::start(&self.cluster, place, words)
    }

    /// Runs a peer to its end; what it printed.
    pub(super) fn peer_says(&self, place: Place, words: &[&str]) -> anyhow::Result<String> {
        self.peer(place, words)?.finish()
    }
}

/// The address of a task on a network, by the network's id.
fn address_on(task: &Value, network: &str) -> Option<Ipv4Addr> {
    let mut attachments = task["NetworksAttachments"].as_array()?.iter();
    let is_on = |one: &&Value| one.pointer("/Network/ID").and_then(Value::as_str) == Some(network);
    let address = attachments.find(is_on)?.pointer("/Addresses/0")?.as_str()?;
    address.split('/').next()?.parse().ok()
}

/// The address of this machine that `to` sees.
fn own_address(to: IpAddr) -> anyhow::Result<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").context("failed to open a socket")?;
    socket.connect((to, 9)).context("no route to a node")?;
    Ok(socket.local_addr().context("an address")?.ip())
}

// === impl Peer ===

impl Peer {
    /// Starts a peer on a node of a cluster.
    pub(super) fn start(
        cluster: &LocalCluster,
        place: Place,
        words: &[&str],
    ) -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("this program is a file")?;
        let mut command = match place {
            Place::Machine => Command::new(&own),
            Place::Node(number) => cluster.inside(number, &own),
            Place::Process { node, pid } => {
                let mut command = cluster.inside(node, Path::new("nsenter"));
                command.args(["-t", &pid.to_string(), "-n", "--"]).arg(&own);
                command
            }
        };
        command.arg("peer").args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().context("failed to start a peer")?;
        Ok(Self { child })
    }

    /// Waits for its end; what it printed.
    pub(super) fn finish(mut self) -> anyhow::Result<String> {
        let mut text = String::new();
        let output = self.child.stdout.as_mut().context("a peer has an output")?;
        output
            .read_to_string(&mut text)
            .context("a peer's output")?;
        let status = self.child.wait().context("a peer")?;
        ensure!(status.success(), "a peer failed: {status}");
        Ok(text)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
