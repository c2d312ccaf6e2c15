//! The swarm itself: starting, leaving, settings, and the node in it.

use std::time::Duration;

use skep_conformance::{Node, Options, until};

/// Longest wait for what the control plane decides.
const PATIENCE: Duration = Duration::from_secs(40);

fn bare() -> Node {
    Node::with(Options {
        is_bare: true,
        ..Options::default()
    })
}

#[test]
fn version_and_info_describe_engine_and_swarm() {
    let node = bare();
    let version = node.docker_ok("version");
    for text in ["Client", "Server", "API version:", "linux/amd64"] {
        assert!(version.contains(text), "{text}: {version}");
    }
    assert_eq!(
        node.docker_ok("info -f '{{.Swarm.LocalNodeState}}'"),
        "inactive"
    );
    node.docker_ok("swarm init --advertise-addr 127.0.0.1");
    let info = node.docker_ok("info");
    for text in [
        "Swarm: active",
        "Is Manager: true",
        "Managers: 1",
        "Nodes: 1",
        "Kernel Version",
    ] {
        assert!(info.contains(text), "{text}: {info}");
    }
    let ping = node.inside_ok(&format!(
        "curl -si --unix-socket {}/skep.sock http://docker/_ping",
        node.dir().display()
    ));
    assert!(ping.contains("Swarm: active/manager"), "{ping}");
    assert!(ping.ends_with("OK"), "{ping}");
}

#[test]
fn swarm_starts_once_and_is_left_by_force() {
    let node = bare();
    let refused = node.docker_fails("service ls");
    assert!(
        refused.contains("This node is not a swarm manager."),
        "{refused}"
    );
    let started = node.docker_ok("swarm init --advertise-addr 127.0.0.1");
    assert!(
        started.contains("Swarm initialized: current node ("),
        "{started}"
    );
    assert!(
        started.contains("docker swarm join --token SWMTKN-1-"),
        "{started}"
    );
    let twice = node.docker_fails("swarm init --advertise-addr 127.0.0.1");
    assert!(
        twice.contains("This node is already part of a swarm."),
        "{twice}"
    );

    let images = skep_conformance::images();
    node.docker_ok(&format!("load -q -i {}/busybox.tar", images.display()));
    node.create("--name web --replicas 2 skep/busybox sleep 1000");
    node.running("web", 2);
    let refused = node.docker_fails("swarm leave");
    assert!(refused.contains("Use `--force` to"), "{refused}");
    node.running("web", 2);
    node.docker_ok("swarm leave --force");
    node.empty();
    assert_eq!(
        node.docker_ok("info -f '{{.Swarm.LocalNodeState}}'"),
        "inactive"
    );
    node.docker_ok("swarm init --advertise-addr 127.0.0.1");
    assert_eq!(node.docker_ok("service ls -q"), "");
}

#[test]
fn swarm_settings_are_kept_and_compared_by_version() {
    let node = bare();
    node.docker_ok("swarm init --advertise-addr 127.0.0.1");
    let swarm = node.json("/swarm");
    assert_eq!(
        swarm["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"], 5,
        "{swarm}"
    );
    assert_eq!(swarm["Spec"]["Name"], "default", "{swarm}");
    assert!(
        swarm["JoinTokens"]["Worker"]
            .as_str()
            .unwrap()
            .starts_with("SWMTKN-1-"),
        "{swarm}"
    );
    node.docker_ok("swarm update --task-history-limit 2");
    let after = node.json("/swarm");
    assert_eq!(
        after["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"], 2,
        "{after}"
    );
    let old = &swarm["Version"]["Index"];
    let spec = swarm["Spec"].to_string();
    let stale = node.http("POST", &format!("/swarm/update?version={old}"), Some(&spec));
    assert!(
        stale.message().contains("update out of sequence"),
        "{stale:?}"
    );
    assert_eq!(
        node.json("/swarm")["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"],
        2
    );
}

#[test]
fn node_is_listed_labelled_drained_and_activated() {
    let node = Node::start();
    let list = node.docker_ok("node ls");
    for text in ["Ready", "Active", "Leader"] {
        assert!(list.contains(text), "{text}: {list}");
    }
    let pretty = node.docker_ok("node inspect --pretty self");
    for text in [
        "State:",
        "Availability:",
        "Manager Status:",
        "Engine Version:",
    ] {
        assert!(pretty.contains(text), "{text}: {pretty}");
    }
    node.docker_ok("node update --label-add rack=r1 --label-add zone=z self");
    node.docker_ok("node update --label-rm zone self");
    let labels = node.docker_ok("node inspect -f '{{json .Spec.Labels}}' self");
    assert_eq!(labels, "{\"rack\":\"r1\"}");

    node.create("--name web --replicas 2 skep/busybox sleep 1000");
    node.running("web", 2);
    let tasks = node.docker_ok("node ps self");
    assert!(
        tasks.contains("web.1") && tasks.contains("web.2"),
        "{tasks}"
    );
    // A drain moves tasks. There is nowhere to move them to, so they serve on, and it is said why.
    node.docker_ok("node update --availability drain self");
    until("the drain says why it waits", PATIENCE, || {
        let tasks = node.docker_ok("service ps --no-trunc web");
        if tasks.contains("1 node not available for new tasks") {
            Ok(())
        } else {
            Err(tasks)
        }
    });
    assert_eq!(node.docker_ok("ps -q").lines().count(), 2);
    node.docker_ok("node update --availability active self");
    node.running("web", 2);
    let gone = node.docker_fails("node inspect nobody");
    assert!(gone.contains("node nobody not found"), "{gone}");
}
