//! The mesh without a kernel.

use proptest::prelude::*;

use super::*;

fn mesh() -> Mesh {
    let peer = Peer {
        node: [192, 0, 2, 2].into(),
        slice: "10.255.2.0/24".parse().unwrap(),
        slice6: Some("fd00:255:0:2::/64".parse().unwrap()),
        addresses: [[192, 0, 2, 2].into(), "fd00::2".parse().unwrap()].into(),
    };
    let port = PublishedPort {
        protocol: Protocol::Tcp,
        port: 8080,
        address: None,
    };
    let backends: Backends = [
        ("10.255.1.2:80".parse().unwrap(), Health::Ready),
        ("10.255.2.2:80".parse().unwrap(), Health::Ready),
        ("10.255.2.3:80".parse().unwrap(), Health::Leaving),
        ("[fd00:255:0:2::2]:80".parse().unwrap(), Health::Ready),
    ]
    .into();
    let published = Published {
        backends,
        is_local_first: false,
    };
    Mesh {
        bridge: "skep0".to_owned(),
        number: 1,
        slice: "10.255.1.0/24".parse().unwrap(),
        slice6: Some("fd00:255:0:1::/64".parse().unwrap()),
        peers: [(2, peer)].into(),
        ports: [(port, published)].into(),
    }
}

const MEANS: Means = Means {
    mtu: 1450,
    has_v6: true,
};

fn wish(mesh: Mesh) -> Wish {
    let data_path = DataPath {
        address: [192, 0, 2, 1].into(),
        port: 4789,
    };
    Wish::new(&Desired::new(1, data_path), &Arc::new(mesh), MEANS)
}

#[track_caller]
fn check(change: impl FnOnce(&mut Mesh), expect: &str) {
    let mut mesh = mesh();
    change(&mut mesh);
    let mut errors = Vec::new();
    mesh.check(&mut errors);
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors.join("; "), expect);
}

#[test]
fn mistakes_are_named() {
    check(|_| (), "");
    let slices = "slices of the node network overlap, are too small or not IPv4";
    check(|mesh| mesh.slice = "10.255.0.0/16".parse().unwrap(), slices);
    check(
        |mesh| mesh.slice = "10.255.1.0/31".parse().unwrap(),
        &format!("{slices}; published port 8080 leads out of the node network, or is 0"),
    );
    check(
        |mesh| mesh.number = 2,
        "node number 2 is taken, or a node has number 0",
    );
    check(
        |mesh| mesh.number = 0,
        "node number 0 is taken, or a node has number 0",
    );
    check(
        |mesh| {
            let published = mesh.ports.values_mut().next().unwrap();
            published
                .backends
                .insert("192.0.2.9:80".parse().unwrap(), Health::Ready);
        },
        "published port 8080 leads out of the node network, or is 0",
    );
}

#[test]
fn the_table_is_as_written() {
    insta::assert_snapshot!(rules::script(&wish(mesh())));
}

#[test]
fn a_fresh_node_gets_everything_in_order_and_then_nothing() {
    let wish = wish(mesh());
    let actions = plan(&wish, &State::default());
    let lines: Vec<String> = actions.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(lines.join("\n"));
    assert_eq!(plan(&wish, &wish.clone().fulfilled()), []);
}

#[test]
fn flows_of_the_nodes_own_programs_are_left_alone() {
    let ports = mesh().ports;
    let flow = |protocol, answerer: [u8; 4], answerer_port| Flow {
        protocol,
        destination: [192, 0, 2, 1].into(),
        destination_port: 8080,
        answerer: answerer.into(),
        answerer_port,
        is_answered: true,
    };
    assert!(!is_doomed(&flow(6, [10, 255, 1, 2], 80), &ports));
    assert!(!is_doomed(&flow(6, [10, 255, 2, 3], 80), &ports));
    assert!(is_doomed(&flow(6, [10, 255, 2, 2], 81), &ports));
    assert!(is_doomed(&flow(6, [10, 255, 2, 9], 80), &ports));
    assert!(!is_doomed(&flow(6, [192, 0, 2, 1], 8080), &ports));
    assert!(!is_doomed(&flow(UDP, [10, 255, 2, 9], 80), &ports));
    let other = Flow {
        destination_port: 22,
        ..flow(6, [10, 255, 2, 9], 80)
    };
    assert!(!is_doomed(&other, &ports));
}

