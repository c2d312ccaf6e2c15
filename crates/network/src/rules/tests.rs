//! Snapshots of transactions. That `nft` takes them is seen in the kernel tests.

use super::*;

fn rule(host_ip: [u8; 4], protocol: Protocol, published: u16) -> PortRule {
    let port = HostPort {
        protocol,
        host_ip: host_ip.into(),
        published,
        target: 80,
    };
    PortRule::new([10, 255, 0, 2].into(), &port).unwrap()
}

fn ports() -> BTreeSet<PortRule> {
    BTreeSet::from([
        rule([0, 0, 0, 0], Protocol::Tcp, 8080),
        rule([0, 0, 0, 0], Protocol::Sctp, 9),
        rule([127, 0, 0, 1], Protocol::Udp, 53),
    ])
}

fn layout(v4: &str) -> Layout {
    Layout {
        v4: v4.parse().unwrap(),
        v6: Some("fd00:7::/64".parse().unwrap()),
        ..Layout::default()
    }
}

#[test]
fn the_table_is_replaced_in_one_transaction() {
    let ruleset = Ruleset::new("skep0", &layout("10.255.0.0/16"), false).unwrap();
    insta::assert_snapshot!(ruleset.replace_script(&ports()));
}

#[test]
fn the_table_of_ipv6_is_like_the_other() {
    let ruleset = Ruleset::new("skep0", &layout("10.255.0.0/16"), true).unwrap();
    insta::assert_snapshot!(ruleset.replace_script(&BTreeSet::new()));
}

#[test]
fn ports_change_element_by_element() {
    let mut add = BTreeSet::from([rule([0, 0, 0, 0], Protocol::Tcp, 81)]);
    let v6 = HostPort {
        protocol: Protocol::Tcp,
        host_ip: "2001:db8::1".parse().unwrap(),
        published: 81,
        target: 80,
    };
    add.extend(PortRule::new("fd00:7::2".parse().unwrap(), &v6));
    add.extend(PortRule::new([10, 255, 0, 2].into(), &v6));
    insta::assert_snapshot!(change_script(&ports(), &add), @r"
    delete element ip skep ports_any { tcp . 8080, sctp . 9 }
    delete element ip skep ports_addr { 127.0.0.1 . udp . 53 }
    add element ip skep ports_any { tcp . 81 : 10.255.0.2 . 80 }
    add element ip6 skep ports_addr { 2001:db8::1 . tcp . 81 : fd00:7::2 . 80 }
    ");
}

#[test]
fn rules_of_another_bridge_or_subnet_have_another_digest() {
    let digest = |bridge, v4| {
        let ruleset = Ruleset::new(bridge, &layout(v4), false);
        ruleset.unwrap().digest()
    };
    let one = digest("skep0", "10.255.0.0/16");
    assert_eq!(digest("skep0", "10.255.0.0/16"), one);
    assert_ne!(digest("skep1", "10.255.0.0/16"), one);
    assert_ne!(digest("skep0", "10.9.0.0/16"), one);
}
