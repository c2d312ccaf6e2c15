//! Virtual addresses on real connections.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::*;
use crate::plane::Health::{Leaving, Ready};
use crate::testbed::cluster::Cluster;

/// A client on node 1, servers `s2` and `s3` on nodes 1 and 2 behind 10.0.1.100.
fn shop(cluster: &mut Cluster) -> (PathBuf, PathBuf, PathBuf) {
    let client = cluster.add(1, "c", &[("red", "10.0.1.10")]);
    let s2 = cluster.add(1, "s2", &[("red", "10.0.1.2")]);
    let s3 = cluster.add(2, "s3", &[("red", "10.0.1.3")]);
    cluster.serve(
        "red",
        "web",
        &["10.0.1.100"],
        &[("10.0.1.2", Ready), ("10.0.1.3", Ready)],
    );
    (client, s2, s3)
}

/// Who answered how often.
fn answers(protocol: Protocol, client: &Path, to: &str, count: usize) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    for _ in 0..count {
        let answer = ask(protocol, Some(client), to).unwrap_or_else(|error| format!("{error}"));
        *answers.entry(answer).or_default() += 1;
    }
    answers
}

#[test]
fn every_port_and_protocol_of_a_virtual_address_is_balanced() {
    on_cluster(2, async |cluster| {
        let (client, s2, s3) = shop(cluster);
        cluster.update().await;
        let _servers = [(&s2, "two"), (&s3, "three")].map(|(netns, name)| {
            [
                Server::tcp_named(Some(netns), "0.0.0.0:80", Some(name)),
                Server::tcp_named(Some(netns), "0.0.0.0:5432", Some(name)),
                Server::udp_named(Some(netns), "0.0.0.0:53", Some(name)),
            ]
        });
        for (protocol, port) in [
            (Protocol::Tcp, 80),
            (Protocol::Tcp, 5432),
            (Protocol::Udp, 53),
        ] {
            let answers = answers(protocol, &client, &format!("10.0.1.100:{port}"), 60);
            assert_eq!(
                answers.keys().collect::<Vec<_>>(),
                ["three", "two"],
                "{protocol} {port}"
            );
            assert!(answers.values().all(|count| *count >= 10), "{answers:?}");
        }
        assert!(can_ping(&client, "10.0.1.100"));
        // A backend reaches its own service, and so itself.
        let own = answers(Protocol::Tcp, &s2, "10.0.1.100:80", 40);
        assert_eq!(own.keys().collect::<Vec<_>>(), ["three", "two"]);
    });
}

#[test]
fn the_server_sees_the_clients_own_address() {
    on_cluster(2, async |cluster| {
        let (client, _, s3) = shop(cluster);
        cluster.serve("red", "web", &["10.0.1.100"], &[("10.0.1.3", Ready)]);
        cluster.update().await;
        let _server = Server::tcp(Some(&s3), "0.0.0.0:80");
        assert_eq!(
            ask(Protocol::Tcp, Some(&client), "10.0.1.100:80").unwrap(),
            "10.0.1.10"
        );
    });
}

#[test]
fn ipv6_virtual_addresses_are_balanced() {
    on_cluster(2, async |cluster| {
        let a = cluster.add(1, "a", &[("dual", "10.0.3.2"), ("dual", "fd00:3::2")]);
        let b = cluster.add(2, "b", &[("dual", "10.0.3.3"), ("dual", "fd00:3::3")]);
        let only_v4 = cluster.add(1, "old", &[("dual", "10.0.3.4")]);
        let vips = ["10.0.3.100", "fd00:3::100"];
        cluster.serve(
            "dual",
            "web",
            &vips,
            &[("10.0.3.3", Ready), ("fd00:3::3", Ready)],
        );
        cluster.update().await;
        let _v4 = Server::tcp_named(Some(&b), "10.0.3.3:80", Some("four"));
        let _v6 = Server::tcp_named(Some(&b), "[fd00:3::3]:80", Some("six"));
        assert_eq!(
            ask(Protocol::Tcp, Some(&a), "10.0.3.100:80").unwrap(),
            "four"
        );
        assert_eq!(
            ask(Protocol::Tcp, Some(&a), "[fd00:3::100]:80").unwrap(),
            "six"
        );
        assert_eq!(
            ask(Protocol::Tcp, Some(&only_v4), "10.0.3.100:80").unwrap(),
            "four"
        );
        // A change of both families reaches the container with one.
        cluster.serve("dual", "web", &vips, &[]);
        cluster.update().await;
        let error = ask(Protocol::Tcp, Some(&only_v4), "10.0.3.100:80").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let error = ask(Protocol::Tcp, Some(&a), "[fd00:3::100]:80").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(cluster.node(1).plane.doctor().await.unwrap(), [""; 0]);
    });
}

