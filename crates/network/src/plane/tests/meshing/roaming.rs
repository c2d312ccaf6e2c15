//! Clients that come through several nodes, and clients that go on with one port while tasks come and go.

use super::*;

/// Connects from a port of the client through a node, lets the server end it, and returns the port the server saw.
fn seen_from(port: u16, node: u8, listener: &TcpListener) -> u16 {
    let to = SocketAddr::from(([192, 0, 2, node], 8080));
    let mut client = connect_from(&format!("192.0.2.254:{port}"), to).unwrap();
    let (server, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip().to_string(), "192.0.2.254");
    nix_socket::shutdown(
        std::os::fd::AsRawFd::as_raw_fd(&server),
        nix_socket::Shutdown::Write,
    )
    .unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    drop(client);
    peer.port()
}

/// How many first packets a namespace's servers refused for the client's clock.
fn refused(netns: &Path) -> u64 {
    let text = run(&format!(
        "nsenter --net={} cat /proc/net/netstat",
        netns.display()
    ));
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let names = lines.next().unwrap().split_whitespace();
    let values = lines.next().unwrap().split_whitespace();
    let (_, value) = names
        .zip(values)
        .find(|(name, _)| *name == "PAWSTimewait")
        .unwrap();
    value.parse().unwrap()
}

/// A client's clock is another one for each node it asks, and a server refuses a first packet whose clock is behind that of the
/// port's last connection.
#[test]
fn no_connection_is_refused_for_the_clock_of_one_through_another_node() {
    on_cluster(3, async |cluster| {
        let [_, t2] = shop(cluster).await;
        cluster.publish(8080, &[("10.255.2.2:80", Ready)]);
        cluster.update().await;
        let listener = inside(Some(&t2), || TcpListener::bind("0.0.0.0:80").unwrap());
        for node in [1, 2, 3] {
            seen_from(39999, node, &listener);
        }
        for port in 40000..40008 {
            for node in [1, 2, 3, 2, 1] {
                seen_from(port, node, &listener);
                // What conntrack knows of the last one would keep the ports apart for a time, until the client uses one again.
                run("nsenter --net=/run/netns/node2 conntrack -F 2>&1");
            }
        }
        assert_eq!(refused(&t2), 0);
    });
}

#[test]
fn a_client_of_one_way_keeps_its_ports_and_one_of_several_gets_those_of_each_node() {
    on_cluster(3, async |cluster| {
        let [_, t2] = shop(cluster).await;
        cluster.publish(8080, &[("10.255.2.2:80", Ready)]);
        cluster.update().await;
        let listener = inside(Some(&t2), || TcpListener::bind("0.0.0.0:80").unwrap());
        for port in [1023, 1024, 30000, 60000] {
            assert_eq!(seen_from(port, 3, &listener), port);
        }
        seen_from(39999, 1, &listener);
        // Four parts, in the order of the nodes' numbers.
        for (node, part) in [(1, 1024..17152), (2, 17152..33280), (3, 33280..49408)] {
            for port in [1500, 20000, 40000, 60001] {
                let seen = seen_from(port, node, &listener);
                assert!(part.contains(&seen), "{port} through node {node}: {seen}");
                assert!(seen == port || !part.contains(&port), "{port}: {seen}");
            }
            assert_eq!(
                seen_from(900 + u16::from(node), node, &listener),
                900 + u16::from(node)
            );
        }
    });
}

/// What is answered to one datagram, if anything.
fn said(client: &std::net::UdpSocket) -> Option<String> {
    client
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    // What ICMP said of an earlier one.
    client.take_error().unwrap();
    let mut buffer = [0; 64];
    let answer = client.send(b"?").and_then(|_| client.recv(&mut buffer));
    let length = answer.ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// A client that never stops keeps its flow alive, wherever it leads: to a task that left, or to the node itself while nobody was
/// there.
#[test]
fn a_datagram_client_that_goes_on_meets_the_next_task_however_long_nobody_was_there() {
    on_cluster(3, async |cluster| {
        let tasks = shop(cluster).await;
        let _servers: Vec<Server> = tasks
            .iter()
            .zip([Some("one"), Some("two")])
            .map(|(task, name)| Server::udp_named(Some(task), "0.0.0.0:80", name))
            .collect();
        let one = ("10.255.1.2:80", Ready);
        let two = ("10.255.2.2:80", Ready);
        let clients: Vec<std::net::UdpSocket> = (1..=3)
            .map(|node| {
                let client = std::net::UdpSocket::bind("192.0.2.254:0").unwrap();
                client
                    .connect(("192.0.2.".to_owned() + &node.to_string(), 8080))
                    .unwrap();
                client
            })
            .collect();
        for (backends, expect) in [
            (vec![one], Some("one")),
            (vec![("10.255.1.2:80", Leaving)], None),
            (vec![], None),
            (vec![two], Some("two")),
            (vec![], None),
            (vec![one], Some("one")),
            (vec![("10.255.1.2:80", Silent)], None),
            (vec![("10.255.1.2:80", Silent), two], Some("two")),
        ] {
            cluster.publish(8080, &backends);
            cluster.update().await;
            for (node, client) in (1..).zip(&clients) {
                // Flows are forgotten before the next command is taken.
                cluster.node(node).plane.doctor().await.unwrap();
                let answer = said(client);
                assert_eq!(
                    answer.as_deref(),
                    expect,
                    "{backends:?} through node {node}"
                );
            }
        }
    });
}
