//! The mesh in both families, and ports with wishes of their own.

use super::*;
use crate::config::Given;
use crate::plane::Published;
use crate::testbed::cluster::node6;

/// Tasks of both families on nodes 1 and 2 of three behind port 8080, at the leader's addresses.
async fn dual_shop(cluster: &mut Cluster) -> [PathBuf; 2] {
    cluster.open_networks();
    let mut tasks = Vec::new();
    for (node, id) in [(1, "t1"), (2, "t2")] {
        let given = Given {
            v4: format!("10.255.{node}.200").parse().unwrap(),
            v6: Some(format!("fd00:255:0:{node}:8000::5").parse().unwrap()),
        };
        let network = &cluster.networks[node - 1];
        let attachment = network.attach(id, &[], Some(given)).await.unwrap();
        tasks.push(attachment.netns_path);
    }
    cluster.publish(8080, &both());
    cluster.update().await;
    tasks.try_into().unwrap()
}

fn both() -> [(&'static str, Health); 4] {
    [
        ("10.255.1.200:80", Ready),
        ("10.255.2.200:80", Ready),
        ("[fd00:255:0:1:8000::5]:80", Ready),
        ("[fd00:255:0:2:8000::5]:80", Ready),
    ]
}

fn servers(tasks: &[PathBuf; 2], protocol: Protocol, naming: bool) -> Vec<Server> {
    let names = [Some("one"), Some("two")].map(|name| name.filter(|_| naming));
    let serve = |(task, name): (&PathBuf, Option<&'static str>)| match protocol {
        Protocol::Udp => Server::udp_named(Some(task), "[::]:80", name),
        _ => Server::tcp_named(Some(task), "[::]:80", name),
    };
    tasks.iter().zip(names).map(serve).collect()
}

#[test]
fn every_node_answers_in_both_families_and_keeps_the_clients_address() {
    on_cluster(3, async |cluster| {
        let tasks = dual_shop(cluster).await;
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let _servers = servers(&tasks, protocol, true);
            for node in 1..=3 {
                for to in [
                    format!("192.0.2.{node}:8080"),
                    format!("[{}]:8080", node6(node)),
                ] {
                    let seen = answers(protocol, None, &to, 40);
                    assert_eq!(seen, set(["one", "two"]), "{protocol} {to}");
                }
            }
            drop(_servers);
            let _servers = servers(&tasks, protocol, false);
            for node in 1..=3 {
                let seen = answers(protocol, None, &format!("[{}]:8080", node6(node)), 20);
                assert_eq!(seen, set(["2001:db8::fe"]), "{protocol} node {node}");
            }
        }
    });
}

/// As in the table of the design note.
#[test]
fn nodes_and_containers_are_clients_by_ipv6_too() {
    on_cluster(3, async |cluster| {
        let tasks = dual_shop(cluster).await;
        let client = cluster.networks[2].attach("c", &[], None).await.unwrap();
        let named = servers(&tasks, Protocol::Tcp, true);
        let everyone = set(["one", "two"]);
        let node = |number| cluster.node(number).netns.clone();
        let froms = [
            node(1),
            node(3),
            client.netns_path.clone(),
            tasks[0].clone(),
        ];
        for from in &froms {
            for to in 1..=3 {
                let to = format!("[{}]:8080", node6(to));
                let seen = answers(Protocol::Tcp, Some(from), &to, 30);
                assert_eq!(seen, everyone, "{from:?} to {to}");
            }
        }
        // Answered at once, that nobody listens there: clients try 127.0.0.1 then.
        let refused = ask(Protocol::Tcp, Some(&node(1)), "[::1]:8080").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        drop(named);
        let _servers = servers(&tasks, Protocol::Tcp, false);
        cluster.publish(8080, &[both()[1], both()[3]]);
        cluster.update().await;
        let node = |number| cluster.node(number).netns.clone();
        for (from, to, seen) in [
            (client.netns_path.clone(), 3, "fd00:255:0:3::2"),
            (client.netns_path.clone(), 2, "2001:db8::3"),
            (client.netns_path.clone(), 1, "fd00:255:0:1::1"),
            (tasks[1].clone(), 2, "fd00:255:0:2::1"),
            (node(1), 1, "2001:db8::1"),
            (node(1), 3, "fd00:255:0:3::1"),
        ] {
            let to = format!("[{}]:8080", node6(to));
            let answer = answers(Protocol::Tcp, Some(&from), &to, 3);
            assert_eq!(answer, set([seen]), "{from:?} to {to}");
        }
        // Nobody gets past published ports.
        for from in [&client.netns_path, &tasks[0]] {
            assert!(ask(Protocol::Tcp, Some(from), "[fd00:255:0:2:8000::5]:80").is_err());
        }
    });
}

