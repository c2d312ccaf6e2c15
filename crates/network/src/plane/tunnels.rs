//! The node's rules for tunnels: their packets are not tracked. Tracking each would cost every tunnelled packet a lookup, and the
//! table a flow for each pair of nodes and source port.

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
    },
}

/// What must be done, if anything.
pub(crate) fn plan(port: u16) -> Result<Option<Action>, ActionError> {
    let is_whole = nft::is_whole(TABLE, &digest(port), rules(port).len())?;
    Ok((!is_whole).then_some(Action::ReplaceRules { port }))
}

/// Does it, in one transaction.
pub(crate) fn perform(action: &Action) -> Result<(), ActionError> {
    let Action::ReplaceRules { port } = *action;
    Ok(nft::run(&script(port))?)
}

/// Takes the table away. A missing one is fine.
pub(crate) fn remove() -> Result<(), ActionError> {
    Ok(nft::run(&format!(
        "add table {TABLE}\ndelete table {TABLE}\n"
    ))?)
}

fn rules(port: u16) -> [String; 2] {
    let rule = |name, hook| {
        format!(
            "  chain {name} {{\n    type filter hook {hook} priority raw; policy accept;\n    udp dport {port} notrack\n  }}\n"
        )
    };
    [rule("raw_pre", "prerouting"), rule("raw_out", "output")]
}

fn digest(port: u16) -> String {
    format!("{:016x}", fnv1a(rules(port).concat().as_bytes()))
}

fn script(port: u16) -> String {
    let (prefix, digest) = (nft::DIGEST_PREFIX, digest(port));
    format!(
        "add table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n  chain {prefix}{digest} {{ }}\n{}}}\n",
        rules(port).concat()
    )
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Action::ReplaceRules { port } = self;
        write!(f, "replace rules of tunnels on port {port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_replaced_in_one_transaction() {
        insta::assert_snapshot!(script(4789));
    }
}
