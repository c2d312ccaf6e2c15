//! Reads sandboxes and the containers' ends of their ports into values. No decisions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoBridgePort, InfoData, InfoPortData, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute};

use super::mesh;
use super::sandbox::{BRIDGE, LinkState, PortState, State, Tunnel, VXLAN, is_port_name};
use crate::endpoint::Mac;
use crate::netlink::{self, NetlinkError, RouteSocket};

/// What a container has of an interface: addresses and direct routes.
pub(crate) type Inside = (BTreeSet<IpNet>, BTreeSet<IpNet>);

/// Forwarding entries and neighbours of a tunnel.
pub(crate) type TunnelTables = (BTreeMap<Mac, IpAddr>, BTreeMap<IpAddr, Mac>);

/// Everything in a sandbox. What lies inside containers is left open.
pub(crate) fn sandbox(socket: &mut RouteSocket) -> Result<State, NetlinkError> {
    let links = socket.links()?;
    let find = |wanted: &str| links.iter().find(|link| name(link) == Some(wanted));
    let bridge = find(BRIDGE);
    let bridge_index = bridge.map(|link| link.header.index);
    let tunnel = find(VXLAN);
    let mut state = State {
        bridge: bridge.map(|link| link_state(link, netlink::is_up(link))),
        tunnel: tunnel.and_then(|link| {
            let is_ready = netlink::is_up(link) && is_in(link, bridge_index);
            Some((tunnel_of(link)?, link_state(link, is_ready)))
        }),
        ..State::default()
    };
    for link in &links {
        if let Some(name) = name(link).filter(|name| is_port_name(name)) {
            state
                .ports
                .insert(name.to_owned(), port(link, bridge_index));
        }
    }
    if let Some(tunnel) = tunnel {
        (state.forwarding, state.neighbours) = tables(socket, tunnel.header.index)?;
    }
    Ok(state)
}

/// Forwarding entries and neighbours of a tunnel.
pub(crate) fn tables(socket: &mut RouteSocket, index: u32) -> Result<TunnelTables, NetlinkError> {
    let is_here = |entry: &&NeighbourMessage| entry.header.ifindex == index;
    let entries = socket.neighbours(AddressFamily::Bridge)?;
    let forwarding = entries
        .iter()
        .filter(is_here)
        .filter_map(forwarding_entry)
        .collect();
    let mut neighbours = BTreeMap::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let entries = socket.neighbours(family)?;
        neighbours.extend(entries.iter().filter(is_here).filter_map(neighbour_entry));
    }
    Ok((forwarding, neighbours))
}

/// A tunnel by name: index, what it is, its Ethernet address, its state.
pub(crate) fn tunnel(
    socket: &mut RouteSocket,
    wanted: &str,
) -> Result<Option<(u32, Tunnel, Mac, LinkState)>, NetlinkError> {
    let links = socket.links()?;
    let link = links.iter().find(|link| name(link) == Some(wanted));
    Ok(link.and_then(|link| {
        let mac = link
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok().map(Mac),
                _ => None,
            })?;
        let state = link_state(link, netlink::is_up(link));
        Some((link.header.index, tunnel_of(link)?, mac, state))
    }))
}