#[test]
fn a_local_first_port_stays_on_the_node_asked_while_it_has_ready_tasks() {
    on_cluster(3, async |cluster| {
        let tasks = dual_shop(cluster).await;
        let _servers = servers(&tasks, Protocol::Tcp, true);
        for published in cluster.ports.values_mut() {
            published.is_local_first = true;
        }
        cluster.update().await;
        for (to, seen) in [
            ("192.0.2.1:8080", set(["one"])),
            ("[2001:db8::1]:8080", set(["one"])),
            ("192.0.2.2:8080", set(["two"])),
            ("192.0.2.3:8080", set(["one", "two"])),
        ] {
            assert_eq!(answers(Protocol::Tcp, None, to, 20), seen, "{to}");
        }
        for published in cluster.ports.values_mut() {
            published
                .backends
                .insert("10.255.1.200:80".parse().unwrap(), Leaving);
        }
        cluster.update().await;
        assert_eq!(
            answers(Protocol::Tcp, None, "192.0.2.1:8080", 20),
            set(["two"])
        );
    });
}

#[test]
fn a_port_of_one_address_is_answered_there_alone_and_goes_first() {
    on_cluster(2, async |cluster| {
        let tasks = dual_shop(cluster).await;
        let _servers = servers(&tasks, Protocol::Tcp, true);
        run("ip -n node1 addr add 192.0.2.77/24 dev eth0");
        let to = |backend: &str| Published {
            backends: [(backend.parse().unwrap(), Ready)].into(),
            is_local_first: false,
        };
        let port = |port, address: Option<&str>| PublishedPort {
            protocol: Protocol::Tcp,
            port,
            address: address.map(|ip| ip.parse().unwrap()),
        };
        cluster.ports = [
            (port(8080, None), to("10.255.1.200:80")),
            (port(8080, Some("192.0.2.77")), to("10.255.2.200:80")),
            (port(9090, Some("192.0.2.77")), to("10.255.2.200:80")),
            (
                port(9090, Some("2001:db8::1")),
                to("[fd00:255:0:1:8000::5]:80"),
            ),
        ]
        .into();
        let reports = cluster.update().await;
        // Node 2 has none of the addresses, which is no mistake.
        assert_eq!(reports[1].warnings, [""; 0]);
        for (to, name) in [
            ("192.0.2.1:8080", "one"),
            ("192.0.2.2:8080", "one"),
            ("192.0.2.77:8080", "two"),
            ("192.0.2.77:9090", "two"),
            ("[2001:db8::1]:9090", "one"),
        ] {
            assert_eq!(answers(Protocol::Tcp, None, to, 5), set([name]), "{to}");
        }
        for to in ["192.0.2.1:9090", "192.0.2.2:9090", "[2001:db8::2]:9090"] {
            let error = ask(Protocol::Tcp, None, to).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}");
        }
        // Without a task it is closed, whatever the other service with that port has.
        cluster
            .ports
            .insert(port(8080, Some("192.0.2.77")), Published::default());
        cluster.update().await;
        let error = ask(Protocol::Tcp, None, "192.0.2.77:8080").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(cluster.node(1).plane.doctor().await.unwrap(), [""; 0]);
    });
}
