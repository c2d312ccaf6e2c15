//! Clients that come through several nodes.

use std::collections::BTreeMap;

use super::*;

/// Connects from a port of the client through a node, lets the server end it, and returns the port the server saw.
fn seen_from(port: u16, node: u8, listener: &TcpListener) -> u16 {
    let to = SocketAddr::from(([192, 0, 2, node], 8080));
    let mut client = connect_from(&format!("192.0.2.254:{port}"), to).unwrap();
    let (server, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip().to_string(), "192.0.2.254");
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
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
fn a_port_of_a_client_through_a_node_is_one_port_at_the_task_and_no_connection_is_refused() {
    on_cluster(3, async |cluster| {
        let [_, t2] = shop(cluster).await;
        cluster.publish(8080, &[("10.255.2.2:80", Ready)]);
        cluster.update().await;
        let listener = inside(Some(&t2), || TcpListener::bind("0.0.0.0:80").unwrap());
        let mut seen = BTreeMap::new();
        for nodes in [[1, 2, 3], [3, 1, 2], [2, 1, 3], [1, 3, 2]] {
            for port in (40000..40032).step_by(2) {
                for node in nodes {
                    let at_task = seen_from(port, node, &listener);
                    let first = *seen.entry((port, node)).or_insert(at_task);
                    assert_eq!(at_task, first, "{port} through node {node}");
                }
            }
        }
        let taken: BTreeSet<u16> = seen.values().copied().collect();
        assert_eq!(taken.len(), seen.len());
        assert_eq!(refused(&t2), 0);
    });
}

#[test]
fn ports_that_clients_choose_are_moved_only_where_another_node_brings_them_and_privileged_ones_never()
 {
    on_cluster(3, async |cluster| {
        let [_, t2] = shop(cluster).await;
        cluster.publish(8080, &[("10.255.2.2:80", Ready)]);
        cluster.update().await;
        let listener = inside(Some(&t2), || TcpListener::bind("0.0.0.0:80").unwrap());
        for port in [600, 1024, 1025, 32768, 65535] {
            assert_eq!(seen_from(port, 2, &listener), port);
        }
        for (port, at_task) in [
            (601, 601),
            (1026, 1026),
            // Taken: 1025 + 1025 % 31743.
            (1025, 2050),
            (32768, 1025 + 1025 + 1),
            (65535, 1025 + 2049),
        ] {
            assert_eq!(seen_from(port, 3, &listener), at_task, "{port}");
        }
        let moved = seen_from(600, 3, &listener);
        assert!((512..1024).contains(&moved), "{moved}");
    });
}
