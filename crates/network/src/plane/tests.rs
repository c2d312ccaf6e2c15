//! Kernel tests: nodes and containers are namespaces of one test, which take everything with them.

use std::path::Path;

use super::*;
use crate::ports::Protocol;
use crate::testbed::cluster::{can_ping, netns_of, on_cluster, open_plane};
use crate::testbed::{Server, ask, inside, run};

mod balancing;
mod counting;
mod encrypting;
mod healing;
mod meshing;
mod naming;

#[test]
fn containers_of_a_network_meet_across_nodes_and_keep_their_addresses() {
    on_cluster(3, async |cluster| {
        let a = cluster.add(1, "a", &[("red", "10.0.1.2")]);
        let b = cluster.add(2, "b", &[("red", "10.0.1.3")]);
        let c = cluster.add(3, "c", &[("red", "10.0.1.4")]);
        let d = cluster.add(1, "d", &[("red", "10.0.1.5")]);
        cluster.update().await;
        let names = [(&a, 2), (&b, 3), (&c, 4), (&d, 5)];
        for (server, last) in names {
            let _tcp = Server::tcp(Some(server), "0.0.0.0:80");
            let _udp = Server::udp(Some(server), "0.0.0.0:80");
            for (client, own) in names {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    let seen = ask(protocol, Some(client), &format!("10.0.1.{last}:80"));
                    let seen = seen.map_err(|error| error.kind());
                    assert_eq!(
                        seen,
                        Ok(format!("10.0.1.{own}")),
                        "{client:?} to {server:?}"
                    );
                }
            }
        }
    });
}

#[test]
fn networks_do_not_meet_even_with_the_same_subnet() {
    on_cluster(2, async |cluster| {
        let a = cluster.add(1, "a", &[("red", "10.0.1.2")]);
        let b = cluster.add(1, "b", &[("blue", "10.0.1.3")]);
        let c = cluster.add(2, "c", &[("blue", "10.0.1.2")]);
        let d = cluster.add(2, "d", &[("red", "10.0.1.4")]);
        cluster.update().await;
        let _c = Server::tcp(Some(&c), "0.0.0.0:80");
        let _d = Server::tcp(Some(&d), "0.0.0.0:80");
        assert_eq!(
            ask(Protocol::Tcp, Some(&b), "10.0.1.2:80").unwrap(),
            "10.0.1.3"
        );
        assert_eq!(
            ask(Protocol::Tcp, Some(&a), "10.0.1.4:80").unwrap(),
            "10.0.1.2"
        );
        assert!(ask(Protocol::Tcp, Some(&a), "10.0.1.3:80").is_err());
        // A neighbour nobody has is not asked for on other nodes: nothing floods.
        run(
            "nsenter --net=/run/netns/node1 nft 'add table ip t; add chain ip t c { type filter hook output priority 0; }; add rule ip t c udp dport 4789 counter'",
        );
        assert!(!can_ping(&a, "10.0.1.77"));
        let counted = run("nsenter --net=/run/netns/node1 nft list table ip t");
        assert!(counted.contains("packets 0 "), "{counted}");
        assert!(can_ping(&a, "10.0.1.4"));
        let counted = run("nsenter --net=/run/netns/node1 nft list table ip t");
        assert!(!counted.contains("packets 0 "), "{counted}");
        // No way out: the only routes are the network's.
        assert_eq!(run("ip -n a route").lines().count(), 1);
    });
}

#[test]
fn a_container_on_two_networks_has_an_interface_on_each() {
    on_cluster(2, async |cluster| {
        let a = cluster.add(1, "a", &[("red", "10.0.1.2"), ("wide", "10.0.4.2")]);
        let b = cluster.add(2, "b", &[("red", "10.0.1.3")]);
        let c = cluster.add(2, "c", &[("wide", "10.0.5.2")]);
        cluster.update().await;
        let _b = Server::tcp(Some(&b), "0.0.0.0:80");
        let _c = Server::tcp(Some(&c), "0.0.0.0:80");
        assert_eq!(
            ask(Protocol::Tcp, Some(&a), "10.0.1.3:80").unwrap(),
            "10.0.1.2"
        );
        // The other subnet of the same network is reached directly.
        assert_eq!(
            ask(Protocol::Tcp, Some(&a), "10.0.5.2:80").unwrap(),
            "10.0.4.2"
        );
        assert_eq!(
            ask(Protocol::Tcp, Some(&c), "10.0.4.2:80")
                .unwrap_err()
                .kind(),
            std::io::ErrorKind::ConnectionRefused
        );
    });
}

