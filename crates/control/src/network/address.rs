//! Choosing one address of a network.

use std::net::IpAddr;

use ipnet::IpNet;
use skep_model::{IpamConfig, Network, NetworkId, object::network::next};
use skep_store::{Addresses, NetworkTables};

/// Whether the network has subnets of the family.
pub(super) fn has_family(network: &Network, is_v4: bool) -> bool {
    subnets(network, is_v4).next().is_some()
}

/// A free address of the family; `None` when the subnets of the family are used up.
pub(super) fn choose(tables: &NetworkTables, network: &Network, is_v4: bool) -> Option<IpNet> {
    let mut subnets = subnets(network, is_v4);
    subnets.find_map(|config| choose_in(tables, network, config))
}

/// The wanted address with its subnet's prefix length, when a subnet has it and it is free.
pub(super) fn claim(tables: &NetworkTables, network: &Network, wanted: IpAddr) -> Option<IpNet> {
    let config = network.subnets().find(|config| {
        let bounds = config.bounds();
        bounds.is_some_and(|(first, last)| {
            first.is_ipv4() == wanted.is_ipv4() && (first..=last).contains(&wanted)
        })
    })?;
    let is_free = !tables.addresses().is_held(network.id, wanted);
    is_free.then(|| with_prefix(config, wanted)).flatten()
}

/// Whether an address given out earlier still lies in the network.
pub(super) fn fits(network: &Network, address: IpNet) -> bool {
    let mut subnets = network.subnets().filter_map(|config| config.subnet);
    subnets.any(|subnet| {
        subnet.contains(&address.addr()) && subnet.prefix_len() == address.prefix_len()
    })
}

fn subnets(network: &Network, is_v4: bool) -> impl Iterator<Item = &IpamConfig> {
    let subnets = network.subnets();
    subnets.filter(move |c| {
        c.subnet
            .is_some_and(|subnet| subnet.addr().is_ipv4() == is_v4)
    })
}

/// Behind all addresses in use, or last used by tasks still known; when the end of the subnet is
/// reached, the lowest free one.
fn choose_in(tables: &NetworkTables, network: &Network, config: &IpamConfig) -> Option<IpNet> {
    let free = choose_between(tables, tables.addresses(), network.id, config.bounds()?)?;
    with_prefix(config, free)
}

/// The same from `first` to `last`, where `addresses` says what is in use.
pub(super) fn choose_between(
    tables: &NetworkTables,
    addresses: &Addresses,
    network: NetworkId,
    (first, last): (IpAddr, IpAddr),
) -> Option<IpAddr> {
    let held = addresses.last_held(network, first, last);
    let former = tables.last_former(network, first, last);
    let behind = held.max(former).and_then(next).unwrap_or(first);
    if behind <= last {
        Some(behind)
    } else {
        addresses.first_free(network, first, last)
    }
}

fn with_prefix(config: &IpamConfig, ip: IpAddr) -> Option<IpNet> {
    IpNet::new(ip, config.subnet?.prefix_len()).ok()
}
