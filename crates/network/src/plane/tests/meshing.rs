//! The routing mesh on real connections.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::socket::{self as nix_socket, SockaddrIn};

use super::*;
use crate::plane::Health::{Leaving, Ready, Silent};
use crate::ports::HostPort;
use crate::testbed::cluster::Cluster;

mod counting;
mod families;
mod lasting;
mod roaming;

/// Attaches a container to a node's network.
async fn attach(cluster: &Cluster, node: usize, id: &str) -> PathBuf {
    let attachment = cluster.networks[node - 1]
        .attach(id, &[], None)
        .await
        .unwrap();
    assert_eq!(
        attachment.address.addr().to_string(),
        format!("10.255.{node}.2")
    );
    attachment.netns_path
}

/// Tasks on nodes 1 and 2 of three behind port 8080.
async fn shop(cluster: &mut Cluster) -> [PathBuf; 2] {
    cluster.open_networks();
    let tasks = [
        attach(cluster, 1, "t1").await,
        attach(cluster, 2, "t2").await,
    ];
    cluster.publish(8080, &[("10.255.1.2:80", Ready), ("10.255.2.2:80", Ready)]);
    cluster.update().await;
    tasks
}

/// Whom `count` connections met.
fn answers(protocol: Protocol, from: Option<&Path>, to: &str, count: usize) -> BTreeSet<String> {
    let answer = |_| ask(protocol, from, to).unwrap_or_else(|error| format!("{to}: {error}"));
    (0..count).map(answer).collect()
}

fn set<const N: usize>(items: [&str; N]) -> BTreeSet<String> {
    items.map(str::to_owned).into()
}

#[test]
fn every_node_answers_and_servers_see_the_clients_address() {
    on_cluster(3, async |cluster| {
        let tasks = shop(cluster).await;
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let names = [Some("one"), Some("two"), None];
            for naming in [true, false] {
                let _servers: Vec<Server> = tasks
                    .iter()
                    .zip(names)
                    .map(|(task, name)| {
                        let name = name.filter(|_| naming);
                        match protocol {
                            Protocol::Udp => Server::udp_named(Some(task), "0.0.0.0:80", name),
                            _ => Server::tcp_named(Some(task), "0.0.0.0:80", name),
                        }
                    })
                    .collect();
                for node in 1..=3 {
                    let seen = answers(protocol, None, &format!("192.0.2.{node}:8080"), 40);
                    let expect = if naming {
                        set(["one", "two"])
                    } else {
                        set(["192.0.2.254"])
                    };
                    assert_eq!(seen, expect, "{protocol} through node {node}");
                }
            }
        }
    });
}

#[test]
fn a_client_from_far_away_is_answered_through_the_node_it_asked() {
    on_cluster(3, async |cluster| {
        let [_, t2] = shop(cluster).await;
        cluster.publish(8080, &[("10.255.2.2:80", Ready)]);
        cluster.update().await;
        run(
            "ip addr add 198.51.100.7/32 dev lo && ip -n node1 route add 198.51.100.7 via 192.0.2.254",
        );
        let _server = Server::tcp(Some(&t2), "0.0.0.0:80");
        let listener: SocketAddr = "192.0.2.1:8080".parse().unwrap();
        let seen = connect_from("198.51.100.7:0", listener).and_then(|mut stream| {
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        });
        // Node 2 has no route there at all.
        assert_eq!(seen.unwrap(), "198.51.100.7");
    });
}

