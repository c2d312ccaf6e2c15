//! What is left of values with mistakes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::dns::Zone;
use crate::plane::{
    Container, DataPath, Health, Peer, Place, Published, PublishedPort, Remote, Service,
};
use crate::ports::Protocol;

fn network(vni: u32, third: u8) -> Overlay {
    let backends = [([10, 0, third, 2].into(), Health::Ready)].into();
    let vips = vec![[10, 0, third, 100].into()];
    Overlay {
        vni,
        mtu: None,
        is_encrypted: false,
        subnets: vec![format!("10.0.{third}.0/24").parse().unwrap()],
        remotes: [(
            Mac([2, 0, 0, 0, third, 9]),
            Remote {
                node: [192, 0, 2, 2].into(),
                addresses: vec![[10, 0, third, 9].into()],
            },
        )]
        .into(),
        services: [("s".to_owned(), Arc::new(Service { vips, backends }))].into(),
        names: Arc::new(Zone::new("net", Vec::new())),
    }
}

fn container(host: u8) -> Container {
    let place = |interface: &str, third| Place {
        interface: interface.to_owned(),
        mac: Mac([2, 0, 0, 0, third, host]),
        addresses: vec![[10, 0, third, host].into()],
    };
    Container {
        netns_path: "/run/x".into(),
        attachments: [
            ("a".to_owned(), place("eth1", 1)),
            ("b".to_owned(), place("eth2", 2)),
        ]
        .into(),
        upstreams: Vec::new(),
        zones: Vec::new(),
    }
}

fn mesh() -> Mesh {
    let peer = |last: u8| Peer {
        node: [192, 0, 2, last].into(),
        slice: format!("10.255.{last}.1/24").parse().unwrap(),
        slice6: None,
        addresses: BTreeSet::new(),
    };
    let published = Published {
        backends: [("10.255.2.2:80".parse().unwrap(), Health::Ready)].into(),
        is_local_first: false,
    };
    Mesh {
        bridge: "skep0".to_owned(),
        number: 1,
        slice: "10.255.1.1/24".parse().unwrap(),
        slice6: None,
        peers: BTreeMap::from([(2, peer(2)), (3, peer(3))]),
        ports: BTreeMap::from([(port(8080), published)]),
    }
}

fn port(port: u16) -> PublishedPort {
    PublishedPort {
        protocol: Protocol::Tcp,
        port,
        address: None,
    }
}

fn desired() -> Desired {
    let data_path = DataPath {
        address: [192, 0, 2, 1].into(),
        port: 4789,
    };
    let mut desired = Desired::new(1, data_path);
    desired.networks = [
        ("a".to_owned(), Arc::new(network(4097, 1))),
        ("b".to_owned(), Arc::new(network(4098, 2))),
    ]
    .into();
    desired.containers = [
        ("c".to_owned(), Arc::new(container(2))),
        ("d".to_owned(), Arc::new(container(3))),
    ]
    .into();
    desired.mesh = Some(Arc::new(mesh()));
    desired
}

/// What one of several mistakes does to a value.
fn harm(desired: &mut Desired, which: u8) {
    match which {
        0 => drop(desired.networks.remove("b")),
        1 => edit(desired, "b").vni = 4097,
        2 => edit(desired, "a").mtu = Some(500),
        3 => edit(desired, "a").vni = 0,
        4 => edit(desired, "b").subnets = vec!["10.0.0.0/16".parse().unwrap()],
        5 => {
            let services = &mut edit(desired, "a").services;
            let again = Arc::clone(&services["s"]);
            services.insert("t".to_owned(), again);
        }
        6 => {
            let remote = network(1, 1).remotes.into_values().next().unwrap();
            let mac = Mac([2, 0, 0, 0, 1, 2]);
            edit(desired, "a").remotes.insert(mac, remote);
        }
        7 => place(desired, "d", "a").mac = Mac([2, 0, 0, 0, 1, 2]),
        8 => place(desired, "d", "b").mac = Mac([3; 6]),
        9 => place(desired, "c", "b").interface = "eth1".to_owned(),
        10 => place(desired, "c", "a").addresses = vec![[10, 9, 9, 9].into()],
        11 => {
            let container = desired.containers.remove("c");
            desired
                .containers
                .extend(container.map(|it| ("../c".to_owned(), it)));
        }
        12 => {
            let peer = mesh().peers[&2].clone();
            edit_mesh(desired).peers.insert(4, peer);
        }
        13 => edit_mesh(desired).number = 0,
        14 => edit_mesh(desired).slice = "10.255.1.1/31".parse().unwrap(),
        15 => {
            let published = mesh().ports[&port(8080)].clone();
            edit_mesh(desired).ports.insert(port(0), published);
        }
        16 => {
            edit_mesh(desired).peers.remove(&2);
        }
        _ => {
            let peer = mesh().peers[&3].clone();
            edit_mesh(desired).peers.insert(1, peer);
        }
    }
}

