//! Which subnet the node network gets when the operator names none: the first that nothing here
//! uses already. Pure but for the two files it reads.
//!
//! A subnet that covers a route or a name server of the host would cut it off: the bridge's own
//! route is more specific than the default one.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::{IpNet, Ipv4Net};

/// Tried in order. The first is the node network's range in `docs/design/node-network.md`; the
/// others are private ranges that neither Docker nor home routers take first.
const CANDIDATES: [(Ipv4Addr, u8); 5] = [
    (Ipv4Addr::new(10, 255, 0, 0), 16),
    (Ipv4Addr::new(10, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 30, 0, 0), 16),
    (Ipv4Addr::new(172, 29, 0, 0), 16),
    (Ipv4Addr::new(192, 168, 240, 0), 20),
];
/// The kernel's IPv4 routes, in hexadecimal, network byte order reversed.
const ROUTES: &str = "/proc/net/route";
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The subnet of an existing `bridge`, else the first candidate nothing uses; `None` when all are
/// in use.
pub(crate) fn choose(bridge: &str) -> Option<IpNet> {
    let routes = routes(&fs::read_to_string(ROUTES).unwrap_or_default());
    let servers = name_servers(&fs::read_to_string(RESOLV_CONF).unwrap_or_default());
    pick(bridge, &routes, &servers)
}

fn pick(bridge: &str, routes: &[(String, Ipv4Net)], servers: &[Ipv4Addr]) -> Option<IpNet> {
    if let Some((_, own)) = routes.iter().find(|(interface, _)| interface == bridge) {
        return Some(IpNet::V4(*own));
    }
    let candidates = CANDIDATES.iter().map(|(addr, prefix)| {
        Ipv4Net::new(*addr, *prefix).expect("a candidate's prefix fits IPv4")
    });
    let is_free = |candidate: &Ipv4Net| {
        let overlaps = |route: &Ipv4Net| {
            // The default route covers everything and is no obstacle.
            route.prefix_len() > 0 && (route.contains(candidate) || candidate.contains(route))
        };
        !routes.iter().any(|(_, route)| overlaps(route))
            && !servers.iter().any(|server| candidate.contains(server))
    };
    candidates.into_iter().find(is_free).map(IpNet::V4)
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
        let subnet = pick(bridge, &routes(table), &name_servers(resolv_conf));
        subnet.map(|subnet| subnet.to_string())
    }

    #[test]
    fn the_first_candidate_is_taken_when_free() {
        assert_eq!(chosen("skep0", TABLE, "").as_deref(), Some("10.255.0.0/16"));
    }

    #[test]
    fn a_name_server_inside_a_candidate_rules_it_out() {
        let found = chosen("skep0", TABLE, "search x\nnameserver 10.255.255.53\n");
        assert_eq!(found.as_deref(), Some("10.254.0.0/16"));
    }

    #[test]
    fn routes_that_overlap_rule_candidates_out() {
        let all_of_ten = format!("{TABLE}tun0\t0000000A\t0\t1\t0\t0\t0\t000000FF\t0\n");
        assert_eq!(
            chosen("skep0", &all_of_ten, "").as_deref(),
            Some("172.30.0.0/16")
        );
        let everything = format!(
            "{all_of_ten}a\t000010AC\t0\t1\t0\t0\t0\t0000F0FF\t0\nb\t0000A8C0\t0\t1\t0\t0\t0\t0000FFFF\t0\n"
        );
        assert_eq!(chosen("skep0", &everything, ""), None);
    }

    #[test]
    fn an_existing_bridge_keeps_its_subnet() {
        let table = format!("{TABLE}skep0\t0000FE0A\t0\t1\t0\t0\t0\t0000FFFF\t0\n");
        assert_eq!(
            chosen("skep0", &table, "").as_deref(),
            Some("10.254.0.0/16")
        );
    }
}
