//! Clients that go on with one port while tasks come and go.

use super::*;

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
