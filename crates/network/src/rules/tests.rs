//! Snapshots of transactions. That `nft` takes them is seen in the kernel tests.

use super::*;

fn rule(host_ip: [u8; 4], protocol: Protocol, published: u16) -> PortRule {
    let port = HostPort {
        protocol,
        host_ip: host_ip.into(),
        published,
        target: 80,
    };
    PortRule::new([10, 255, 0, 2].into(), &port)
}

fn ports() -> BTreeSet<PortRule> {
    BTreeSet::from([
        rule([0, 0, 0, 0], Protocol::Tcp, 8080),
        rule([0, 0, 0, 0], Protocol::Sctp, 9),
        rule([127, 0, 0, 1], Protocol::Udp, 53),
    ])
}

#[test]
fn the_table_is_replaced_in_one_transaction() {
    let ruleset = Ruleset::new("skep0", "10.255.0.0/16".parse().unwrap());
    insta::assert_snapshot!(ruleset.replace_script(&ports()));
}

#[test]
fn ports_change_element_by_element() {
    let add = BTreeSet::from([rule([0, 0, 0, 0], Protocol::Tcp, 81)]);
    insta::assert_snapshot!(change_script(&ports(), &add), @r"
    delete element ip skep ports_any { tcp . 8080, sctp . 9 }
    delete element ip skep ports_addr { 127.0.0.1 . udp . 53 }
    add element ip skep ports_any { tcp . 81 : 10.255.0.2 . 80 }
    ");
}

#[test]
fn rules_of_another_bridge_or_subnet_have_another_digest() {
    let subnet = "10.255.0.0/16".parse().unwrap();
    let digest = Ruleset::new("skep0", subnet).digest();
    assert_eq!(Ruleset::new("skep0", subnet).digest(), digest);
    assert_ne!(Ruleset::new("skep1", subnet).digest(), digest);
    assert_ne!(
        Ruleset::new("skep0", "10.9.0.0/16".parse().unwrap()).digest(),
        digest
    );
}
