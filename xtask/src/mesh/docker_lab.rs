//! Docker's overlay network on the same kind of wire: two dockerds in the namespaces of a second local cluster, whose own daemons do
//! not run.
//!
//! Tasks are reached by their addresses: Docker's virtual addresses need IPVS, which not every kernel has.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::lab::{Peer, Place};
use super::paths::{SERVER_PORT, Way, serve};
use crate::bench::http::Client;
use crate::local_cluster::{LocalCluster, with_images};

/// How long a daemon, a join or a task may take.
const WAIT_TIME_MAX: Duration = Duration::from_secs(90);
/// Between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Parent of its containers' control groups, which are the machine's.
const CGROUP_PARENT: &str = "skep-bench-docker";
/// The network both tasks are on.
const NETWORK: &str = "lab";

/// Two dockerds with a task on each; gone when dropped.
#[derive(Debug)]
pub(super) struct DockerLab {
    cluster: LocalCluster,
    dir: PathBuf,
    places: Vec<Place>,
    addresses: Vec<Ipv4Addr>,
    wire: Ipv4Addr,
}

// === impl DockerLab ===

impl DockerLab {
    /// Starts the daemons, joins them and starts the tasks.
    pub(super) fn start(skep: &Path) -> anyhow::Result<Self> {
        let programs = Command::new("fixtures/dockerd-20.10").output();
        let programs = programs.context("failed to look for dockerd")?;
        ensure!(
            programs.status.success(),
            "no dockerd: {}",
            String::from_utf8_lossy(&programs.stderr).trim()
        );
        let programs = String::from_utf8(programs.stdout).context("a path")?;
        let dir = std::env::temp_dir().join(format!("skep-docker-lab-{}", std::process::id()));
        let mut lab = Self {
            cluster: LocalCluster::bare(skep, "mesh-docker", 2)?,
            dir,
            places: Vec::new(),
            addresses: Vec::new(),
            wire: Ipv4Addr::UNSPECIFIED,
        };
        for number in lab.cluster.nodes() {
            lab.start_daemon(Path::new(programs.trim()), number)?;
        }
        let image = lab.load()?;
        lab.form()?;
        lab.start_tasks(&image)?;
        Ok(lab)
    }

    fn socket(&self, number: usize) -> String {
        format!("unix://{}/{number}/docker.sock", self.dir.display())
    }

    fn client(&self, number: usize) -> anyhow::Result<Client> {
        Client::connect(&self.socket(number))
    }

    fn start_daemon(&self, programs: &Path, number: usize) -> anyhow::Result<()> {
        let dir = self.dir.join(number.to_string());
        fs::create_dir_all(&dir).context("a directory")?;
        let (at, programs) = (dir.display(), programs.display());
        let script = format!(
            "export PATH={programs}/usr/bin:{programs}/usr/sbin:$PATH; cd {at}; exec >log 2>&1
            containerd --root {at}/ctrd --state {at}/ctrd-state --address {at}/c.sock &
            until [ -S {at}/c.sock ]; do sleep 0.1; done
            exec dockerd --containerd {at}/c.sock --data-root {at}/data --exec-root {at}/exec --pidfile {at}/pid \
                --host {host} --storage-driver vfs --iptables=false --ip6tables=false \
                --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent /{CGROUP_PARENT}",
            host = self.socket(number)
        );
        let mut command = self.cluster.inside(number, Path::new("setsid"));
        command.args(["--fork", "bash", "-c", &script]);
        command.stdin(Stdio::null());
        let status = command.status().context("failed to start dockerd")?;
        ensure!(status.success(), "failed to start dockerd: {status}");
        let said = wait("dockerd answers", || self.client(number)?.json("/version"));
        let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
        let last = log.lines().last().unwrap_or_default();
        said.map(drop).with_context(|| last.to_owned())
    }

    /// Loads the image into both; its id, because a tag would be looked for in a registry.
    fn load(&self) -> anyhow::Result<String> {
        with_images(|images| {
            for number in self.cluster.nodes() {
                let mut docker = Command::new("docker");
                docker.arg("-H").arg(self.socket(number));
                docker.arg("load").arg("-i").arg(images.join("busybox.tar"));
                let output = docker.output().context("failed to run docker")?;
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                ensure!(output.status.success(), "docker load: {text}");
            }
            Ok(())
        })?;
        let image = self.client(1)?.json("/images/skep%2Fbusybox/json")?;
        let id = image["Id"].as_str().context("an image's id")?;
        Ok(id.to_owned())
    }

    fn post(&self, number: usize, path: &str, body: &Value) -> anyhow::Result<Value> {
        let mut client = self.client(number)?;
        let answer = client.request("POST", path, Some(&body.to_string()))?;
        Ok(serde_json::from_slice(answer).unwrap_or(Value::Null))
    }

