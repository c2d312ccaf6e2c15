//! Readiness: a task that is not ready lives on and keeps its connections, and gets no new ones.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    process::Stdio,
    time::Duration,
};

use skep_conformance::{Node, until};

/// Longest wait for what a few probes bring about.
const PATIENCE: Duration = Duration::from_secs(40);

/// Labels of a probe that passes while `/tmp/ok` exists and is run five times a second.
const FAST: &str = "--label 'skep.ready.cmd=test -e /tmp/ok || { echo no file; exit 3; }' \
                    --label skep.ready.interval=200ms --label skep.ready.retries=1";

/// Greets with its name, then sends back each line.
const GREET: &str =
    "nc -ll -p 80 -e sh -c \"hostname; exec cat\" & while true; do sleep 0.05; done";

/// The container that answers a new connection.
fn answering(node: &Node) -> Result<String, String> {
    let output = node.inside("busybox nc -w 1 127.0.0.1 8107 </dev/null");
    match output.stdout.trim() {
        "" => Err(format!("{output:?}")),
        name => Ok(name.to_owned()),
    }
}

/// Who answers a few connections in a row, once it is as wished.
fn answers(node: &Node, what: &str, is_wanted: impl Fn(&BTreeSet<String>) -> bool) {
    until(what, PATIENCE, || {
        let names: Result<BTreeSet<String>, String> = (0..6).map(|_| answering(node)).collect();
        match names {
            Ok(names) if is_wanted(&names) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn task_that_is_not_ready_keeps_its_connections_and_gets_no_new_ones() {
    let node = Node::start();
    node.docker_ok(&format!(
        "service create -d --no-resolve-image --replicas 2 --publish 8107:80 --name web {FAST} \
         skep/busybox sh -c 'touch /tmp/ok; {GREET}'"
    ));
    let tasks = node.running("web", 2);
    answers(&node, "both answer", |names| names.len() == 2);
    let mut client = node
        .inside_command("exec busybox nc 127.0.0.1 8107")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = client.stdin.take().unwrap();
    let mut output = BufReader::new(client.stdout.take().unwrap());
    let mut line = || {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    };
    let name = line();
    let of = |task: &&serde_json::Value| {
        let id = task["Status"]["ContainerStatus"]["ContainerID"].as_str();
        id.is_some_and(|id| id.starts_with(&name))
    };
    let task = tasks.iter().find(of).unwrap();
    let container = task["Status"]["ContainerStatus"]["ContainerID"].as_str();
    let container = container.unwrap();

    node.docker_ok(&format!("exec {container} rm /tmp/ok"));
    let is_told = |known: &serde_json::Value| {
        known["ID"] == task["ID"] && known["Status"]["Message"] == "not ready"
    };
    let told = node.task("web", "is not ready", is_told);
    assert_eq!(told["Status"]["State"], "running", "{told}");
    assert_eq!(told["Status"]["Timestamp"], task["Status"]["Timestamp"]);
    let shown = node.docker_ok("service ps --no-trunc --format '{{.Error}}' web");
    assert!(shown.contains("not ready (3): no file"), "{shown}");
    answers(&node, "the other answers", |names| {
        !names.contains(&name) && names.len() == 1
    });
    writeln!(input, "still there?").unwrap();
    assert_eq!(line(), "still there?");

    node.docker_ok(&format!("exec {container} touch /tmp/ok"));
    answers(&node, "both answer again", |names| names.len() == 2);
    let tasks = node.tasks("web");
    assert_eq!(tasks.len(), 2, "nothing was replaced: {tasks:?}");
    client.kill().unwrap();
    client.wait().unwrap();
}

#[test]
fn task_runs_once_it_is_ready_and_an_update_waits_for_it() {
    let mut node = Node::start();
    node.docker_ok(&format!(
        "service create -d --no-resolve-image --update-order start-first --name web {FAST} skep/busybox sleep 1000"
    ));
    let task = node.task("web", "says why it does not run yet", |task| {
        task["Status"]["State"] == "starting" && task["Status"]["Err"] == "not ready (3): no file"
    });
    let filter = "label=com.docker.swarm.service.name=web";
    let container = node.docker_ok(&format!("ps -q --no-trunc --filter {filter}"));
    node.docker_ok(&format!("exec {container} touch /tmp/ok"));
    let running = node.task_in("web", "running");
    assert_eq!(running["ID"], task["ID"]);

    node.docker_ok("service update -d --no-resolve-image --env-add A=b web");
    node.task_in("web", "starting");
    let old = node
        .tasks("web")
        .into_iter()
        .find(|old| old["ID"] == task["ID"]);
    let old = old.unwrap();
    assert_eq!(old["DesiredState"], "running", "{old}");
    // What was not ready before the daemon's end is so afterwards.
    node.docker_ok(&format!("exec {container} rm /tmp/ok"));
    let is_told = |known: &serde_json::Value| {
        known["ID"] == task["ID"] && known["Status"]["Message"] == "not ready"
    };
    node.task("web", "is not ready", is_told);
    node.kill_daemon();
    node.start_daemon();
    let told = node.task("web", "is not ready", is_told);
    assert_eq!(told["Status"]["State"], "running", "{told}");
}

#[test]
fn wrong_labels_are_refused_together() {
    let node = Node::start();
    let refused = node.docker_fails(
        "service create -d --no-resolve-image --label skep.ready.cmd=true --label skep.ready.interval=soon \
         --label skep.ready.retries=0 skep/busybox true",
    );
    assert!(refused.contains("`soon` is not a duration"), "{refused}");
    assert!(refused.contains("`0` is not a number"), "{refused}");
}
