//! Health checks: what the docker command shows of them, and what follows for tasks.

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::Value;
use skep_conformance::{Node, images, until};

/// Longest wait for what a few probes bring about.
const PATIENCE: Duration = Duration::from_secs(40);

/// Flags of a check that passes while `/tmp/ok` exists and is run five times a second.
const FAST: &str =
    "--health-interval 200ms --health-timeout 5s --health-retries 2 --health-cmd 'test -e /tmp/ok'";

/// Waits until the newest container of a service exists; returns its id.
fn container_of(node: &Node, service: &str) -> String {
    let filter = format!("label=com.docker.swarm.service.name={service}");
    until("there is a container", PATIENCE, || {
        let found = node.docker_ok(&format!("ps -q --no-trunc --filter {filter}"));
        found
            .lines()
            .next()
            .map(str::to_owned)
            .ok_or_else(|| found.clone())
    })
}

/// Waits until a container's health is as wished; returns all of it.
fn health(node: &Node, container: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
    until("the health is as wished", PATIENCE, || {
        let health = node.json(&format!("/containers/{container}/json"))["State"]["Health"].clone();
        if is_wanted(&health) {
            Ok(health)
        } else {
            Err(health.to_string())
        }
    })
}

fn state_of(node: &Node, service: &str) -> String {
    let tasks = node.tasks(service);
    tasks[0]["Status"]["State"]
        .as_str()
        .expect("a state")
        .to_owned()
}

#[test]
fn task_runs_once_it_is_healthy_and_everything_shows_it() {
    let node = Node::start();
    let mut events = node.docker_command("events --filter type=container --format '{{.Action}}'");
    let file = fs::File::create(node.dir().join("events")).unwrap();
    let mut events = events.stdout(Stdio::from(file)).spawn().unwrap();
    node.create(&format!(
        "--name web {FAST} --health-retries 1000 skep/busybox sleep 1000"
    ));
    let container = container_of(&node, "web");
    let waiting = health(&node, &container, |health| !health["Log"][1].is_null());
    assert_eq!(waiting["Status"], "starting", "{waiting}");
    assert_eq!(waiting["Log"][0]["ExitCode"], 1, "{waiting}");
    assert_eq!(state_of(&node, "web"), "starting");
    let shown = node.docker_ok("ps --format '{{.Status}}'");
    assert!(shown.ends_with("(health: starting)"), "{shown}");

    node.docker_ok(&format!("exec {container} touch /tmp/ok"));
    assert_eq!(node.container("web"), container);
    let healthy = health(&node, &container, |health| health["Status"] == "healthy");
    assert_eq!(healthy["FailingStreak"], 0, "{healthy}");
    let shown = node.docker_ok("ps --format '{{.Status}}'");
    assert!(shown.ends_with("(healthy)"), "{shown}");
    assert_eq!(
        node.docker_ok("ps -q --no-trunc --filter health=healthy"),
        container
    );
    assert_eq!(node.docker_ok("ps -q --filter health=unhealthy"), "");
    let unknown = node.docker_fails("ps --filter health=fine");
    assert!(
        unknown.contains("nrecognised filter value for health: fine"),
        "{unknown}"
    );
    let inspected = node.docker_ok(&format!(
        "inspect --format '{{{{json .Config.Healthcheck}}}}' {container}"
    ));
    let config: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(
        config["Test"],
        serde_json::json!(["CMD-SHELL", "test -e /tmp/ok"])
    );
    assert_eq!(config["Interval"], 200_000_000);

    let full = health(&node, &container, |health| !health["Log"][4].is_null());
    assert_eq!(full["Log"].as_array().unwrap().len(), 5, "{full}");
    until("the event is seen", PATIENCE, || {
        let seen = fs::read_to_string(node.dir().join("events")).unwrap();
        if seen.lines().any(|line| line == "health_status: healthy") {
            Ok(())
        } else {
            Err(seen)
        }
    });
    events.kill().unwrap();
    events.wait().unwrap();
}

#[test]
fn unhealthy_container_is_stopped_and_replaced() {
    let node = Node::start();
    node.create(&format!("--name web --restart-delay 0s {FAST} --health-start-period 40s --health-start-interval 100ms skep/busybox sleep 1000"));
    let first = container_of(&node, "web");
    node.docker_ok(&format!("exec {first} touch /tmp/ok"));
    assert_eq!(node.container("web"), first);
    node.docker_ok(&format!("exec {first} rm /tmp/ok"));
    let failed = node.task("web", "has failed", |task| {
        task["Status"]["State"] == "failed"
    });
    assert_eq!(
        failed["Status"]["Err"],
        "task: non-zero exit (137): dockerexec: unhealthy container"
    );
    let second = until("there is another container", PATIENCE, || {
        let second = container_of(&node, "web");
        if second == first {
            Err(second)
        } else {
            Ok(second)
        }
    });
    node.docker_ok(&format!("exec {second} touch /tmp/ok"));
    assert_eq!(node.container("web"), second);
    let shown = node.docker_ok("service ps --no-trunc web");
    assert!(shown.contains("dockerexec: unhealthy container"), "{shown}");
}