/// Routes through a link: slices in the main table, ways back in their own.
pub(crate) fn ways(socket: &mut RouteSocket, index: u32) -> Result<mesh::Tables, NetlinkError> {
    let mut tables = mesh::Tables::default();
    for route in socket.routes()? {
        let (mut table, mut gateway, mut oif) = (u32::from(route.header.table), None, None);
        let mut destination = None;
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Table(number) => table = *number,
                RouteAttribute::Gateway(RouteAddress::Inet(ip)) => gateway = Some(IpAddr::V4(*ip)),
                RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => gateway = Some(IpAddr::V6(*ip)),
                RouteAttribute::Destination(RouteAddress::Inet(ip)) => {
                    destination = Some(IpAddr::V4(*ip));
                }
                RouteAttribute::Destination(RouteAddress::Inet6(ip)) => {
                    destination = Some(IpAddr::V6(*ip));
                }
                RouteAttribute::Oif(index) => oif = Some(*index),
                _ => {}
            }
        }
        let (true, Some(gateway)) = (oif == Some(index), gateway) else {
            continue;
        };
        let length = route.header.destination_prefix_length;
        match (destination, mesh::number_in(table)) {
            (None, Some(number)) => {
                let is_v6 = gateway.is_ipv6();
                tables.returns.insert(mesh::Back { number, is_v6 }, gateway);
            }
            (Some(ip), None) => {
                tables
                    .routes
                    .extend(IpNet::new(ip, length).ok().map(|net| (net, gateway)));
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
    Ok(tables)
}

/// The tunnel and ports of a sandbox.
pub(crate) fn link_names(socket: &mut RouteSocket) -> Result<Vec<String>, NetlinkError> {
    let links = socket.links()?;
    let ours = |name: &&str| *name == VXLAN || is_port_name(name);
    Ok(links
        .iter()
        .filter_map(name)
        .filter(ours)
        .map(str::to_owned)
        .collect())
}

/// What each port of a sandbox carried: packets and bytes from the container, packets and bytes to it.
pub(crate) fn traffic(
    socket: &mut RouteSocket,
) -> Result<BTreeMap<String, [u64; 4]>, NetlinkError> {
    let links = socket.links()?;
    let counted = links.iter().filter_map(|link| {
        let name = name(link).filter(|name| is_port_name(name))?;
        let mut attributes = link.attributes.iter();
        attributes.find_map(|attribute| match attribute {
            LinkAttribute::Stats64(stats) => {
                let counts = [
                    stats.rx_packets,
                    stats.rx_bytes,
                    stats.tx_packets,
                    stats.tx_bytes,
                ];
                Some((name.to_owned(), counts))
            }
            _ => None,
        })
    });
    Ok(counted.collect())
}

/// Addresses and direct routes of every interface of a container that is up.
pub(crate) fn container(
    socket: &mut RouteSocket,
) -> Result<BTreeMap<String, Inside>, NetlinkError> {
    let (links, addresses, routes) = (socket.links()?, socket.addresses()?, socket.routes()?);
    let up = links.iter().filter(|link| netlink::is_up(link));
    let interfaces = up.filter_map(|link| {
        let index = link.header.index;
        let addresses = addresses
            .iter()
            .filter_map(|message| address(message, index));
        let routes = routes
            .iter()
            .filter_map(|message| netlink::direct_route(message, index));
        Some((
            name(link)?.to_owned(),
            (addresses.collect(), routes.collect()),
        ))
    });
    Ok(interfaces.collect())
}

/// The MTU of the link that has an address.
pub(crate) fn mtu_of(
    socket: &mut RouteSocket,
    wanted: IpAddr,
) -> Result<Option<u32>, NetlinkError> {
    let addresses = socket.addresses()?;
    let is_wanted = |attribute: &AddressAttribute| matches!(attribute, AddressAttribute::Local(ip) | AddressAttribute::Address(ip) if *ip == wanted);
    let index = addresses
        .iter()
        .find(|message| message.attributes.iter().any(is_wanted))
        .map(|message| message.header.index);
    let links = socket.links()?;
    let link = links.iter().find(|link| Some(link.header.index) == index);
    Ok(link.map(mtu))
}

pub(super) fn link_state(link: &LinkMessage, is_ready: bool) -> LinkState {
    LinkState {
        mtu: mtu(link),
        is_ready,
    }
}

fn port(link: &LinkMessage, bridge_index: Option<u32>) -> PortState {
    let alias = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfAlias(alias) => Some(alias.clone()),
            _ => None,
        });
    let is_closed = |info: &LinkInfo| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(port)) => {
            port.contains(&InfoBridgePort::UnicastFlood(false))
                && port.contains(&InfoBridgePort::Learning(false))
        }
        _ => false,
    };
    let is_static = infos(link).any(is_closed);
    let is_ready = netlink::is_up(link) && is_in(link, bridge_index) && is_static;
    PortState {
        alias,
        link: link_state(link, is_ready),
        inside: None,
    }
}

fn tunnel_of(link: &LinkMessage) -> Option<Tunnel> {
    let data = infos(link).find_map(|info| match info {
        LinkInfo::Data(InfoData::Vxlan(data)) => Some(data),
        _ => None,
    })?;
    let (mut vni, mut port, mut local) = (None, None, None);
    for item in data {
        match item {
            InfoVxlan::Id(id) => vni = Some(*id),
            InfoVxlan::Port(number) => port = Some(*number),
            InfoVxlan::Local(ip) => local = Some(IpAddr::V4(*ip)),
            InfoVxlan::Local6(ip) => local = Some(IpAddr::V6(*ip)),
            _ => {}
        }
    }
    Some(Tunnel {
        vni: vni?,
        port: port?,
        // The kernel does not tell an unspecified one.
        local: local.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
    })
}

fn forwarding_entry(entry: &NeighbourMessage) -> Option<(Mac, IpAddr)> {
    let (mac, destination) = entry_parts(entry);
    Some((mac?, destination?))
}

fn neighbour_entry(entry: &NeighbourMessage) -> Option<(IpAddr, Mac)> {
    let (mac, destination) = entry_parts(entry);
    Some((destination?, mac?))
}

fn entry_parts(entry: &NeighbourMessage) -> (Option<Mac>, Option<IpAddr>) {
    let (mut mac, mut destination) = (None, None);
    for attribute in &entry.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = bytes.as_slice().try_into().ok().map(Mac);
            }
            NeighbourAttribute::Destination(address) => destination = ip(address),
            _ => {}
        }
    }
    (mac, destination)
}

/// Addresses of forwarding entries come as bytes: their family is the bridge's.
fn ip(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        NeighbourAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        NeighbourAddress::Other(bytes) => {
            let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from);
            v4.or_else(|_| v6()).ok()
        }
        _ => None,
    }
}

pub(super) fn address(message: &AddressMessage, index: u32) -> Option<IpNet> {
    if message.header.index != index {
        return None;
    }
    let pick = |is_local: bool| {
        message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Local(ip) if is_local => Some(*ip),
                AddressAttribute::Address(ip) if !is_local => Some(*ip),
                _ => None,
            })
    };
    let ip = pick(true).or_else(|| pick(false))?;
    let is_link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let net = IpNet::new(ip, message.header.prefix_len).ok()?;
    (!is_link_local).then_some(net)
}

pub(super) fn infos(link: &LinkMessage) -> impl Iterator<Item = &LinkInfo> {
    link.attributes
        .iter()
        .filter_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        })
        .flatten()
}

/// Whether a link is a port of a bridge that exists.
fn is_in(link: &LinkMessage, bridge_index: Option<u32>) -> bool {
    bridge_index.is_some() && controller(link) == bridge_index
}

fn controller(link: &LinkMessage) -> Option<u32> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Controller(index) => Some(*index),
            _ => None,
        })
}

fn mtu(link: &LinkMessage) -> u32 {
    let mtu = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        });
    mtu.unwrap_or(0)
}

pub(super) fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        })
}
