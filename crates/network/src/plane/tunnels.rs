//! The node's rules for tunnels: their packets are not tracked, and containers send none. Tracking each would cost every tunnelled
//! packet a lookup, and the table a flow for each pair of nodes and source port. A container's packet would reach other nodes
//! with this node's address, and so any container on any network.

use std::fmt;

use super::hands::ActionError;
use crate::digest::fnv1a;
use crate::nft;

/// Our table. Family `inet`, so that IPv6 data paths are covered.
const TABLE: &str = "inet skep_tunnel";

/// A change of the node's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Replaces our table, whatever it was.
    ReplaceRules {
        /// UDP port of the tunnels.
        port: u16,
        /// The bridge of the node's containers; none without a node network.
        bridge: Option<String>,
    },
}

/// What must be done, if anything.
pub(crate) fn plan(port: u16, bridge: Option<&str>) -> Result<Option<Action>, ActionError> {
    let rule_count = rules(port, bridge).len() + usize::from(bridge.is_some());
    let is_whole = nft::is_whole(TABLE, &digest(port, bridge), rule_count)?;
    let bridge = bridge.map(str::to_owned);
    Ok((!is_whole).then_some(Action::ReplaceRules { port, bridge }))
}

/// Does it, in one transaction.
pub(crate) fn perform(action: &Action) -> Result<(), ActionError> {
    let Action::ReplaceRules { port, bridge } = action;
    Ok(nft::run(&script(*port, bridge.as_deref()))?)
}

/// Takes the table away. A missing one is fine.
pub(crate) fn remove() -> Result<(), ActionError> {
    Ok(nft::run(&format!(
        "add table {TABLE}\ndelete table {TABLE}\n"
    ))?)
}

fn rules(port: u16, bridge: Option<&str>) -> [String; 2] {
    let rule = |name, hook, first: &str| {
        format!(
            "  chain {name} {{\n    type filter hook {hook} priority raw; policy accept;\n{first}    udp dport {port} notrack\n  }}\n"
        )
    };
    let drop = bridge.map(|bridge| format!("    iifname \"{bridge}\" udp dport {port} drop\n"));
    let drop = drop.unwrap_or_default();
    [
        rule("raw_pre", "prerouting", &drop),
        rule("raw_out", "output", ""),
    ]
}

fn digest(port: u16, bridge: Option<&str>) -> String {
    format!("{:016x}", fnv1a(rules(port, bridge).concat().as_bytes()))
}

fn script(port: u16, bridge: Option<&str>) -> String {
    let (prefix, digest) = (nft::DIGEST_PREFIX, digest(port, bridge));
    format!(
        "add table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n  chain {prefix}{digest} {{ }}\n{}}}\n",
        rules(port, bridge).concat()
    )
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Action::ReplaceRules { port, .. } = self;
        write!(f, "replace rules of tunnels on port {port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_replaced_in_one_transaction() {
        insta::assert_snapshot!(script(4789, Some("skep0")));
    }
}