#[test]
fn container_that_never_gets_healthy_fails_its_task_whatever_its_exit_code() {
    let node = Node::start();
    // It ends well when asked to: still no task that has completed.
    node.docker_ok(&format!(
        "service create -d --no-resolve-image --name web --restart-condition none {FAST} skep/busybox \
         sh -c 'trap \"exit 0\" TERM; while true; do sleep 0.1; done'"
    ));
    let failed = node.task_in("web", "failed");
    assert_eq!(failed["Status"]["Err"], "dockerexec: unhealthy container");
    let containers = node.docker_ok("ps -aq --filter health=unhealthy");
    assert_eq!(containers.lines().count(), 1, "{containers}");
}

#[test]
fn probes_that_hang_are_killed_and_say_so() {
    let node = Node::start();
    node.create(
        "--name web --health-interval 200ms --health-timeout 300ms --health-retries 1000 \
         --health-cmd 'echo begun; sleep 777 & sleep 778' skep/busybox sleep 1000",
    );
    let container = container_of(&node, "web");
    let health = health(&node, &container, |health| {
        health["FailingStreak"].as_i64().unwrap_or(0) >= 3
    });
    for probe in health["Log"].as_array().unwrap() {
        assert_eq!(probe["ExitCode"], -1, "{health}");
        assert_eq!(
            probe["Output"], "Health check exceeded timeout (300ms): begun\n",
            "{health}"
        );
    }
    let sleepers = node.docker_ok(&format!("top {container}"));
    let count = sleepers.matches("sleep 77").count();
    assert!(count <= 2, "probes pile up: {sleepers}");
}

#[test]
fn long_output_is_cut_and_a_missing_program_is_named() {
    let node = Node::start();
    node.create(
        "--name long --health-interval 200ms --health-cmd 'yes | head -c 100000' skep/busybox sleep 1000",
    );
    let container = node.container("long");
    let health = health(&node, &container, |health| !health["Log"][0].is_null());
    let output = health["Log"][0]["Output"].as_str().unwrap();
    assert_eq!(output.len(), 4_099, "{output}");
    assert!(output.ends_with("y\n..."), "{output}");

    let spec = serde_json::json!({ "Name": "odd", "TaskTemplate": {
        "RestartPolicy": { "Condition": "none" },
        "ContainerSpec": { "Image": "skep/busybox", "Command": ["sleep", "1000"], "StopSignal": "KILL",
            "Healthcheck": { "Test": ["CMD", "nothing"], "Interval": 200_000_000, "Retries": 1 } } } });
    let created = node.http("POST", "/services/create", Some(&spec.to_string()));
    assert_eq!(created.status, 201, "{created:?}");
    node.task_in("odd", "failed");
    let odd = node.docker_ok("ps -aq --no-trunc --filter health=unhealthy");
    let health = node.json(&format!("/containers/{odd}/json"))["State"]["Health"].clone();
    assert_eq!(health["Log"][0]["ExitCode"], -1, "{health}");
    let output = health["Log"][0]["Output"].as_str().unwrap();
    assert!(
        output.contains("exec: \"nothing\": executable file not found in $PATH"),
        "{output}"
    );
}

#[test]
fn daemon_that_is_killed_goes_on_probing_with_what_it_knew() {
    let mut node = Node::start();
    node.create(&format!(
        "--name web {FAST} --health-retries 1000000 skep/busybox sleep 1000"
    ));
    let container = container_of(&node, "web");
    health(&node, &container, |health| {
        health["FailingStreak"].as_i64().unwrap_or(0) >= 3
    });
    node.kill_daemon();
    node.start_daemon();
    // The task was waiting for health, and still is.
    let after = health(&node, &container, |health| {
        health["FailingStreak"].as_i64().unwrap_or(0) >= 5
    });
    assert_eq!(after["Status"], "starting", "{after}");
    assert_eq!(state_of(&node, "web"), "starting");
    node.docker_ok(&format!("exec {container} touch /tmp/ok"));
    assert_eq!(node.container("web"), container);

    node.kill_daemon();
    node.start_daemon();
    let known = node.json(&format!("/containers/{container}/json"))["State"]["Health"].clone();
    assert_eq!(known["Status"], "healthy", "{known}");
    node.docker_ok(&format!("exec {container} rm /tmp/ok"));
    health(&node, &container, |health| {
        health["FailingStreak"].as_i64().unwrap_or(0) >= 1
    });
    node.docker_ok("service rm web");
    node.empty();
}