#[test]
fn ipv6_works_beside_ipv4() {
    on_cluster(2, async |cluster| {
        let a = cluster.add(1, "a", &[("dual", "10.0.3.2"), ("dual", "fd00:3::2")]);
        let b = cluster.add(2, "b", &[("dual", "10.0.3.3"), ("dual", "fd00:3::3")]);
        cluster.update().await;
        let _v4 = Server::tcp(Some(&b), "10.0.3.3:80");
        let _v6 = Server::tcp(Some(&b), "[fd00:3::3]:80");
        assert_eq!(
            ask(Protocol::Tcp, Some(&a), "10.0.3.3:80").unwrap(),
            "10.0.3.2"
        );
        assert_eq!(
            ask(Protocol::Tcp, Some(&a), "[fd00:3::3]:80").unwrap(),
            "fd00:3::2"
        );
    });
}

#[test]
fn the_mtu_follows_the_data_path_and_large_packets_arrive() {
    on_cluster(2, async |cluster| {
        run(
            "ip link set lan0 mtu 9000; ip link set n1 mtu 9000; ip -n node1 link set eth0 mtu 9000",
        );
        run("ip link set n2 mtu 9000; ip -n node2 link set eth0 mtu 9000");
        let a = cluster.add(1, "a", &[("red", "10.0.1.2")]);
        cluster.add(2, "b", &[("red", "10.0.1.3")]);
        cluster.update().await;
        assert!(run("ip -n a link show eth1").contains("mtu 8950"));
        let ping = |size: u32| {
            let command = format!(
                "nsenter --net={} busybox ping -c1 -W1 -s {size} 10.0.1.3",
                a.display()
            );
            run(&command)
        };
        ping(8950 - 28);
        // The way becomes narrower: the next look repairs it.
        run("ip -n node1 link set eth0 mtu 1500; ip -n node2 link set eth0 mtu 1500");
        let report = cluster.node(1).plane.reconcile().await.unwrap();
        assert!(!report.steps.is_empty());
        assert!(run("ip -n a link show eth1").contains("mtu 1450"));
    });
}

#[test]
fn a_wish_the_data_path_cannot_carry_is_a_warning() {
    on_cluster(1, async |cluster| {
        cluster.add(1, "a", &[("red", "10.0.1.2")]);
        let mut desired = cluster.desired(1);
        let network = desired.networks.get_mut("red").unwrap();
        Arc::make_mut(network).mtu = Some(9000);
        let report = cluster.node(1).plane.update(desired).await.unwrap();
        assert_eq!(
            report.warnings,
            ["network `red` asks for MTU 9000, the data path carries 1450"]
        );
        assert!(run("ip -n a link show eth1").contains("mtu 1450"));
    });
}

#[test]
fn one_remote_more_or_less_touches_no_other() {
    on_cluster(2, async |cluster| {
        cluster.add(1, "a", &[("red", "10.0.1.2")]);
        cluster.add(2, "b", &[("red", "10.0.1.3")]);
        cluster.update().await;
        cluster.add(2, "c", &[("red", "10.0.1.4")]);
        let reports = cluster.update().await;
        assert_eq!(
            steps(&reports[0]),
            [
                "network red: change remotes: 02:42:0a:00:01:04 at 192.0.2.2; 10.0.1.4 is 02:42:0a:00:01:04;"
            ]
        );
        assert!(can_ping(&netns_of("a"), "10.0.1.4"));
        cluster.drop("b");
        let reports = cluster.update().await;
        assert_eq!(
            steps(&reports[0]),
            ["network red: change remotes: forget 10.0.1.3; drop 02:42:0a:00:01:03;"]
        );
        assert!(!can_ping(&netns_of("a"), "10.0.1.3"));
        // An address that moves to this node, into another container, is found there.
        cluster.drop("c");
        cluster.add(1, "e", &[("red", "10.0.1.4")]);
        cluster.update().await;
        assert!(can_ping(&netns_of("a"), "10.0.1.4"));
        // Nothing changes: nothing is done.
        let reports = cluster.update().await;
        assert_eq!(steps(&reports[0]), [""; 0]);
    });
}