/// Connects from a chosen address and port.
fn connect_from(from: &str, to: SocketAddr) -> std::io::Result<TcpStream> {
    let from: std::net::SocketAddrV4 = from.parse().unwrap();
    let SocketAddr::V4(to) = to else {
        panic!("{to}")
    };
    let fd = nix_socket::socket(
        nix_socket::AddressFamily::Inet,
        nix_socket::SockType::Stream,
        nix_socket::SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    nix_socket::setsockopt(&fd, nix_socket::sockopt::ReuseAddr, &true)?;
    let timeout = nix::sys::time::TimeVal::new(3, 0);
    nix_socket::setsockopt(&fd, nix_socket::sockopt::SendTimeout, &timeout)?;
    nix_socket::setsockopt(&fd, nix_socket::sockopt::ReceiveTimeout, &timeout)?;
    let raw = std::os::fd::AsRawFd::as_raw_fd(&fd);
    nix_socket::bind(raw, &SockaddrIn::from(from))?;
    nix_socket::connect(raw, &SockaddrIn::from(to))?;
    Ok(TcpStream::from(fd))
}

#[test]
fn one_client_port_through_two_nodes_to_one_task_are_two_connections() {
    on_cluster(3, async |cluster| {
        let [_, t2] = shop(cluster).await;
        cluster.publish(8080, &[("10.255.2.2:80", Ready)]);
        cluster.update().await;
        let listener = inside(Some(&t2), || TcpListener::bind("0.0.0.0:80").unwrap());
        let mut streams = Vec::new();
        for node in [1, 3] {
            let to: SocketAddr = format!("192.0.2.{node}:8080").parse().unwrap();
            let client = connect_from("192.0.2.254:40000", to).unwrap();
            let (server, peer) = listener.accept().unwrap();
            assert_eq!(peer.ip().to_string(), "192.0.2.254");
            streams.push((node, client, server));
        }
        for (node, client, server) in &mut streams {
            client.write_all(&[*node]).unwrap();
            let mut buffer = [0];
            server.read_exact(&mut buffer).unwrap();
            assert_eq!(buffer, [*node]);
            server.write_all(&[*node + 10]).unwrap();
            client.read_exact(&mut buffer).unwrap();
            assert_eq!(buffer, [*node + 10]);
        }
    });
}

#[test]
fn nodes_and_containers_are_clients_too() {
    on_cluster(3, async |cluster| {
        let tasks = shop(cluster).await;
        let client = attach(cluster, 3, "c").await;
        let servers: Vec<Server> = tasks
            .iter()
            .zip([Some("one"), Some("two")])
            .map(|(task, name)| Server::tcp_named(Some(task), "0.0.0.0:80", name))
            .collect();
        let both = set(["one", "two"]);
        for node in 1..=3 {
            let netns = cluster.node(node).netns.clone();
            for to in ["127.0.0.1", "192.0.2.1", "192.0.2.2", "192.0.2.3"] {
                let seen = answers(Protocol::Tcp, Some(&netns), &format!("{to}:8080"), 30);
                assert_eq!(seen, both, "node {node} to {to}");
            }
        }
        for container in [&client, &tasks[0]] {
            for to in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
                let seen = answers(Protocol::Tcp, Some(container), &format!("{to}:8080"), 30);
                assert_eq!(seen, both, "{container:?} to {to}");
            }
        }
        drop(servers);
        // A container is seen as itself through its own node.
        let _server = Server::tcp(Some(&tasks[1]), "0.0.0.0:80");
        cluster.publish(8080, &[("10.255.2.2:80", Ready)]);
        cluster.update().await;
        let seen = answers(Protocol::Tcp, Some(&client), "192.0.2.3:8080", 3);
        assert_eq!(seen, set(["10.255.3.2"]));
        let netns = cluster.node(1).netns.clone();
        let seen = answers(Protocol::Tcp, Some(&netns), "192.0.2.1:8080", 3);
        assert_eq!(seen, set(["192.0.2.1"]));
    });
}

#[test]
fn containers_of_different_nodes_meet_through_published_ports_only() {
    on_cluster(2, async |cluster| {
        let [t1, t2] = shop(cluster).await;
        let _open = Server::tcp(Some(&t2), "0.0.0.0:80");
        let _closed = Server::tcp(Some(&t2), "0.0.0.0:81");
        for port in [80, 81] {
            assert!(ask(Protocol::Tcp, Some(&t1), &format!("10.255.2.2:{port}")).is_err());
            // Nor does the world get in through another node.
            run("ip route replace 10.255.2.0/24 via 192.0.2.1");
            assert!(ask(Protocol::Tcp, None, &format!("10.255.2.2:{port}")).is_err());
        }
        // A way out remains.
        let _world = Server::tcp(None, "192.0.2.254:82");
        assert_eq!(
            ask(Protocol::Tcp, Some(&t1), "192.0.2.254:82").unwrap(),
            "192.0.2.1"
        );
    });
}

