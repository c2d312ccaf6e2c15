//! A daemon's API, as the docker command and plain HTTP see it, and what tests ask of it again and again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{
    docker::Output,
    http::{self, Response},
    poll::until,
};

/// Longest wait for what should take well below a second. Test machines are slow at times.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// How a daemon is reached.
#[derive(Debug, Clone)]
pub struct Engine {
    /// The docker command.
    pub(crate) docker: PathBuf,
    /// Its configuration directory.
    pub(crate) config: PathBuf,
    /// The daemon's socket.
    pub(crate) socket: PathBuf,
    /// Where the daemon writes its log.
    pub(crate) log: PathBuf,
}

// === impl Engine ===

impl Engine {
    /// The daemon's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What the daemon logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    // --- commands ---

    /// Runs the docker command; `line` is read by a shell.
    pub fn docker(&self, line: &str) -> Output {
        let output = self.docker_command(line).output().expect("a shell");
        output.into()
    }

    /// The docker command, to be started.
    pub fn docker_command(&self, line: &str) -> Command {
        let mut command = Command::new("bash");
        command
            .args(["-c", &format!("exec \"$SKEP_DOCKER\" {line}")])
            .env("SKEP_DOCKER", &self.docker)
            .env("DOCKER_HOST", format!("unix://{}", self.socket().display()))
            .env("DOCKER_CONFIG", &self.config)
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

    // --- HTTP ---

    /// Sends a request to a daemon that may be dead.
    ///
    /// # Errors
    /// When it cannot be reached or answers no HTTP.
    pub fn try_http(&self, method: &str, path: &str, body: Option<&str>) -> io::Result<Response> {
        http::request(&self.socket, method, path, body)
    }

    /// Sends a request.
    #[track_caller]
    pub fn http(&self, method: &str, path: &str, body: Option<&str>) -> Response {
        let answer = self.try_http(method, path, body);
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
pub(crate) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines
        .get(lines.len().saturating_sub(30)..)
        .unwrap_or_default()
        .join("\n")
}
