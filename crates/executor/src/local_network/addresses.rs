//! Which subnets networks of this node get, and which addresses containers get on them. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use skep_model::{MACVLAN_DRIVER, object::network::next};

use super::{Definition, Error, Subnet, host::Host};

/// Pools of subnets and the size of each, as Docker's; the first is its default bridge's.
const POOLS: [(Ipv4Addr, u8, u8); 6] = [
    (Ipv4Addr::new(172, 18, 0, 0), 16, 16),
    (Ipv4Addr::new(172, 19, 0, 0), 16, 16),
    (Ipv4Addr::new(172, 20, 0, 0), 14, 16),
    (Ipv4Addr::new(172, 24, 0, 0), 14, 16),
    (Ipv4Addr::new(172, 28, 0, 0), 14, 16),
    (Ipv4Addr::new(192, 168, 0, 0), 16, 20),
];
/// Prefix length of IPv6 subnets that are chosen.
const PREFIX_LEN_V6: u8 = 64;
/// Addresses looked at for a free one: more containers no bridge can have.
const CANDIDATES_MAX: usize = 4096;

/// What is in use already.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    host: &'a Host,
    others: Vec<(&'a str, IpNet)>,
    bridges: BTreeMap<String, &'a Definition>,
}

/// Addresses of a network's containers.
#[derive(Debug, Default)]
pub(super) struct Claims {
    by_container: BTreeMap<String, Vec<IpNet>>,
    /// The last given out of each family: reused as late as possible.
    last: [Option<IpAddr>; 2],
}

// === impl Taken ===

impl<'a> Taken<'a> {
    pub(super) fn new(host: &'a Host, others: impl Iterator<Item = &'a Definition>) -> Self {
        let (mut nets, mut bridges) = (Vec::new(), BTreeMap::new());
        for other in others.filter(|other| !other.is_config_only) {
            let subnets = other.subnets.iter();
            nets.extend(subnets.map(|one| (other.name.as_str(), one.subnet)));
            bridges.extend(other.bridge().map(|bridge| (bridge, other)));
        }
        Self {
            host,
            others: nets,
            bridges,
        }
    }

    /// Refuses what is in the way of others, and chooses what is left open.
    pub(super) fn complete(&self, definition: &mut Definition) -> Result<(), Error> {
        self.check_bridge(definition)?;
        for subnet in definition.subnets.iter().map(|one| one.subnet) {
            self.check(definition, subnet)?;
        }
        for is_v4 in [true, false] {
            let mut subnets = definition.subnets.iter();
            let has_one = subnets.any(|one| one.subnet.addr().is_ipv4() == is_v4);
            if has_one || !(is_v4 || definition.has_ipv6) {
                continue;
            }
            let subnet = if is_v4 {
                self.choose().ok_or(Error::PoolsExhausted)?
            } else {
                private_subnet(&definition.id)
            };
            let subnet = Subnet {
                subnet,
                range: None,
                gateway: None,
                reserved: BTreeMap::new(),
            };
            let at = if is_v4 { 0 } else { definition.subnets.len() };
            definition.subnets.insert(at, subnet);
        }
        for subnet in &mut definition.subnets {
            complete(subnet)?;
        }
        Ok(())
    }

    fn check_bridge(&self, definition: &Definition) -> Result<(), Error> {
        let Some(bridge) = definition.bridge() else {
            return Ok(());
        };
        if bridge == self.host.node_bridge {
            let message = format!(
                "cannot create network {} ({bridge}): it is the bridge of the node network",
                definition.id
            );
            return Err(Error::Forbidden(message));
        }
        if let Some(other) = self.bridges.get(&bridge) {
            let message = format!(
                "cannot create network {} ({bridge}): conflicts with network {} ({bridge}): networks \
                 have same bridge name",
                definition.id, other.id
            );
            return Err(Error::Forbidden(message));
        }
        Ok(())
    }

    /// A macvlan is on a network the node may be on itself; a bridge that had such addresses would cut
    /// the node off.
    fn check(&self, definition: &Definition, subnet: IpNet) -> Result<(), Error> {
        let text = "invalid pool request: Pool overlaps with other one on this address space";
        if let Some((name, other)) = self.others.iter().find(|(_, net)| overlap(net, &subnet)) {
            let message = format!("{text}: {subnet} and {other} of network {name}");
            return Err(Error::Forbidden(message));
        }
        if definition.driver == MACVLAN_DRIVER {
            return Ok(());
        }
        let bridge = definition.bridge().unwrap_or_default();
        let mut in_way = self.host.addresses.iter();
        if let Some((link, ip)) = in_way.find(|(link, ip)| *link != bridge && subnet.contains(ip)) {
            let message = format!("{text}: {subnet} has address {ip} of the node's link {link}");
            return Err(Error::Forbidden(message));
        }
        let mut routes = self.host.node_network();
        if let Some(route) = routes.find(|route| overlap(&IpNet::V4(*route), &subnet)) {
            let message = format!("{text}: {subnet} and {route} of the node network");
            return Err(Error::Forbidden(message));
        }
        Ok(())
    }

