//! Nodes and containers that are not there, though the directory has their tasks.

use super::*;

/// A node that is cut off: found down, its task replaced, given up, back.
#[test]
fn a_task_of_a_node_that_is_down_gets_no_new_connections_again() {
    let mut book = book();
    let set =
        |entries: Vec<Entry>| -> Vec<Change> { entries.into_iter().map(Change::Set).collect() };
    book.take(message(
        1,
        true,
        set(vec![
            node(0, true, false),
            node(1, true, false),
            service(1, &[1], true, 8080),
            task(1, 2, 1, 0, &[1], Standing::Ready),
            task(2, 3, 1, 1, &[1], Standing::Ready),
        ]),
    ));
    book.set_container("c", container(&[1], 9));
    let health = |book: &mut Book, host: u8| -> [Option<Health>; 2] {
        let desired = book.desired();
        let services = &desired.networks[network_id(1).as_str()].services;
        let vip = services.values().next().unwrap();
        let ports = &desired.mesh.unwrap().ports;
        let port = ports.values().next().unwrap();
        let mut port = port.backends.iter();
        [
            vip.backends.get(&ip(1, host)).copied(),
            port.find(|(at, _)| at.ip() == IpAddr::from([10, 252, 10, host]))
                .map(|(_, health)| *health),
        ]
    };
    assert_eq!(health(&mut book, 3), [Some(Health::Ready); 2]);
    book.take(message(2, false, set(vec![node(1, true, true)])));
    assert_eq!(health(&mut book, 3), [Some(Health::Silent); 2]);
    // The leader wants it to end, and has another run elsewhere.
    let replaced = set(vec![
        task(2, 3, 1, 1, &[1], Standing::Leaving),
        task(3, 4, 1, 0, &[1], Standing::Ready),
    ]);
    book.take(message(3, false, replaced));
    assert_eq!(health(&mut book, 3), [Some(Health::Silent); 2]);
    book.bury(node_id(1));
    assert_eq!(health(&mut book, 3), [None; 2]);
    // Back: it ends what it has, and is gone.
    book.take(message(4, false, set(vec![node(1, true, false)])));
    assert_eq!(health(&mut book, 3), [Some(Health::Leaving); 2]);
    let gone = vec![Change::Remove(Key::Task(task_id(2)))];
    book.take(message(5, false, gone));
    assert_eq!(health(&mut book, 3), [None; 2]);
}

#[test]
fn a_container_that_has_ended_gets_nothing_whatever_the_directory_says() {
    let mut book = book();
    let set =
        |entries: Vec<Entry>| -> Vec<Change> { entries.into_iter().map(Change::Set).collect() };
    book.take(message(
        1,
        true,
        set(vec![
            node(0, true, false),
            service(1, &[1], true, 8080),
            task(1, 2, 1, 0, &[1], Standing::Ready),
            task(2, 3, 1, 0, &[1], Standing::Ready),
        ]),
    ));
    book.set_container("c", container(&[1], 9));
    let backends = |book: &mut Book| {
        let desired = book.desired();
        let network = &desired.networks[network_id(1).as_str()];
        let vips = network.services.values().map(|one| one.backends.len());
        let mesh = desired.mesh.as_ref().unwrap();
        let ports = mesh.ports.values().map(|one| one.backends.len());
        (vips.sum::<usize>(), ports.sum::<usize>())
    };
    assert_eq!(backends(&mut book), (2, 2));
    assert!(book.is_led_to(&container_id(2)));
    let leaves = task(2, 3, 1, 0, &[1], Standing::Leaving);
    book.take(message(2, false, set(vec![leaves])));
    assert!(!book.is_led_to(&container_id(2)));
    assert!(book.is_led_to(&container_id(1)));
    assert!(book.end_container(&container_id(1)));
    assert!(book.is_stale());
    assert!(!book.is_led_to(&container_id(1)));
    assert_eq!(backends(&mut book), (1, 1));
    // A manager that has not heard of it repeats what it knows.
    let told = book.directory().unwrap();
    book.take(told);
    assert_eq!(backends(&mut book), (1, 1));
    // Its end may be known before its beginning.
    assert!(!book.end_container(&container_id(3)));
    let late = set(vec![task(3, 4, 1, 0, &[1], Standing::Ready)]);
    book.take(message(3, false, late));
    assert_eq!(backends(&mut book), (1, 1));
}

/// A network's subnet is checked against the nodes there are when it is made; others join later.
#[test]
fn nodes_that_join_with_addresses_of_a_network_are_named() {
    let mut book = book();
    book.set_container("c", container(&[1], 2));
    let entry = |hosts: &[u8], network| match node(1, true, false) {
        Entry::Node(node) => Change::Set(Entry::Node(Arc::new(NodeEntry {
            data_path: Some(ip(network, hosts[0])),
            addresses: hosts.iter().map(|host| ip(network, *host)).collect(),
            ..NodeEntry::clone(&node)
        }))),
        other => panic!("{other:?}"),
    };
    // On a network this node has nothing to do with.
    book.take(message(1, true, vec![entry(&[7], 2)]));
    assert_eq!(book.nodes_inside(), [""; 0]);
    for (index, hosts, named) in [
        (2, &[7][..], "10.0.1.7"),
        (
            3,
            &[3, 4, 5, 6, 7, 8],
            "10.0.1.3, 10.0.1.4, 10.0.1.5, 10.0.1.6, 2 more",
        ),
    ] {
        book.take(message(index, false, vec![entry(hosts, 1)]));
        let text = format!(
            "network `net1` has addresses of nodes in its subnet ({named}), which its containers cannot reach: give the \
             network another subnet, or the nodes other addresses"
        );
        assert_eq!(book.nodes_inside(), [text]);
    }
    book.remove_container("c");
    assert_eq!(book.nodes_inside(), [""; 0]);
}