    /// The node's address on the wire.
    fn address(&self, number: usize) -> anyhow::Result<Ipv4Addr> {
        let mut command = self.cluster.inside(number, Path::new("ip"));
        command.args(["-4", "-o", "addr", "show", "dev", "eth0"]);
        let output = command.output().context("failed to run ip")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut words = text.split_whitespace();
        let address = words.find(|word| *word == "inet").and(words.next());
        let address = address.and_then(|text| text.split('/').next());
        Ok(address.context("a node has an address")?.parse()?)
    }

    /// Makes a swarm of both.
    fn form(&mut self) -> anyhow::Result<()> {
        let (first, second) = (self.address(1)?, self.address(2)?);
        self.wire = second;
        let init = json!({ "ListenAddr": format!("{first}:2377"), "AdvertiseAddr": first });
        self.post(1, "/swarm/init", &init)?;
        let swarm = self.client(1)?.json("/swarm")?;
        let join = json!({
            "ListenAddr": format!("{second}:2377"),
            "AdvertiseAddr": second,
            "RemoteAddrs": [format!("{first}:2377")],
            "JoinToken": swarm["JoinTokens"]["Worker"],
        });
        self.post(2, "/swarm/join", &join)?;
        let network = json!({ "Name": NETWORK, "Driver": "overlay" });
        self.post(1, "/networks/create", &network)?;
        wait("both nodes are ready", || {
            let nodes = self.client(1)?.json("/nodes")?;
            let nodes = nodes.as_array().map(Vec::as_slice).unwrap_or_default();
            let is_ready = |node: &&Value| node["Status"]["State"] == "ready";
            ensure!(nodes.iter().filter(is_ready).count() == 2, "not both");
            Ok(())
        })
    }

    fn start_tasks(&mut self, image: &str) -> anyhow::Result<()> {
        let spec = json!({
            "Name": "task",
            "TaskTemplate": {
                "ContainerSpec": { "Image": image, "Command": ["sleep", "1000000"] },
                "Networks": [{ "Target": NETWORK }],
            },
            "Mode": { "Global": {} },
            "EndpointSpec": { "Mode": "dnsrr" },
        });
        self.post(1, "/services/create", &spec)?;
        for number in self.cluster.nodes() {
            let (pid, address) = wait("a task runs", || {
                let mut client = self.client(number)?;
                let list = client.json("/containers/json")?;
                let id = list.pointer("/0/Id").and_then(Value::as_str);
                let id = id.context("no container")?;
                let container = client.json(&format!("/containers/{id}/json"))?;
                let pid = container.pointer("/State/Pid").and_then(Value::as_u64);
                let at = format!("/NetworkSettings/Networks/{NETWORK}/IPAddress");
                let address = container.pointer(&at).and_then(Value::as_str);
                Ok((
                    pid.context("no pid")?,
                    address.context("no address")?.parse()?,
                ))
            })?;
            self.places.push(Place::Process { node: number, pid });
            self.addresses.push(address);
        }
        Ok(())
    }

    /// Servers in the second node and its task.
    pub(super) fn serve(&self) -> anyhow::Result<Vec<Peer>> {
        let second = *self.places.get(1).context("a second task")?;
        let places = [Place::Node(2), second];
        places
            .into_iter()
            .map(|place| serve(&self.cluster, place))
            .collect()
    }

    /// The wire, and the overlay network on it.
    pub(super) fn ways(&self) -> Vec<Way<'_>> {
        let way = |name, client, address, beside| Way {
            name,
            cluster: &self.cluster,
            client,
            target: SocketAddr::from((address, SERVER_PORT)),
            beside,
        };
        let wire = "Docker's wire, node to node";
        let [first, ..] = self.places[..] else {
            return Vec::new();
        };
        vec![
            way(wire, Place::Node(1), self.wire, None),
            way(
                "Docker's overlay, task address",
                first,
                self.addresses[1],
                Some(wire),
            ),
        ]
    }
}

impl Drop for DockerLab {
    fn drop(&mut self) {
        // The processes and mounts go with the cluster, which goes last; what they leave on the disk is mounted no more in here.
        let _ = self.cluster.skep(&["down"]);
        remove_cgroups();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Removes the control groups of containers that are gone.
fn remove_cgroups() {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten();
    for hierarchy in hierarchies.flatten() {
        let parent = hierarchy.path().join(CGROUP_PARENT);
        for group in fs::read_dir(&parent).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(group.path());
        }
        let _ = fs::remove_dir(parent);
    }
}

fn wait<T>(what: &str, mut look: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > WAIT_TIME_MAX => {
                bail!("not within {WAIT_TIME_MAX:?}: {what}: {error:#}")
            }
            Err(_) => thread::sleep(LOOK_PAUSE),
        }
    }
}
