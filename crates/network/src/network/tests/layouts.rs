//! Addresses of both families, those the leader gives, and a change of them all.

use super::*;

fn layout() -> Layout {
    Layout {
        v4: "10.252.7.0/24".parse().unwrap(),
        v6: Some("fd00:252:0:7::/64".parse().unwrap()),
        is_shared: true,
        mtu: 1450,
    }
}

fn given(v4: &str) -> Given {
    Given {
        v4: v4.parse().unwrap(),
        v6: None,
    }
}

async fn open(bed: &Testbed) -> Network {
    let config = Config {
        layout: layout(),
        ..config(bed)
    };
    Network::open(config).await.unwrap()
}

#[test]
fn a_container_of_both_families_is_reached_and_reaches_out_by_either() {
    check_both_families(false);
}

#[test]
fn a_container_of_both_families_is_reached_when_ip_rules_see_bridged_packets() {
    check_both_families(true);
}

fn set_bridge_filters(is_on: bool) {
    set_bridge_filter(is_on);
    let value = u8::from(is_on);
    run(&format!(
        "busybox sysctl -w net.bridge.bridge-nf-call-ip6tables={value}"
    ));
}

fn check_both_families(is_bridge_filtered: bool) {
    on_node(async move |bed| {
        set_bridge_filters(is_bridge_filtered);
        let before = bed.inventory();
        let network = open(bed).await;
        let ports = [tcp(8080, 80), udp(8080, 80)];
        let a = network.attach("a", &ports, None).await.unwrap();
        assert_eq!(a.address6.unwrap().to_string(), "fd00:252:0:7::2/64");
        assert_eq!(a.gateway6.unwrap().to_string(), "fd00:252:0:7::1");
        let b = network.attach("b", &[], None).await.unwrap();
        let servers = [
            Server::tcp(Some(&a.netns_path), "[::]:80"),
            Server::udp(Some(&a.netns_path), "[::]:80"),
            Server::tcp(Some(bed.world()), "[::]:82"),
            Server::tcp(None, "[::]:81"),
        ];
        let check = |protocol, from: Option<&Path>, to: &str, seen: &str| {
            let answer = ask(protocol, from, to).map_err(|error| error.kind());
            assert_eq!(answer.as_deref(), Ok(seen), "{protocol} {from:?} to {to}");
        };
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            check(
                protocol,
                Some(bed.world()),
                "[2001:db8::1]:8080",
                "2001:db8::2",
            );
            check(protocol, Some(bed.world()), "192.0.2.1:8080", "192.0.2.2");
            check(protocol, None, "[2001:db8::1]:8080", "2001:db8::1");
            check(protocol, None, "127.0.0.1:8080", "10.252.7.1");
            for from in [&a.netns_path, &b.netns_path] {
                check(
                    protocol,
                    Some(from),
                    "[2001:db8::1]:8080",
                    "fd00:252:0:7::1",
                );
            }
        }
        check(
            Protocol::Tcp,
            None,
            "[fd00:252:0:7::2]:80",
            "fd00:252:0:7::1",
        );
        check(
            Protocol::Tcp,
            Some(&a.netns_path),
            "[fd00:252:0:7::1]:81",
            "fd00:252:0:7::2",
        );
        check(
            Protocol::Tcp,
            Some(&a.netns_path),
            "[2001:db8::2]:82",
            "2001:db8::1",
        );
        check(
            Protocol::Tcp,
            Some(&a.netns_path),
            "192.0.2.2:82",
            "192.0.2.1",
        );
        let refused = ask(Protocol::Tcp, None, "[::1]:8080").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        check_apart(bed, &b.netns_path);
        assert_eq!(network.reconcile().await.unwrap().steps, []);
        drop(servers);
        network.remove().await.unwrap();
        assert_eq!(bed.inventory(), before);
    });
}

