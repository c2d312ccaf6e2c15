//! A task that is told to stop serves the connections it has, and no longer than its service allows.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    time::{Duration, Instant},
};

use skep_conformance::{Node, until};

/// Longest wait for what should be quick.
const PATIENCE: Duration = Duration::from_secs(40);

/// A server that sends back each line, and tells of its stop signal by the container's log.
const ECHO: &str = "skep/busybox sh -c 'trap \"echo asked; exit 0\" TERM; nc -ll -p 80 -e cat & while true; do sleep 0.05; done'";

/// A connection to a node's port from outside the container.
struct Client {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    fn connect(node: &Node, port: u16) -> Self {
        // The server may be up a moment after its container.
        until("somebody answers", PATIENCE, || {
            let output = node.inside(&format!("echo up | busybox nc -w 1 127.0.0.1 {port}"));
            if output.stdout == "up\n" {
                Ok(())
            } else {
                Err(format!("{output:?}"))
            }
        });
        let mut client = Self::open(node, port);
        assert_eq!(client.ask("hello"), "hello\n");
        client
    }

    fn open(node: &Node, port: u16) -> Self {
        let mut command = node.inside_command(&format!("exec busybox nc 127.0.0.1 {port}"));
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = piped.expect("a client");
        let input = process.stdin.take().expect("a pipe");
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        Self {
            process,
            input,
            output,
        }
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").expect("a connection");
        self.line()
    }

    fn line(&mut self) -> String {
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("text");
        answer
    }

    fn close(mut self) {
        drop(self.input);
        self.process.kill().expect("a process");
        self.process.wait().expect("a process");
    }
}

fn create(node: &Node, port: u16, flags: &str) {
    node.docker_ok(&format!(
        "service create -d --no-resolve-image --stop-grace-period 30s \
         --publish mode=host,target=80,published={port} --name web {flags} {ECHO}"
    ));
    node.running("web", 1);
}

/// Waits until the first task of the service is told to stop.
fn told_to_stop(node: &Node) {
    node.task("web", "is told to stop", |task| {
        task["DesiredState"] == "shutdown" || task["DesiredState"] == "remove"
    });
}

fn is_running(node: &Node, container: &str) -> bool {
    node.json(&format!("/containers/{container}/json"))["State"]["Running"] == true
}

#[test]
fn task_stops_once_its_last_connection_is_closed() {
    let node = Node::start();
    create(&node, 8101, "--label skep.drain=10m");
    let container = node.container("web");
    let mut client = Client::connect(&node, 8101);
    node.docker_ok("service update -d --no-resolve-image --force web");
    told_to_stop(&node);
    for _ in 0..20 {
        assert_eq!(client.ask("still there?"), "still there?\n");
    }
    let task = node
        .tasks("web")
        .into_iter()
        .find(|task| task["Status"]["ContainerStatus"]["ContainerID"] == container.as_str());
    assert_eq!(task.unwrap()["Status"]["State"], "running");
    assert_eq!(node.docker_ok(&format!("logs {container}")), "");
    client.close();
    until("the task has stopped", PATIENCE, || {
        if is_running(&node, &container) {
            Err("it runs")
        } else {
            Ok(())
        }
        .map_err(str::to_owned)
    });
    assert_eq!(node.docker_ok(&format!("logs {container}")), "asked");
    // Stop-first: the next one has the port now.
    assert_ne!(node.container("web"), container);
    let next = Client::connect(&node, 8101);
    next.close();
}

