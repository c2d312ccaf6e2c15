//! What counters say of real connections.

use super::*;
use crate::plane::Health::Ready;

/// Connections to a node's service `web` on `red`.
async fn web(plane: &Plane) -> u64 {
    let counters = plane.counters().await.unwrap();
    counters.services[&("red".to_owned(), "web".to_owned())]
}

#[test]
fn a_service_is_counted_over_changes_of_backends_and_the_end_of_clients() {
    on_cluster(2, async |cluster| {
        let client = cluster.add(1, "c", &[("red", "10.0.1.10")]);
        let s2 = cluster.add(1, "s2", &[("red", "10.0.1.2")]);
        let s3 = cluster.add(2, "s3", &[("red", "10.0.1.3")]);
        cluster.serve("red", "web", &["10.0.1.100"], &[("10.0.1.2", Ready)]);
        cluster.update().await;
        let _servers = [
            Server::tcp(Some(&s2), "0.0.0.0:80"),
            Server::tcp(Some(&s3), "0.0.0.0:80"),
        ];
        assert_eq!(web(&cluster.node(1).plane).await, 0);
        let spoken = |protocol, count| {
            for _ in 0..count {
                ask(protocol, Some(&client), "10.0.1.100:80").unwrap();
            }
        };
        spoken(Protocol::Tcp, 5);
        assert_eq!(web(&cluster.node(1).plane).await, 5);
        // Other chains lead to more backends; the counters stay.
        let both = [("10.0.1.2", Ready), ("10.0.1.3", Ready)];
        cluster.serve("red", "web", &["10.0.1.100"], &both);
        cluster.update().await;
        spoken(Protocol::Tcp, 5);
        assert_eq!(web(&cluster.node(1).plane).await, 10);
        // Somebody flushes the tables; what was read is not lost.
        run("nsenter --net=/run/netns/c nft flush ruleset");
        cluster.node(1).plane.reconcile().await.unwrap();
        spoken(Protocol::Tcp, 1);
        assert_eq!(web(&cluster.node(1).plane).await, 11);
        // Nothing was read since, and the client goes: its counters are read first.
        spoken(Protocol::Tcp, 2);
        cluster.drop("c");
        cluster.update().await;
        assert_eq!(web(&cluster.node(1).plane).await, 13);
        // Node 2 carried none of it as a client.
        assert_eq!(web(&cluster.node(2).plane).await, 0);
    });
}

#[test]
fn another_daemon_goes_on_counting() {
    on_cluster(1, async |cluster| {
        let client = cluster.add(1, "c", &[("dual", "10.0.3.2"), ("dual", "fd00:3::2")]);
        let server = cluster.add(1, "s", &[("dual", "10.0.3.3"), ("dual", "fd00:3::3")]);
        let backends = [("10.0.3.3", Ready), ("fd00:3::3", Ready)];
        cluster.serve("dual", "web", &["10.0.3.100", "fd00:3::100"], &backends);
        cluster.update().await;
        let _v4 = Server::tcp(Some(&server), "0.0.0.0:80");
        let _v6 = Server::tcp(Some(&server), "[fd00:3::3]:80");
        ask(Protocol::Tcp, Some(&client), "10.0.3.100:80").unwrap();
        ask(Protocol::Tcp, Some(&client), "[fd00:3::100]:80").unwrap();
        cluster.node(1).plane.close().await;
        cluster.nodes[0].plane = open_plane(&cluster.node(1).netns.clone(), 1).unwrap();
        cluster.update().await;
        ask(Protocol::Tcp, Some(&client), "[fd00:3::100]:80").unwrap();
        let counters = cluster.node(1).plane.counters().await.unwrap();
        let web = ("dual".to_owned(), "web".to_owned());
        assert_eq!(counters.services[&web], 3);
    });
}

#[test]
fn a_network_is_counted_over_the_end_of_its_containers() {
    on_cluster(2, async |cluster| {
        let client = cluster.add(1, "c", &[("red", "10.0.1.10")]);
        cluster.add(1, "d", &[("red", "10.0.1.11")]);
        let server = cluster.add(2, "s", &[("red", "10.0.1.3")]);
        cluster.update().await;
        let _server = Server::tcp(Some(&server), "0.0.0.0:80");
        for _ in 0..5 {
            ask(Protocol::Tcp, Some(&client), "10.0.1.3:80").unwrap();
        }
        let before = cluster.node(1).plane.counters().await.unwrap().networks["red"];
        // Each has a handshake, an answer and an end.
        assert!(before.sent_packets >= 5 * 4, "{before:?}");
        assert!(before.received_packets >= 5 * 3, "{before:?}");
        assert!(before.sent_bytes >= before.sent_packets * 54, "{before:?}");
        assert!(before.received_bytes >= 5 * 3 * 54, "{before:?}");
        ask(Protocol::Tcp, Some(&client), "10.0.1.3:80").unwrap();
        cluster.drop("c");
        cluster.update().await;
        let after = cluster.node(1).plane.counters().await.unwrap().networks["red"];
        assert!(after.sent_packets >= before.sent_packets + 4, "{after:?}");
        assert!(after.sent_packets < 2 * before.sent_packets, "{after:?}");
    });
}
