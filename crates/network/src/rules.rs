//! The nft table as data: its rules, its elements, and the text of transactions. Pure; `nft` runs the text.
//!
//! Published ports are elements of two maps; there is no rule per container. The tables are `ip skep` and, on a node network with
//! IPv6, `ip6 skep`; nothing else is written.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::net::IpAddr;

use crate::config::Layout;
use crate::digest::fnv1a;
use crate::ports::{HostPort, Protocol};

/// Our table of each family.
pub(crate) const TABLE: &str = "ip skep";
pub(crate) const TABLE6: &str = "ip6 skep";

/// Map of ports open on all of the node's addresses.
pub(crate) const MAP_ANY: &str = "ports_any";

/// Map of ports open on one address.
pub(crate) const MAP_ADDR: &str = "ports_addr";

/// Prefix of the empty chain that carries the digest.
pub(crate) const DIGEST_PREFIX: &str = "base_";

/// Name of the tunnel to other nodes that belongs to a bridge. Links of endpoints have a hyphen there.
pub(crate) fn mesh_link(bridge: &str) -> String {
    format!("{bridge}x")
}

/// The rules of one family that do not depend on endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    is_v6: bool,
    chains: Vec<Chain>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Chain {
    name: &'static str,
    /// The hook of a base chain.
    hook: Option<&'static str>,
    rules: Vec<String>,
}

/// One element of a port map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRule {
    /// Address of the node; none for all.
    pub host_ip: Option<IpAddr>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port on the node.
    pub published: u16,
    /// Address of the container.
    pub address: IpAddr,
    /// Port of the container.
    pub target: u16,
}

/// A transaction that changes elements; `remove` must exist.
pub(crate) fn change_script(remove: &BTreeSet<PortRule>, add: &BTreeSet<PortRule>) -> String {
    let mut script = String::new();
    for (verb, rules) in [("delete", remove), ("add", add)] {
        for (is_v6, map) in [
            (false, MAP_ANY),
            (false, MAP_ADDR),
            (true, MAP_ANY),
            (true, MAP_ADDR),
        ] {
            let elements = elements(is_v6, map, rules, verb == "add");
            if !elements.is_empty() {
                let table = table(is_v6);
                writeln!(script, "{verb} element {table} {map} {{ {elements} }}")
                    .expect("writing to a string succeeds");
            }
        }
    }
    script
}

/// A transaction that removes a table, if there is one.
pub(crate) fn remove_script(table: &str) -> String {
    format!("add table {table}\ndelete table {table}\n")
}

/// The table of a family.
pub(crate) fn table(is_v6: bool) -> &'static str {
    if is_v6 { TABLE6 } else { TABLE }
}

fn elements(is_v6: bool, map: &str, rules: &BTreeSet<PortRule>, with_data: bool) -> String {
    let mut text = String::new();
    let is_here = |rule: &&PortRule| rule.map() == map && rule.address.is_ipv6() == is_v6;
    for rule in rules.iter().filter(is_here) {
        let separator = if text.is_empty() { "" } else { ", " };
        write!(text, "{separator}{}", rule.key()).expect("writing to a string succeeds");
        if with_data {
            write!(text, " : {} . {}", rule.address, rule.target)
                .expect("writing to a string succeeds");
        }
    }
    text
}

// === impl Ruleset ===

impl Ruleset {
    /// The rules for a bridge and its IPv4 addresses, or, if it has any, its IPv6 addresses.
    pub fn new(bridge: &str, layout: &Layout, is_v6: bool) -> Option<Ruleset> {
        let (ip, subnet, loopback) = match layout.v6 {
            Some(v6) if is_v6 => ("ip6", v6.trunc().to_string(), "::1"),
            None if is_v6 => return None,
            Some(_) | None => ("ip", layout.v4.trunc().to_string(), "127.0.0.0/8"),
        };
        let inside = format!("iifname \"{bridge}\"");
        let outside = format!("oifname \"{bridge}\"");
        let mesh = mesh_link(bridge);
        let chain = |name, hook, rules| Chain { name, hook, rules };
        // Neighbour discovery speaks from other addresses than the subnet's.
        let honest = if is_v6 {
            format!("{{ {subnet}, fe80::/10, :: }}")
        } else {
            subnet.clone()
        };
        let chains = vec![
            chain(
                "raw_pre",
                Some("type filter hook prerouting priority raw; policy accept;"),
                vec![
                    // `route_localnet` would let containers reach services bound to 127.0.0.1.
                    format!("{inside} {ip} daddr {loopback} drop"),
                    format!("{inside} {ip} saddr != {honest} drop"),
                ],
            ),
            chain(
                "nat_pre",
                Some("type nat hook prerouting priority dstnat; policy accept;"),
                vec!["fib daddr type local jump publish".to_owned()],
            ),
            chain(
                "nat_out",
                Some("type nat hook output priority -100; policy accept;"),
                // The kernel takes no answer to `::1` from a container, so who asks there is refused, at once.
                vec![if is_v6 {
                    "ip6 daddr != ::1 fib daddr type local jump publish".to_owned()
                } else {
                    "fib daddr type local jump publish".to_owned()
                }],
            ),
            chain(
                "nat_post",
                Some("type nat hook postrouting priority srcnat; policy accept;"),
                vec![
                    // The node to its own 127.0.0.1:port.
                    format!("{outside} {ip} saddr {loopback} masquerade"),
                    // A container to a port of the node that leads to a container.
                    format!("{outside} {ip} saddr {subnet} ct status dnat masquerade"),
                    // Containers to the world.
                    format!(
                        "oifname != {{ \"{bridge}\", \"{mesh}\", \"lo\" }} {ip} saddr {subnet} masquerade"
                    ),
                ],
            ),
            chain(
                "forward",
                Some("type filter hook forward priority filter; policy accept;"),
                vec![
                    format!("{outside} ct state established,related accept"),
                    format!("{outside} ct status dnat accept"),
                    // What other nodes translated; the mesh's own rules see to the rest.
                    format!("iifname \"{mesh}\" {outside} accept"),
                    // Containers to one another, and the world to addresses of containers.
                    format!("{outside} drop"),
                ],
            ),
            chain(
                "publish",
                None,
                vec![
                    format!("dnat {ip} to {ip} daddr . meta l4proto . th dport map @{MAP_ADDR}"),
                    format!("dnat {ip} to meta l4proto . th dport map @{MAP_ANY}"),
                ],
            ),
        ];
        Some(Ruleset { is_v6, chains })
    }

