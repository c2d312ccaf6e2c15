//! A cluster's life through the docker command: join, spread, roles, drain, leave.

use std::{collections::BTreeMap, time::Duration};

use skep_conformance::{Cluster, Engine, until};

/// Longest wait for a leader to hand over; it takes milliseconds on a quiet machine.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(20);

/// Joins `node` with a token; returns what the command printed.
#[track_caller]
fn join(node: &Engine, token: &str, addr: &str) -> String {
    node.docker_ok(&format!("swarm join --token {token} {addr}"))
}

/// Changes one character of a part of a token, counted from the end.
fn tampered(token: &str, part_from_end: usize) -> String {
    let mut parts: Vec<String> = token.split('-').map(str::to_owned).collect();
    let index = parts.len() - 1 - part_from_end;
    let part = &mut parts[index];
    let last = if part.ends_with('0') { "1" } else { "0" };
    part.replace_range(part.len() - 1.., last);
    parts.join("-")
}

#[test]
fn cluster_is_made_used_and_left_with_the_docker_command() {
    let cluster = Cluster::outsiders(4);
    let first = cluster.node(1);
    let started = first.docker_ok("swarm init --advertise-addr 10.78.0.1");
    let printed = started
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with("docker swarm join --token"));
    let printed = printed.unwrap_or_else(|| panic!("no command to join: {started}"));
    check_refused_joins(&cluster);

    let answer = cluster.node(2).docker_ok(&printed["docker ".len()..]);
    assert!(
        answer.contains("This node joined a swarm as a worker."),
        "{answer}"
    );
    let token = first.docker_ok("swarm join-token -q manager");
    for number in [3, 4] {
        let answer = join(cluster.node(number), &token, "10.78.0.1:2377");
        assert!(
            answer.contains("This node joined a swarm as a manager."),
            "{answer}"
        );
    }
    let twice = cluster.node(2).docker_fails(&printed["docker ".len()..]);
    assert!(
        twice.contains("This node is already part of a swarm."),
        "{twice}"
    );
    check_views(&cluster);
    check_spread_and_drain(&cluster);
    check_roles(&cluster);
    check_leaving(&cluster);
}

fn check_refused_joins(cluster: &Cluster) {
    let token = cluster.node(1).docker_ok("swarm join-token -q worker");
    let outsider = cluster.node(2);
    let join =
        |token: &str| outsider.docker_fails(&format!("swarm join --token {token} 10.78.0.1:2377"));
    let refused = join(&tampered(&token, 0));
    assert!(
        refused.contains("A valid join token is necessary to join this cluster"),
        "{refused}"
    );
    let refused = join(&tampered(&token, 1));
    assert!(
        refused.contains("remote CA does not match fingerprint"),
        "{refused}"
    );
    let refused = join("SWMTKN-1-short");
    assert!(refused.contains("invalid join token"), "{refused}");
    let state = outsider.docker_ok("info -f '{{.Swarm.LocalNodeState}}'");
    assert_eq!(state, "inactive", "a refused join leaves no trace");
    assert_eq!(cluster.node(1).docker_ok("node ls -q").lines().count(), 1);
}

/// Every manager tells the same; workers tell only of themselves.
fn check_views(cluster: &Cluster) {
    let expected = [
        ("node1", "ready reachable"),
        ("node2", "ready"),
        ("node3", "ready reachable"),
        ("node4", "ready reachable"),
    ];
    for manager in [1, 3, 4] {
        cluster.listed(manager, &expected);
        assert_eq!(cluster.leader_as_seen_by(manager), 1);
        let engine = cluster.node(manager);
        let itself = engine.docker_ok("node inspect self -f '{{.Description.Hostname}} {{.Spec.Role}} {{.ManagerStatus.Addr}}'");
        assert_eq!(
            itself,
            format!("node{manager} manager 10.78.0.{manager}:2377")
        );
        let worker = engine.docker_ok("node inspect --pretty node2");
        for text in [
            "Hostname:              \tnode2",
            "State:\t\t\tReady",
            "Address:\t\t10.78.0.2",
        ] {
            assert!(worker.contains(text.trim_start()), "{text}: {worker}");
        }
        let info = engine.docker_ok("info");
        for text in ["Is Manager: true", "Managers: 3", "Nodes: 4"] {
            assert!(info.contains(text), "{text}: {info}");
        }
    }
    let worker = cluster.node(2);
    assert!(worker.docker_ok("info").contains("Is Manager: false"));
    let refused = worker.docker_fails("node ls");
    assert!(
        refused.contains("This node is not a swarm manager. Worker nodes can't be used"),
        "{refused}"
    );
}

