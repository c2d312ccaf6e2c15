//! What a new network gets: driver state, subnets, gateways, VXLAN ids.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use skep_model::{
    AddressFamily, Annotations, ClusterId, DEFAULT_IPAM_DRIVER, Driver, INGRESS_NETWORK,
    IpamConfig, IpamOptions, NetworkId, NetworkSpec, PREDEFINED_LABEL, PREDEFINED_NETWORKS,
    VXLAN_IDS_OPTION,
    object::network::next,
    validate::network::{VXLAN_ID_MAX, VXLAN_ID_START},
};
use skep_store::{NetworkTables, Store};

use crate::network::hosts;

/// Prefix length of IPv6 subnets that are chosen: what every IPv6 host expects.
const PREFIX_LEN_V6: u8 = 64;
/// Prefix length of IPv4 subnets when the cluster does not say, as in Swarm.
const PREFIX_LEN_V4: u8 = 24;

/// What a network was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// Driver with its options.
    pub driver_state: Driver,
    /// Subnets and gateways.
    pub ipam: IpamOptions,
}

/// Why a network cannot be given what it wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A subnet shares addresses with another network's.
    #[error(
        "Pool overlaps with other one on this address space: {subnet} and {other} of network {network}"
    )]
    Overlap {
        /// The wanted subnet.
        subnet: IpNet,
        /// The subnet in its way.
        other: IpNet,
        /// Name or id of the network that has it.
        network: String,
    },
    /// A node's own address lies in a subnet.
    #[error(
        "Pool overlaps with other one on this address space: {subnet} has address {address} of node {node}"
    )]
    Host {
        /// The wanted subnet.
        subnet: IpNet,
        /// The node's address.
        address: IpAddr,
        /// The node's name.
        node: String,
    },
    /// The pools hold no further subnet.
    #[error(
        "could not find an available, non-overlapping address pool among the defaults to assign to \
         the network: {pools} hold no further /{prefix_len}"
    )]
    PoolsExhausted {
        /// The pools.
        pools: String,
        /// Size of the wanted subnet.
        prefix_len: u8,
    },
    /// A subnet has no address left for its gateway.
    #[error("subnet {subnet} has no address left for a gateway")]
    NoGateway {
        /// The subnet.
        subnet: IpNet,
    },
    /// Another network has the VXLAN id.
    #[error("vxlan id {id} is in use by network {network}")]
    VxlanIdTaken {
        /// The id.
        id: u32,
        /// Name or id of the network that has it.
        network: String,
    },
    /// All VXLAN ids are in use.
    #[error("all vxlan ids are in use")]
    NoVxlanId,
}

/// What the network `id` with this spec gets. Node-local networks get nothing: each node has its
/// own addresses for them.
pub fn allocate(view: &Store, id: NetworkId, spec: &NetworkSpec) -> Result<Allocation, Refusal> {
    let name = spec.driver_name().to_owned();
    if spec.is_node_network() {
        return node_network(view, id, spec);
    }
    if !spec.is_overlay() {
        return Ok(Allocation {
            driver_state: Driver {
                name,
                ..Driver::default()
            },
            ipam: IpamOptions {
                driver: Some(Driver::default()),
                configs: Vec::new(),
            },
        });
    }
    let configs = configs(view, id, spec)?;
    let is_v4 = |config: &&IpamConfig| config.subnet.is_some_and(|net| net.addr().is_ipv4());
    let count = configs.iter().filter(is_v4).count();
    let mut options = spec
        .driver
        .as_ref()
        .map(|d| d.options.clone())
        .unwrap_or_default();
    let ids = vxlan_ids(view, id, options.get(VXLAN_IDS_OPTION), count)?;
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    options.insert(VXLAN_IDS_OPTION.to_owned(), ids.join(","));
    let wanted = spec.ipam.as_ref().and_then(|ipam| ipam.driver.as_ref());
    Ok(Allocation {
        driver_state: Driver { name, options },
        ipam: IpamOptions {
            driver: Some(Driver {
                name: DEFAULT_IPAM_DRIVER.to_owned(),
                options: wanted
                    .map(|driver| driver.options.clone())
                    .unwrap_or_default(),
            }),
            configs,
        },
    })
}