#[test]
fn settings_are_kept_and_an_image_has_its_own() {
    let node = Node::start();
    node.create(
        "--name web --health-cmd 'exit 0' --health-interval 7s --health-timeout 8s --health-retries 9 \
         --health-start-period 10s --health-start-interval 200ms skep/busybox sleep 1000",
    );
    let kept =
        node.json("/services/web")["Spec"]["TaskTemplate"]["ContainerSpec"]["Healthcheck"].clone();
    let expected = serde_json::json!({ "Test": ["CMD-SHELL", "exit 0"], "Interval": 7_000_000_000_i64,
        "Timeout": 8_000_000_000_i64, "Retries": 9, "StartPeriod": 10_000_000_000_i64, "StartInterval": 200_000_000 });
    assert_eq!(kept, expected);
    // The start interval, not 7 s, is what is waited for.
    node.container("web");
    node.docker_ok("service update -d --no-resolve-image --no-healthcheck web");
    let spec = &node.json("/services/web")["Spec"]["TaskTemplate"]["ContainerSpec"];
    assert_eq!(spec["Healthcheck"]["Test"], serde_json::json!(["NONE"]));
    let refused = node.http("POST", "/services/create", Some(
        "{\"Name\":\"x\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"i\",\"Healthcheck\":{\"Test\":[\"curl\"]}}}}",
    ));
    assert_eq!(refused.status, 400, "{refused:?}");

    // The test image with a check of its own.
    let check = "{\\\"Test\\\":[\\\"CMD-SHELL\\\",\\\"test -e /tmp/ok\\\"],\\\"Interval\\\":200000000,\\\"Retries\\\":1000}";
    node.inside_ok(&format!(
        "mkdir {dir}/image && cd {dir}/image && tar -xf {archive} && config=$(ls | grep -v manifest | grep '[.]json$') && \
         sed -i \"s#\\\"Cmd\\\"#\\\"Healthcheck\\\":{check},&#\" $config && mv $config config.json && \
         sed -i \"s#$config#config.json#; s#skep/busybox#skep/checked#\" manifest.json && tar -cf ../checked.tar .",
        dir = node.dir().display(),
        archive = images().join("busybox.tar").display(),
    ));
    node.docker_ok(&format!("load -i {}/checked.tar", node.dir().display()));
    let image = node.json("/images/skep/checked/json")["Config"]["Healthcheck"].clone();
    assert_eq!(
        image["Test"],
        serde_json::json!(["CMD-SHELL", "test -e /tmp/ok"])
    );
    node.docker_ok(&format!(
        "save -o {}/saved.tar skep/checked",
        node.dir().display()
    ));
    node.docker_ok("image rm skep/checked");
    node.docker_ok(&format!("load -i {}/saved.tar", node.dir().display()));
    assert_eq!(
        node.json("/images/skep/checked/json")["Config"]["Healthcheck"],
        image
    );

    // The image's check, the service's other interval, and none at all.
    node.create("--name own skep/checked sleep 1000");
    let container = container_of(&node, "own");
    health(&node, &container, |health| {
        health["FailingStreak"].as_i64().unwrap_or(0) >= 1
    });
    node.create("--name slower --health-interval 1h skep/checked sleep 1000");
    let slower = container_of(&node, "slower");
    let config = node.json(&format!("/containers/{slower}/json"))["Config"]["Healthcheck"].clone();
    assert_eq!(config["Interval"], 3_600_000_000_000_i64, "{config}");
    assert_eq!(config["Retries"], 1000, "{config}");
    assert_eq!(config["Test"], image["Test"], "{config}");
    node.create("--name without --no-healthcheck skep/checked sleep 1000");
    let without = node.container("without");
    let state = node.json(&format!("/containers/{without}/json"))["State"].clone();
    assert!(state["Health"].is_null(), "{state}");
    assert!(
        node.docker_ok("ps -q --no-trunc --filter health=none")
            .contains(&without)
    );
}

#[test]
fn update_waits_for_health_and_rolls_back_without() {
    let node = Node::start();
    let begin = Instant::now();
    node.create(
        "--name web --update-order start-first --update-failure-action rollback --update-monitor 2s \
         --restart-delay 0s --health-interval 200ms --health-retries 2 --health-cmd 'test -z \"$BAD\"' \
         skep/busybox sleep 1000",
    );
    let good = node.container("web");
    node.docker_ok("service update -d --no-resolve-image --env-add BAD=1 web");
    until("the update is rolled back", PATIENCE, || {
        let status = node.json("/services/web")["UpdateStatus"].clone();
        // The old task serves all the while.
        let up = node.docker_ok("ps -q --no-trunc --filter health=healthy");
        assert!(up.contains(&good), "{up} after {:?}", begin.elapsed());
        if status["State"] == "rollback_completed" {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    assert_eq!(node.container("web"), good);
}