#[test]
fn a_backend_that_leaves_keeps_its_connections_and_gets_no_new_ones() {
    on_cluster(2, async |cluster| {
        let (client, s2, s3) = shop(cluster);
        cluster.serve("red", "web", &["10.0.1.100"], &[("10.0.1.3", Ready)]);
        cluster.update().await;
        let listener = inside(Some(&s3), || TcpListener::bind("0.0.0.0:80").unwrap());
        let mut held = inside(Some(&client), || {
            TcpStream::connect("10.0.1.100:80").unwrap()
        });
        let (mut peer, _) = listener.accept().unwrap();
        cluster.serve(
            "red",
            "web",
            &["10.0.1.100"],
            &[("10.0.1.2", Ready), ("10.0.1.3", Leaving)],
        );
        let reports = cluster.update().await;
        assert_eq!(
            steps(&reports[0]),
            [
                "container c: balance 10.0.1.100",
                "container s2: balance 10.0.1.100"
            ]
        );
        let _two = Server::tcp_named(Some(&s2), "0.0.0.0:80", Some("two"));
        let answers = answers(Protocol::Tcp, &client, "10.0.1.100:80", 30);
        assert_eq!(answers, [("two".to_owned(), 30)].into());
        held.write_all(b"still here").unwrap();
        let mut buffer = [0; 10];
        peer.read_exact(&mut buffer).unwrap();
        peer.write_all(b"so am I").unwrap();
        held.read_exact(&mut buffer[..7]).unwrap();
        assert_eq!(&buffer[..7], b"so am I");
    });
}

#[test]
fn a_dead_backends_connections_are_cut_at_once() {
    on_cluster(2, async |cluster| {
        let (client, s2, s3) = shop(cluster);
        cluster.serve("red", "web", &["10.0.1.100"], &[("10.0.1.3", Ready)]);
        cluster.update().await;
        let listener = inside(Some(&s3), || TcpListener::bind("0.0.0.0:80").unwrap());
        let mut held = inside(Some(&client), || {
            TcpStream::connect("10.0.1.100:80").unwrap()
        });
        let (_peer, _) = listener.accept().unwrap();
        // The node is gone without a word.
        run("ip link set n2 down");
        cluster.serve("red", "web", &["10.0.1.100"], &[("10.0.1.2", Ready)]);
        cluster.drop("s3");
        cluster.update().await;
        cluster.node(1).plane.doctor().await.unwrap();
        let _two = Server::tcp_named(Some(&s2), "0.0.0.0:80", Some("two"));
        let start = Instant::now();
        held.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        held.write_all(b"anybody?").unwrap();
        let error = held.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(start.elapsed() < Duration::from_secs(1));
    });
}

