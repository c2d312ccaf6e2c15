//! Where tasks go: what Swarm's flags and Skep's labels say, seen through the docker command on three nodes.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use skep_conformance::{Cluster, until};

/// A move begins ten seconds after a node came, and one follows the other.
const MOVE_PATIENCE: Duration = Duration::from_secs(120);

const SLEEP: &str = "skep/busybox sleep 1d";

/// Every node has two named GPUs, three SSDs, and an engine label.
const DAEMON: &str = "--label disk=fast --node-generic-resource gpu=A --node-generic-resource gpu=B \
                      --node-generic-resource ssd=3";

fn create(cluster: &Cluster, name: &str, flags: &str) {
    cluster
        .node(1)
        .create(&format!("--name {name} {flags} {SLEEP}"));
}

fn remove(cluster: &Cluster, name: &str) {
    cluster.node(1).docker_ok(&format!("service rm {name}"));
}

/// Waits until the one task of a service says why no node takes it, as `docker service ps` shows it.
#[track_caller]
fn refused(cluster: &Cluster, name: &str, flags: &str, expected: &str) {
    create(cluster, name, flags);
    let node = cluster.node(1);
    node.task(name, "says why it waits", |task| {
        task["Status"]["State"] == "pending" && task["Status"]["Err"] == expected
    });
    let shown = node.docker_ok(&format!(
        "service ps --no-trunc --format {{{{.Error}}}} {name}"
    ));
    assert!(shown.contains(expected), "{shown}");
    remove(cluster, name);
}

#[test]
fn tasks_go_where_flags_and_labels_say() {
    let cluster = Cluster::with_daemon_flags(3, 1, DAEMON);
    let node = cluster.node(1);
    for (number, zone) in [(1, "a"), (2, "b"), (3, "b")] {
        node.docker_ok(&format!("node update --label-add zone={zone} node{number}"));
    }
    check_constraints(&cluster);
    check_preferences_and_limits(&cluster);
    check_generic_resources(&cluster);
    check_affinity(&cluster);
    check_packing(&cluster);
}

fn check_constraints(cluster: &Cluster) {
    let id = cluster.id(2);
    for (constraint, expected) in [
        (format!("node.id=={id}"), 2),
        ("node.hostname==NODE3".to_owned(), 3),
        ("node.ip==10.78.0.2".to_owned(), 2),
        ("node.ip!=10.78.0.2/31".to_owned(), 1),
        ("node.role==manager".to_owned(), 1),
        ("node.labels.zone!=b".to_owned(), 1),
    ] {
        create(cluster, "c", &format!("--constraint {constraint}"));
        let placed = cluster.placed(1, "c", 1);
        assert_eq!(placed, BTreeMap::from([(expected, 1)]), "{constraint}");
        remove(cluster, "c");
    }
    for constraint in [
        "node.platform.os==linux",
        "engine.labels.disk==FAST",
        "node.platform.arch!=s390x",
    ] {
        create(
            cluster,
            "c",
            &format!("--replicas 3 --constraint {constraint}"),
        );
        assert_eq!(cluster.placed(1, "c", 3).len(), 3, "{constraint}");
        remove(cluster, "c");
    }
    refused(
        cluster,
        "nowhere",
        "--constraint engine.labels.disk==slow",
        "no suitable node (scheduling constraints not satisfied on 3 nodes)",
    );
    let error = cluster.node(1).docker_fails(&format!(
        "service create -d --constraint node.role=manager --constraint ==x --name c {SLEEP}"
    ));
    for text in [
        "constraint expected one operator from ==, !=",
        "key '' is invalid",
    ] {
        assert!(error.contains(text), "{error}");
    }
}

fn check_preferences_and_limits(cluster: &Cluster) {
    create(
        cluster,
        "spread",
        "--replicas 4 --placement-pref spread=node.labels.zone",
    );
    assert_eq!(
        cluster.placed(1, "spread", 4)[&1],
        2,
        "half of them in zone a"
    );
    remove(cluster, "spread");
    create(cluster, "few", "--replicas 4 --replicas-max-per-node 1");
    let error = "no suitable node (max replicas per node limit exceed)";
    let node = cluster.node(1);
    node.task("few", "is one too many", |task| {
        task["Status"]["Err"] == error
    });
    remove(cluster, "few");
    refused(
        cluster,
        "large",
        "--reserve-cpu 900",
        "no suitable node (insufficient resources on 3 nodes)",
    );
    // The command only asks registries for platforms; a request may name them.
    let spec = "{\"Name\":\"arm\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"skep/busybox\"},\
                \"Placement\":{\"Platforms\":[{\"OS\":\"linux\",\"Architecture\":\"arm64\"}]}}}";
    let answer = node.http("POST", "/services/create", Some(spec));
    assert_eq!(answer.status, 201, "{}", answer.message());
    let error = "no suitable node (unsupported platform on 3 nodes)";
    node.task("arm", "fits no platform", |task| {
        task["Status"]["Err"] == error
    });
    remove(cluster, "arm");
}