/// The node network has the subnets it asks for, which need no gateway: each slice has its own.
fn node_network(view: &Store, id: NetworkId, spec: &NetworkSpec) -> Result<Allocation, Refusal> {
    let wanted = spec.ipam.iter().flat_map(|ipam| &ipam.configs);
    let mut configs: Vec<IpamConfig> = wanted.cloned().collect();
    configs.retain(|config| config.subnet.is_some());
    check_overlap(view.networks(), id, &configs)?;
    for config in &mut configs {
        config.subnet = config.subnet.map(|subnet| subnet.trunc());
        config.family = family(config);
    }
    Ok(Allocation {
        driver_state: Driver {
            name: spec.driver_name().to_owned(),
            ..Driver::default()
        },
        ipam: IpamOptions {
            driver: Some(Driver {
                name: DEFAULT_IPAM_DRIVER.to_owned(),
                ..Driver::default()
            }),
            configs,
        },
    })
}

/// Specs of the networks a cluster begins with, besides the node network: the one for published ports, and one for each
/// node-local network that services may name.
pub fn networks_of_a_new_cluster() -> Vec<NetworkSpec> {
    let named = |name: &str| NetworkSpec {
        annotations: Annotations {
            name: name.to_owned(),
            ..Annotations::default()
        },
        ..NetworkSpec::default()
    };
    let mut specs = vec![NetworkSpec {
        driver: Some(Driver::default()),
        ipam: Some(IpamOptions {
            driver: Some(Driver::default()),
            configs: Vec::new(),
        }),
        is_ingress: true,
        ..named(INGRESS_NETWORK)
    }];
    for name in PREDEFINED_NETWORKS {
        let mut spec = named(name);
        let label = (PREDEFINED_LABEL.to_owned(), "true".to_owned());
        spec.annotations.labels.extend([label]);
        spec.driver = Some(Driver {
            name: name.to_owned(),
            ..Driver::default()
        });
        specs.push(spec);
    }
    specs
}

/// The subnets of the network: as wanted, and one chosen of each family it needs and did not name.
fn configs(view: &Store, id: NetworkId, spec: &NetworkSpec) -> Result<Vec<IpamConfig>, Refusal> {
    let tables = view.networks();
    let wanted = spec.ipam.iter().flat_map(|ipam| &ipam.configs);
    let mut configs: Vec<IpamConfig> = wanted.cloned().collect();
    let has = |configs: &[IpamConfig], is_v4: bool| {
        let mut nets = configs.iter().filter_map(|config| config.subnet);
        nets.any(|net| net.addr().is_ipv4() == is_v4)
    };
    check_overlap(tables, id, &configs)?;
    check_hosts(view, &configs)?;
    // A network always has IPv4; a config without subnet leaves the choice to us.
    configs.retain(|config| config.subnet.is_some());
    let wanted = configs.iter().filter_map(|config| config.subnet);
    let wanted: Vec<IpNet> = wanted.chain(hosts::all_addresses(view)).collect();
    for is_v4 in [true, false] {
        if has(&configs, is_v4) || !is_v4 && !spec.has_ipv6 {
            continue;
        }
        let subnet = choose_subnet(view, is_v4, &wanted)?;
        let config = IpamConfig {
            subnet: Some(subnet),
            ..IpamConfig::default()
        };
        configs.insert(if is_v4 { 0 } else { configs.len() }, config);
    }
    for config in &mut configs {
        complete(config)?;
    }
    Ok(configs)
}

/// Refuses subnets that share addresses with another network's.
fn check_overlap(
    tables: &NetworkTables,
    id: NetworkId,
    configs: &[IpamConfig],
) -> Result<(), Refusal> {
    for subnet in configs.iter().filter_map(|config| config.subnet) {
        if let Some((other, holder)) = tables.overlapping(subnet).find(|(_, n)| *n != id) {
            let network = name_of(tables, holder);
            return Err(Refusal::Overlap {
                subnet,
                other,
                network,
            });
        }
    }
    Ok(())
}

