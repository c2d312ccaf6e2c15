//! What keeps a cluster private: unlock keys, the root certificate, join tokens that end.

use std::io::Write;

use skep_conformance::{Cluster, Engine, Output};

/// `docker swarm unlock` with a key on standard input.
fn unlock(node: &Engine, key: &str) -> Output {
    let mut command = node.docker_command("swarm unlock");
    command.stdin(std::process::Stdio::piped());
    command.stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("a shell");
    let mut input = child.stdin.take().expect("a pipe");
    writeln!(input, "{key}").expect("the command reads");
    drop(input);
    child.wait_with_output().expect("it ends").into()
}

const READY: [(&str, &str); 3] = [
    ("node1", "ready reachable"),
    ("node2", "ready reachable"),
    ("node3", "ready reachable"),
];

#[test]
fn locked_manager_starts_only_with_its_key() {
    let cluster = Cluster::start(3, 3);
    let said = cluster.node(1).docker_ok("swarm update --autolock=true");
    let key = said
        .split_whitespace()
        .find(|word| word.starts_with("SWMKEY-1-"));
    let key = key.unwrap_or_else(|| panic!("no key: {said}"));
    assert_eq!(cluster.node(3).docker_ok("swarm unlock-key -q"), key);
    for how in ["", "--kill"] {
        cluster.skep_ok(&format!("local stop {how} node2"));
        cluster.skep_ok("local start node2");
        let node = cluster.node(2);
        assert_eq!(
            node.docker_ok("info -f '{{.Swarm.LocalNodeState}}'"),
            "locked"
        );
        let refused = node.docker_fails("service ls");
        assert!(
            refused.contains("Swarm is encrypted and needs to be unlocked"),
            "{refused}"
        );
        let wrong = key.replace(char::from(key.as_bytes()[20]), "x");
        let refused = unlock(node, &wrong);
        assert!(refused.status != 0, "{refused:?}");
        assert_eq!(
            node.docker_ok("info -f '{{.Swarm.LocalNodeState}}'"),
            "locked"
        );
        let unlocked = unlock(node, key);
        assert!(unlocked.status == 0, "{unlocked:?}");
        cluster.listed(2, &READY);
    }
    let next = cluster.node(1).docker_ok("swarm unlock-key -q --rotate");
    assert_ne!(next, key);
    cluster.node(1).docker_ok("swarm update --autolock=false");
    cluster.skep_ok("local stop node3");
    cluster.skep_ok("local start node3");
    cluster.listed(3, &READY);
}

#[test]
fn root_rotation_finishes_and_old_tokens_end() {
    let cluster = Cluster::start(4, 3);
    let node = cluster.node(1);
    let old_token = node.docker_ok("swarm join-token -q worker");
    let old_root = node.docker_ok("swarm ca");
    node.create("--name web --replicas 4 skep/busybox sleep 1000");
    cluster.placed(1, "web", 4);
    let containers = cluster.node(4).docker_ok("ps -q");

    // The command waits until every node has a certificate of the new root.
    node.docker_ok("swarm ca --rotate --quiet");
    let new_root = node.docker_ok("swarm ca");
    assert_ne!(new_root, old_root);
    assert!(
        new_root.starts_with("-----BEGIN CERTIFICATE-----"),
        "{new_root}"
    );
    let all = [READY[0], READY[1], READY[2], ("node4", "ready")];
    cluster.listed(3, &all);
    assert_eq!(cluster.node(4).docker_ok("ps -q"), containers);
    cluster.node(4).docker_ok("swarm leave");
    let refused = cluster
        .node(4)
        .docker_fails(&format!("swarm join --token {old_token} 10.78.0.1:2377"));
    assert!(
        refused.contains("remote CA does not match fingerprint"),
        "{refused}"
    );
    let token = cluster.node(2).docker_ok("swarm join-token -q worker");
    cluster
        .node(4)
        .docker_ok(&format!("swarm join --token {token} 10.78.0.2:2377"));
    // What all have on disk works after a restart.
    for number in cluster.numbers() {
        cluster.skep_ok(&format!("local stop node{number}"));
        cluster.skep_ok(&format!("local start node{number}"));
    }
    cluster.listed(
        1,
        &[
            READY[0],
            READY[1],
            READY[2],
            ("node4", "down"),
            ("node4", "ready"),
        ],
    );
}

#[test]
fn limited_tokens_admit_as_often_and_as_long_as_they_may() {
    let cluster = Cluster::outsiders(3);
    cluster
        .node(1)
        .docker_ok("swarm init --advertise-addr 10.78.0.1");
    let host = "--host unix:///run/skep-local/default/node1/skep.sock";
    let before = cluster.node(1).docker_ok("swarm join-token -q worker");
    let token = cluster.skep_ok(&format!(
        "swarm join-token worker --uses 1 --ttl 1h --rotate -q {host}"
    ));
    assert_ne!(token, before);
    let join = |number, token: &str| format!("swarm join --token {token} 10.78.0.{number}:2377");
    cluster.node(2).docker_ok(&join(1, &token));
    let refused = cluster.node(3).docker_fails(&join(1, &token));
    assert!(
        refused.contains("has been used as often as it may be"),
        "{refused}"
    );
    let shown = cluster.skep_ok(&format!("swarm join-token worker {host}"));
    assert!(shown.contains("Nodes the token still admits: 0"), "{shown}");

    let token = cluster.skep_ok(&format!(
        "swarm join-token worker --ttl 1ms --rotate -q {host}"
    ));
    let refused = cluster.node(3).docker_fails(&join(1, &token));
    assert!(refused.contains("has expired"), "{refused}");
    let token = cluster.skep_ok(&format!("swarm join-token worker --rotate -q {host}"));
    cluster.node(3).docker_ok(&join(1, &token));
}