    fn choose(&self) -> Option<IpNet> {
        let pools = POOLS.iter().flat_map(|(addr, prefix, size)| {
            let pool = Ipv4Net::new(*addr, *prefix).expect("a pool's prefix fits IPv4");
            pool.subnets(*size).expect("subnets of a pool are smaller")
        });
        let is_free = |subnet: &Ipv4Net| {
            let net = IpNet::V4(*subnet);
            let in_use = self.others.iter().any(|(_, other)| overlap(other, &net));
            !in_use && !self.host.uses(*subnet)
        };
        pools.into_iter().find(is_free).map(IpNet::V4)
    }
}

/// The gateway is the first address that may be given out, as in Docker.
fn complete(subnet: &mut Subnet) -> Result<(), Error> {
    if subnet.gateway.is_some() {
        return Ok(());
    }
    let bounds = subnet.to_config().bounds();
    let taken: BTreeSet<IpAddr> = subnet.reserved.values().copied().collect();
    let free = bounds.and_then(|bounds| first_free(bounds, bounds.0, |ip| taken.contains(&ip)));
    let Some(gateway) = free else {
        let message = format!("subnet {} has no address left for a gateway", subnet.subnet);
        return Err(Error::Invalid(vec![message]));
    };
    subnet.gateway = Some(gateway);
    Ok(())
}

/// A private /64 (RFC 4193) made of the network's id, as nobody else has.
fn private_subnet(id: &str) -> IpNet {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in id.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let bits = (0xfd_u128 << 120) | (u128::from(hash >> 8) << 64);
    let net = Ipv6Net::new(bits.into(), PREFIX_LEN_V6).expect("64 is a prefix length");
    IpNet::V6(net)
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// The first free address from `start` on, beginning again at the lower bound.
fn first_free(
    (low, high): (IpAddr, IpAddr),
    start: IpAddr,
    is_taken: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let mut candidate = start;
    for _ in 0..CANDIDATES_MAX {
        if candidate > high || candidate < low {
            candidate = low;
        }
        if !is_taken(candidate) {
            return Some(candidate);
        }
        candidate = next(candidate).unwrap_or(low);
        if candidate == start {
            return None;
        }
    }
    None
}

// === impl Claims ===

impl Claims {
    pub(super) fn is_empty(&self) -> bool {
        self.by_container.is_empty()
    }

    /// A container has these.
    pub(super) fn insert(&mut self, container: &str, addresses: &[IpNet]) {
        for net in addresses {
            self.last[usize::from(net.addr().is_ipv6())] = Some(net.addr());
        }
        self.by_container
            .insert(container.to_owned(), addresses.to_vec());
    }

    /// Whether the container had any.
    pub(super) fn remove(&mut self, container: &str) -> bool {
        self.by_container.remove(container).is_some()
    }

    /// One address of each family the network has, IPv4 first; `None` when none is left.
    pub(super) fn choose(&mut self, container: &str, network: &Definition) -> Option<Vec<IpNet>> {
        if let Some(known) = self.by_container.get(container) {
            return Some(known.clone());
        }
        let taken: BTreeSet<IpAddr> = self
            .by_container
            .values()
            .flatten()
            .map(IpNet::addr)
            .collect();
        let mut chosen = Vec::new();
        for is_v4 in [true, false] {
            let of_family = |one: &&Subnet| one.subnet.addr().is_ipv4() == is_v4;
            let subnets: Vec<&Subnet> = network.subnets.iter().filter(of_family).collect();
            if subnets.is_empty() {
                continue;
            }
            let last = self.last[usize::from(!is_v4)];
            let mut addresses = subnets.iter().filter_map(|one| free_in(one, last, &taken));
            chosen.push(addresses.next()?);
        }
        self.insert(container, &chosen);
        Some(chosen)
    }
}

fn free_in(subnet: &Subnet, last: Option<IpAddr>, taken: &BTreeSet<IpAddr>) -> Option<IpNet> {
    let bounds = subnet.to_config().bounds()?;
    let behind = last.filter(|ip| subnet.subnet.contains(ip)).and_then(next);
    let is_taken = |ip: IpAddr| {
        taken.contains(&ip)
            || subnet.gateway == Some(ip)
            || subnet.reserved.values().any(|other| *other == ip)
    };
    let ip = first_free(bounds, behind.unwrap_or(bounds.0), is_taken)?;
    IpNet::new(ip, subnet.subnet.prefix_len()).ok()
}