#[test]
fn published_ports_are_held_and_one_that_is_taken_is_a_warning() {
    on_cluster(2, async |cluster| {
        let [_, t2] = shop(cluster).await;
        let netns = cluster.node(1).netns.clone();
        let bind = |port: u16| {
            let netns = netns.clone();
            inside(Some(&netns), move || TcpListener::bind(("0.0.0.0", port)))
        };
        assert_eq!(bind(8080).unwrap_err().kind(), ErrorKind::AddrInUse);
        let taken = Server::tcp_named(Some(&netns), "0.0.0.0:8081", Some("program"));
        cluster.ports.clear();
        cluster.publish(8081, &[("10.255.2.2:80", Ready)]);
        let reports = cluster.update().await;
        let warning = "port 8081/tcp is published by a service, but a program of this node has it";
        assert!(
            reports[0].warnings[0].starts_with(warning),
            "{:?}",
            reports[0].warnings
        );
        assert_eq!(reports[1].warnings, [""; 0]);
        // It stays the program's on its node alone, and the other port is free again.
        let _server = Server::tcp_named(Some(&t2), "0.0.0.0:80", Some("two"));
        assert_eq!(
            answers(Protocol::Tcp, None, "192.0.2.1:8081", 5),
            set(["program"])
        );
        assert_eq!(
            answers(Protocol::Tcp, None, "192.0.2.2:8081", 5),
            set(["two"])
        );
        drop((taken, bind(8080).unwrap()));
        let report = cluster.node(1).plane.reconcile().await.unwrap();
        assert_eq!(report.warnings, [""; 0]);
        assert_eq!(
            answers(Protocol::Tcp, None, "192.0.2.1:8081", 5),
            set(["two"])
        );
        assert_eq!(bind(8081).unwrap_err().kind(), ErrorKind::AddrInUse);
    });
}

#[test]
fn ports_of_one_node_are_unaffected() {
    on_cluster(2, async |cluster| {
        let [_, _] = shop(cluster).await;
        let port = HostPort {
            protocol: Protocol::Tcp,
            host_ip: [0, 0, 0, 0].into(),
            published: 9090,
            target: 80,
        };
        let attachment = cluster.networks[0]
            .attach("h", &[port], None)
            .await
            .unwrap();
        let _server = Server::tcp(Some(&attachment.netns_path), "0.0.0.0:80");
        assert_eq!(
            ask(Protocol::Tcp, None, "192.0.2.1:9090").unwrap(),
            "192.0.2.254"
        );
        assert!(ask(Protocol::Tcp, None, "192.0.2.2:9090").is_err());
        let report = cluster.networks[0].reconcile().await.unwrap();
        assert!(report.steps.is_empty(), "{report:?}");
    });
}

