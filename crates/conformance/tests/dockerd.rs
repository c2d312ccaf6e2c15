//! A real dockerd 20.10 as a worker of Skep managers.

use std::time::Duration;

use skep_conformance::{Cluster, Dockerd, Engine, images, until};

/// Longest wait for what a daemon does on its own time.
const PATIENCE: Duration = Duration::from_secs(40);

#[expect(clippy::print_stderr, reason = "a skipped test must be loud")]
fn skip(reason: &str) {
    eprintln!("SKIPPED: Debian's docker.io and containerd packages cannot be had: {reason}");
}

#[test]
fn dockerd_joins_and_runs_tasks() {
    let programs = match Dockerd::programs() {
        Ok(programs) => programs,
        Err(reason) => return skip(&reason),
    };
    let cluster = Cluster::start(1, 1);
    let dockerd = Dockerd::start(&cluster, &programs);
    let (manager, docker) = (cluster.node(1), dockerd.engine());
    for name in ["busybox", "httpd"] {
        docker.docker_ok(&format!("load -q -i {}/{name}.tar", images().display()));
    }
    let id = join(manager, docker);
    check_tasks(manager, docker, &id);
    check_host_port(&cluster, &id);
    manager.docker_ok("service rm plain web");
    docker.empty();
    docker.docker_ok("swarm leave");
    wait_state(manager, &id, "down");
    manager.docker_ok(&format!("node rm {id}"));
}

/// Joins with the very command the manager prints; returns the node's id.
fn join(manager: &Engine, docker: &Engine) -> String {
    let printed = manager.docker_ok("swarm join-token worker");
    let line = printed
        .lines()
        .find_map(|line| line.trim().strip_prefix("docker "));
    let line = line.unwrap_or_else(|| panic!("no command to join: {printed}"));
    let answer = docker.docker_ok(&format!("{line} --advertise-addr 10.78.0.254"));
    let joined = "This node joined a swarm as a worker.";
    assert!(answer.contains(joined), "{answer}");
    let info = docker.json("/info");
    let id = info["Swarm"]["NodeID"].as_str().unwrap_or_default();
    wait_state(manager, id, "ready");
    let version = manager.docker_ok(&format!(
        "node inspect {id} -f '{{{{.Description.Engine.EngineVersion}}}}'"
    ));
    assert!(version.starts_with("20.10"), "{version}");
    id.to_owned()
}

fn wait_state(manager: &Engine, id: &str, wanted: &str) {
    until(&format!("dockerd is {wanted}"), PATIENCE, || {
        let state = manager.docker_ok(&format!("node inspect {id} -f '{{{{.Status.State}}}}'"));
        if state == wanted { Ok(()) } else { Err(state) }
    });
}

fn check_tasks(manager: &Engine, docker: &Engine, id: &str) {
    manager.create(&format!(
        "--name plain --constraint node.id=={id} --replicas 2 skep/busybox sh -c 'echo hello; sleep 1000'"
    ));
    let tasks = manager.running("plain", 2);
    let own = docker.docker_ok("ps -q --no-trunc");
    for task in &tasks {
        let container = task["Status"]["ContainerStatus"]["ContainerID"].as_str();
        let container = container.unwrap_or_else(|| panic!("no container: {task}"));
        assert!(own.contains(container), "{container} is not among {own}");
    }
    manager.docker_ok("service scale -d plain=1");
    manager.running("plain", 1);
    until("dockerd has one container", PATIENCE, || {
        let own = docker.docker_ok("ps -q");
        if own.lines().count() == 1 {
            Ok(())
        } else {
            Err(own)
        }
    });
}

/// What dockerd publishes is reached from another node.
fn check_host_port(cluster: &Cluster, id: &str) {
    cluster.node(1).create(&format!(
        "--name web --constraint node.id=={id} --publish mode=host,target=80,published=8080 skep/httpd"
    ));
    cluster.node(1).running("web", 1);
    let page = until("the page is served", PATIENCE, || {
        let output = cluster.skep("local exec node1 -- curl -fsS -m 2 http://10.78.0.254:8080/");
        if output.status == 0 {
            Ok(output.stdout)
        } else {
            Err(output.text())
        }
    });
    assert!(page.contains("it works"), "{page}");
}
