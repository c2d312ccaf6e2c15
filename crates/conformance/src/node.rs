//! A node under test: the daemon in a sandbox, and the ways to talk to it.

use std::{
    env, fs,
    ops::Deref,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    docker::Output,
    engine::{Engine, PATIENCE, tail},
    http,
    images::{binary, images},
    poll::until,
    sandbox::Sandbox,
};

/// How a node differs from the usual one.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Further flags of the daemon.
    pub flags: Vec<String>,
    /// Size of a file system for the data directory alone, in MiB.
    pub disk_mib: Option<u32>,
    /// The docker command, when not the first in `PATH`.
    pub docker: Option<PathBuf>,
    /// Without swarm and images.
    pub is_bare: bool,
}

/// A daemon with its own directories and namespaces. Nothing of it is left when dropped.
#[derive(Debug)]
pub struct Node {
    engine: Engine,
    daemon: Option<Child>,
    sandbox: Option<Sandbox>,
    options: Options,
    dir: TempDir,
}

// === impl Node ===

impl Node {
    /// A node that is a swarm of one with `skep/busybox` and `skep/httpd`.
    pub fn start() -> Self {
        Self::with(Options::default())
    }

    /// A node with other options.
    ///
    /// # Panics
    /// When it does not start, as all methods panic when something fails that the test does not ask about.
    pub fn with(options: Options) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("skep-node-")
            .tempdir()
            .expect("a directory");
        let sandbox = Sandbox::new(dir.path());
        let engine = Engine {
            docker: options.docker.clone().unwrap_or("docker".into()),
            config: dir.path().join("docker"),
            socket: dir.path().join("skep.sock"),
            log: dir.path().join("log"),
        };
        let mut node = Self {
            engine,
            daemon: None,
            sandbox: Some(sandbox),
            options,
            dir,
        };
        fs::create_dir(node.data_dir()).expect("a data directory");
        if let Some(size) = node.options.disk_mib {
            let data = node.data_dir();
            node.inside_ok(&format!(
                "mount -t tmpfs -o size={size}m disk {}",
                data.display()
            ));
        }
        node.start_daemon();
        if !node.options.is_bare {
            node.docker_ok("swarm init --advertise-addr 127.0.0.1");
            for name in ["busybox", "httpd"] {
                node.docker_ok(&format!("load -q -i {}/{name}.tar", images().display()));
            }
        }
        node
    }

    /// The node's own directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The daemon's data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir().join("data")
    }

    fn sandbox(&self) -> &Sandbox {
        self.sandbox
            .as_ref()
            .expect("a node has namespaces until dropped")
    }

    // --- the daemon ---

    /// A daemon's command line on this node's directories.
    pub fn daemon_command(&self) -> Command {
        let mut command = self.sandbox().command(&binary());
        let dir = self.dir();
        command.arg("daemon").arg("--data-dir").arg(self.data_dir());
        command.arg("--run-dir").arg(dir.join("run"));
        command
            .arg("-H")
            .arg(format!("unix://{}", self.socket().display()));
        command.args(&self.options.flags).stdin(Stdio::null());
        command
    }

    /// Starts the daemon and waits for its API; returns how long that took.
    pub fn start_daemon(&mut self) -> Duration {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir().join("log"));
        let log = log.expect("a log file");
        let copy = log.try_clone().expect("a second handle");
        let start = Instant::now();
        let child = self
            .daemon_command()
            .stdout(copy)
            .stderr(log)
            .spawn()
            .expect("a daemon");
        let daemon = self.daemon.insert(child);
        let mut ended = None;
        let socket = self.dir.path().join("skep.sock");
        let log = self.dir.path().join("log");
        until("the daemon answers", PATIENCE, || {
            ended = ended.or_else(|| daemon.try_wait().ok().flatten());
            if let Some(status) = ended {
                panic!(
                    "daemon ended, {status}: {}",
                    fs::read_to_string(&log).unwrap_or_default()
                );
            }
            let answer = http::request(&socket, "GET", "/_ping", None);
            answer.map_err(|error| error.to_string())
        });
        start.elapsed()
    }

    /// The daemon's process id inside the node.
    pub fn daemon_pid(&self) -> String {
        let data = self.data_dir();
        let output = self.inside(&format!(
            "pgrep -f -- 'skep daemon --data-dir {}'",
            data.display()
        ));
        output
            .stdout
            .split_whitespace()
            .next()
            .expect("a daemon")
            .to_owned()
    }

    /// Kills the daemon, as `kill -9` does.
    pub fn kill_daemon(&mut self) {
        self.end_daemon("KILL");
    }

    /// Ends the daemon in good order.
    pub fn stop_daemon(&mut self) {
        self.end_daemon("TERM");
    }

    fn end_daemon(&mut self, signal: &str) {
        self.inside_ok(&format!("kill -{signal} {}", self.daemon_pid()));
        let mut daemon = self.daemon.take().expect("a daemon");
        until("the daemon ends", PATIENCE, || {
            let ended = daemon.try_wait().expect("a child");
            ended.ok_or_else(|| "it runs".to_owned())
        });
    }

    // --- commands ---

    /// Runs a shell script in the node's namespaces.
    pub fn inside(&self, script: &str) -> Output {
        self.sandbox().run(script)
    }

    /// A shell script in the node's namespaces, to be started.
    pub fn inside_command(&self, script: &str) -> Command {
        let mut command = self.sandbox().command(Path::new("bash"));
        command.args(["-c", script]);
        command
    }

    /// Runs a shell script in the node's namespaces, which must succeed.
    #[track_caller]
    pub fn inside_ok(&self, script: &str) -> String {
        let output = self.inside(script);
        assert!(output.status == 0, "{script}: {output:?}");
        output.stdout.trim().to_owned()
    }

    /// A process inside the node's namespaces that the test drops at its end.
    pub fn spawn_inside(&self, program: &str, arguments: &[&str]) -> Child {
        let mut command = self.sandbox().command(Path::new(program));
        command.args(arguments).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("a process")
    }
}

impl Deref for Node {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = tail(&self.log());
            let _ = fs::write(env::temp_dir().join("skep-conformance.log"), &log);
        }
        drop(self.sandbox.take());
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.wait();
        }
        remove_cgroups(&self.data_dir());
    }
}

/// Removes the control groups of a node's containers: they are the host's, so they outlive namespaces.
pub(crate) fn remove_cgroups(data_dir: &Path) {
    let ids: Vec<_> = fs::read_dir(data_dir.join("containers"))
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    for hierarchy in fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten()
    {
        for id in &ids {
            let group = hierarchy.path().join("skep").join(id.file_name());
            for child in fs::read_dir(&group).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(child.path());
            }
            let _ = fs::remove_dir(group);
        }
    }
}