#[test]
fn limit_ends_the_wait_for_a_connection_that_stays() {
    let node = Node::start();
    create(&node, 8102, "--label skep.drain=2s");
    let container = node.container("web");
    let client = Client::connect(&node, 8102);
    let begin = Instant::now();
    node.docker_ok("service scale -d web=0");
    told_to_stop(&node);
    until("the task has stopped", PATIENCE, || {
        let left = node.docker_ok("ps -q --no-trunc");
        if left.contains(&container) {
            Err(left)
        } else {
            Ok(())
        }
    });
    assert!(
        begin.elapsed() >= Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
    client.close();
}

#[test]
fn without_connections_or_with_no_time_it_stops_at_once() {
    let node = Node::start();
    create(&node, 8103, "--label skep.drain=10m");
    Client::connect(&node, 8103).close();
    node.docker_ok("service scale -d web=0");
    node.empty();
    node.docker_ok("service rm web");

    create(&node, 8103, "--label skep.drain=0s");
    let client = Client::connect(&node, 8103);
    node.docker_ok("service scale -d web=0");
    node.empty();
    client.close();
}

#[test]
fn removed_service_waits_for_nobody() {
    let node = Node::start();
    create(&node, 8104, "--label skep.drain=10m");
    let client = Client::connect(&node, 8104);
    node.docker_ok("service rm web");
    node.empty();
    client.close();

    // Nor does one whose task has begun to wait.
    create(&node, 8104, "--label skep.drain=10m");
    let mut client = Client::connect(&node, 8104);
    node.docker_ok("service scale -d web=0");
    told_to_stop(&node);
    assert_eq!(client.ask("still there?"), "still there?\n");
    node.docker_ok("service rm web");
    node.empty();
    client.close();
}

#[test]
fn daemon_that_is_killed_goes_on_waiting() {
    let mut node = Node::start();
    create(&node, 8105, "--label skep.drain=10m");
    let container = node.container("web");
    let mut client = Client::connect(&node, 8105);
    node.docker_ok("service scale -d web=0");
    let begun = node
        .data_dir()
        .join("containers")
        .join(&container)
        .join("draining");
    until("it waits", PATIENCE, || {
        if begun.exists() {
            Ok(())
        } else {
            Err("no".to_owned())
        }
    });
    node.kill_daemon();
    assert_eq!(client.ask("without?"), "without?\n");
    node.start_daemon();
    assert!(is_running(&node, &container));
    assert_eq!(client.ask("again?"), "again?\n");
    client.close();
    node.empty();
}

/// The container that answers a new connection.
fn answering(node: &Node, port: u16) -> Result<String, String> {
    let output = node.inside(&format!("busybox nc -w 1 127.0.0.1 {port} </dev/null"));
    let name = output.stdout.trim();
    if name.is_empty() {
        Err(format!("{output:?}"))
    } else {
        Ok(name.to_owned())
    }
}

#[test]
fn new_connections_go_to_the_next_task_while_the_old_one_serves_its_own() {
    let node = Node::start();
    node.docker_ok(
        "service create -d --no-resolve-image --publish 8106:80 --update-order start-first --label skep.drain=10m \
         --name web skep/busybox sh -c 'trap \"exit 0\" TERM; nc -ll -p 80 -e sh -c \"hostname; exec cat\" & \
         while true; do sleep 0.05; done'",
    );
    let container = node.container("web");
    let old = until("somebody answers", PATIENCE, || answering(&node, 8106));
    assert!(container.starts_with(&old), "{old}");
    let mut client = Client::open(&node, 8106);
    assert_eq!(client.line(), format!("{old}\n"));
    node.docker_ok("service update -d --no-resolve-image --force web");
    told_to_stop(&node);
    until("new connections are led elsewhere", PATIENCE, || {
        answering(&node, 8106).and_then(|name| if name == old { Err(name) } else { Ok(()) })
    });
    for _ in 0..5 {
        let name = until("somebody answers", PATIENCE, || answering(&node, 8106));
        assert_ne!(name, old);
        assert_eq!(client.ask("still there?"), "still there?\n");
    }
    assert!(is_running(&node, &container));
    client.close();
    until("the task has stopped", PATIENCE, || {
        if is_running(&node, &container) {
            Err("it runs".to_owned())
        } else {
            Ok(())
        }
    });
}