/// Containers are kept apart, on the bridge and by way of the gateway, and the world keeps out.
#[track_caller]
fn check_apart(bed: &Testbed, from: &Path) {
    let to = "[fd00:252:0:7::2]:80";
    assert!(ask(Protocol::Tcp, Some(from), to).is_err());
    let route = "ip route add fd00:252:0:7::2/128 via fd00:252:0:7::1";
    bed.run_in(from, route);
    assert!(ask(Protocol::Tcp, Some(from), to).is_err());
    bed.run_in(
        bed.world(),
        "ip route add fd00:252:0:7::/64 via 2001:db8::1",
    );
    assert!(ask(Protocol::Tcp, Some(bed.world()), to).is_err());
}

#[test]
fn a_port_on_one_address_is_closed_on_others_in_both_families() {
    on_node(async |bed| {
        let network = open(bed).await;
        let on = |ip: &str, published| HostPort {
            host_ip: ip.parse().unwrap(),
            ..tcp(published, 80)
        };
        let ports = [on("2001:db8::1", 8080), on("192.0.2.1", 8081)];
        let a = network.attach("a", &ports, None).await.unwrap();
        let _server = Server::tcp(Some(&a.netns_path), "[::]:80");
        let world = Some(bed.world());
        let is_open = |to: &str| ask(Protocol::Tcp, world, to).is_ok();
        assert!(is_open("[2001:db8::1]:8080") && is_open("192.0.2.1:8081"));
        assert!(!is_open("192.0.2.1:8080") && !is_open("[2001:db8::1]:8081"));
        // The other family's port is anyone's.
        std::net::TcpListener::bind("192.0.2.1:8080").unwrap();
        assert!(std::net::TcpListener::bind("[2001:db8::1]:8080").is_err());
    });
}

#[test]
fn the_node_network_takes_another_layout_and_keeps_it_across_restarts() {
    on_node(async |bed| {
        let network = Network::open(config(bed)).await.unwrap();
        network.attach_none("none").await.unwrap();
        network.attach("a", &[], None).await.unwrap();
        let error = network.resize(layout()).await.unwrap_err();
        assert!(matches!(error, Error::InUse { count: 1 }), "{error}");
        assert_eq!(network.layout().await.unwrap(), Layout::default());
        network.detach("a").await.unwrap();
        network.resize(layout()).await.unwrap();
        network.resize(layout()).await.unwrap();
        let a = network.attach("a", &[], None).await.unwrap();
        assert_eq!(a.address.to_string(), "10.252.7.2/24");
        let world = Server::tcp(Some(bed.world()), "[::]:82");
        for to in ["192.0.2.2:82", "[2001:db8::2]:82"] {
            assert!(ask(Protocol::Tcp, Some(&a.netns_path), to).is_ok(), "{to}");
        }
        drop(world);
        let listing = run("ip -br addr show skep0");
        assert!(!listing.contains("10.255."), "{listing}");
        network.close().await;

        // The configuration is the old one; the run directory knows better.
        let network = Network::open(config(bed)).await.unwrap();
        assert_eq!(network.layout().await.unwrap(), layout());
        assert_eq!(network.reconcile().await.unwrap().steps, []);
        // Sharing and MTU change under endpoints, and the way home leads over their end.
        let unshared = Layout {
            is_shared: false,
            mtu: 1500,
            ..layout()
        };
        network.resize(unshared).await.unwrap();
        network.detach("a").await.unwrap();
        network.resize(Layout::default()).await.unwrap();
        let a = network.attach("a", &[], None).await.unwrap();
        assert_eq!(a.address.to_string(), "10.255.0.2/16");
        assert_eq!(a.address6, None);
        assert!(!run("nft list tables").contains("ip6 skep"));
        network.close().await;
        let network = Network::open(config(bed)).await.unwrap();
        assert_eq!(network.layout().await.unwrap(), Layout::default());
    });
}

