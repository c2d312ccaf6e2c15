//! Jobs: both modes, runs and their counts, failures, deadlines, schedules.

use std::{process::Command, time::Duration};

use serde_json::Value;
use skep_conformance::{Node, binary, until};

const PATIENCE: Duration = Duration::from_secs(40);

/// The line of `docker service ls` about the service.
fn listed(node: &Node, name: &str) -> String {
    let list = node.docker_ok("service ls");
    let line = list.lines().find(|line| line.contains(name));
    line.unwrap_or_else(|| panic!("{name} in {list}"))
        .to_owned()
}

#[track_caller]
fn until_listed(node: &Node, name: &str, text: &str) {
    until(text, PATIENCE, || {
        let line = listed(node, name);
        line.contains(text).then_some(()).ok_or(line)
    });
}

fn inspected(node: &Node, name: &str) -> Value {
    node.json(&format!("/services/{name}"))
}

/// Tasks of the present run in a state.
fn in_state(node: &Node, name: &str, state: &str) -> usize {
    let iteration = inspected(node, name)["JobStatus"]["JobIteration"].clone();
    let tasks = node.tasks(name);
    let tasks = tasks
        .iter()
        .filter(|task| task["JobIteration"] == iteration && task["Status"]["State"] == state);
    tasks.count()
}

fn skep(node: &Node, arguments: &[&str]) -> (bool, String) {
    let host = format!("unix://{}", node.socket().display());
    let mut command = Command::new(binary());
    let output = command.args(arguments).args(["--host", &host]).output();
    let output = output.expect("skep can be run");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.success(), text)
}

#[test]
fn replicated_job_completes_and_runs_again() {
    let node = Node::start();
    let created = node.docker_ok(
        "service create --no-resolve-image --name job --mode replicated-job --max-concurrent 2 --replicas 5 \
         skep/busybox echo finished",
    );
    for text in [
        "active tasks: 2 out of 2 tasks",
        "active tasks: 0 out of 0 tasks",
        "job complete",
    ] {
        assert!(created.contains(text), "{text}: {created}");
    }
    let line = listed(&node, "job");
    assert!(line.contains("replicated job"), "{line}");
    assert!(line.contains("0/2 (5/5 completed)"), "{line}");
    let tasks = node.docker_ok("service ps job");
    assert_eq!(tasks.matches("Complete ").count(), 10, "{tasks}");
    let slots: Vec<i64> = {
        let tasks = node.tasks("job");
        let mut slots: Vec<_> = tasks.iter().filter_map(|t| t["Slot"].as_i64()).collect();
        slots.sort_unstable();
        slots
    };
    assert!(
        slots.is_empty() || slots == [1, 2, 3, 4],
        "0 is not shown: {slots:?}"
    );
    let logs = node.docker_ok("service logs job");
    assert_eq!(logs.matches("finished").count(), 5, "{logs}");
    let status = inspected(&node, "job")["JobStatus"].clone();
    let began = status["LastExecution"].as_str().map(str::to_owned);
    assert!(
        began.as_ref().is_some_and(|at| at.starts_with("20")),
        "{status}"
    );

    let again = node.docker_ok("service update --no-resolve-image --force job");
    assert!(again.contains("job complete"), "{again}");
    let status = inspected(&node, "job")["JobStatus"].clone();
    assert_eq!(status["JobIteration"]["Index"], 1);
    assert!(
        status["LastExecution"].as_str() > began.as_deref(),
        "{status}"
    );
    let scaled = node.docker_ok("service scale job=3");
    assert!(scaled.contains("job scaled to 3"), "{scaled}");
    until_listed(&node, "job", "0/2 (3/3 completed)");
    assert_eq!(
        inspected(&node, "job")["JobStatus"]["JobIteration"]["Index"],
        2
    );

    let refused = node.docker_fails("service update -d --update-parallelism 2 job");
    assert!(refused.contains("update config"), "{refused}");
    let refused = node.docker_fails(
        "service create -d --no-resolve-image --mode replicated-job --update-delay 1s skep/busybox true",
    );
    assert!(refused.contains("update"), "{refused}");
}

#[test]
fn global_job_runs_once_on_each_node() {
    let node = Node::start();
    let created = node.docker_ok(
        "service create --no-resolve-image --name all --mode global-job skep/busybox true",
    );
    assert!(created.contains("job complete"), "{created}");
    let line = listed(&node, "all");
    assert!(
        line.contains("global job") && line.contains("completed)"),
        "{line}"
    );
    node.docker_ok("service update -d --no-resolve-image --force all");
    until("the second run is complete", PATIENCE, || {
        let complete = in_state(&node, "all", "complete");
        let run = inspected(&node, "all")["JobStatus"]["JobIteration"]["Index"].clone();
        (complete == 1 && run == 1)
            .then_some(())
            .ok_or(format!("{complete} in {run}"))
    });
    let refused = node.docker_fails("service scale all=2");
    assert!(
        refused.contains("scale can only be used with replicated or replicated-job mode"),
        "{refused}"
    );
}

