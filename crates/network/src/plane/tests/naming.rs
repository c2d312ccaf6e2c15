//! Names, asked for inside containers.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::*;
use crate::dns::{From, ServiceNames, TaskNames, Upstream, Zone};
use crate::testbed::cluster::Cluster;

fn zone(network: &str, names: &[(&str, &[&str])]) -> Arc<Zone> {
    let mut zone = Zone::new(network, Vec::new());
    for (name, addresses) in names {
        let task = TaskNames {
            names: vec![format!("{name}.1.xyz")],
            slot: Some(1),
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        };
        zone.add(&ServiceNames {
            name: (*name).to_owned(),
            tasks: vec![task],
            ..ServiceNames::default()
        });
    }
    Arc::new(zone)
}

fn query(name: &str) -> Vec<u8> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

fn words(reply: &[u8]) -> String {
    let message = Message::from_vec(reply).unwrap();
    let data = message.answers.iter().map(|record| record.data.to_string());
    let words = std::iter::once(message.metadata.response_code.to_string()).chain(data);
    words.collect::<Vec<_>>().join(" ")
}

/// Asks 127.0.0.11 in a container, by datagram.
fn look_up(container: &Path, name: &str) -> String {
    let query = query(name);
    let reply = inside(Some(container), move || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        socket.connect("127.0.0.11:53").unwrap();
        socket.send(&query).unwrap();
        let mut buffer = vec![0; 4096];
        let length = socket.recv(&mut buffer);
        length.map(|length| buffer[..length].to_vec())
    });
    reply.map_or_else(|error| error.kind().to_string(), |reply| words(&reply))
}

/// Asks 127.0.0.11 in a container, by stream.
fn look_up_by_stream(container: &Path, name: &str) -> String {
    let query = query(name);
    let reply = inside(Some(container), move || {
        let mut stream = TcpStream::connect("127.0.0.11:53").unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        ask_stream(&mut stream, &query)
    });
    words(&reply)
}

fn ask_stream(stream: &mut TcpStream, query: &[u8]) -> Vec<u8> {
    let length = u16::try_from(query.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length, query].concat()).unwrap();
    read_stream(stream)
}

fn read_stream(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply).unwrap();
    reply
}

/// An upstream server on port 53 that says 203.0.113.7 to everything, and from where it was asked.
fn upstream(netns: Option<&Path>, ip: &str) -> Upstream {
    let address: SocketAddr = format!("{ip}:53").parse().unwrap();
    let (udp, tcp) = inside(netns, move || {
        (
            UdpSocket::bind(address).unwrap(),
            TcpListener::bind(address).unwrap(),
        )
    });
    // Both threads end with the test's process.
    std::thread::spawn(move || {
        let mut buffer = vec![0; 4096];
        while let Ok((length, peer)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(&say(&buffer[..length], peer), peer);
        }
    });
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = tcp.accept() {
            let query = read_stream(&mut stream);
            let reply = say(&query, peer);
            let length = u16::try_from(reply.len()).unwrap().to_be_bytes();
            let _ = stream.write_all(&[&length, reply.as_slice()].concat());
        }
    });
    Upstream {
        server: address,
        from: From::Node,
    }
}

fn say(query: &[u8], peer: SocketAddr) -> Vec<u8> {
    let query = Message::from_vec(query).unwrap();
    let mut reply = Message::response(query.metadata.id, OpCode::Query);
    let name = query.queries[0].name().clone();
    reply.add_queries(query.queries);
    let own = RData::A(A([203, 0, 113, 7].into()));
    reply.add_answer(Record::from_rdata(name.clone(), 60, own));
    if let IpAddr::V4(ip) = peer.ip() {
        reply.add_answer(Record::from_rdata(name, 60, RData::A(A(ip))));
    }
    reply.to_vec().unwrap()
}

fn one_container(cluster: &mut Cluster) -> PathBuf {
    cluster
        .zones
        .insert("red", zone("red", &[("web", &["10.0.1.2"])]));
    cluster.add(1, "a", &[("red", "10.0.1.2")])
}

