//! What others break is repaired, and what runs is left alone.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use super::*;
use crate::testbed::inside;

/// A container with a published port that answers the world.
async fn with_container(network: &Network) -> (Attachment, Server) {
    let attachment = network.attach("a", &[tcp(8080, 80)], None).await.unwrap();
    let server = Server::tcp(Some(&attachment.netns_path), "0.0.0.0:80");
    (attachment, server)
}

#[track_caller]
fn check_reachable(bed: &Testbed, attachment: &Attachment) {
    let _world = Server::tcp(Some(bed.world()), "0.0.0.0:82");
    assert_eq!(
        ask(Protocol::Tcp, Some(bed.world()), "192.0.2.1:8080").unwrap(),
        "192.0.2.2"
    );
    assert_eq!(
        ask(Protocol::Tcp, None, "127.0.0.1:8080").unwrap(),
        "10.255.0.1"
    );
    let egress = ask(Protocol::Tcp, Some(&attachment.netns_path), "192.0.2.2:82");
    assert_eq!(egress.unwrap(), "192.0.2.1");
}

/// Breaks something, sees one reconciliation repair it, and the next find nothing to do.
fn heals(damage: &'static str, steps: &'static [&'static str]) {
    on_node(async move |bed| {
        set_bridge_filter(false);
        let network = Network::open(config(bed)).await.unwrap();
        let (attachment, _server) = with_container(&network).await;
        check_reachable(bed, &attachment);
        run(damage);
        let report = network.reconcile().await.unwrap();
        let printed: Vec<String> = report.steps.iter().map(ToString::to_string).collect();
        let is_like = |(printed, start): (&String, &&str)| printed.starts_with(start);
        assert!(
            printed.len() == steps.len() && printed.iter().zip(steps).all(is_like),
            "after `{damage}`: {printed:#?}"
        );
        check_reachable(bed, &attachment);
        assert!(network.reconcile().await.unwrap().steps.is_empty());
    });
}

#[test]
fn the_doctor_says_what_differs_and_changes_nothing() {
    on_node(async move |bed| {
        set_bridge_filter(false);
        let network = Network::open(config(bed)).await.unwrap();
        let (_attachment, _server) = with_container(&network).await;
        assert_eq!(network.doctor().await.unwrap(), Vec::<String>::new());
        run("nft flush chain ip skep nat_pre && ip route del 10.255.0.0/16 dev skep0");
        run("busybox sysctl -w net.ipv4.ip_forward=0");
        run(
            "nft 'add table ip other; add chain ip other f { type filter hook forward priority 0; policy drop; }'",
        );
        let expect = [
            "net.ipv4.ip_forward is off",
            "10.255.0.0/16 is not routed to bridge skep0",
            "table ip skep is missing or changed",
            "chain `ip other f` of another program drops forwarded packets by policy, which may cut containers off",
        ];
        assert_eq!(network.doctor().await.unwrap(), expect);
        assert_eq!(network.doctor().await.unwrap(), expect);
        network.reconcile().await.unwrap();
        assert_eq!(network.doctor().await.unwrap(), expect[3..]);
        run("nft delete table ip other && nft flush map ip skep ports_any");
        assert_eq!(
            network.doctor().await.unwrap(),
            ["published port 8080/tcp does not lead to 10.255.0.2:80"]
        );
    });
}

#[test]
fn a_flushed_firewall_heals() {
    heals("nft flush ruleset", &["replace rules of ip skep by"]);
}

#[test]
fn a_flushed_chain_heals() {
    heals(
        "nft flush chain ip skep nat_pre",
        &["replace rules of ip skep by"],
    );
}

#[test]
fn flushed_rules_with_maps_left_heal() {
    heals("nft flush table ip skep", &["replace rules of ip skep by"]);
}

#[test]
fn a_removed_map_element_heals() {
    heals(
        "nft flush map ip skep ports_any",
        &["change ports: remove [], add [tcp . 8080"],
    );
}

#[test]
fn a_foreign_map_element_is_removed() {
    heals(
        "nft add element ip skep ports_any '{ tcp . 99 : 10.255.0.9 . 9 }'",
        &["change ports: remove [tcp . 99 : 10.255.0.9 . 9], add []"],
    );
}

#[test]
fn a_deleted_bridge_heals() {
    heals(
        "ip link del skep0",
        &[
            "create bridge skep0",
            "add address 10.255.0.1/16",
            "route localhost",
            "activate isolated link skep0-2 for a in skep0",
        ],
    );
}

#[test]
fn a_bridge_that_is_down_heals() {
    heals("ip link set skep0 down", &["set bridge skep0"]);
}

#[test]
fn a_bridge_with_another_address_heals() {
    heals(
        "ip addr flush dev skep0 && ip addr add 10.1.1.1/24 dev skep0",
        &["remove address 10.1.1.1/24", "add address 10.255.0.1/16"],
    );
}

#[test]
fn a_deleted_link_heals() {
    heals(
        "ip link del skep0-2",
        &[
            "create isolated link skep0-2",
            "configure namespace a",
            "activate isolated link skep0-2",
        ],
    );
}

#[test]
fn a_link_out_of_the_bridge_heals() {
    heals(
        "ip link set skep0-2 nomaster",
        &["activate isolated link skep0-2 for a in skep0"],
    );
}

#[test]
fn a_port_that_lost_its_isolation_heals() {
    heals(
        "bridge link set dev skep0-2 isolated off",
        &["activate isolated link skep0-2 for a"],
    );
}

#[test]
fn a_switched_bridge_filter_switches_isolation() {
    heals(
        "busybox sysctl -w net.bridge.bridge-nf-call-iptables=1",
        &["activate link skep0-2 for a"],
    );
}

#[test]
fn a_foreign_link_with_our_name_and_a_foreign_namespace_go() {
    heals(
        "ip link add skep0-77 type veth peer name x77 && touch /run/skep/netns/zombie",
        &["delete links [skep0-77]", "delete namespace zombie"],
    );
}

#[test]
fn switched_off_forwarding_heals() {
    heals(
        "busybox sysctl -w net.ipv4.ip_forward=0",
        &["enable IP forwarding"],
    );
}

#[test]
fn attach_and_detach_heal_what_they_stumble_over() {
    on_node(async |bed| {
        let network = Network::open(config(bed)).await.unwrap();
        run("ip link del skep0");
        run("nft flush ruleset");
        let (attachment, _server) = with_container(&network).await;
        check_reachable(bed, &attachment);
        run("nft flush ruleset");
        network.detach("a").await.unwrap();
        assert!(network.reconcile().await.unwrap().steps.is_empty());
    });
}

#[test]
fn a_restarted_daemon_adopts_and_connections_live_on() {
    on_node(async |bed| {
        let network = Network::open(config(bed)).await.unwrap();
        let a = network.attach("a", &[tcp(8080, 80)], None).await.unwrap();
        let b = network.attach_none("b").await.unwrap();
        let before = network.endpoints().await.unwrap();
        let listener = inside(Some(&a.netns_path), || {
            TcpListener::bind("0.0.0.0:80").unwrap()
        });
        let connect = || TcpStream::connect("192.0.2.1:8080").unwrap();
        let mut client = inside(Some(bed.world()), connect);
        let (mut server, _) = listener.accept().unwrap();
        let mut talk = |word: &[u8; 4]| {
            client.write_all(word).unwrap();
            let mut heard = [0; 4];
            server.read_exact(&mut heard).unwrap();
            assert_eq!(&heard, word);
        };

        network.close().await;
        talk(b"down");
        let network = Network::open(config(bed)).await.unwrap();
        talk(b"back");

        assert_eq!(network.endpoints().await.unwrap(), before);
        assert_eq!(network.attach_none("b").await.unwrap(), b);
        assert!(network.reconcile().await.unwrap().steps.is_empty());
        // The port is held again, and addresses go on where they were.
        assert!(TcpListener::bind("0.0.0.0:8080").is_err());
        assert_eq!(
            network
                .attach("c", &[], None)
                .await
                .unwrap()
                .address
                .to_string(),
            "10.255.0.3/16"
        );
    });
}

#[test]
fn a_lost_mount_point_does_not_cut_a_running_container_off() {
    on_node(async |bed| {
        let network = Network::open(config(bed)).await.unwrap();
        let (attachment, server) = with_container(&network).await;
        run("umount /run/skep/netns/a");
        assert!(network.reconcile().await.unwrap().steps.is_empty());
        assert_eq!(
            ask(Protocol::Tcp, Some(bed.world()), "192.0.2.1:8080").unwrap(),
            "192.0.2.2"
        );
        drop(server);
        // Whoever attaches it again wants a new namespace.
        let (again, _server) = with_container(&network).await;
        assert_eq!(again, attachment);
        check_reachable(bed, &again);
    });
}

#[test]
fn another_subnet_is_refused_while_endpoints_have_addresses() {
    on_node(async |bed| {
        let network = Network::open(config(bed)).await.unwrap();
        network.attach("a", &[], None).await.unwrap();
        network.close().await;
        let other = Config {
            layout: Layout {
                v4: "10.9.0.0/24".parse().unwrap(),
                ..Layout::default()
            },
            ..config(bed)
        };
        assert!(matches!(
            Network::open(other.clone()).await,
            Err(Error::SubnetChanged(_))
        ));
        let network = Network::open(config(bed)).await.unwrap();
        network.detach("a").await.unwrap();
        network.close().await;
        let network = Network::open(other).await.unwrap();
        let a = network.attach("a", &[], None).await.unwrap();
        assert_eq!(a.address.to_string(), "10.9.0.2/24");
        assert!(network.reconcile().await.unwrap().steps.is_empty());
    });
}

#[test]
fn foreign_chains_that_drop_forwarded_packets_are_reported_and_left_alone() {
    on_node(async |bed| {
        let network = Network::open(config(bed)).await.unwrap();
        assert!(network.reconcile().await.unwrap().obstacles.is_empty());
        let chain = "{ type filter hook forward priority 0; policy drop; }";
        run(&format!(
            "nft 'add table ip filter; add chain ip filter FORWARD {chain}'"
        ));
        let report = network.reconcile().await.unwrap();
        assert_eq!(report.obstacles, ["ip filter FORWARD"]);
        network.remove().await.unwrap();
        assert!(run("nft list ruleset").contains("FORWARD"));
    });
}

/// What breaks the node network from outside, each repaired without anybody asking.
const HARMS: [&str; 10] = [
    "nft flush ruleset",
    "nft delete table ip skep",
    "nft flush chain ip6 skep nat_pre",
    "nft flush map ip skep ports_any",
    "ip link del skep0",
    "ip link set skep0 down",
    "ip link set skep0-2 down",
    "ip link del skep0-2",
    "ip addr flush dev skep0",
    "ip route del 10.252.7.0/24",
];

#[test]
fn what_others_break_heals_by_itself_within_seconds_and_connections_survive() {
    on_node(async |bed| {
        let config = Config {
            layout: Layout {
                v4: "10.252.7.0/24".parse().unwrap(),
                v6: Some("fd00:252:0:7::/64".parse().unwrap()),
                ..Layout::default()
            },
            ..config(bed)
        };
        let network = Network::open(config).await.unwrap();
        network.tx.send(Command::Heal).unwrap();
        let a = network.attach("a", &[tcp(8080, 80)], None).await.unwrap();
        let listener = inside(Some(&a.netns_path), || {
            TcpListener::bind("[::]:80").unwrap()
        });
        let connect = || TcpStream::connect("192.0.2.1:8080").unwrap();
        let mut client = inside(Some(bed.world()), connect);
        let (mut server, _) = listener.accept().unwrap();
        // Other programs' tables are nobody's business of ours.
        let others = "add table ip filter; add chain ip filter DOCKER-USER";
        for harm in HARMS {
            run(&format!("nft '{others}'"));
            run(harm);
            let start = std::time::Instant::now();
            for to in ["192.0.2.1:8080", "[2001:db8::1]:8080"] {
                // Accepted by the listening socket's queue, without anybody answering.
                let to: std::net::SocketAddr = to.parse().unwrap();
                let wait = std::time::Duration::from_millis(200);
                let is_open = || {
                    inside(Some(bed.world()), move || {
                        TcpStream::connect_timeout(&to, wait)
                    })
                    .is_ok()
                };
                while !is_open() {
                    assert!(start.elapsed().as_secs() < 3, "{to} after `{harm}`");
                }
            }
            if harm == "ip link del skep0-2" {
                // The container's address went with its interface and came back: its connections live on.
                continue;
            }
            client.write_all(b"word").unwrap();
            let mut heard = [0; 4];
            server.read_exact(&mut heard).unwrap();
            if harm != "nft flush ruleset" {
                assert!(run("nft list tables").contains("ip filter"), "{harm}");
            }
        }
        assert_eq!(network.reconcile().await.unwrap().steps, []);
    });
}
