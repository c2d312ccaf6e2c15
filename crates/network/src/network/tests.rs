//! Kernel tests: each runs on its own thread in fresh network and mount namespaces, which take everything with them.
//!
//! Topology: this thread's namespace is the node, `up0` (192.0.2.1) leads to a namespace `world` (192.0.2.2).

use std::io;
use std::path::Path;

use super::*;
use crate::ports::Protocol;
use crate::testbed::{Server, Testbed, ask, ask_from, on_node, run};

mod faults;
mod healing;
mod layouts;

fn config(bed: &Testbed) -> Config {
    Config::new(bed.run_dir())
}

fn tcp(published: u16, target: u16) -> HostPort {
    HostPort {
        protocol: Protocol::Tcp,
        host_ip: [0, 0, 0, 0].into(),
        published,
        target,
    }
}

fn udp(published: u16, target: u16) -> HostPort {
    HostPort {
        protocol: Protocol::Udp,
        ..tcp(published, target)
    }
}

#[test]
fn a_container_reaches_node_and_world_and_the_node_reaches_it() {
    on_node(async |bed| {
        let network = Network::open(config(bed)).await.unwrap();
        let a = network.attach("a", &[], None).await.unwrap();
        assert_eq!(a.address.to_string(), "10.255.0.2/16");
        assert_eq!(a.gateway.to_string(), "10.255.0.1");
        assert_eq!(a.mac.to_string(), "02:42:0a:ff:00:02");

        let container = Server::tcp(Some(&a.netns_path), "0.0.0.0:80");
        let node = Server::tcp(None, "0.0.0.0:81");
        let world = Server::tcp(Some(bed.world()), "0.0.0.0:82");
        assert_eq!(
            ask(Protocol::Tcp, None, "10.255.0.2:80").unwrap(),
            "10.255.0.1"
        );
        assert_eq!(
            ask(Protocol::Tcp, Some(&a.netns_path), "10.255.0.1:81").unwrap(),
            "10.255.0.2"
        );
        assert_eq!(
            ask(Protocol::Tcp, Some(&a.netns_path), "192.0.2.1:81").unwrap(),
            "10.255.0.2"
        );
        // Masqueraded: the world sees the node.
        assert_eq!(
            ask(Protocol::Tcp, Some(&a.netns_path), "192.0.2.2:82").unwrap(),
            "192.0.2.1"
        );
        assert_eq!(
            ask(Protocol::Tcp, Some(&a.netns_path), "127.0.0.1:80").unwrap(),
            "127.0.0.1"
        );
        run("busybox ping -c1 -W1 10.255.0.2");
        drop((container, node, world));
        network.remove().await.unwrap();
    });
}

#[test]
fn a_published_port_is_open_from_everywhere() {
    check_published_port(false);
}

#[test]
fn a_published_port_is_open_from_everywhere_when_ip_rules_see_bridged_packets() {
    check_published_port(true);
}

fn check_published_port(is_bridge_filtered: bool) {
    on_node(async move |bed| {
        set_bridge_filter(is_bridge_filtered);
        let network = Network::open(config(bed)).await.unwrap();
        let ports = [tcp(8080, 80), udp(8080, 80)];
        let a = network.attach("a", &ports, None).await.unwrap();
        let b = network.attach("b", &[], None).await.unwrap();
        assert_eq!(a.ports, ports);
        let _tcp = Server::tcp(Some(&a.netns_path), "0.0.0.0:80");
        let _udp = Server::udp(Some(&a.netns_path), "0.0.0.0:80");
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let check = |from: Option<&Path>, to: &str, seen: &str| {
                let answer = ask(protocol, from, to).map_err(|error| error.kind());
                assert_eq!(
                    answer.as_deref(),
                    Ok(seen),
                    "{protocol} from {from:?} to {to}"
                );
            };
            // The client's address is kept.
            check(Some(bed.world()), "192.0.2.1:8080", "192.0.2.2");
            check(None, "192.0.2.1:8080", "192.0.2.1");
            check(None, "127.0.0.1:8080", "10.255.0.1");
            check(None, "10.255.0.1:8080", "10.255.0.1");
            // Another container and the container itself, through the node.
            check(Some(&b.netns_path), "192.0.2.1:8080", "10.255.0.1");
            check(Some(&b.netns_path), "10.255.0.1:8080", "10.255.0.1");
            check(Some(&a.netns_path), "192.0.2.1:8080", "10.255.0.1");
        }
        network.detach("a").await.unwrap();
        assert!(ask(Protocol::Tcp, Some(bed.world()), "192.0.2.1:8080").is_err());
    });
}

#[test]
fn a_port_on_one_address_is_closed_on_others() {
    on_node(async |bed| {
        let network = Network::open(config(bed)).await.unwrap();
        let local = HostPort {
            host_ip: [127, 0, 0, 1].into(),
            ..tcp(8080, 80)
        };
        let a = network.attach("a", &[local], None).await.unwrap();
        let _server = Server::tcp(Some(&a.netns_path), "0.0.0.0:80");
        assert_eq!(
            ask(Protocol::Tcp, None, "127.0.0.1:8080").unwrap(),
            "10.255.0.1"
        );
        assert!(ask(Protocol::Tcp, Some(bed.world()), "192.0.2.1:8080").is_err());
        assert!(ask(Protocol::Tcp, None, "192.0.2.1:8080").is_err());
    });
}

