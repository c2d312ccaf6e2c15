//! Against the kernel, in namespaces of each test's own.

use std::path::{Path, PathBuf};

use super::*;
use crate::ports::Protocol;
use crate::testbed::{Server, ask, on_node, run};

fn bridge(name: &str, subnet: &str) -> LocalNetwork {
    let subnet: IpNet = subnet.parse().unwrap();
    let gateway = subnet.hosts().next();
    LocalNetwork {
        kind: Kind::Bridge {
            name: name.to_owned(),
            has_icc: true,
            has_masquerade: true,
        },
        subnets: vec![(subnet, gateway)],
        is_internal: false,
        mtu: None,
    }
}

fn macvlan(parent: &str, is_dummy: bool) -> LocalNetwork {
    LocalNetwork {
        kind: Kind::Macvlan {
            parent: parent.to_owned(),
            is_dummy,
            mode: Mode::Bridge,
        },
        subnets: vec![("192.0.2.0/24".parse().unwrap(), None)],
        is_internal: false,
        mtu: None,
    }
}

/// A namespace, as containers have.
fn netns(name: &str) -> PathBuf {
    run(&format!(
        "ip netns add {name} && ip -n {name} link set lo up"
    ));
    Path::new("/run/netns").join(name)
}

fn place(name: &str, address: &str, gateway: &str) -> LocalPlace {
    let address: IpNet = address.parse().unwrap();
    LocalPlace {
        netns_path: netns(name),
        interface: "eth0".to_owned(),
        mac: Mac::from_ip(address.addr()),
        addresses: vec![address],
        gateways: gateway.parse().into_iter().collect(),
    }
}

async fn local(networks: &[(&str, LocalNetwork)]) -> Local {
    let local = Local::open().await.unwrap();
    let networks = networks
        .iter()
        .map(|(id, network)| ((*id).to_owned(), network.clone()));
    let failures = local.begin(networks.collect()).await.unwrap();
    assert!(failures.is_empty(), "{failures:?}");
    local
}

fn reaches(from: &Path, to: &str) -> bool {
    ask(Protocol::Tcp, Some(from), to).is_ok()
}

#[test]
fn a_bridge_leads_out_with_the_nodes_address_and_not_in() {
    on_node(async |bed| {
        let local = local(&[("red", bridge("br-red", "10.40.0.0/24"))]).await;
        let one = place("one", "10.40.0.2/24", "10.40.0.1");
        let two = place("two", "10.40.0.3/24", "10.40.0.1");
        local.attach("one", "red", one.clone()).await.unwrap();
        local.attach("two", "red", two.clone()).await.unwrap();
        let world = bed.world();
        let _outside = Server::tcp(Some(world), "192.0.2.2:80");
        let _inside = Server::tcp(Some(&two.netns_path), "10.40.0.3:80");
        let seen = ask(Protocol::Tcp, Some(&one.netns_path), "192.0.2.2:80");
        assert_eq!(seen.unwrap(), "192.0.2.1");
        let seen = ask(Protocol::Tcp, Some(&one.netns_path), "10.40.0.3:80");
        assert_eq!(seen.unwrap(), "10.40.0.2");
        run("ip -n world route add 10.40.0.0/24 via 192.0.2.1");
        assert!(!reaches(world, "10.40.0.3:80"));
        assert!(ask(Protocol::Tcp, None, "10.40.0.3:80").is_ok());
        local.detach("two").await.unwrap();
        assert_eq!(local.doctor().await, Vec::<String>::new());
        local.detach("one").await.unwrap();
        local.remove_network("red").await.unwrap();
        assert_eq!(run("ip -br link show type bridge"), "");
        assert!(!run("nft list tables").contains("skep_local"));
    });
}

#[test]
fn networks_and_wishes_keep_containers_apart() {
    on_node(async |bed| {
        let mut apart = bridge("br-apart", "10.41.0.0/24");
        if let Kind::Bridge { has_icc, .. } = &mut apart.kind {
            *has_icc = false;
        }
        let mut closed = bridge("br-closed", "10.42.0.0/24");
        closed.is_internal = true;
        let red = bridge("br-red", "10.40.0.0/24");
        let local = local(&[("apart", apart), ("closed", closed), ("red", red)]).await;
        let mut places = Vec::new();
        for (name, network, address, gateway) in [
            ("a1", "apart", "10.41.0.2/24", "10.41.0.1"),
            ("a2", "apart", "10.41.0.3/24", "10.41.0.1"),
            ("c1", "closed", "10.42.0.2/24", "10.42.0.1"),
            ("c2", "closed", "10.42.0.3/24", "10.42.0.1"),
            ("r1", "red", "10.40.0.2/24", "10.40.0.1"),
        ] {
            let place = place(name, address, gateway);
            local.attach(name, network, place.clone()).await.unwrap();
            places.push(place.netns_path);
        }
        let [a1, a2, c1, c2, r1] = places.as_slice() else {
            panic!("five places");
        };
        let _world = Server::tcp(Some(bed.world()), "192.0.2.2:80");
        let _a2 = Server::tcp(Some(a2), "10.41.0.3:80");
        let _c2 = Server::tcp(Some(c2), "10.42.0.3:80");
        assert!(reaches(a1, "192.0.2.2:80"));
        assert!(
            !reaches(a1, "10.41.0.3:80"),
            "they may not talk to one another"
        );
        assert!(reaches(c1, "10.42.0.3:80"));
        assert!(!reaches(c1, "192.0.2.2:80"), "nothing leads out");
        assert!(!reaches(r1, "10.41.0.3:80"), "networks are apart");
        assert!(!reaches(r1, "10.42.0.3:80"), "networks are apart");
    });
}