/// Where new connections to a port go, by family.
fn leads_to(mesh: &Mesh, port: PublishedPort, family: Family) -> BTreeSet<SocketAddr> {
    let mut elements = Elements::new();
    mesh.add_port(family, port, &mesh.ports[&port], &mut elements);
    let slots = elements
        .iter()
        .filter_map(|((_, map, _), data)| match data {
            Data::Value(bytes) if map.starts_with("slots") => Some(bytes),
            _ => None,
        });
    let backend = |bytes: &Vec<u8>| {
        let (ip, port) = bytes.split_at(bytes.len() - 4);
        let ip = super::super::balance::address(ip).unwrap();
        SocketAddr::new(ip, u16::from_be_bytes([port[0], port[1]]))
    };
    slots.map(backend).collect()
}

#[test]
fn a_local_first_port_leads_to_the_nodes_own_tasks_while_any_is_ready() {
    let mut mesh = mesh();
    let port = *mesh.ports.keys().next().unwrap();
    let (one, two): (SocketAddr, SocketAddr) = (
        "10.255.1.2:80".parse().unwrap(),
        "10.255.2.2:80".parse().unwrap(),
    );
    let v6: SocketAddr = "[fd00:255:0:2::2]:80".parse().unwrap();
    assert_eq!(leads_to(&mesh, port, Family::V4), [one, two].into());
    let published = mesh.ports.get_mut(&port).unwrap();
    published.is_local_first = true;
    assert_eq!(leads_to(&mesh, port, Family::V4), [one].into());
    // No ready task of its own in this family.
    assert_eq!(leads_to(&mesh, port, Family::V6), [v6].into());
    let published = mesh.ports.get_mut(&port).unwrap();
    published.backends.insert(one, Health::Leaving);
    assert_eq!(leads_to(&mesh, port, Family::V4), [two].into());
}

#[test]
fn a_port_of_one_address_is_of_its_family_and_closed_without_tasks() {
    let mut mesh = mesh();
    let (port, published) = mesh.ports.pop_first().unwrap();
    let own = PublishedPort {
        address: Some([192, 0, 2, 1].into()),
        ..port
    };
    mesh.ports.insert(own, published);
    assert_eq!(leads_to(&mesh, own, Family::V4).len(), 2);
    assert_eq!(leads_to(&mesh, own, Family::V6).len(), 0);
    mesh.ports.insert(own, Published::default());
    let mut elements = Elements::new();
    mesh.add_port(Family::V4, own, &mesh.ports[&own], &mut elements);
    let verdicts: Vec<&Data> = elements.values().collect();
    let counter = &Data::Nothing;
    assert_eq!(verdicts, [counter, &Data::Goto("closed".to_owned())]);
}

proptest! {
    /// The oracle is a kernel that refuses to add what it has and to delete what it has not.
    #[test]
    fn changes_lead_from_one_to_the_other(old in 0u8..90, new in 0u8..90) {
        let elements = |count: u8| {
            let mut mesh = mesh();
            let backends = (0..count).map(|n| (SocketAddr::from(([10, 255, 1, n], 80)), Health::Ready));
            mesh.ports.values_mut().next().unwrap().backends = backends.collect();
            wish(mesh).elements
        };
        let (old, new) = (elements(old), elements(new));
        let mut kernel = old.clone();
        for change in changes(Some(&old), &new) {
            let key = (change.family, change.map, change.key);
            match change.verb {
                Verb::Add(data) => prop_assert_eq!(kernel.insert(key, data), None),
                Verb::Delete => prop_assert!(kernel.remove(&key).is_some()),
            }
        }
        prop_assert_eq!(kernel, new);
    }
}