#[test]
fn containers_are_isolated_from_one_another_and_from_the_nodes_loopback() {
    check_isolation(false);
}

#[test]
fn containers_are_isolated_when_ip_rules_see_bridged_packets() {
    check_isolation(true);
}

/// Docker and Kubernetes switch this on; it is per namespace.
fn set_bridge_filter(is_on: bool) {
    let value = u8::from(is_on);
    run(&format!(
        "busybox sysctl -w net.bridge.bridge-nf-call-iptables={value}"
    ));
}

fn check_isolation(is_bridge_filtered: bool) {
    on_node(async move |bed| {
        set_bridge_filter(is_bridge_filtered);
        let network = Network::open(config(bed)).await.unwrap();
        let a = network.attach("a", &[], None).await.unwrap();
        let b = network.attach("b", &[], None).await.unwrap();
        let _a = Server::tcp(Some(&a.netns_path), "0.0.0.0:80");
        let _loopback = Server::tcp(None, "127.0.0.1:90");
        assert!(ask(Protocol::Tcp, Some(&b.netns_path), "10.255.0.2:80").is_err());
        // By way of the gateway instead of the bridge.
        bed.run_in(&b.netns_path, "ip route add 10.255.0.2/32 via 10.255.0.1");
        assert!(ask(Protocol::Tcp, Some(&b.netns_path), "10.255.0.2:80").is_err());
        bed.run_in(
            &b.netns_path,
            "ip route add table 5 127.0.0.0/8 via 10.255.0.1 dev eth0",
        );
        bed.run_in(
            &b.netns_path,
            "ip rule add pref 0 from all to 127.0.0.1 lookup 5",
        );
        bed.run_in(&b.netns_path, "ip rule add pref 1 lookup local");
        bed.run_in(&b.netns_path, "ip rule del pref 0 lookup local");
        bed.run_in(
            &b.netns_path,
            "busybox sysctl -w net.ipv4.conf.eth0.route_localnet=1",
        );
        assert!(ask(Protocol::Tcp, Some(&b.netns_path), "127.0.0.1:90").is_err());
        // The world cannot go past published ports.
        bed.run_in(bed.world(), "ip route add 10.255.0.0/16 via 192.0.2.1");
        assert!(ask(Protocol::Tcp, Some(bed.world()), "10.255.0.2:80").is_err());
    });
}

#[test]
fn a_port_goes_to_one_endpoint_and_is_free_after_its_detach() {
    on_node(async |bed| {
        let network = Network::open(config(bed)).await.unwrap();
        network.attach("a", &[tcp(8080, 80)], None).await.unwrap();
        let error = network
            .attach("b", &[tcp(8080, 81)], None)
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "Bind for 0.0.0.0:8080 failed: port is already allocated"
        );
        // A program of the node cannot have it either, nor can a container have a program's.
        let error = std::net::TcpListener::bind("0.0.0.0:8080").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let listener = std::net::TcpListener::bind("127.0.0.1:8081").unwrap();
        let error = network
            .attach("b", &[tcp(8081, 80)], None)
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to bind host port 0.0.0.0:8081/tcp"
        );
        drop(listener);
        network.attach("b", &[tcp(8081, 80)], None).await.unwrap();

        network.detach("a").await.unwrap();
        network.detach("a").await.unwrap();
        network.attach("c", &[tcp(8080, 80)], None).await.unwrap();
        let endpoints = network.endpoints().await.unwrap();
        assert_eq!(endpoints.keys().collect::<Vec<_>>(), ["b", "c"]);
    });
}

#[test]
fn a_program_started_meanwhile_does_not_inherit_ports() {
    on_node(async |bed| {
        let network = Network::open(config(bed)).await.unwrap();
        network
            .attach("a", &[tcp(8080, 80), udp(8080, 80)], None)
            .await
            .unwrap();
        let mut program = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        network.detach("a").await.unwrap();
        let tcp = std::net::TcpListener::bind("0.0.0.0:8080");
        let udp = std::net::UdpSocket::bind("0.0.0.0:8080");
        program.kill().unwrap();
        program.wait().unwrap();
        assert!(tcp.is_ok() && udp.is_ok(), "{tcp:?} {udp:?}");
    });
}

#[test]
fn port_zero_becomes_a_free_port_that_no_program_has() {
    on_node(async |bed| {
        run("busybox sysctl -w net.ipv4.ip_local_port_range=\"40000 40002\"");
        let _program = std::net::TcpListener::bind("0.0.0.0:40000").unwrap();
        let network = Network::open(config(bed)).await.unwrap();
        let a = network
            .attach("a", &[tcp(0, 80), tcp(0, 81)], None)
            .await
            .unwrap();
        assert_eq!(a.ports, [tcp(40001, 80), tcp(40002, 81)]);
        // The same request is the same attachment.
        assert_eq!(
            network
                .attach("a", &[tcp(0, 80), tcp(0, 81)], None)
                .await
                .unwrap(),
            a
        );
        let error = network.attach("b", &[tcp(0, 80)], None).await.unwrap_err();
        assert_eq!(error.to_string(), "all ports are allocated");
    });
}

