//! What counters say of published ports.

use super::*;

async fn count(cluster: &Cluster, node: usize, protocol: Protocol) -> u64 {
    let counters = cluster.node(node).plane.counters().await.unwrap();
    let port = PublishedPort {
        protocol,
        port: 8080,
        address: None,
    };
    counters.ports[&port]
}

#[test]
fn connections_to_a_published_port_are_counted_where_it_was_asked() {
    on_cluster(2, async |cluster| {
        let tasks = shop(cluster).await;
        let _tcp = tasks
            .each_ref()
            .map(|task| Server::tcp(Some(task), "0.0.0.0:80"));
        let _udp = tasks
            .each_ref()
            .map(|task| Server::udp(Some(task), "0.0.0.0:80"));
        for _ in 0..6 {
            ask(Protocol::Tcp, None, "192.0.2.1:8080").unwrap();
            ask(Protocol::Udp, None, "192.0.2.1:8080").unwrap();
        }
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            assert_eq!(count(cluster, 1, protocol).await, 6);
            assert_eq!(count(cluster, 2, protocol).await, 0);
        }
        // From the node itself, also by 127.0.0.1; another number of backends changes nothing of what was counted.
        cluster.publish(8080, &[("10.255.2.2:80", Ready)]);
        cluster.update().await;
        let node1 = cluster.node(1).netns.clone();
        for to in ["127.0.0.1:8080", "192.0.2.1:8080"] {
            ask(Protocol::Udp, Some(&node1), to).unwrap();
            ask(Protocol::Tcp, Some(&node1), to).unwrap();
        }
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            assert_eq!(count(cluster, 1, protocol).await, 8);
        }
    });
}