#[test]
fn given_addresses_are_taken_and_own_ones_come_from_the_lower_half() {
    on_node(async |bed| {
        let network = open(bed).await;
        let a = network
            .attach("a", &[], Some(given("10.252.7.200")))
            .await
            .unwrap();
        assert_eq!(a.address.to_string(), "10.252.7.200/24");
        assert_eq!(a.address6.unwrap().to_string(), "fd00:252:0:7::c8/64");
        let both = Given {
            v6: Some("fd00:252:0:7:8000::5".parse().unwrap()),
            ..given("10.252.7.201")
        };
        let b = network.attach("b", &[], Some(both)).await.unwrap();
        assert_eq!(b.address6.unwrap().to_string(), "fd00:252:0:7:8000::5/64");
        let own = network.attach("own", &[], None).await.unwrap();
        assert_eq!(own.address.to_string(), "10.252.7.2/24");
        assert_eq!(network.attach("b", &[], Some(both)).await.unwrap(), b);
        let other = network.attach("b", &[], Some(given("10.252.7.202"))).await;
        assert!(matches!(other, Err(Error::AlreadyAttached(_))));
        for foreign in ["10.252.8.2", "10.252.7.1", "10.252.7.255"] {
            let outcome = network.attach("c", &[], Some(given(foreign))).await;
            assert!(matches!(outcome, Err(Error::Pool(_))), "{foreign}");
        }
        network.close().await;
        let network = open(bed).await;
        assert_eq!(network.attach("b", &[], Some(both)).await.unwrap(), b);
        assert_eq!(network.reconcile().await.unwrap().steps, []);
    });
}

#[test]
fn a_given_address_is_free_the_moment_its_endpoint_is_detached() {
    on_node(async |bed| {
        let network = open(bed).await;
        let address = Some(given("10.252.7.200"));
        network.attach("a", &[], address).await.unwrap();
        for (old, new) in [("a", "b"), ("b", "c")] {
            network.detach(old).await.unwrap();
            let attachment = network.attach(new, &[], address).await.unwrap();
            let _server = Server::tcp(Some(&attachment.netns_path), "0.0.0.0:80");
            ask(Protocol::Tcp, None, "10.252.7.200:80").unwrap();
        }
        // An attach that is too early waits for the detach, unless it is called off.
        let early = network.attach("d", &[], address);
        let late = async {
            network.endpoints().await.unwrap();
            network.detach("c").await.unwrap();
        };
        let (attachment, ()) = futures_util::future::join(early, late).await;
        assert_eq!(attachment.unwrap().address.to_string(), "10.252.7.200/24");
        let early = network.attach("e", &[], address);
        let called_off = async {
            network.endpoints().await.unwrap();
            network.detach("e").await.unwrap();
        };
        let (attachment, ()) = futures_util::future::join(early, called_off).await;
        assert!(matches!(attachment, Err(Error::Pool(_))));
        assert_eq!(network.reconcile().await.unwrap().steps, []);
    });
}

#[test]
fn damage_to_either_family_heals() {
    on_node(async |bed| {
        let network = open(bed).await;
        let a = network.attach("a", &[tcp(8080, 80)], None).await.unwrap();
        let _server = Server::tcp(Some(&a.netns_path), "[::]:80");
        for damage in [
            "nft flush ruleset",
            "nft delete table ip6 skep",
            "nft flush map ip6 skep ports_any",
            "nft flush chain ip6 skep nat_pre",
            "ip -6 addr flush dev skep0 scope global",
            "ip -6 addr flush dev skep0 scope link",
            "ip link set skep0 down",
            "ip link del skep0",
            "busybox sysctl -w net.ipv6.conf.all.forwarding=0",
        ] {
            run(damage);
            assert!(!network.reconcile().await.unwrap().steps.is_empty());
            for to in ["192.0.2.1:8080", "[2001:db8::1]:8080"] {
                let answer = ask(Protocol::Tcp, Some(bed.world()), to);
                assert!(answer.is_ok(), "{to} after `{damage}`: {answer:?}");
            }
            assert_eq!(network.reconcile().await.unwrap().steps, []);
        }
    });
}
