//! What the node itself has of addresses, read once for each new network.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::Ipv4Net;

/// The kernel's IPv4 routes, in hexadecimal, network byte order reversed.
const ROUTES: &str = "/proc/self/net/route";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The node network's tunnel is named after its bridge.
const TUNNEL_SUFFIX: &str = "x";

/// Addresses in use on the node.
#[derive(Debug, Clone, Default)]
pub(super) struct Host {
    /// Bridge of the node network.
    pub(super) node_bridge: String,
    /// Addresses, each with its link.
    pub(super) addresses: Vec<(String, IpAddr)>,
    /// Destinations of routes, each with its link.
    pub(super) routes: Vec<(String, Ipv4Net)>,
    /// Name servers.
    pub(super) servers: Vec<Ipv4Addr>,
}

// === impl Host ===

impl Host {
    pub(super) fn read(node_bridge: &str) -> Self {
        let resolv_conf = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
        Self {
            node_bridge: node_bridge.to_owned(),
            addresses: addresses(),
            routes: routes(&fs::read_to_string(ROUTES).unwrap_or_default()),
            servers: servers(&resolv_conf),
        }
    }

    /// Whether a route or a name server lies in a subnet.
    pub(super) fn uses(&self, subnet: Ipv4Net) -> bool {
        let overlaps = |route: &Ipv4Net| {
            // The default route covers everything and is no obstacle.
            route.prefix_len() > 0 && (route.contains(&subnet) || subnet.contains(route))
        };
        self.routes.iter().any(|(_, route)| overlaps(route))
            || self.servers.iter().any(|server| subnet.contains(server))
    }

    /// Routes of the node network: this node's part, and the ways to others.
    pub(super) fn node_network(&self) -> impl Iterator<Item = Ipv4Net> {
        let tunnel = format!("{}{TUNNEL_SUFFIX}", self.node_bridge);
        let routes = self.routes.iter();
        let own = routes.filter(move |(link, _)| *link == self.node_bridge || *link == tunnel);
        own.map(|(_, route)| *route)
    }
}

fn addresses() -> Vec<(String, IpAddr)> {
    let Ok(all) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    let parse = |one: nix::ifaddrs::InterfaceAddress| {
        let address = one.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let v6 = address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()));
        Some((one.interface_name, v4.or(v6)?))
    };
    all.filter_map(parse).collect()
}

fn routes(table: &str) -> Vec<(String, Ipv4Net)> {
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let hex = |index: usize| u32::from_str_radix(fields.get(index)?, 16).ok();
        let addr = Ipv4Addr::from(hex(1)?.swap_bytes());
        let prefix = u8::try_from(hex(7)?.count_ones()).ok()?;
        let net = Ipv4Net::new(addr, prefix).ok()?;
        Some(((*fields.first()?).to_owned(), net))
    };
    table.lines().skip(1).filter_map(parse).collect()
}

fn servers(resolv_conf: &str) -> Vec<Ipv4Addr> {
    let lines = resolv_conf.lines();
    let servers = lines.filter_map(|line| line.strip_prefix("nameserver"));
    servers
        .filter_map(|server| server.trim().parse().ok())
        .collect()
}
