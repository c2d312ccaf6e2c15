//! The nodes' own addresses, which no network of the cluster may have: a container would take a node
//! for a neighbour, and a node with such a container would lose the way to the other.

use std::net::IpAddr;

use ipnet::IpNet;
use skep_model::{Node, reserved::engine::DataPlane};
use skep_store::Store;

/// All addresses by which nodes are known, each with its node's name. Whoever asks for a subnet with one of them is refused.
pub(crate) fn addresses(view: &Store) -> impl Iterator<Item = (IpNet, String)> {
    view.nodes().flat_map(|node| {
        let name = match node.hostname() {
            "" => node.id.to_string(),
            name => name.to_owned(),
        };
        let known = known(node).into_iter();
        known.map(move |ip| (IpNet::from(ip), name.clone()))
    })
}

/// All addresses that nodes have, by which they are known or not. No subnet is chosen that has one of them.
pub(crate) fn all_addresses(view: &Store) -> impl Iterator<Item = IpNet> {
    view.nodes().flat_map(|node| {
        let told = node.description.as_ref().map(DataPlane::of);
        let told = told.into_iter().flat_map(|told| told.addresses);
        told.chain(known(node)).map(IpNet::from)
    })
}

/// Loopback addresses are of clusters on one machine, and nobody else's.
fn known(node: &Node) -> Vec<IpAddr> {
    let told = node.description.as_ref().map(DataPlane::of);
    let seen = node.status.addr.parse::<IpAddr>().ok();
    let known = [seen, told.and_then(|told| told.data_path)];
    let known = known.into_iter().flatten();
    known
        .filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
        .collect()
}
