//! Where the node network lies.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use skep_model::{
    Annotations, Driver, IpamConfig, IpamOptions, NODE_NETWORK, NODE_NETWORK_DRIVER, NetworkSpec,
    directory::Pools,
};
use skep_store::Store;

use crate::network::creation::private_pool;

/// IPv4 pools for the node network, best first: at the end of Swarm's pool, where Swarm comes
/// last, and elsewhere. Each holds 255 slices. Which of them a host can have is for it to say.
pub const NODE_POOLS: [Ipv4Net; 4] = [
    pool([10, 252, 0, 0]),
    pool([10, 248, 0, 0]),
    pool([172, 28, 0, 0]),
    pool([172, 24, 0, 0]),
];

/// The spec of the node network, unless the cluster has it: in the wanted pool, or the first of
/// [`NODE_POOLS`] that is in nobody's way. `None` also when there is no such pool.
pub fn node_network(view: &Store, wanted: Option<Ipv4Net>) -> Option<NetworkSpec> {
    if view.networks().node_network().is_some() {
        return None;
    }
    let mut candidates = wanted.into_iter().chain(NODE_POOLS);
    let v4 = candidates.find(|pool| is_usable(view, *pool))?;
    let v6 = view
        .cluster()
        .map(|cluster| private_pool(cluster.id, NODE_NETWORK))
        .filter(|pool| is_free(view, IpNet::V6(*pool)));
    Some(spec(v4, v6))
}

fn spec(v4: Ipv4Net, v6: Option<Ipv6Net>) -> NetworkSpec {
    let subnets = [IpNet::V4(v4)].into_iter().chain(v6.map(IpNet::V6));
    let configs = subnets.map(|subnet| IpamConfig {
        subnet: Some(subnet),
        ..IpamConfig::default()
    });
    NetworkSpec {
        annotations: Annotations {
            name: NODE_NETWORK.to_owned(),
            ..Annotations::default()
        },
        driver: Some(Driver {
            name: NODE_NETWORK_DRIVER.to_owned(),
            ..Driver::default()
        }),
        has_ipv6: v6.is_some(),
        ipam: Some(IpamOptions {
            driver: Some(Driver::default()),
            configs: configs.collect(),
        }),
        ..NetworkSpec::default()
    }
}

/// Whether a pool has slices, is free, and leaves other networks something of their own pools.
fn is_usable(view: &Store, pool: Ipv4Net) -> bool {
    let own = view
        .cluster()
        .iter()
        .flat_map(|cluster| &cluster.default_address_pool)
        .copied()
        .collect::<Vec<_>>();
    let takes_all = own.iter().any(|own| IpNet::V4(pool).contains(&own.trunc()));
    pool.prefix_len() <= Pools::PREFIX_LEN_MAX && is_free(view, IpNet::V4(pool)) && !takes_all
}

fn is_free(view: &Store, pool: IpNet) -> bool {
    view.networks().overlapping(pool).next().is_none()
}

const fn pool(start: [u8; 4]) -> Ipv4Net {
    let [a, b, c, d] = start;
    Ipv4Net::new_assert(std::net::Ipv4Addr::new(a, b, c, d), 14)
}
