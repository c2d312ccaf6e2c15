//! The nft table of networks on bridges of this node, as text. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ipnet::IpNet;

use super::{Kind, LocalNetwork};
use crate::digest::fnv1a;
use crate::rules::DIGEST_PREFIX;

/// Our table. Both families, for bridges have both.
pub(super) const TABLE: &str = "inet skep_local";

/// The rules of all networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rules {
    leave: Vec<String>,
    forward: Vec<String>,
}

// === impl Rules ===

impl Rules {
    pub(super) fn new(networks: &BTreeMap<String, LocalNetwork>) -> Rules {
        let mut rules = Rules {
            leave: Vec::new(),
            forward: Vec::new(),
        };
        for network in networks.values() {
            rules.add(network);
        }
        rules
    }

    fn add(&mut self, network: &LocalNetwork) {
        let Kind::Bridge {
            name,
            has_icc,
            has_masquerade,
        } = &network.kind
        else {
            return;
        };
        let (inside, outside) = (format!("iifname \"{name}\""), format!("oifname \"{name}\""));
        for (subnet, _) in &network.subnets {
            let ip = match subnet {
                IpNet::V4(_) => "ip",
                IpNet::V6(_) => "ip6",
            };
            if *has_masquerade && !network.is_internal {
                let away = format!("oifname != {{ \"{name}\", \"lo\" }}");
                self.leave
                    .push(format!("{ip} saddr {subnet} {away} masquerade"));
            }
        }
        let among = if *has_icc { "accept" } else { "drop" };
        self.forward.push(format!("{inside} {outside} {among}"));
        if network.is_internal {
            self.forward.push(format!("{inside} drop"));
            self.forward.push(format!("{outside} drop"));
            return;
        }
        self.forward
            .push(format!("{outside} ct state established,related accept"));
        // Other networks to it, and the world to addresses of containers.
        self.forward.push(format!("{outside} drop"));
    }

    /// Whether nothing needs a rule.
    pub(super) fn is_empty(&self) -> bool {
        self.forward.is_empty()
    }

    /// Names the rules: equal for equal rules.
    pub(super) fn digest(&self) -> String {
        format!("{:016x}", fnv1a(self.body().as_bytes()))
    }

    pub(super) fn rule_count(&self) -> usize {
        self.leave.len() + self.forward.len()
    }

    /// A transaction that replaces the table, whatever it was; without rules there is none.
    pub(super) fn script(&self) -> String {
        let remove = format!("add table {TABLE}\ndelete table {TABLE}\n");
        if self.is_empty() {
            return remove;
        }
        let digest = self.digest();
        let body = self.body();
        format!("{remove}table {TABLE} {{\n  chain {DIGEST_PREFIX}{digest} {{ }}\n{body}}}\n")
    }

    fn body(&self) -> String {
        let mut text = String::new();
        for (chain, hook, rules) in [
            (
                "leave",
                "type nat hook postrouting priority srcnat; policy accept;",
                &self.leave,
            ),
            (
                "forward",
                "type filter hook forward priority filter; policy accept;",
                &self.forward,
            ),
        ] {
            writeln!(text, "  chain {chain} {{\n    {hook}").expect("writing to a string succeeds");
            for rule in rules {
                writeln!(text, "    {rule}").expect("writing to a string succeeds");
            }
            text.push_str("  }\n");
        }
        text
    }
}
