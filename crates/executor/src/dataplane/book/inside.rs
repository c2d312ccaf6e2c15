//! Nodes whose own addresses lie in the subnet of a network. Pure.
//!
//! A subnet with an address by which a node is known is refused when the network is made, and none is chosen that has any address of a
//! node (`skep_control::network`). But nodes join, and addresses change, later.

use std::{collections::BTreeSet, net::IpAddr};

use super::Book;

/// Addresses that are named for each network; more are counted.
const NAMED_COUNT_MAX: usize = 4;

// === impl Book ===

impl Book {
    /// Nodes that containers on a network of this node cannot reach, because the network has their addresses, in words.
    pub fn nodes_inside(&self) -> Vec<String> {
        let nodes = self.directory.nodes.values();
        let known = nodes.flat_map(|node| node.addresses.iter().chain(&node.data_path));
        let known: BTreeSet<&IpAddr> = known.collect();
        let networks = self.networks.values();
        let texts = networks.filter_map(|network| {
            let inside: Vec<_> = known.iter().filter(|ip| network.has(ip)).collect();
            let named = inside.iter().take(NAMED_COUNT_MAX);
            let mut named: Vec<String> = named.map(ToString::to_string).collect();
            let more = inside.len().saturating_sub(NAMED_COUNT_MAX);
            if more > 0 {
                named.push(format!("{more} more"));
            }
            let name = network.name();
            (!inside.is_empty()).then(|| {
                format!(
                    "network `{name}` has addresses of nodes in its subnet ({}), which its containers cannot reach: give \
                     the network another subnet, or the nodes other addresses",
                    named.join(", ")
                )
            })
        });
        texts.collect()
    }
}