#[test]
fn other_settings_under_the_same_id_are_refused() {
    on_node(async |bed| {
        let network = Network::open(config(bed)).await.unwrap();
        network.attach("a", &[], None).await.unwrap();
        for error in [
            network.attach("a", &[tcp(1, 1)], None).await.unwrap_err(),
            network.attach_none("a").await.unwrap_err(),
        ] {
            assert_eq!(
                error.to_string(),
                "endpoint `a` is attached with other settings"
            );
        }
        assert!(matches!(
            network.attach("../a", &[], None).await,
            Err(Error::Id(_))
        ));
    });
}

#[test]
fn a_namespace_without_network_has_loopback_only() {
    on_node(async |bed| {
        let network = Network::open(config(bed)).await.unwrap();
        let path = network.attach_none("a").await.unwrap();
        assert_eq!(network.attach_none("a").await.unwrap(), path);
        assert_eq!(bed.links_in(&path), ["lo"]);
        let _server = Server::tcp(Some(&path), "127.0.0.1:80");
        assert_eq!(
            ask(Protocol::Tcp, Some(&path), "127.0.0.1:80").unwrap(),
            "127.0.0.1"
        );
        network.detach("a").await.unwrap();
        network.close().await;
        assert!(!path.exists());
    });
}

#[test]
fn an_exhausted_pool_says_what_docker_says_and_recovers() {
    on_node(async |bed| {
        let config = Config {
            layout: Layout {
                v4: "10.9.0.0/29".parse().unwrap(),
                ..Layout::default()
            },
            ..config(bed)
        };
        let network = Network::open(config).await.unwrap();
        for index in 0..5 {
            network
                .attach(&format!("c{index}"), &[], None)
                .await
                .unwrap();
        }
        let error = network
            .attach("d", &[tcp(8080, 80)], None)
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "no available IPv4 addresses on this network's address pools"
        );
        network.detach("c3").await.unwrap();
        let d = network.attach("d", &[tcp(8080, 80)], None).await.unwrap();
        assert_eq!(d.address.to_string(), "10.9.0.5/29");
    });
}

#[test]
fn attaches_and_detaches_at_once_leave_nothing() {
    on_node(async |bed| {
        let before = bed.inventory();
        let network = Network::open(config(bed)).await.unwrap();
        let attach = |index: u16| {
            let network = network.clone();
            async move {
                network
                    .attach(&format!("c{index}"), &[tcp(9000 + index, 80)], None)
                    .await
                    .unwrap()
            }
        };
        let attachments = futures_util::future::join_all((0..50).map(attach)).await;
        let addresses: std::collections::BTreeSet<_> = attachments
            .iter()
            .map(|attachment| attachment.address)
            .collect();
        assert_eq!(addresses.len(), 50);
        for attachment in [&attachments[0], &attachments[49]] {
            let _server = Server::tcp(Some(&attachment.netns_path), "0.0.0.0:80");
            let published = attachment.ports[0].published;
            let to = format!("192.0.2.1:{published}");
            assert_eq!(
                ask(Protocol::Tcp, Some(bed.world()), &to).unwrap(),
                "192.0.2.2"
            );
        }
        let detach = |index: u16| {
            let network = network.clone();
            async move { network.detach(&format!("c{index}")).await.unwrap() }
        };
        futures_util::future::join_all((0..50).map(detach)).await;
        assert!(network.reconcile().await.unwrap().steps.is_empty());
        network.remove().await.unwrap();
        assert_eq!(bed.inventory(), before);
    });
}

#[test]
fn a_udp_client_that_never_pauses_finds_the_next_container() {
    on_node(async |bed| {
        let network = Network::open(config(bed)).await.unwrap();
        let client = bed.udp_socket_in(bed.world());
        client.connect("192.0.2.1:5353").unwrap();
        for id in ["a", "b"] {
            let attachment = network.attach(id, &[udp(5353, 53)], None).await.unwrap();
            let _server = Server::udp(Some(&attachment.netns_path), "0.0.0.0:53");
            assert_eq!(ask_from(&client).unwrap(), "192.0.2.2", "{id}");
            network.detach(id).await.unwrap();
            network.reconcile().await.unwrap();
            // Remembered as a flow to the node itself, unless forgotten at the next attach.
            let _ = client.send(b"?");
        }
    });
}

#[test]
fn a_second_owner_of_the_run_directory_is_refused() {
    on_node(async |bed| {
        let first = Network::open(config(bed)).await.unwrap();
        let error = Network::open(config(bed)).await.unwrap_err();
        assert!(
            error.to_string().starts_with("another process uses `"),
            "{error}"
        );
        first.close().await;
        assert!(matches!(
            first.attach("a", &[], None).await,
            Err(Error::Closed)
        ));
        Network::open(config(bed)).await.unwrap();
    });
}