#[test]
fn macvlans_are_on_a_link_of_the_node() {
    on_node(async |bed| {
        let local = local(&[
            ("lan", macvlan("up0", false)),
            ("own", macvlan("dm-own", true)),
        ])
        .await;
        let one = place("one", "192.0.2.10/24", "192.0.2.2");
        local.attach("one", "lan", one.clone()).await.unwrap();
        let _world = Server::tcp(Some(bed.world()), "192.0.2.2:80");
        let seen = ask(Protocol::Tcp, Some(&one.netns_path), "192.0.2.2:80");
        assert_eq!(seen.unwrap(), "192.0.2.10");
        let two = place("two", "10.43.0.2/24", "");
        let three = place("three", "10.43.0.3/24", "");
        local.attach("two", "own", two.clone()).await.unwrap();
        local.attach("three", "own", three.clone()).await.unwrap();
        let _three = Server::tcp(Some(&three.netns_path), "10.43.0.3:80");
        assert!(reaches(&two.netns_path, "10.43.0.3:80"));
        match local.set_network("vlan", macvlan("up0.7", false)).await {
            Ok(()) => assert!(run("ip -d link show up0.7").contains("vlan protocol 802.1Q id 7")),
            Err(LocalError::Netlink(error)) if error.is_unsupported() => {
                #[expect(clippy::print_stderr, reason = "tells why less was tested")]
                {
                    eprintln!("SKIPPED: this kernel has no VLANs");
                }
            }
            Err(error) => panic!("{error}"),
        }
        for parent in ["nowhere", "nowhere.7", "up0.x"] {
            let error = local.set_network("bad", macvlan(parent, false)).await;
            assert!(matches!(error, Err(LocalError::NoParent(name)) if name == parent));
        }
        for id in ["own", "vlan", "lan"] {
            local.remove_network(id).await.unwrap();
        }
        let links = run("ip -br link");
        assert!(
            !links.contains("dm-own") && !links.contains("up0.7"),
            "{links}"
        );
        assert!(links.contains("up0@"), "{links}");
    });
}

#[test]
fn both_families_lead_out() {
    on_node(async |bed| {
        let mut red = bridge("br-red", "10.40.0.0/24");
        let gateway = "fd00:40::1".parse().ok();
        red.subnets.push(("fd00:40::/64".parse().unwrap(), gateway));
        let local = local(&[("red", red)]).await;
        let mut one = place("one", "10.40.0.2/24", "10.40.0.1");
        one.addresses.push("fd00:40::2/64".parse().unwrap());
        one.gateways.push("fd00:40::1".parse().unwrap());
        local.attach("one", "red", one.clone()).await.unwrap();
        let _world = Server::tcp(Some(bed.world()), "[2001:db8::2]:80");
        let seen = ask(Protocol::Tcp, Some(&one.netns_path), "[2001:db8::2]:80");
        assert_eq!(seen.unwrap(), "2001:db8::1");
    });
}

#[test]
fn what_is_broken_is_found_and_repaired() {
    on_node(async |bed| {
        let local = local(&[("red", bridge("br-red", "10.40.0.0/24"))]).await;
        let one = place("one", "10.40.0.2/24", "10.40.0.1");
        local.attach("one", "red", one.clone()).await.unwrap();
        let _world = Server::tcp(Some(bed.world()), "192.0.2.2:80");
        for (damage, count) in [
            ("nft flush ruleset", 1),
            ("ip link del br-red", 2),
            ("ip addr flush dev br-red", 1),
            ("ip -n one link del eth0", 1),
        ] {
            run(damage);
            let findings = local.doctor().await;
            assert_eq!(findings.len(), count, "{damage}: {findings:?}");
            local.heal().await;
            assert_eq!(local.doctor().await, Vec::<String>::new(), "{damage}");
            assert!(reaches(&one.netns_path, "192.0.2.2:80"), "{damage}");
        }
    });
}

#[test]
fn what_another_daemon_left_is_taken_up_or_removed() {
    on_node(async |bed| {
        let red = bridge("br-red", "10.40.0.0/24");
        let blue = bridge("br-blue", "10.44.0.0/24");
        let first = local(&[("red", red.clone()), ("blue", blue)]).await;
        let one = place("one", "10.40.0.2/24", "10.40.0.1");
        first.attach("one", "red", one.clone()).await.unwrap();
        drop(first);
        run("ip link add br-mine type bridge");
        let mine = bridge("br-mine", "10.45.0.0/24");
        let second = local(&[("red", red), ("mine", mine)]).await;
        second.attach("one", "red", one.clone()).await.unwrap();
        let links = run("ip -br link show type bridge");
        assert!(
            links.contains("br-red") && !links.contains("br-blue"),
            "{links}"
        );
        let _world = Server::tcp(Some(bed.world()), "192.0.2.2:80");
        assert!(reaches(&one.netns_path, "192.0.2.2:80"));
        second.remove_network("mine").await.unwrap();
        assert!(run("ip -br addr show br-mine").starts_with("br-mine"));
        let error = second
            .set_network("up", bridge("up0", "10.46.0.0/24"))
            .await;
        assert!(matches!(error, Err(LocalError::NoBridge(_))), "{error:?}");
    });
}
