//! Which addresses the node network gets when the operator names none: the first that nothing here
//! uses already. Pure but for the two files it reads.
//!
//! A subnet that covers a route or a name server of the host would cut it off: the bridge's own
//! route is more specific than the default one. A cluster has one pool, of which each node's slice
//! is a part; a node outside a cluster has the first slice, which no cluster gives out.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::Ipv4Net;

/// Tried in order: the node network's range in `docs/design/node-network.md`, then private ranges
/// that neither Docker nor home routers take first.
const POOLS: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(10, 252, 0, 0), 14),
    (Ipv4Addr::new(10, 248, 0, 0), 14),
    (Ipv4Addr::new(172, 28, 0, 0), 14),
    (Ipv4Addr::new(172, 24, 0, 0), 14),
];
/// The kernel's IPv4 routes, in hexadecimal, network byte order reversed.
const ROUTES: &str = "/proc/net/route";
/// The node network's tunnel is named after its bridge.
const TUNNEL_SUFFIX: &str = "x";
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The first pool that nothing here uses but `bridge` itself; `None` when all are in use.
pub(crate) fn choose_pool(bridge: &str) -> Option<Ipv4Net> {
    let routes = routes(&fs::read_to_string(ROUTES).unwrap_or_default());
    pick(bridge, &routes, &name_servers(&resolv_conf()))
}

/// The subnet that an existing `bridge` has.
pub(crate) fn of_bridge(bridge: &str) -> Option<Ipv4Net> {
    let routes = routes(&fs::read_to_string(ROUTES).unwrap_or_default());
    let mut routes = routes.into_iter();
    let (_, own) = routes.find(|(interface, _)| interface == bridge)?;
    Some(own)
}

/// What a node outside a cluster has of a pool: the slice with number 0.
pub(crate) fn first_slice(pool: Ipv4Net) -> Ipv4Net {
    let length = (pool.prefix_len() + 8).clamp(22, 28).max(pool.prefix_len());
    Ipv4Net::new(pool.network(), length).unwrap_or(pool)
}

fn resolv_conf() -> String {
    fs::read_to_string(RESOLV_CONF).unwrap_or_default()
}

fn pick(bridge: &str, routes: &[(String, Ipv4Net)], servers: &[Ipv4Addr]) -> Option<Ipv4Net> {
    let pools = POOLS.iter().map(|(addr, prefix)| {
        Ipv4Net::new(*addr, *prefix).expect("a candidate's prefix fits IPv4")
    });
    let is_free = |pool: &Ipv4Net| {
        let overlaps = |(interface, route): &(String, Ipv4Net)| {
            // The default route covers everything and is no obstacle; slices of an earlier
            // membership lie on the bridge and its tunnel.
            route.prefix_len() > 0
                && interface != bridge
                && interface.strip_prefix(bridge) != Some(TUNNEL_SUFFIX)
                && (route.contains(pool) || pool.contains(route))
        };
        !routes.iter().any(overlaps) && !servers.iter().any(|server| pool.contains(server))
    };
    pools.into_iter().find(is_free)
}

fn routes(table: &str) -> Vec<(String, Ipv4Net)> {
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let hex = |index: usize| u32::from_str_radix(fields.get(index)?, 16).ok();
        let addr = Ipv4Addr::from(hex(1)?.swap_bytes());
        let prefix = u8::try_from(hex(7)?.count_ones()).ok()?;
        Some((
            (*fields.first()?).to_owned(),
            Ipv4Net::new(addr, prefix).ok()?,
        ))
    };
    table.lines().skip(1).filter_map(parse).collect()
}

fn name_servers(resolv_conf: &str) -> Vec<Ipv4Addr> {
    let servers = resolv_conf
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver"));
    let addresses = servers.filter_map(|server| server.trim().parse::<IpAddr>().ok());
    addresses
        .filter_map(|server| match server {
            IpAddr::V4(server) => Some(server),
            IpAddr::V6(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n\
         eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\n\
         eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n";

    fn chosen(bridge: &str, table: &str, resolv_conf: &str) -> Option<String> {
        let pool = pick(bridge, &routes(table), &name_servers(resolv_conf));
        pool.map(|pool| pool.to_string())
    }

    #[test]
    fn the_first_pool_is_taken_when_free() {
        assert_eq!(chosen("skep0", TABLE, "").as_deref(), Some("10.252.0.0/14"));
    }

    #[test]
    fn a_name_server_inside_a_pool_rules_it_out() {
        let found = chosen("skep0", TABLE, "search x\nnameserver 10.255.255.53\n");
        assert_eq!(found.as_deref(), Some("10.248.0.0/14"));
    }

    #[test]
    fn routes_that_overlap_rule_pools_out() {
        let all_of_ten = format!("{TABLE}tun0\t0000000A\t0\t1\t0\t0\t0\t000000FF\t0\n");
        assert_eq!(
            chosen("skep0", &all_of_ten, "").as_deref(),
            Some("172.28.0.0/14")
        );
        let everything = format!("{all_of_ten}a\t000010AC\t0\t1\t0\t0\t0\t0000F0FF\t0\n");
        assert_eq!(chosen("skep0", &everything, ""), None);
    }

    #[test]
    fn what_the_bridge_has_is_no_obstacle() {
        let table = format!("{TABLE}skep0\t0000FE0A\t0\t1\t0\t0\t0\t0000FFFF\t0\n");
        assert_eq!(
            chosen("skep0", &table, "").as_deref(),
            Some("10.252.0.0/14")
        );
        assert_eq!(chosen("br0", &table, "").as_deref(), Some("10.248.0.0/14"));
    }

    #[test]
    fn a_node_outside_a_cluster_has_the_first_slice() {
        for (pool, slice) in [
            ("10.252.0.0/14", "10.252.0.0/22"),
            ("10.0.0.0/16", "10.0.0.0/24"),
            ("192.168.240.0/24", "192.168.240.0/28"),
            ("192.168.240.0/29", "192.168.240.0/29"),
        ] {
            assert_eq!(first_slice(pool.parse().unwrap()).to_string(), slice);
        }
    }
}