fn edit<'a>(desired: &'a mut Desired, id: &str) -> &'a mut Overlay {
    Arc::make_mut(
        desired
            .networks
            .entry(id.to_owned())
            .or_insert_with(|| Arc::new(network(4098, 2))),
    )
}

fn edit_mesh(desired: &mut Desired) -> &mut Mesh {
    Arc::make_mut(desired.mesh.as_mut().unwrap())
}

fn place<'a>(desired: &'a mut Desired, container_id: &str, network: &str) -> &'a mut Place {
    let containers = desired.containers.entry(container_id.to_owned());
    let container = containers.or_insert_with(|| Arc::new(container(2)));
    Arc::make_mut(container)
        .attachments
        .get_mut(network)
        .unwrap()
}

#[track_caller]
fn check(which: u8, expect: &[&str]) -> Desired {
    let mut value = desired();
    harm(&mut value, which);
    let refusals = sift(&mut value, None).unwrap();
    let texts = refusals.iter().map(Refusal::to_string);
    assert_eq!(texts.collect::<Vec<_>>(), expect);
    assert_eq!(value.check(), []);
    value
}

#[test]
fn a_refused_network_leaves_the_others_alone() {
    let text = "network b: network `b` has VXLAN id 4097, which is taken or not in 2-16777215";
    let value = check(1, &[text]);
    assert_eq!(value.networks.keys().collect::<Vec<_>>(), ["a"]);
    for container in value.containers.values() {
        assert_eq!(container.attachments.keys().collect::<Vec<_>>(), ["a"]);
    }
    assert_eq!(value.networks["a"], desired().networks["a"]);
    assert_eq!(value.mesh, desired().mesh);
    let text = "network a: network `a` has MTU 500, less than 1280";
    let value = check(2, &[text]);
    assert_eq!(value.networks.keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn what_was_followed_goes_before_what_is_new() {
    let mut before = desired();
    before.networks.remove("a");
    let mut value = desired();
    edit(&mut value, "a").vni = 4098;
    sift(&mut value, Some(&before)).unwrap();
    assert_eq!(value.networks.keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn only_what_is_wrong_is_left_out() {
    let text = "network `a` cannot have the virtual address 10.0.1.100";
    let value = check(5, &[text]);
    let services = &value.networks["a"].services;
    assert_eq!(services.keys().collect::<Vec<_>>(), ["s"]);
    let text = "network `a` has Ethernet address 02:00:00:00:01:02 twice, or it is a group address";
    let value = check(6, &[text]);
    assert_eq!(value.containers, desired().containers);
    let of_container = format!("container d: {text}");
    let value = check(7, &[&of_container, text]);
    assert_eq!(value.containers["c"], desired().containers["c"]);
    let text = "mesh: slices of the node network overlap, are too small or not IPv4";
    let value = check(12, &[text]);
    assert_eq!(value.mesh, desired().mesh);
    assert_eq!(value.networks, desired().networks);
    let text = "mesh: published port 8080 leads out of the node network, or is 0";
    let value = check(16, &[text]);
    assert!(value.mesh.unwrap().ports[&port(8080)].backends.is_empty());
}

proptest! {
    /// However many mistakes there are, what is left has none, and what has none is left alone.
    #[test]
    fn what_is_left_is_usable(harms in prop::collection::vec(0u8..18, 0..6)) {
        let mut value = desired();
        harms.iter().for_each(|which| harm(&mut value, *which));
        let is_well = value.check().is_empty();
        let given = value.clone();
        let refusals = sift(&mut value, None).unwrap();
        prop_assert_eq!(value.check(), []);
        prop_assert_eq!(refusals.is_empty(), is_well);
        if is_well {
            prop_assert_eq!(value, given);
        }
    }
}
