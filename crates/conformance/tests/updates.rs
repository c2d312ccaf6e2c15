//! Updates that fail, rollbacks, kept revisions and crash loops, as the docker command and `skep` show them.

use std::{process::Command, time::Duration};

use serde_json::Value;
use skep_conformance::{Node, binary, until};

/// Longest wait for an update of a handful of tasks on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Settings that keep updates short.
const QUICK: &str =
    "--update-monitor 1s --rollback-monitor 500ms --stop-signal KILL --label skep.drain=0s";

/// A service of `count` sleepers.
fn sleepers(node: &Node, name: &str, count: usize, flags: &str) {
    node.docker_ok(&format!(
        "service create -q --no-resolve-image --name {name} --replicas {count} {QUICK} {flags} skep/busybox sleep 1000"
    ));
    node.running(name, count);
}

/// Waits for a state of the update; returns its message.
fn update_is(node: &Node, service: &str, state: &str) -> String {
    until(&format!("the update is {state}"), PATIENCE, || {
        let status = &node.json(&format!("/services/{service}"))["UpdateStatus"];
        if status["State"] == state {
            Ok(status["Message"].as_str().unwrap_or_default().to_owned())
        } else {
            Err(status.to_string())
        }
    })
}

fn arguments(task: &Value) -> String {
    let args = task["Spec"]["ContainerSpec"]["Args"].as_array();
    let args = args.into_iter().flatten().filter_map(Value::as_str);
    args.collect::<Vec<_>>().join(" ")
}