#[test]
fn a_task_that_leaves_keeps_its_connections_and_a_dead_ones_are_cut() {
    on_cluster(3, async |cluster| {
        let [t1, t2] = shop(cluster).await;
        cluster.publish(8080, &[("10.255.2.2:80", Ready)]);
        cluster.update().await;
        let listener = inside(Some(&t2), || TcpListener::bind("0.0.0.0:80").unwrap());
        let mut held = TcpStream::connect("192.0.2.3:8080").unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        cluster.publish(
            8080,
            &[("10.255.1.2:80", Ready), ("10.255.2.2:80", Leaving)],
        );
        cluster.update().await;
        let _one = Server::tcp_named(Some(&t1), "0.0.0.0:80", Some("one"));
        assert_eq!(
            answers(Protocol::Tcp, None, "192.0.2.3:8080", 20),
            set(["one"])
        );
        held.write_all(b"held").unwrap();
        let mut buffer = [0; 4];
        peer.read_exact(&mut buffer).unwrap();
        cluster.publish(8080, &[("10.255.1.2:80", Ready)]);
        cluster.update().await;
        cluster.node(3).plane.doctor().await.unwrap();
        let start = Instant::now();
        held.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        held.write_all(b"anybody?").unwrap();
        assert_eq!(
            held.read(&mut buffer).unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
        assert!(start.elapsed() < Duration::from_secs(1));
        // A port nobody serves any more is closed like any other.
        cluster.publish(8080, &[]);
        cluster.update().await;
        let error = ask(Protocol::Tcp, None, "192.0.2.3:8080").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

/// Connection tracking remembers a first packet for two minutes, whether it was answered or not: the client's next try, and
/// the next client with that port, would go to the dead node again.
#[test]
fn what_a_silent_task_has_not_answered_goes_elsewhere_and_the_rest_is_kept() {
    on_cluster(3, async |cluster| {
        let [t1, t2] = shop(cluster).await;
        cluster.publish(8080, &[("10.255.2.2:80", Ready)]);
        cluster.update().await;
        let _one = Server::tcp_named(Some(&t1), "0.0.0.0:80", Some("one"));
        let listener = inside(Some(&t2), || TcpListener::bind("0.0.0.0:80").unwrap());
        let mut held = TcpStream::connect("192.0.2.3:8080").unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let nft = format!("nsenter --net={} nft", t2.display());
        run(&format!(
            "{nft} 'add table ip t; add chain ip t c {{ type filter hook input priority 0; }}; \
             add rule ip t c tcp flags & (syn|ack) == syn counter drop'"
        ));
        let to: SocketAddr = "192.0.2.3:8080".parse().unwrap();
        let waiting = std::thread::spawn(move || connect_from("192.0.2.254:40001", to));
        let start = Instant::now();
        while run(&format!("{nft} list table ip t")).contains("packets 0 ") {
            assert!(start.elapsed() < Duration::from_secs(3), "nothing was sent");
        }
        cluster.publish(8080, &[("10.255.1.2:80", Ready), ("10.255.2.2:80", Silent)]);
        cluster.update().await;
        let mut answer = String::new();
        let mut waiting = waiting.join().unwrap().unwrap();
        waiting.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "one");
        held.write_all(b"held").unwrap();
        let mut buffer = [0; 4];
        peer.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"held");
    });
}

/// The kernel remembers a connection for two minutes after its end. Such flows are not deleted, so the kernel itself must give
/// their ports another way.
#[test]
fn a_client_port_used_before_leads_to_a_task_that_is_there() {
    on_cluster(3, async |cluster| {
        let [t1, t2] = shop(cluster).await;
        cluster.publish(8080, &[("10.255.2.2:80", Ready)]);
        cluster.update().await;
        let _one = Server::tcp_named(Some(&t1), "0.0.0.0:80", Some("one"));
        let _two = Server::tcp_named(Some(&t2), "0.0.0.0:80", Some("two"));
        let to: SocketAddr = "192.0.2.3:8080".parse().unwrap();
        let ask_again = || {
            let mut answer = String::new();
            let mut stream = connect_from("192.0.2.254:40002", to).unwrap();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        assert_eq!(ask_again(), "two");
        for health in [Some(Leaving), Some(Silent), None] {
            let other = health.map(|health| ("10.255.2.2:80", health));
            let backends: Vec<_> = [("10.255.1.2:80", Ready)]
                .into_iter()
                .chain(other)
                .collect();
            cluster.publish(8080, &backends);
            cluster.update().await;
            let start = Instant::now();
            assert_eq!(ask_again(), "one", "{health:?}");
            assert!(start.elapsed() < Duration::from_millis(900), "{health:?}");
            cluster.publish(8080, &[("10.255.2.2:80", Ready)]);
            cluster.update().await;
            assert_eq!(ask_again(), "two", "{health:?}");
        }
    });
}

/// A frame of its own making would reach any network of the other node, as if this node had sent it.
#[test]
fn containers_send_no_tunnel_packets() {
    on_cluster(2, async |cluster| {
        let [task, _] = shop(cluster).await;
        let nft = "nsenter --net=/run/netns/node2 nft";
        run(&format!(
            "{nft} 'add table ip t; add chain ip t c {{ type filter hook prerouting priority -400; }}; \
             add rule ip t c udp dport 4789 counter; add rule ip t c udp dport 4790 counter'"
        ));
        inside(Some(&task), || {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            for port in [4789, 4790] {
                socket.send_to(b"frame", ("192.0.2.2", port)).unwrap();
            }
        });
        let counted = || run(&format!("{nft} list table ip t"));
        let start = Instant::now();
        while counted().contains("4790 counter packets 0 ") {
            assert!(start.elapsed() < Duration::from_secs(3), "{}", counted());
        }
        assert!(
            counted().contains("4789 counter packets 0 "),
            "{}",
            counted()
        );
    });
}

/// What is broken on node 1, and what the doctor says.
const HARMS: [(&str, &str); 16] = [
    (
        "ip link del skep0x",
        "mesh: the tunnel between nodes is missing",
    ),
    (
        "ip link set skep0x down",
        "mesh: the tunnel between nodes is down",
    ),
    (
        "ip rule del pref 5300",
        "mesh: replies to what node 2 brings do not go back there",
    ),
    (
        "ip route flush table 1526726658",
        "mesh: replies to what node 2 brings do not go back there",
    ),
    (
        "ip route del 10.255.2.0/24",
        "mesh: 10.255.2.0/24 is not routed to its node",
    ),
    (
        "ip route add 10.255.9.0/24 via 10.255.9.1 dev skep0x onlink",
        "mesh: a route to 10.255.9.0/24 should not be there",
    ),
    (
        "ip rule add iif skep0 fwmark 0x5b000009 lookup 9 pref 5300",
        "mesh: a way back to node 9 should not be there",
    ),
    (
        "ip -6 rule del pref 5300",
        "mesh: replies to what node 2 by IPv6 brings do not go back there",
    ),
    (
        "ip -6 route del fd00:255:0:2::/64",
        "mesh: fd00:255:0:2::/64 is not routed to its node",
    ),
    (
        "nft delete table ip6 skep_mesh",
        "mesh: its rules are missing",
    ),
    (
        "busybox sysctl -w net.ipv6.conf.skep0x.disable_ipv6=1",
        "mesh: the tunnel between nodes is down",
    ),
    (
        "ip neigh flush dev skep0x nud permanent",
        "mesh: address 10.255.2.1 is not known to be 02:5b:00:00:00:02",
    ),
    (
        "nft delete table ip skep_mesh",
        "mesh: its rules are missing",
    ),
    (
        "nft flush chain ip skep_mesh mangle_pre",
        "mesh: its rules are missing",
    ),
    (
        "nft flush map ip skep_mesh slots",
        "mesh: 4 elements of its maps are missing",
    ),
    (
        "nft add element ip skep_mesh nodes '{ 9.9.9.9 }'",
        "mesh: 1 elements of its maps",
    ),
];

#[test]
fn what_others_break_is_found_and_repaired() {
    on_cluster(2, async |cluster| {
        let tasks = shop(cluster).await;
        let _servers: Vec<Server> = tasks
            .iter()
            .zip([Some("one"), Some("two")])
            .map(|(task, name)| Server::tcp_named(Some(task), "0.0.0.0:80", name))
            .collect();
        let plane = cluster.node(1).plane.clone();
        assert_eq!(plane.doctor().await.unwrap(), [""; 0]);
        let node = "nsenter --net=/run/netns/node1";
        for (harm, finding) in HARMS {
            run(&format!("{node} {harm}"));
            let findings = plane.doctor().await.unwrap();
            assert!(
                findings.iter().any(|text| text.starts_with(finding)),
                "{harm}: {findings:?}"
            );
            let report = plane.reconcile().await.unwrap();
            assert!(report.failures.is_empty(), "{harm}: {report:?}");
            assert_eq!(plane.doctor().await.unwrap(), [""; 0], "{harm}");
            for to in ["192.0.2.1:8080", "192.0.2.2:8080"] {
                assert_eq!(
                    answers(Protocol::Tcp, None, to, 30),
                    set(["one", "two"]),
                    "{harm}: {to}"
                );
            }
        }
    });
}

#[test]
fn a_node_that_leaves_the_mesh_keeps_nothing_of_it() {
    on_cluster(2, async |cluster| {
        let before = run(
            "nsenter --net=/run/netns/node1 sh -c 'ip rule; ip -6 rule; ip route show table all | grep -v anycast; ip -6 route show table main | grep -v anycast; ip -br link'",
        );
        cluster.open_networks();
        cluster.publish(8080, &[("10.255.2.2:80", Ready)]);
        cluster.update().await;
        cluster.networks[0].remove().await.unwrap();
        // A process that never got a value finds what an earlier one left.
        cluster.node(1).plane.close().await;
        let plane = open_plane(&cluster.node(1).netns, 1).unwrap();
        plane.remove().await.unwrap();
        let after = run(
            "nsenter --net=/run/netns/node1 sh -c 'ip rule; ip -6 rule; ip route show table all | grep -v anycast; ip -6 route show table main | grep -v anycast; ip -br link'",
        );
        assert_eq!(before, after);
        assert_eq!(run("nsenter --net=/run/netns/node1 nft list ruleset"), "");
    });
}
