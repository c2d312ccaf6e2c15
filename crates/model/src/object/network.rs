//! A network as stored, and the place of a task or node on it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;

use crate::{
    id::NetworkId,
    object::Meta,
    spec::{Driver, IpamConfig, IpamOptions, NetworkSpec, VXLAN_IDS_OPTION},
};

/// A network as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its id.
    pub id: NetworkId,
    /// Bookkeeping.
    pub meta: Meta,
    /// What is wanted.
    pub spec: NetworkSpec,
    /// Driver with what was allocated for it, such as VXLAN ids; `None`: not allocated yet.
    pub driver_state: Option<Driver>,
    /// Subnets and gateways allocated; `None`: not allocated yet.
    pub ipam: Option<IpamOptions>,
    /// Removal is under way; kept for formats written by Docker.
    pub is_pending_delete: bool,
}

impl Network {
    /// The network's name.
    pub fn name(&self) -> &str {
        &self.spec.annotations.name
    }

    /// Whether it has all that a node needs of it. A dockerd that gets a task with a network of
    /// which the driver state is missing crashes, again at every start.
    pub fn is_complete(&self) -> bool {
        let ipam = self.ipam.as_ref();
        let has_driver = ipam.is_some_and(|ipam| ipam.driver.is_some());
        let has_subnet = ipam.is_some_and(|ipam| ipam.configs.iter().any(|c| c.subnet.is_some()));
        self.driver_state.is_some() && has_driver && (has_subnet || !self.spec.is_overlay())
    }

    /// Its subnets, as allocated.
    pub fn subnets(&self) -> impl Iterator<Item = &IpamConfig> {
        let configs = self.ipam.iter().flat_map(|ipam| &ipam.configs);
        configs.filter(|config| config.subnet.is_some())
    }

    /// Its VXLAN ids, one per IPv4 subnet. Texts that are no numbers are skipped.
    pub fn vxlan_ids(&self) -> impl Iterator<Item = u32> {
        let state = self.driver_state.as_ref();
        let list = state.and_then(|driver| driver.options.get(VXLAN_IDS_OPTION));
        list.into_iter()
            .flat_map(|list| list.split(','))
            .filter_map(|id| id.trim().parse().ok())
    }
}

impl IpamConfig {
    /// The first and last address that may be given out: the range, without the subnet's own and
    /// broadcast address (IPv4) or the anycast address of its routers (IPv6). `None` without
    /// subnet or when nothing is left.
    pub fn bounds(&self) -> Option<(IpAddr, IpAddr)> {
        let subnet = self.subnet?.trunc();
        let range = self.range.map_or(subnet, |range| range.trunc());
        let mut first = range.network().max(subnet.network());
        let mut last = range.broadcast().min(subnet.broadcast());
        let is_point_to_point = subnet.max_prefix_len() - subnet.prefix_len() <= 1;
        if !is_point_to_point {
            if first == subnet.network() {
                first = next(first)?;
            }
            if matches!(last, IpAddr::V4(_)) && last == subnet.broadcast() {
                last = previous(last)?;
            }
        }
        (first <= last).then_some((first, last))
    }
}

/// The address after `ip`; `None` behind the last of its family.
pub fn next(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(ip) => ip
            .to_bits()
            .checked_add(1)
            .map(Ipv4Addr::from_bits)
            .map(IpAddr::V4),
        IpAddr::V6(ip) => ip
            .to_bits()
            .checked_add(1)
            .map(Ipv6Addr::from_bits)
            .map(IpAddr::V6),
    }
}

/// The address before `ip`; `None` before the first of its family.
pub fn previous(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(ip) => ip
            .to_bits()
            .checked_sub(1)
            .map(Ipv4Addr::from_bits)
            .map(IpAddr::V4),
        IpAddr::V6(ip) => ip
            .to_bits()
            .checked_sub(1)
            .map(Ipv6Addr::from_bits)
            .map(IpAddr::V6),
    }
}

/// The place of a task, or of a node's load balancer, on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkAttachment {
    /// The network as it was when the place was allocated.
    pub network: Arc<Network>,
    /// Addresses, each with the prefix length of its subnet; none on node-local networks.
    pub addresses: Vec<IpNet>,
    /// Extra DNS names.
    pub aliases: Vec<String>,
    /// Driver options.
    pub driver_options: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(subnet: &str, range: &str, expected: Option<(&str, &str)>) {
        let config = IpamConfig {
            subnet: Some(subnet.parse().unwrap()),
            range: (!range.is_empty()).then(|| range.parse().unwrap()),
            ..IpamConfig::default()
        };
        let expected = expected.map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap()));
        assert_eq!(config.bounds(), expected);
    }

    #[test]
    fn a_subnets_own_addresses_are_not_given_out() {
        check("10.0.1.0/24", "", Some(("10.0.1.1", "10.0.1.254")));
        check("10.0.1.7/24", "", Some(("10.0.1.1", "10.0.1.254")));
        check(
            "fd00::/64",
            "",
            Some(("fd00::1", "fd00::ffff:ffff:ffff:ffff")),
        );
        check(
            "255.255.255.0/24",
            "",
            Some(("255.255.255.1", "255.255.255.254")),
        );
    }

    #[test]
    fn a_range_narrows_a_subnet() {
        check(
            "10.0.1.0/24",
            "10.0.1.128/25",
            Some(("10.0.1.128", "10.0.1.254")),
        );
        check(
            "10.0.1.0/24",
            "10.0.1.64/26",
            Some(("10.0.1.64", "10.0.1.127")),
        );
        check(
            "10.0.1.0/24",
            "10.0.0.0/16",
            Some(("10.0.1.1", "10.0.1.254")),
        );
        check("10.0.1.0/24", "10.0.2.0/24", None);
    }

    #[test]
    fn tiny_subnets_give_all_they_have() {
        check("10.0.1.0/31", "", Some(("10.0.1.0", "10.0.1.1")));
        check("10.0.1.4/32", "", Some(("10.0.1.4", "10.0.1.4")));
        check("10.0.1.0/30", "", Some(("10.0.1.1", "10.0.1.2")));
    }
}