/// Refuses subnets in which nodes have their own addresses.
fn check_hosts(view: &Store, configs: &[IpamConfig]) -> Result<(), Refusal> {
    for subnet in configs.iter().filter_map(|config| config.subnet) {
        let mut hosts = hosts::addresses(view);
        if let Some((host, node)) = hosts.find(|(host, _)| subnet.contains(host)) {
            let address = host.addr();
            return Err(Refusal::Host {
                subnet,
                address,
                node,
            });
        }
    }
    Ok(())
}

fn family(config: &IpamConfig) -> AddressFamily {
    match config.subnet {
        Some(IpNet::V4(_)) => AddressFamily::V4,
        Some(IpNet::V6(_)) => AddressFamily::V6,
        None => AddressFamily::Unknown,
    }
}

/// Fills in family and gateway: the first address that may be given out.
fn complete(config: &mut IpamConfig) -> Result<(), Refusal> {
    let subnet = config.subnet.expect("configs without subnet were dropped");
    config.subnet = Some(subnet.trunc());
    config.family = family(config);
    if config.gateway.is_none() {
        let reserved: BTreeSet<IpAddr> = config.reserved.values().copied().collect();
        let bounds = config.bounds().ok_or(Refusal::NoGateway { subnet })?;
        let mut candidate = Some(bounds.0);
        while candidate.is_some_and(|ip| reserved.contains(&ip)) {
            candidate = candidate.and_then(next);
        }
        let gateway = candidate.filter(|ip| *ip <= bounds.1);
        config.gateway = Some(gateway.ok_or(Refusal::NoGateway { subnet })?);
    }
    Ok(())
}

/// A subnet of the cluster's pools that overlaps with none, nor with those `also` wanted: behind
/// all in use, or the first that is free.
fn choose_subnet(view: &Store, is_v4: bool, also: &[IpNet]) -> Result<IpNet, Refusal> {
    let (pools, prefix_len) = pools(view, is_v4);
    let tables = view.networks();
    for pool in &pools {
        let prefix_len = prefix_len.clamp(pool.prefix_len(), pool.max_prefix_len());
        let behind = tables.last_subnet_in(*pool).and_then(|last| {
            let start = next(last.trunc().broadcast())?;
            aligned(start, prefix_len)
        });
        let first = IpNet::new(pool.network(), prefix_len).ok();
        for start in [behind.or(first), first] {
            if let Some(free) = free_from(tables, pool, start, also) {
                return Ok(free);
            }
        }
    }
    let pools: Vec<String> = pools.iter().map(IpNet::to_string).collect();
    Err(Refusal::PoolsExhausted {
        pools: pools.join(", "),
        prefix_len,
    })
}

/// The first free subnet of the pool from `candidate` on.
fn free_from(
    tables: &NetworkTables,
    pool: &IpNet,
    mut candidate: Option<IpNet>,
    also: &[IpNet],
) -> Option<IpNet> {
    while let Some(subnet) = candidate.filter(|subnet| pool.contains(subnet)) {
        let overlaps = |other: &&IpNet| subnet.contains(*other) || other.contains(&subnet);
        // Also of networks that were removed, while tasks on them are still ending.
        let taken = tables
            .overlapping(subnet)
            .chain(tables.held_overlapping(subnet))
            .map(|(other, _)| other.trunc().broadcast());
        let taken = taken.chain(
            also.iter()
                .filter(overlaps)
                .map(|net| net.trunc().broadcast()),
        );
        let Some(end) = taken.max() else {
            return Some(subnet);
        };
        // The next candidate begins behind what is in the way.
        let end = end.max(subnet.broadcast());
        candidate = next(end).and_then(|start| aligned(start, subnet.prefix_len()));
    }
    None
}