fn check_generic_resources(cluster: &Cluster) {
    let node = cluster.node(1);
    let shown = node.json("/nodes/node2")["Description"]["Resources"]["GenericResources"].clone();
    assert_eq!(shown.as_array().map(Vec::len), Some(3), "{shown}");
    create(
        cluster,
        "gpu",
        "--generic-resource gpu=2 --generic-resource ssd=1 --constraint node.hostname==node1",
    );
    let env = node.exec("gpu", "env | grep DOCKER_RESOURCE | sort");
    assert_eq!(env, "DOCKER_RESOURCE_GPU=A,B\nDOCKER_RESOURCE_SSD=1");
    let task = &node.running("gpu", 1)[0];
    assert_eq!(
        task["GenericResources"].as_array().map(Vec::len),
        Some(3),
        "{task}"
    );
    let flags = "--generic-resource gpu=1 --constraint node.hostname==node1";
    let error = "no suitable node (scheduling constraints not satisfied on 2 nodes; insufficient resources on 1 node)";
    create(cluster, "more", flags);
    node.task("more", "waits", |task| task["Status"]["Err"] == error);
    // What ends gives back.
    remove(cluster, "gpu");
    assert_eq!(node.exec("more", "echo $DOCKER_RESOURCE_GPU"), "A");
    remove(cluster, "more");
    let spec = "{\"Name\":\"n\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"skep/busybox\"},\"Resources\":\
                {\"Reservations\":{\"GenericResources\":[{\"NamedResourceSpec\":{\"Kind\":\"gpu\",\"Value\":\"A\"}},\
                {\"DiscreteResourceSpec\":{\"Kind\":\"ssd\",\"Value\":-1}}]}}}}";
    let answer = node.http("POST", "/services/create", Some(spec));
    let message = answer.message();
    for text in [
        "invalid argument for resource gpu",
        "cannot ask for negative resource ssd",
    ] {
        assert!(answer.status == 400 && message.contains(text), "{message}");
    }
}

fn check_affinity(cluster: &Cluster) {
    create(
        cluster,
        "db",
        "--label tier=data --constraint node.hostname==node2",
    );
    cluster.placed(1, "db", 1);
    let near = "--label skep.placement.affinity=service==db";
    create(cluster, "near", &format!("--replicas 2 {near}"));
    assert_eq!(cluster.placed(1, "near", 2), BTreeMap::from([(2, 2)]));
    let apart = "--label skep.placement.anti-affinity=service.label.tier==data";
    create(cluster, "apart", &format!("--replicas 2 {apart}"));
    assert_eq!(
        cluster.placed(1, "apart", 2),
        BTreeMap::from([(1, 1), (3, 1)])
    );
    let prefer = "--label skep.placement.prefer=node.hostname==node3";
    create(cluster, "soft", &format!("--replicas 2 {prefer}"));
    assert_eq!(cluster.placed(1, "soft", 2), BTreeMap::from([(3, 2)]));
    for name in ["near", "apart", "soft", "db"] {
        remove(cluster, name);
    }
    refused(
        cluster,
        "alone",
        near,
        "no suitable node (affinity not satisfied on 3 nodes)",
    );
    let error = cluster.node(1).docker_fails(&format!(
        "service create -d --label skep.placement.affinity=db --label skep.placement.strategy=x --name c {SLEEP}"
    ));
    for text in [
        "label `skep.placement.affinity`: `db`: expected one operator from ==, !=",
        "label `skep.placement.strategy`: `x` is neither `spread` nor `binpack`",
    ] {
        assert!(error.contains(text), "{error}");
    }
}

fn check_packing(cluster: &Cluster) {
    create(
        cluster,
        "pack",
        "--replicas 3 --reserve-memory 8M --label skep.placement.strategy=binpack",
    );
    assert_eq!(cluster.placed(1, "pack", 3).len(), 1);
    remove(cluster, "pack");
}

#[test]
fn tasks_move_back_to_a_node_that_returns() {
    let cluster = Cluster::start(3, 1);
    let node = cluster.node(1);
    create(&cluster, "web", "--replicas 6 --update-order start-first");
    assert_eq!(cluster.placed(1, "web", 6)[&3], 2);
    cluster.skep_ok("local stop --power-off node3");
    cluster.placed_without(1, "web", 6, &[3]);
    let host = format!("unix://{}", node.socket().display());
    cluster.skep_ok(&format!("node rebalance -H {host} --mode on-join"));
    cluster.skep_ok("local start node3");
    let mut least = 6;
    until("node3 has its share", MOVE_PATIENCE, || {
        let tasks = node.tasks("web");
        let running = |task: &&Value| {
            task["Status"]["State"] == "running" && task["DesiredState"] == "running"
        };
        least = least.min(tasks.iter().filter(running).count());
        let id = cluster.id(3);
        let there = tasks
            .iter()
            .filter(running)
            .filter(|task| task["NodeID"] == id.as_str());
        match there.count() {
            2 => Ok(()),
            count => Err(format!("{count} tasks")),
        }
    });
    assert_eq!(
        least, 6,
        "a task that moves serves until its replacement does"
    );
    assert_eq!(
        cluster.placed(1, "web", 6),
        BTreeMap::from([(1, 2), (2, 2), (3, 2)])
    );
    let moved = node.task("web", "was moved", |task| {
        let message = task["Status"]["Message"].as_str().unwrap_or_default();
        message.starts_with("rebalanced from ") && task["DesiredState"] == "shutdown"
    });
    let message = moved["Status"]["Message"].as_str().unwrap_or_default();
    assert!(
        message.contains("to node3: 3 tasks of the service there, "),
        "{message}"
    );
    let planned = cluster.skep_ok(&format!("node rebalance -H {host} --dry-run"));
    assert_eq!(planned.trim(), "nothing to move");
}