#[test]
fn failing_job_is_given_up_and_running_job_is_removed() {
    let node = Node::start();
    node.docker_ok(
        "service create -d --no-resolve-image --name bad --mode replicated-job --max-concurrent 1 --replicas 2 \
         --restart-max-attempts 1 --restart-delay 100ms skep/busybox sh -c 'exit 3'",
    );
    until("both slots are given up", PATIENCE, || {
        let failed = in_state(&node, "bad", "failed");
        (failed == 4)
            .then_some(())
            .ok_or(format!("{failed} failed"))
    });
    assert!(listed(&node, "bad").contains("0/1 (0/2 completed)"));
    let tasks = node.docker_ok("service ps --no-trunc bad");
    assert!(tasks.contains("non-zero exit (3)"), "{tasks}");
    let (_, jobs) = skep(&node, &["job", "ls"]);
    assert!(jobs.contains("failed (0/2)"), "{jobs}");

    node.docker_ok(
        "service create -d --no-resolve-image --stop-signal KILL --name long --mode replicated-job skep/busybox sleep 1000",
    );
    node.task_in("long", "running");
    until_listed(&node, "long", "1/1 (0/1 completed)");
    node.docker_ok("service rm bad long");
    node.empty();
}

#[test]
fn job_that_takes_too_long_is_stopped() {
    let node = Node::start();
    node.docker_ok(
        "service create -d --no-resolve-image --stop-signal KILL --name long --mode replicated-job \
         --label skep.job.deadline=2s skep/busybox sleep 1000",
    );
    node.task("long", "was stopped", |task| {
        task["Status"]["State"] == "shutdown" && task["DesiredState"] == "shutdown"
    });
    assert!(listed(&node, "long").contains("0/1 (0/1 completed)"));
    let (_, jobs) = skep(&node, &["job", "ls"]);
    assert!(jobs.contains("failed (0/1)"), "{jobs}");
}

#[test]
fn scheduled_job_waits_for_its_time_or_for_being_told() {
    let node = Node::start();
    let wrong = node.docker_fails(
        "service create -d --no-resolve-image --mode replicated-job --label 'skep.job.schedule=0 0 30 2 *' \
         --label skep.job.timezone=Mars/Olympus --label skep.job.history=0 skep/busybox true",
    );
    for text in ["never happens", "skep.job.history"] {
        assert!(wrong.contains(text), "{text}: {wrong}");
    }
    let wrong = node.docker_fails(
        "service create -d --no-resolve-image --label 'skep.job.schedule=@daily' skep/busybox true",
    );
    assert!(wrong.contains("only jobs have it"), "{wrong}");

    node.docker_ok(
        "service create -d --no-resolve-image --stop-signal KILL --name night --mode replicated-job \
         --label 'skep.job.schedule=30 2 29 2 *' --label skep.job.timezone=Europe/Berlin \
         skep/busybox sh -c 'echo ran; sleep 1000'",
    );
    assert_eq!(node.tasks("night").len(), 0);
    let service = inspected(&node, "night");
    let message = service["UpdateStatus"]["Message"]
        .as_str()
        .unwrap_or_default();
    assert!(
        message.starts_with("next run at 20") && message.ends_with("-02-29T02:30:00+01:00"),
        "{service}"
    );
    assert_eq!(
        service["JobStatus"]["LastExecution"],
        "0001-01-01T00:00:00Z"
    );
    let (_, jobs) = skep(&node, &["job", "ls"]);
    assert!(jobs.contains("30 2 29 2 * Europe/Berlin"), "{jobs}");

    // An update does not run it, being told does, and only once at a time.
    node.docker_ok("service update -d --no-resolve-image --env-add A=b night");
    let (is_run, text) = skep(&node, &["job", "run", "night"]);
    assert!(is_run, "{text}");
    node.task_in("night", "running");
    node.logged("night", "ran");
    assert_eq!(node.tasks("night").len(), 1);
    let (is_run, text) = skep(&node, &["job", "run", "night"]);
    assert!(!is_run && text.contains("forbids a second run"), "{text}");
    let (_, jobs) = skep(&node, &["job", "ls"]);
    assert!(jobs.contains("running (0/1)"), "{jobs}");
    let (is_run, text) = skep(&node, &["job", "run", "day"]);
    assert!(!is_run && text.contains("day"), "{text}");
}
