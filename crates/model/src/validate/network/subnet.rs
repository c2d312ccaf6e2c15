//! Rules of one subnet: where it may lie, and what lies in it.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use super::{PREFIX_LEN_MAX_V4, PREFIX_LEN_MAX_V6};
use crate::{spec::IpamConfig, validate::Problem};

/// Addresses no network can have, and what they are for. A node would lose its own use of them.
const RESERVED: [(&str, &str); 9] = [
    ("0.0.0.0/8", "addresses of no host"),
    ("127.0.0.0/8", "loopback addresses"),
    ("169.254.0.0/16", "link-local addresses"),
    ("224.0.0.0/4", "multicast addresses"),
    ("240.0.0.0/4", "reserved addresses"),
    ("::/127", "the unspecified and the loopback address"),
    ("::ffff:0:0/96", "IPv4 addresses in IPv6"),
    ("fe80::/10", "link-local addresses"),
    ("ff00::/8", "multicast addresses"),
];

/// What is wrong with a subnet and the addresses in it.
pub(super) fn problems(config: &IpamConfig) -> Vec<Problem> {
    let Some(subnet) = config.subnet else {
        return vec![problem("invalid subnet ")];
    };
    let mut found = Vec::new();
    let prefix_len_max = if subnet.addr().is_ipv4() {
        PREFIX_LEN_MAX_V4
    } else {
        PREFIX_LEN_MAX_V6
    };
    if subnet.prefix_len() > prefix_len_max {
        found.push(format!(
            "subnet {subnet} is too small: at most /{prefix_len_max}"
        ));
    }
    if let Some((reserved, purpose)) = reserved(subnet) {
        found.push(format!("subnet {subnet} has {purpose} ({reserved})"));
    }
    if let Some(range) = config.range
        && (!subnet.contains(&range.addr()) || range.prefix_len() < subnet.prefix_len())
    {
        found.push(format!("subnet {subnet} does not contain range {range}"));
    }
    if let Some(gateway) = config.gateway {
        found.extend(misplaced(subnet, gateway, &format!("gateway {gateway}")));
    }
    found.extend(reserved_addresses(config, subnet));
    found.iter().map(|text| problem(text)).collect()
}

fn problem(text: &str) -> Problem {
    Problem(format!("ipam configuration: {text}"))
}

fn reserved(subnet: IpNet) -> Option<(IpNet, &'static str)> {
    let nets = RESERVED.iter().filter_map(|(net, purpose)| {
        let net: IpNet = net.parse().ok()?;
        Some((net, *purpose))
    });
    let mut nets = nets.filter(|(net, _)| net.contains(&subnet) || subnet.contains(net));
    nets.next()
}

/// Why an address cannot be somebody's in the subnet.
fn misplaced(subnet: IpNet, address: IpAddr, name: &str) -> Option<String> {
    if !subnet.contains(&address) {
        return Some(format!("subnet {subnet} does not contain {name}"));
    }
    if subnet.prefix_len() + 1 >= subnet.max_prefix_len() {
        return None;
    }
    let what = if address == subnet.network() {
        "network"
    } else if address.is_ipv4() && address == subnet.broadcast() {
        "broadcast"
    } else {
        return None;
    };
    Some(format!("{name} is the {what} address of subnet {subnet}"))
}

fn reserved_addresses(config: &IpamConfig, subnet: IpNet) -> Vec<String> {
    let mut found = Vec::new();
    let mut holders = BTreeMap::<IpAddr, &String>::new();
    for (name, &address) in &config.reserved {
        let shown = format!("auxiliary address {name}={address}");
        found.extend(misplaced(subnet, address, &shown));
        if config.gateway == Some(address) {
            found.push(format!("{shown} is the gateway of subnet {subnet}"));
        }
        if let Some(other) = holders.insert(address, name) {
            found.push(format!("{shown} is also called {other}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(subnet: &str, change: impl FnOnce(&mut IpamConfig), expected: &[&str]) {
        let mut config = IpamConfig {
            subnet: Some(subnet.parse().unwrap()),
            ..IpamConfig::default()
        };
        change(&mut config);
        let expected: Vec<Problem> = expected.iter().map(|text| problem(text)).collect();
        assert_eq!(problems(&config), expected);
    }

    #[test]
    fn addresses_that_nodes_need_themselves_are_refused() {
        for (subnet, text) in [
            ("127.3.0.0/16", "loopback addresses (127.0.0.0/8)"),
            ("0.0.0.0/0", "addresses of no host (0.0.0.0/8)"),
            ("0.1.0.0/16", "addresses of no host (0.0.0.0/8)"),
            ("169.254.7.0/24", "link-local addresses (169.254.0.0/16)"),
            ("239.1.0.0/16", "multicast addresses (224.0.0.0/4)"),
            ("255.0.0.0/24", "reserved addresses (240.0.0.0/4)"),
            ("fe80::/64", "link-local addresses (fe80::/10)"),
            ("ff02::/64", "multicast addresses (ff00::/8)"),
        ] {
            check(subnet, |_| (), &[&format!("subnet {subnet} has {text}")]);
        }
        check("10.0.0.0/8", |_| (), &[]);
        check("fd00::/64", |_| (), &[]);
    }

    #[test]
    fn gateways_are_addresses_of_hosts() {
        let gateway = |text: &'static str| move |c: &mut IpamConfig| c.gateway = text.parse().ok();
        let subnet = "10.1.0.0/24";
        check(subnet, gateway("10.1.0.254"), &[]);
        check(
            subnet,
            gateway("10.1.0.0"),
            &["gateway 10.1.0.0 is the network address of subnet 10.1.0.0/24"],
        );
        check(
            subnet,
            gateway("10.1.0.255"),
            &["gateway 10.1.0.255 is the broadcast address of subnet 10.1.0.0/24"],
        );
        check(
            subnet,
            gateway("10.2.0.1"),
            &["subnet 10.1.0.0/24 does not contain gateway 10.2.0.1"],
        );
        check(
            "fd00:1::/64",
            gateway("fd00:1::"),
            &["gateway fd00:1:: is the network address of subnet fd00:1::/64"],
        );
    }

    #[test]
    fn addresses_of_others_are_of_hosts_and_of_one_each() {
        check(
            "10.1.0.0/24",
            |config| {
                config.gateway = "10.1.0.1".parse().ok();
                for (name, address) in [("a", "10.1.0.1"), ("b", "10.1.0.9"), ("c", "10.1.0.9")] {
                    let address = address.parse().unwrap();
                    config.reserved.insert(name.to_owned(), address);
                }
            },
            &[
                "auxiliary address a=10.1.0.1 is the gateway of subnet 10.1.0.0/24",
                "auxiliary address c=10.1.0.9 is also called b",
            ],
        );
    }
}
