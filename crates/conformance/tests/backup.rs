//! A cluster's state in a file: taken from a running cluster, given to a node that is in none.

use std::{fs, os::unix::fs::PermissionsExt};

use skep_conformance::Cluster;

#[test]
fn backup_of_a_lost_cluster_starts_it_again() {
    let cluster = Cluster::outsiders(4);
    let host = |number| format!("--host unix:///run/skep-local/default/node{number}/skep.sock");
    cluster
        .node(1)
        .docker_ok("swarm init --advertise-addr 10.78.0.1");
    let token = cluster.node(1).docker_ok("swarm join-token -q manager");
    for number in [2, 3] {
        let line = format!("swarm join --token {token} 10.78.0.1:2377");
        cluster.node(number).docker_ok(&line);
    }
    cluster
        .node(1)
        .create("--name web --replicas 3 skep/busybox sleep 1000");
    cluster.placed(1, "web", 3);
    let worker_token = cluster.node(1).docker_ok("swarm join-token -q worker");
    let swarm = cluster.node(1).json("/swarm")["ID"].clone();

    let file = cluster.dir().join("backup");
    let backup = format!("cluster backup {} {}", file.display(), host(2));
    cluster.skep_ok(&backup);
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let refused = cluster.skep_fails(&backup);
    assert!(refused.contains("exists; --force replaces it"), "{refused}");
    let restore = |number| {
        let flags = format!("--advertise-addr 10.78.0.{number} {}", host(number));
        format!("cluster restore {} {flags}", file.display())
    };
    let refused = cluster.skep_fails(&restore(1));
    assert!(
        refused.contains("This node is already part of a swarm."),
        "{refused}"
    );

    // Everything is lost but the file.
    cluster.skep_ok("local stop --power-off node1 node2 node3");
    let half = cluster.dir().join("half");
    let bytes = fs::read(&file).unwrap();
    fs::write(&half, &bytes[..bytes.len() / 2]).unwrap();
    cluster.skep_fails(&format!("cluster restore {} {}", half.display(), host(4)));
    let state = cluster
        .node(4)
        .docker_ok("info -f '{{.Swarm.LocalNodeState}}'");
    assert_eq!(state, "inactive", "half a backup is no cluster");
    cluster.skep_ok(&restore(4));
    assert_eq!(cluster.node(4).json("/swarm")["ID"], swarm);
    cluster.placed_without(4, "web", 3, &[1, 2, 3]);
    assert_eq!(
        cluster.node(4).docker_ok("swarm join-token -q worker"),
        worker_token
    );

    // The others come back as if they had left, and join again.
    cluster.skep_ok("local start node1");
    cluster.node(1).docker_ok("swarm leave --force");
    cluster
        .node(1)
        .docker_ok(&format!("swarm join --token {worker_token} 10.78.0.4:2377"));
    cluster.node(4).docker_ok("service scale -d web=6");
    let placed = cluster.placed(4, "web", 6);
    assert_eq!(placed.get(&1), Some(&3), "{placed:?}");
}