    /// Our table, with its family.
    pub fn table(&self) -> &'static str {
        table(self.is_v6)
    }

    /// Names the rules: equal for equal rules, on every version of Skep that makes the same.
    pub fn digest(&self) -> String {
        format!("{:016x}", fnv1a(self.body().as_bytes()))
    }

    /// How many rules the table has when nobody has taken any away.
    pub(crate) fn rule_count(&self) -> usize {
        self.chains.iter().map(|chain| chain.rules.len()).sum()
    }

    /// A transaction that replaces the table, whatever it was.
    pub(crate) fn replace_script(&self, ports: &BTreeSet<PortRule>) -> String {
        let digest = self.digest();
        let table = self.table();
        format!(
            "add table {table}\ndelete table {table}\ntable {table} {{\n  chain {DIGEST_PREFIX}{digest} {{ }}\n{}}}\n{}",
            self.body(),
            change_script(&BTreeSet::new(), ports)
        )
    }

    fn body(&self) -> String {
        let mut text = String::new();
        let ip = if self.is_v6 { "ip6" } else { "ip" };
        let data = format!("{ip} daddr . th dport");
        for (map, key) in [
            (MAP_ANY, "meta l4proto . th dport".to_owned()),
            (MAP_ADDR, format!("{ip} daddr . meta l4proto . th dport")),
        ] {
            writeln!(text, "  map {map} {{\n    typeof {key} : {data}\n  }}")
                .expect("writing to a string succeeds");
        }
        // Chains are jumped to, so the ones without a hook come first.
        let (inner, base): (Vec<_>, Vec<_>) =
            self.chains.iter().partition(|chain| chain.hook.is_none());
        for chain in inner.into_iter().chain(base) {
            writeln!(text, "  chain {} {{", chain.name).expect("writing to a string succeeds");
            for line in chain
                .hook
                .iter()
                .copied()
                .chain(chain.rules.iter().map(String::as_str))
            {
                writeln!(text, "    {line}").expect("writing to a string succeeds");
            }
            text.push_str("  }\n");
        }
        text
    }
}

// === impl PortRule ===

impl PortRule {
    /// The element that leads `port` to a container's address; none if the port is open on an address of the other family.
    pub fn new(address: IpAddr, port: &HostPort) -> Option<PortRule> {
        let host_ip = (!port.host_ip.is_unspecified()).then_some(port.host_ip);
        if host_ip.is_some_and(|ip| ip.is_ipv4() != address.is_ipv4()) {
            return None;
        }
        Some(PortRule {
            host_ip,
            protocol: port.protocol,
            published: port.published,
            address,
            target: port.target,
        })
    }

    /// Whether it belongs to the table of IPv6.
    pub(crate) fn is_v6(&self) -> bool {
        self.address.is_ipv6()
    }

    fn map(&self) -> &'static str {
        if self.host_ip.is_some() {
            MAP_ADDR
        } else {
            MAP_ANY
        }
    }

    pub(crate) fn key(&self) -> String {
        match self.host_ip {
            Some(ip) => format!("{ip} . {} . {}", self.protocol, self.published),
            None => format!("{} . {}", self.protocol, self.published),
        }
    }
}

impl fmt::Display for PortRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} : {} . {}", self.key(), self.address, self.target)
    }
}

#[cfg(test)]
mod tests;