/// The first subnet of this size that begins at `start` or behind it.
fn aligned(start: IpAddr, prefix_len: u8) -> Option<IpNet> {
    let net = IpNet::new(start, prefix_len).ok()?.trunc();
    if net.network() == start {
        return Some(net);
    }
    IpNet::new(next(net.broadcast())?, prefix_len).ok()
}

/// The cluster's pools of a family, and the size of the subnets cut from them. Without an IPv6
/// pool it is a private one (RFC 4193) that follows from the cluster's id.
fn pools(view: &Store, is_v4: bool) -> (Vec<IpNet>, u8) {
    let cluster = view.cluster();
    let pools = cluster
        .iter()
        .flat_map(|cluster| &cluster.default_address_pool);
    let pools = pools
        .map(IpNet::trunc)
        .filter(|pool| pool.addr().is_ipv4() == is_v4);
    let mut pools: Vec<IpNet> = pools.collect();
    if !is_v4 {
        if pools.is_empty() {
            pools.extend(cluster.map(|cluster| IpNet::V6(private_pool(cluster.id, ""))));
        }
        return (pools, PREFIX_LEN_V6);
    }
    if pools.is_empty() {
        let default = Ipv4Net::new([10, 0, 0, 0].into(), 8).expect("8 is a prefix length");
        pools.push(default.into());
    }
    let size = cluster.map_or(0, |cluster| cluster.subnet_size);
    let prefix_len = u8::try_from(size)
        .ok()
        .filter(|size| (1..=30).contains(size));
    (pools, prefix_len.unwrap_or(PREFIX_LEN_V4))
}

/// `fd`, and 40 bits of the cluster's id and what the pool is for (FNV-1a).
pub(super) fn private_pool(id: ClusterId, purpose: &str) -> Ipv6Net {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in id.as_str().bytes().chain(purpose.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let bits = (0xfd_u128 << 120) | (u128::from(hash >> 24) << 80);
    Ipv6Net::new(bits.into(), 48).expect("48 is a prefix length")
}

/// As many ids as asked for: those wanted first, then behind the largest in use.
fn vxlan_ids(
    view: &Store,
    own: NetworkId,
    wanted: Option<&String>,
    count: usize,
) -> Result<Vec<u32>, Refusal> {
    let tables = view.networks();
    let wanted = wanted.into_iter().flat_map(|list| list.split(','));
    let mut ids: Vec<u32> = wanted.filter_map(|id| id.trim().parse().ok()).collect();
    for &id in &ids {
        if let Some(holder) = tables
            .networks_with_vxlan_id(id)
            .find(|holder| *holder != own)
        {
            let network = name_of(tables, holder);
            return Err(Refusal::VxlanIdTaken { id, network });
        }
    }
    while ids.len() < count {
        let largest = ids.iter().copied().chain(tables.last_vxlan_id()).max();
        let behind = largest.map_or(VXLAN_ID_START, |id| id.saturating_add(1));
        let behind = behind.max(VXLAN_ID_START);
        let id = if behind <= VXLAN_ID_MAX {
            behind
        } else {
            lowest_free(tables, &ids).ok_or(Refusal::NoVxlanId)?
        };
        ids.push(id);
    }
    Ok(ids)
}

/// The lowest id nobody has; only looked for when the largest possible one is in use.
fn lowest_free(tables: &NetworkTables, also: &[u32]) -> Option<u32> {
    let mut candidate = VXLAN_ID_START;
    let used: BTreeSet<u32> = tables.vxlan_ids().chain(also.iter().copied()).collect();
    for id in used.range(VXLAN_ID_START..) {
        if *id != candidate {
            break;
        }
        candidate += 1;
    }
    (candidate <= VXLAN_ID_MAX).then_some(candidate)
}

fn name_of(tables: &NetworkTables, id: NetworkId) -> String {
    match tables.get(id) {
        Some(network) => network.name().to_owned(),
        None => format!("{id}, which was removed but has tasks that have not ended"),
    }
}