#[test]
fn tunnels_are_not_tracked() {
    on_cluster(2, async |cluster| {
        let a = cluster.add(1, "a", &[("red", "10.0.1.2")]);
        cluster.add(2, "b", &[("red", "10.0.1.3")]);
        // Something on the node wants tracking.
        run(
            "nsenter --net=/run/netns/node1 nft 'add table ip other; add chain ip other c { type filter hook input priority 0; }; add rule ip other c ct state new accept'",
        );
        cluster.update().await;
        assert!(can_ping(&a, "10.0.1.3"));
        let flows = run("nsenter --net=/run/netns/node1 conntrack -L -p udp 2>/dev/null || true");
        assert!(!flows.contains("dport=4789"), "{flows}");
    });
}

#[test]
fn everything_goes_when_the_last_container_leaves() {
    on_cluster(1, async |cluster| {
        cluster.add(1, "a", &[("red", "10.0.1.2")]);
        cluster.update().await;
        cluster.drop("a");
        let reports = cluster.update().await;
        assert_eq!(steps(&reports[0]), ["network red: delete sandbox"]);
        assert!(!run("ip -n a link").contains("eth1"));
        // Its VXLAN id is free at once.
        cluster.members.push(crate::testbed::cluster::Member {
            node: 1,
            id: "a",
            places: vec![("red", vec!["10.0.1.2".parse().unwrap()])],
        });
        cluster.update().await;
        let plane = &cluster.node(1).plane;
        plane.remove().await.unwrap();
        assert!(!Path::new("/run/plane1/netns").exists());
        assert_eq!(run("nsenter --net=/run/netns/node1 nft list ruleset"), "");
    });
}

#[test]
fn older_and_wrong_values_are_refused() {
    on_cluster(1, async |cluster| {
        cluster.add(1, "a", &[("red", "10.0.1.2")]);
        cluster.update().await;
        cluster.update().await;
        let plane = cluster.node(1).plane.clone();
        cluster.generation = 1;
        let error = plane.update(cluster.desired(1)).await.unwrap_err();
        assert_eq!(error.to_string(), "generation 1 is older than 2");
        cluster.generation = 3;
        let mut desired = cluster.desired(1);
        desired.data_path.port = 0;
        let error = plane.update(desired).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the data plane's value is wrong: the data-path port is 0"
        );
        assert_eq!(plane.doctor().await.unwrap(), [""; 0]);
        // What can be followed is.
        let mut desired = cluster.desired(1);
        desired.networks.clear();
        let report = plane.update(desired).await.unwrap();
        let text = "container a: container `a` is on network `red`, which is not given";
        let failures = report.failures.iter();
        let failures = failures.map(|failure| format!("{}: {}", failure.scope, failure.error));
        assert_eq!(failures.collect::<Vec<_>>(), [text]);
        assert_eq!(plane.doctor().await.unwrap(), [text]);
    });
}

#[test]
fn a_container_that_is_gone_does_not_stop_the_others() {
    on_cluster(1, async |cluster| {
        let a = cluster.add(1, "a", &[("red", "10.0.1.2")]);
        cluster.add(1, "b", &[("red", "10.0.1.3")]);
        run("ip netns del b");
        let report = cluster
            .node(1)
            .plane
            .update(cluster.desired(1))
            .await
            .unwrap();
        let scopes: Vec<String> = report
            .failures
            .iter()
            .map(|failure| failure.scope.to_string())
            .collect();
        // Neither its port nor its rules can be made.
        assert_eq!(scopes, ["container b", "container b"]);
        run("ip netns add b && ip -n b link set lo up");
        let report = cluster.node(1).plane.reconcile().await.unwrap();
        assert!(report.failures.is_empty(), "{report:?}");
        assert!(can_ping(&a, "10.0.1.3"));
    });
}

fn steps(report: &Report) -> Vec<String> {
    report.steps.iter().map(ToString::to_string).collect()
}