#[test]
fn names_are_answered_in_every_container_and_change_at_once() {
    on_cluster(2, async |cluster| {
        let a = one_container(cluster);
        let b = cluster.add(2, "b", &[("red", "10.0.1.3")]);
        let c = cluster.add(1, "c", &[("blue", "10.0.1.3")]);
        cluster.update().await;
        for container in [&a, &b] {
            assert_eq!(look_up(container, "web."), "No Error 10.0.1.2");
            assert_eq!(look_up(container, "1.web.red."), "No Error 10.0.1.2");
            assert_eq!(look_up_by_stream(container, "web."), "No Error 10.0.1.2");
            assert_eq!(look_up(container, "example.org."), "Non-Existent Domain");
        }
        // Another network's names are nobody else's business.
        assert_eq!(look_up(&c, "web."), "Non-Existent Domain");
        cluster
            .zones
            .insert("red", zone("red", &[("web", &["10.0.1.9"])]));
        cluster.update().await;
        assert_eq!(look_up(&a, "web."), "No Error 10.0.1.9");
        assert_eq!(look_up(&b, "web."), "No Error 10.0.1.9");
        assert_eq!(cluster.node(1).plane.doctor().await.unwrap(), [""; 0]);
    });
}

#[test]
fn the_containers_own_port_53_stays_free() {
    on_cluster(1, async |cluster| {
        let a = one_container(cluster);
        cluster.update().await;
        let _own = upstream(Some(&a), "0.0.0.0");
        assert_eq!(look_up(&a, "web."), "No Error 10.0.1.2");
    });
}

#[test]
fn other_names_are_asked_from_the_node_or_from_the_container() {
    on_cluster(1, async |cluster| {
        let a = one_container(cluster);
        let resolver = cluster.add(1, "r", &[("red", "10.0.1.53")]);
        let netns = cluster.node(1).netns.clone();
        // The container has no way to the node's loopback interface, the server's thread has.
        cluster.upstreams = vec![upstream(Some(&netns), "127.0.0.53")];
        cluster.update().await;
        assert_eq!(
            look_up(&a, "example.org."),
            "No Error 203.0.113.7 127.0.0.1"
        );
        assert_eq!(
            look_up_by_stream(&a, "example.org."),
            "No Error 203.0.113.7 127.0.0.1"
        );
        assert_eq!(look_up(&a, "web."), "No Error 10.0.1.2");
        let server = upstream(Some(&resolver), "10.0.1.53");
        cluster.upstreams = vec![Upstream {
            from: From::Container,
            ..server
        }];
        cluster.update().await;
        assert_eq!(look_up(&a, "example.org."), "No Error 203.0.113.7 10.0.1.2");
        assert_eq!(
            look_up_by_stream(&a, "example.org."),
            "No Error 203.0.113.7 10.0.1.2"
        );
    });
}

#[test]
fn a_dead_upstream_server_is_passed_over_and_none_at_all_is_a_failure() {
    on_cluster(1, async |cluster| {
        let a = one_container(cluster);
        let netns = cluster.node(1).netns.clone();
        let dead = Upstream {
            server: "127.0.0.54:53".parse().unwrap(),
            from: From::Node,
        };
        cluster.upstreams = vec![dead, upstream(Some(&netns), "127.0.0.53")];
        cluster.update().await;
        assert_eq!(
            look_up(&a, "example.org."),
            "No Error 203.0.113.7 127.0.0.1"
        );
        cluster.upstreams = vec![dead];
        cluster.update().await;
        assert_eq!(look_up(&a, "example.org."), "Server Failure");
    });
}

#[test]
fn a_flood_in_one_container_does_not_slow_the_others() {
    on_cluster(1, async |cluster| {
        let a = one_container(cluster);
        let b = cluster.add(1, "b", &[("red", "10.0.1.3")]);
        cluster.update().await;
        let query = query("web.");
        let answered = inside(Some(&a), move || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect("127.0.0.11:53").unwrap();
            socket.set_nonblocking(true).unwrap();
            let (start, mut answered) = (Instant::now(), 0);
            let mut buffer = [0; 512];
            for _ in 0..30_000 {
                let _ = socket.send(&query);
                while socket.recv(&mut buffer).is_ok() {
                    answered += 1;
                }
            }
            (answered, start.elapsed())
        });
        let allowed = 4000.0 + 2000.0 * answered.1.as_secs_f64() + 100.0;
        assert!(f64::from(answered.0) <= allowed, "{answered:?}");
        assert_eq!(look_up(&b, "web."), "No Error 10.0.1.2");
    });
}

#[test]
fn a_restart_serves_names_again() {
    on_cluster(1, async |cluster| {
        let a = one_container(cluster);
        cluster.update().await;
        cluster.node(1).plane.close().await;
        let plane = open_plane(&cluster.node(1).netns, 1).unwrap();
        let report = plane.update(cluster.desired(1)).await.unwrap();
        assert_eq!(steps(&report), ["container a: serve names"]);
        assert_eq!(look_up(&a, "web."), "No Error 10.0.1.2");
        cluster.drop("a");
        plane.update(cluster.desired(1)).await.unwrap();
        assert!(look_up(&a, "web.").starts_with("connection refused"));
    });
}
