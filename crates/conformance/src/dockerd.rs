//! A real dockerd beside a cluster under test: on the cluster's machine, so that it reaches nodes and nodes reach it at the
//! machine's own address.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{cluster::Cluster, docker::Output, engine::Engine, http, images::root, poll::until};

/// Parent of its containers' control groups: they are the host's.
const CGROUP_PARENT: &str = "/skep-conformance";
/// Longest wait until it answers.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// containerd and dockerd of Debian 12. They end with the cluster's sandbox.
#[derive(Debug)]
pub struct Dockerd {
    engine: Engine,
    children: Vec<Child>,
}

// === impl Dockerd ===

impl Dockerd {
    /// Where its programs are.
    ///
    /// # Errors
    /// Why they cannot be had.
    pub fn programs() -> Result<PathBuf, String> {
        let output = Command::new(root().join("fixtures/dockerd-20.10")).output();
        let output: Output = output.map_err(|error| error.to_string())?.into();
        match output.status {
            0 => Ok(output.stdout.trim().into()),
            _ => Err(output.text()),
        }
    }

    /// Starts it on the cluster's machine.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn start(cluster: &Cluster, programs: &Path) -> Self {
        let dir = cluster.dir().join("dockerd");
        fs::create_dir(&dir).expect("a directory");
        let mut dockerd = Self {
            engine: Engine {
                docker: programs.join("usr/bin/docker"),
                config: dir.join("docker"),
                socket: dir.join("docker.sock"),
                log: dir.join("log"),
            },
            children: Vec::new(),
        };
        let (at, path) = (dir.display(), programs.display());
        let path = format!("export PATH={path}/usr/bin:{path}/usr/sbin:$PATH; cd {at}; exec");
        dockerd.spawn(
            cluster,
            &format!(
                "{path} containerd --root {at}/ctrd --state {at}/ctrd-state --address {at}/c.sock"
            ),
        );
        until("containerd listens", START_PATIENCE, || {
            let is_there = dir.join("c.sock").exists();
            is_there.then_some(()).ok_or_else(|| dockerd.engine.log())
        });
        dockerd.spawn(cluster, &format!(
            "{path} dockerd --containerd {at}/c.sock --data-root {at}/data --exec-root {at}/exec --pidfile {at}/pid \
             --host unix://{at}/docker.sock --storage-driver vfs --iptables=false --ip6tables=false \
             --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent {CGROUP_PARENT}"
        ));
        until("dockerd answers", START_PATIENCE, || {
            let answer = http::request(dockerd.engine.socket(), "GET", "/_ping", None);
            answer.map_err(|error| format!("{error}: {}", dockerd.engine.log()))
        });
        dockerd
    }

    fn spawn(&mut self, cluster: &Cluster, script: &str) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.engine.log)
            .expect("a log file");
        let mut command = cluster.sandbox().command(Path::new("bash"));
        command.args(["-c", script]).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a second handle"));
        let child = command.stderr(log).spawn().expect("bash can be run");
        self.children.push(child);
    }

    /// Its API.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Removes the control groups of containers whose daemon is gone; groups in use stay.
pub(crate) fn remove_cgroups() {
    let name = CGROUP_PARENT.trim_start_matches('/');
    for hierarchy in fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten()
    {
        let parent = hierarchy.path().join(name);
        for group in fs::read_dir(&parent).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(group.path());
        }
        let _ = fs::remove_dir(parent);
    }
}