fn check_spread_and_drain(cluster: &Cluster) {
    // Created on a follower: any manager takes commands.
    cluster
        .node(3)
        .create("--name web --replicas 8 skep/busybox sleep 1000");
    let placed = cluster.placed(4, "web", 8);
    assert_eq!(placed, BTreeMap::from([(1, 2), (2, 2), (3, 2), (4, 2)]));
    cluster.converged(1, "web", 8);

    let said = cluster.skep_ok("node drain node2 --wait --timeout 1m --host unix:///run/skep-local/default/node4/skep.sock");
    assert!(said.ends_with("node2: no task is left"), "{said}");
    assert_eq!(cluster.node(2).docker_ok("ps -q"), "");
    let placed = cluster.placed(4, "web", 8);
    assert_eq!(placed.get(&2), None, "{placed:?}");
    cluster
        .node(1)
        .docker_ok("node update --availability active node2");
    cluster.node(1).docker_ok("service scale -d web=12");
    let placed = cluster.placed(3, "web", 12);
    assert_eq!(placed.get(&2), Some(&3), "{placed:?}");
}

fn check_roles(cluster: &Cluster) {
    let managers = |second: &'static str| {
        [
            ("node1", "ready reachable"),
            ("node2", second),
            ("node3", "ready reachable"),
            ("node4", "ready reachable"),
        ]
    };
    let id = cluster.id(2);
    let containers = cluster.node(2).docker_ok("ps -q --no-trunc");
    cluster.node(3).docker_ok("node promote node2");
    cluster.listed(2, &managers("ready reachable"));
    cluster.listed(1, &managers("ready reachable"));
    cluster.node(4).docker_ok("node demote node2");
    cluster.listed(1, &managers("ready"));
    cluster.is_worker(2);
    assert_eq!(cluster.id(2), id, "roles change, nodes do not");
    assert_eq!(
        cluster.node(2).docker_ok("ps -q --no-trunc"),
        containers,
        "tasks did not notice"
    );

    let leader = cluster.leader_as_seen_by(1);
    cluster
        .node(1)
        .docker_ok(&format!("node demote node{leader}"));
    let other = [1, 3, 4]
        .into_iter()
        .find(|number| *number != leader)
        .expect("there are three");
    until(
        "a leader that is demoted hands over",
        HAND_OVER_PATIENCE,
        || match cluster.leader_as_seen_by(other) {
            same if same == leader => Err(format!("node{leader} leads")),
            _ => Ok(()),
        },
    );
    let name = format!("node{leader}");
    let demoted = managers("ready").map(|(node, state)| match node == name {
        true => (node, "ready"),
        false => (node, state),
    });
    cluster.listed(other, &demoted);
    cluster.is_worker(leader);
    cluster
        .node(other)
        .docker_ok(&format!("node promote node{leader}"));
    cluster.listed(other, &managers("ready"));
}

fn check_leaving(cluster: &Cluster) {
    let refused = cluster.node(1).docker_fails("node rm node2");
    assert!(
        refused.contains("is not down and can't be removed"),
        "{refused}"
    );
    let answer = cluster.node(2).docker_ok("swarm leave");
    assert!(answer.contains("Node left the swarm."), "{answer}");
    assert_eq!(cluster.node(2).docker_ok("ps -q"), "");
    let managers = [
        ("node1", "ready reachable"),
        ("node3", "ready reachable"),
        ("node4", "ready reachable"),
    ];
    cluster.listed(
        1,
        &[managers[0], ("node2", "down"), managers[1], managers[2]],
    );
    cluster.node(1).docker_ok("node rm node2");
    cluster.listed(3, &managers);
    cluster.placed(3, "web", 12);

    let refused = cluster.node(3).docker_fails("swarm leave");
    assert!(
        refused.contains("Use `--force` to suppress this message."),
        "{refused}"
    );
    cluster.node(4).docker_ok("node demote node3");
    cluster.listed(4, &[managers[0], ("node3", "ready"), managers[2]]);
    cluster.is_worker(3);
    cluster.node(3).docker_ok("swarm leave");
    let token = cluster.node(4).docker_ok("swarm join-token -q worker");
    join(cluster.node(3), &token, "10.78.0.4:2377");
    cluster.node(1).docker_ok("service rm web");
}
