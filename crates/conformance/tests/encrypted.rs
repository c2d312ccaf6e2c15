//! Encrypted networks through the docker command: what the nodes exchange is WireGuard's, whatever becomes of a daemon.

use std::time::Duration;

use skep_conformance::{Cluster, until};

/// Longest wait for what should take a second. Test machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(40);

/// Counts what leaves a node for the others: packets of networks in clear, and datagrams of WireGuard.
const COUNT: &str = "nft 'add table ip count; add chain ip count out { type filter hook output priority 0; }; \
                     add rule ip count out udp dport 4789 counter; add rule ip count out udp dport 4796-4797 counter'";

/// The one container of the service on a node.
fn container(cluster: &Cluster, number: usize) -> String {
    cluster.node(number).docker_ok("ps -q --no-trunc")
}

/// The address of the container of a node.
fn address(cluster: &Cluster, number: usize) -> String {
    let format = "'{{(index .NetworkSettings.Networks \"secret\").IPAddress}}'";
    let id = container(cluster, number);
    let node = cluster.node(number);
    node.docker_ok(&format!("inspect -f {format} {id}"))
}

/// Waits until a container has had an answer from an address.
#[track_caller]
fn reached(cluster: &Cluster, number: usize, id: &str, ip: &str) {
    until(&format!("node{number} reaches {ip}"), PATIENCE, || {
        let line = format!("exec {id} ping -c 1 -W 2 {ip}");
        let output = cluster.node(number).docker(&line);
        if output.status == 0 {
            Ok(())
        } else {
            Err(output.text())
        }
    });
}

/// Packets in clear, and of WireGuard.
fn counted(cluster: &Cluster, number: usize) -> Vec<u64> {
    let text = cluster.skep_ok(&format!("local exec node{number} nft list table ip count"));
    let counts = text.lines().filter_map(|line| {
        let (_, count) = line.split_once("packets ")?;
        count.split_whitespace().next()?.parse().ok()
    });
    counts.collect()
}

#[test]
fn encrypted_networks_carry_nothing_in_clear() {
    let cluster = Cluster::start(2, 1);
    let manager = cluster.node(1);
    for number in [1, 2] {
        cluster.skep_ok(&format!("local exec node{number} {COUNT}"));
    }
    manager.docker_ok("network create -d overlay --opt encrypted secret");
    manager.create(
        "--name cell --mode global --network secret --stop-signal KILL skep/busybox sleep 10000",
    );
    cluster.placed(1, "cell", 2);
    let ids = [1, 2].map(|number| container(&cluster, number));
    let ips = [1, 2].map(|number| address(&cluster, number));
    reached(&cluster, 1, &ids[0], &ips[1]);
    reached(&cluster, 2, &ids[1], &ips[0]);
    let mtu = format!("exec {} cat /sys/class/net/eth1/mtu", ids[0]);
    assert_eq!(manager.docker_ok(&mtu), "1370");
    // Packets of full size, and while a daemon is dead.
    let full = format!("exec {} ping -c 3 -W 5 -s 1342 {}", ids[0], ips[1]);
    manager.docker_ok(&full);
    cluster.skep_ok("local stop --kill node2");
    manager.docker_ok(&full);
    cluster.skep_ok("local start node2");
    reached(&cluster, 2, &ids[1], &ips[0]);
    manager.docker_ok(&full);
    for number in [1, 2] {
        let counts = counted(&cluster, number);
        assert_eq!(counts[0], 0, "node{number} sent in clear: {counts:?}");
        assert!(counts[1] > 10, "node{number}: {counts:?}");
    }
    manager.docker_ok("service rm cell");
}
