//! A node under test: the daemon in a sandbox, and the ways to talk to it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    docker::Output,
    http::{self, Response},
    images::{binary, images},
    poll::until,
    sandbox::Sandbox,
};

/// Longest wait for what should take well below a second. Test machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(40);

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
        let mut node = Self {
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

    fn socket(&self) -> PathBuf {
        self.dir().join("skep.sock")
    }

    /// What the daemon logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir().join("log")).unwrap_or_default()
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

    /// Runs the docker command; `line` is read by a shell.
    pub fn docker(&self, line: &str) -> Output {
        let output = self.docker_command(line).output().expect("a shell");
        output.into()
    }

    /// The docker command, to be started.
    pub fn docker_command(&self, line: &str) -> Command {
        let docker = self.options.docker.clone().unwrap_or("docker".into());
        let mut command = Command::new("bash");
        command
            .args(["-c", &format!("exec \"$SKEP_DOCKER\" {line}")])
            .env("SKEP_DOCKER", docker)
            .env("DOCKER_HOST", format!("unix://{}", self.socket().display()))
            .env("DOCKER_CONFIG", self.dir().join("docker"))
            .stdin(Stdio::null());
        command
    }

    /// Runs the docker command, which must succeed; returns its standard output without blanks around.
    #[track_caller]
    pub fn docker_ok(&self, line: &str) -> String {
        let output = self.docker(line);
        assert!(
            output.status == 0,
            "docker {line}: {output:?}\n{}",
            tail(&self.log())
        );
        output.stdout.trim().to_owned()
    }

    /// Runs the docker command, which must fail; returns all it printed.
    #[track_caller]
    pub fn docker_fails(&self, line: &str) -> String {
        let output = self.docker(line);
        assert!(output.status != 0, "docker {line} succeeded: {output:?}");
        output.text()
    }

    /// Runs a shell script in the node's namespaces.
    pub fn inside(&self, script: &str) -> Output {
        self.sandbox().run(script)
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

    // --- HTTP ---

    /// Sends a request.
    #[track_caller]
    pub fn http(&self, method: &str, path: &str, body: Option<&str>) -> Response {
        let answer = http::request(&self.socket(), method, path, body);
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", tail(&self.log())))
    }

    /// Gets JSON, with status 200.
    #[track_caller]
    pub fn json(&self, path: &str) -> Value {
        let response = self.http("GET", path, None);
        assert_eq!(response.status, 200, "GET {path}: {}", response.body);
        response.json()
    }

    // --- services ---

    /// Creates a service without waiting; `line` are flags, image and arguments.
    ///
    /// Its tasks are killed at once, since `sleep` as a first process heeds no other signal; a later flag wins.
    #[track_caller]
    pub fn create(&self, line: &str) -> String {
        self.docker_ok(&format!(
            "service create -d --no-resolve-image --stop-signal KILL {line}"
        ))
    }

    /// All tasks of a service.
    #[track_caller]
    pub fn tasks(&self, service: &str) -> Vec<Value> {
        let filters = http::escape(&format!("{{\"service\":{{\"{service}\":true}}}}"));
        match self.json(&format!("/tasks?filters={filters}")) {
            Value::Array(tasks) => tasks,
            other => panic!("tasks are no list: {other}"),
        }
    }

    /// Waits until exactly `count` tasks of a service run; returns them.
    #[track_caller]
    pub fn running(&self, service: &str, count: usize) -> Vec<Value> {
        until(&format!("{count} tasks of {service} run"), PATIENCE, || {
            let tasks = self.tasks(service);
            let is_running = |task: &&Value| {
                task["DesiredState"] == "running" && task["Status"]["State"] == "running"
            };
            let running: Vec<Value> = tasks.iter().filter(is_running).cloned().collect();
            let live = tasks.iter().filter(|task| is_live(task)).count();
            if running.len() == count && live == count {
                Ok(running)
            } else {
                Err(brief(&tasks))
            }
        })
    }

    /// Waits until a task of a service satisfies `is_wanted`; returns it.
    #[track_caller]
    pub fn task(&self, service: &str, what: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        until(&format!("a task of {service} {what}"), PATIENCE, || {
            let tasks = self.tasks(service);
            let found = tasks.iter().find(|task| is_wanted(task)).cloned();
            found.ok_or_else(|| brief(&tasks))
        })
    }

    /// Waits until a task of a service is in a state; returns it.
    #[track_caller]
    pub fn task_in(&self, service: &str, state: &str) -> Value {
        self.task(service, &format!("is {state}"), |task| {
            task["Status"]["State"] == state
        })
    }

    /// Waits until the one task of a service runs; returns its container.
    #[track_caller]
    pub fn container(&self, service: &str) -> String {
        container_of(&self.running(service, 1)[0])
    }

    /// Runs a shell line in the one container of a service; returns what it printed.
    #[track_caller]
    pub fn exec(&self, service: &str, script: &str) -> String {
        let container = self.container(service);
        self.docker_ok(&format!("exec {container} sh -c '{script}'"))
    }

    /// Waits until the logs of a service have a text.
    #[track_caller]
    pub fn logged(&self, service: &str, text: &str) -> String {
        until(&format!("{service} logs `{text}`"), PATIENCE, || {
            let output = self.docker(&format!("service logs --raw {service}"));
            if output.stdout.contains(text) {
                Ok(output.stdout)
            } else {
                Err(output.text())
            }
        })
    }

    /// Waits until no container is left.
    #[track_caller]
    pub fn empty(&self) {
        until("no container is left", PATIENCE, || {
            let left = self.docker_ok("ps -aq");
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
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

/// The container of a task.
pub(crate) fn container_of(task: &Value) -> String {
    let id = task["Status"]["ContainerStatus"]["ContainerID"].as_str();
    id.unwrap_or_else(|| panic!("no container: {task}"))
        .to_owned()
}

/// Whether a task has or will soon have a container.
fn is_live(task: &Value) -> bool {
    let state = task["Status"]["State"].as_str().unwrap_or_default();
    [
        "assigned",
        "accepted",
        "preparing",
        "ready",
        "starting",
        "running",
    ]
    .contains(&state)
}

/// Slot, states and texts of tasks, for messages.
fn brief(tasks: &[Value]) -> String {
    let one = |task: &Value| {
        let status = &task["Status"];
        let parts = [
            &task["Slot"],
            &task["DesiredState"],
            &status["State"],
            &status["Err"],
        ];
        parts.map(Value::to_string).join(" ")
    };
    tasks.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// The end of a log.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines
        .get(lines.len().saturating_sub(30)..)
        .unwrap_or_default()
        .join("\n")
}

/// Removes the control groups of a node's containers: they are the host's, so they outlive namespaces.
fn remove_cgroups(data_dir: &Path) {
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