/// Runs `skep` against the node's daemon.
fn skep(node: &Node, line: &str) -> (bool, String) {
    let host = format!("unix://{}", node.socket().display());
    let mut command = Command::new(binary());
    command
        .args(line.split_whitespace())
        .args(["--host", &host]);
    let output = command.output().expect("skep runs");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[test]
fn a_command_that_cannot_start_is_rolled_back_paused_or_ignored() {
    let node = Node::start();
    sleepers(&node, "web", 2, "--update-failure-action rollback");
    let said = node.docker_ok("service update --no-resolve-image --args /no/such/program web");
    let reason = "rollback: update rolled back due to failure or early termination of task";
    assert!(said.contains(reason), "{said}");
    let message = update_is(&node, "web", "rollback_completed");
    let because = "rollback completed: update rolled back due to failure or early termination of";
    assert!(
        message.starts_with(because) && message.contains("/no/such/program"),
        "{message}"
    );
    let tasks = node.running("web", 2);
    assert!(
        tasks.iter().all(|task| arguments(task) == "sleep 1000"),
        "{tasks:?}"
    );
    let pretty = node.docker_ok("service inspect --pretty web");
    for text in [
        "UpdateStatus:",
        "rollback_completed",
        "Started:",
        "rollback completed",
    ] {
        assert!(pretty.contains(text), "{text}: {pretty}");
    }

    let said = node.docker_fails(
        "service update --no-resolve-image --update-failure-action pause --args /no/such/program web",
    );
    assert!(
        said.contains(
            "service update paused: update paused due to failure or early termination of task"
        ),
        "{said}"
    );
    // The second task was not touched, and stays so.
    let kept = node.task("web", "still sleeps", |task| {
        arguments(task) == "sleep 1000" && task["DesiredState"] == "running"
    });
    assert_eq!(kept["Status"]["State"], "running");

    node.docker_ok(
        "service update -d --no-resolve-image --update-failure-action continue --args /no/such/program web",
    );
    assert_eq!(update_is(&node, "web", "completed"), "update completed");
    node.running("web", 0);
    node.docker_ok("service rollback -d web");
    // The spec before has the same command, so there is nothing to replace.
    update_is(&node, "web", "rollback_completed");
    node.docker_ok("service update -d --no-resolve-image --args 'sleep 2000' web");
    update_is(&node, "web", "completed");
    node.running("web", 2);
}

#[test]
fn a_share_of_failures_is_tolerated() {
    let node = Node::start();
    sleepers(
        &node,
        "web",
        4,
        "--restart-condition none --update-parallelism 1",
    );
    node.docker_ok(
        "service update -d --no-resolve-image --update-max-failure-ratio 0.5 --args /nowhere web",
    );
    let message = update_is(&node, "web", "paused");
    assert!(
        message.starts_with("update paused due to failure"),
        "{message}"
    );
    // Half of four may fail: the third was too many, and the fourth was spared. What cannot start
    // never runs, so none begins before the one before it has failed.
    let tasks = node.tasks("web");
    let has_failed = |task: &&Value| {
        ["failed", "rejected"].contains(&task["Status"]["State"].as_str().unwrap_or_default())
    };
    assert_eq!(tasks.iter().filter(has_failed).count(), 3);
    assert_eq!(node.running("web", 1).len(), 1);
    node.docker_ok(
        "service update -d --no-resolve-image --update-max-failure-ratio 1 --args 'sh -c false' web",
    );
    update_is(&node, "web", "completed");
}

#[test]
fn an_update_that_cannot_be_placed_fails_at_its_deadline() {
    let node = Node::start();
    sleepers(
        &node,
        "web",
        1,
        "--update-order start-first --label skep.update.deadline=2s",
    );
    let said = node.docker_fails("service update --no-resolve-image --reserve-cpu 1000 web");
    let reason = "not running within the update deadline of 2s: still pending, no suitable node";
    assert!(said.contains(reason), "{said}");
    let shown = node.docker_ok("service ps --no-trunc web");
    assert!(shown.contains(reason), "{shown}");
    // Start-first: the old task served all the time.
    let kept = node.task("web", "runs on", |task| {
        task["Status"]["State"] == "running"
    });
    assert_eq!(kept["DesiredState"], "running");
    let wrong = node.docker_fails("service update -d --label-add skep.update.deadline=soon web");
    assert!(
        wrong.contains("label `skep.update.deadline`: `soon` is not a duration"),
        "{wrong}"
    );
}

#[test]
fn any_kept_revision_can_be_returned_to() {
    let node = Node::start();
    sleepers(&node, "web", 1, "--label skep.revisions=3");
    for seconds in [2000, 3000, 4000] {
        node.docker_ok(&format!(
            "service update -q --no-resolve-image --args 'sleep {seconds}' web"
        ));
    }
    let (is_ok, shown) = skep(&node, "service history web");
    assert!(is_ok, "{shown}");
    let rows: Vec<Vec<&str>> = shown
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let numbers: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(numbers, ["REVISION", "2", "3", "4"], "{shown}");
    assert!(shown.contains("ContainerSpec"), "{shown}");
    assert!(
        shown
            .lines()
            .last()
            .is_some_and(|row| row.ends_with("current")),
        "{shown}"
    );

    let (is_ok, said) = skep(&node, "service rollback web --to 2");
    assert!(is_ok && said.contains("web: rollback completed"), "{said}");
    let tasks = node.running("web", 1);
    assert_eq!(arguments(&tasks[0]), "sleep 2000");
    let (is_ok, said) = skep(&node, "service rollback web --to 1");
    assert!(
        !is_ok && said.contains("service web has no revision 1: kept are 2, 3, 4"),
        "{said}"
    );
    // Docker's own rollback leads back to where it was.
    node.docker_ok("service update -q --rollback web");
    let tasks = node.running("web", 1);
    assert_eq!(arguments(&tasks[0]), "sleep 4000");
    let kept = node.json("/skep/v1/services/web/revisions");
    assert_eq!(kept.as_array().map(Vec::len), Some(3), "{kept}");
    node.docker_ok("service rm web");
    node.empty();
}

#[test]
fn crash_loops_slow_down_and_say_so() {
    let node = Node::start();
    node.create("--name web --restart-delay 10ms skep/busybox false");
    node.create("--name few --restart-delay 10ms --restart-max-attempts 2 skep/busybox false");
    let waiting = node.task("web", "waits", |task| {
        let error = task["Status"]["Err"].as_str().unwrap_or_default();
        error.starts_with("crash-looping: exit 1 (") && task["DesiredState"] == "ready"
    });
    let error = waiting["Status"]["Err"].as_str().unwrap_or_default();
    assert!(error.contains(" failures, next try in "), "{error}");
    node.task("few", "is given up", |task| {
        task["Status"]["Err"] == "task: non-zero exit (1); restart attempts exhausted (2 of 2)"
    });
    let (is_ok, shown) = skep(&node, "service ls");
    assert!(
        is_ok && shown.contains("slot 1 is crash-looping: exit 1 ("),
        "{shown}"
    );
    assert!(
        shown.contains("slot 1 has no restart attempts left: exit 1"),
        "{shown}"
    );
    until("both are told", PATIENCE, || {
        let now = node.inside_ok("date +%s");
        let events = node.docker_ok(&format!(
            "events --since 1 --until {} --filter type=service --format '{{{{.Action}}}}'",
            now.trim()
        ));
        let is_told = |action: &&str| events.lines().any(|line| line == *action);
        if ["crash-loop", "restart-exhausted"].iter().all(is_told) {
            Ok(())
        } else {
            Err(events)
        }
    });
}