#[test]
fn datagrams_follow_at_once() {
    on_cluster(2, async |cluster| {
        let (client, s2, s3) = shop(cluster);
        cluster.serve("red", "web", &["10.0.1.100"], &[("10.0.1.3", Ready)]);
        cluster.update().await;
        let _two = Server::udp_named(Some(&s2), "0.0.0.0:53", Some("two"));
        let _three = Server::udp_named(Some(&s3), "0.0.0.0:53", Some("three"));
        let socket = inside(Some(&client), || UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.connect("10.0.1.100:53").unwrap();
        assert_eq!(crate::testbed::ask_from(&socket).unwrap(), "three");
        cluster.serve(
            "red",
            "web",
            &["10.0.1.100"],
            &[("10.0.1.2", Ready), ("10.0.1.3", Leaving)],
        );
        cluster.update().await;
        // Flows are forgotten before the next command.
        cluster.node(1).plane.doctor().await.unwrap();
        assert_eq!(crate::testbed::ask_from(&socket).unwrap(), "two");
    });
}

#[test]
fn without_backends_connections_are_refused_at_once() {
    on_cluster(1, async |cluster| {
        let client = cluster.add(1, "c", &[("red", "10.0.1.10")]);
        cluster.serve("red", "web", &["10.0.1.100"], &[("10.0.1.2", Leaving)]);
        cluster.update().await;
        let start = Instant::now();
        let error = ask(Protocol::Tcp, Some(&client), "10.0.1.100:80").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let socket = inside(Some(&client), || UdpSocket::bind("0.0.0.0:0").unwrap());
        assert!(socket.send_to(b"?", "10.0.1.100:53").is_err());
        assert!(start.elapsed() < Duration::from_millis(200));
    });
}

#[test]
fn broken_rules_and_maps_are_found_and_repaired() {
    on_cluster(2, async |cluster| {
        let (client, s2, s3) = shop(cluster);
        cluster.update().await;
        let _two = Server::tcp_named(Some(&s2), "0.0.0.0:80", Some("two"));
        let _three = Server::tcp_named(Some(&s3), "0.0.0.0:80", Some("three"));
        let plane = cluster.node(1).plane.clone();
        let nft = format!("nsenter --net={} nft", client.display());
        for (harm, finding) in [
            (
                "flush ruleset",
                "container c: the rules that balance IPv4 are missing",
            ),
            (
                "flush chain ip skep n2",
                "container c: the rules that balance IPv4 are missing",
            ),
            (
                "flush map ip skep slots",
                "container c: virtual addresses lead elsewhere than they should: 10.0.1.100",
            ),
            (
                "flush map ip skep vips",
                "container c: virtual addresses lead elsewhere than they should: 10.0.1.100",
            ),
        ] {
            run(&format!("{nft} {harm}"));
            let findings = plane.doctor().await.unwrap();
            assert!(
                findings.iter().any(|text| text.starts_with(finding)),
                "{harm}: {findings:?}"
            );
            assert_eq!(
                findings.len(),
                1 + usize::from(harm.contains("ruleset") || harm.contains("chain"))
            );
            plane.reconcile().await.unwrap();
            assert_eq!(plane.doctor().await.unwrap(), [""; 0]);
            assert_eq!(
                answers(Protocol::Tcp, &client, "10.0.1.100:80", 20).len(),
                2,
                "{harm}"
            );
        }
        // An update that meets broken rules repairs them too.
        run(&format!("{nft} flush ruleset"));
        cluster.serve("red", "web", &["10.0.1.100"], &[("10.0.1.3", Ready)]);
        cluster.update().await;
        assert_eq!(
            answers(Protocol::Tcp, &client, "10.0.1.100:80", 20),
            [("three".to_owned(), 20)].into()
        );
        assert_eq!(plane.doctor().await.unwrap(), [""; 0]);
    });
}

#[test]
fn many_services_with_many_backends_are_exact() {
    on_cluster(1, async |cluster| {
        let client = cluster.add(1, "c", &[("wide", "10.0.4.2")]);
        let ips: Vec<String> = (1..=150).map(|n| format!("10.0.5.{n}")).collect();
        let names = ["a", "b", "d", "e"];
        for (name, count) in names.into_iter().zip([1, 20, 64, 150]) {
            let vip = format!("10.0.4.{}", 100 + count.min(100));
            let backends: Vec<(&str, Health)> =
                ips[..count].iter().map(|ip| (ip.as_str(), Ready)).collect();
            cluster.serve("wide", name, &[&vip], &backends);
        }
        cluster.update().await;
        assert_eq!(cluster.node(1).plane.doctor().await.unwrap(), [""; 0]);
        let listed = run(&format!(
            "nsenter --net={} nft -j list map ip skep slots",
            client.display()
        ));
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let map = listed["nftables"]
            .as_array()
            .unwrap()
            .iter()
            .find_map(|object| object.get("map"))
            .unwrap();
        assert_eq!(map["elem"].as_array().unwrap().len(), 1 + 20 + 64 + 1024);
    });
}
