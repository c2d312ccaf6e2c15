//! Requests for overlay networks: tunnels, their tables, ports, direct routes.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::IpNet;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags};
use rtnetlink::packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkBridge, LinkBridgePort, LinkUnspec};

use super::{NetlinkError, RouteSocket, address_message, family};
use crate::endpoint::Mac;
use crate::plane::Tunnel;

/// State of an entry that does not age (`linux/neighbour.h`); it may have others beside it.
const NUD_PERMANENT: u16 = 0x80;

/// A new tunnel.
#[derive(Debug)]
pub(crate) struct TunnelRequest<'a> {
    pub(crate) name: &'a str,
    pub(crate) tunnel: Tunnel,
    pub(crate) mtu: u32,
    /// Ethernet address, none for a random one.
    pub(crate) mac: Option<Mac>,
    /// Where the link is born; its packets leave from the socket's namespace all the same.
    pub(crate) netns: Option<BorrowedFd<'a>>,
    /// Whether it answers ARP and neighbour solicitations from its own neighbour table.
    pub(crate) is_proxy: bool,
}

// === impl RouteSocket ===

impl RouteSocket {
    /// Makes a VXLAN link that learns nothing and floods nothing.
    pub(crate) fn create_tunnel(
        &mut self,
        request: &TunnelRequest<'_>,
    ) -> Result<(), NetlinkError> {
        let Tunnel { vni, port, local } = request.tunnel;
        let local = match local {
            IpAddr::V4(ip) => InfoVxlan::Local(ip),
            IpAddr::V6(ip) => InfoVxlan::Local6(ip),
        };
        let info = vec![
            InfoVxlan::Id(vni),
            local,
            InfoVxlan::Port(port),
            InfoVxlan::Learning(false),
            InfoVxlan::Proxy(request.is_proxy),
        ];
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(request.name.to_owned()),
            LinkAttribute::Mtu(request.mtu),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vxlan),
                LinkInfo::Data(InfoData::Vxlan(info)),
            ]),
        ];
        if let Some(mac) = request.mac {
            message
                .attributes
                .push(LinkAttribute::Address(mac.0.to_vec()));
        }
        if let Some(netns) = request.netns {
            message
                .attributes
                .push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
        }
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.request(
            "create a tunnel",
            RouteNetlinkMessage::NewLink(message),
            flags,
        )
        .map(drop)
    }

    /// Makes a sandbox's bridge, without multicast snooping, which would swallow neighbour solicitations. One that is there
    /// is fine.
    pub(crate) fn create_sandbox_bridge(
        &mut self,
        name: &str,
        mtu: u32,
    ) -> Result<(), NetlinkError> {
        let message = LinkBridge::new(name)
            .append_info_data(InfoBridge::MulticastSnooping(false))
            .mtu(mtu)
            .up()
            .build();
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.request(
            "create a bridge",
            RouteNetlinkMessage::NewLink(message),
            flags,
        )
        .map(drop)
        .or_else(NetlinkError::unless_exists)
    }

    /// Sets a link's MTU and puts it up.
    pub(crate) fn set_mtu_and_up(&mut self, name: &str, mtu: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_name(name).mtu(mtu).up().build();
        self.set("set a link", message)
    }

    /// Makes a bridge port learn nothing; with `is_flooded` it gets packets to unknown addresses.
    pub(crate) fn set_static_port(
        &mut self,
        index: u32,
        is_flooded: bool,
    ) -> Result<(), NetlinkError> {
        let message = LinkBridgePort::new(index)
            .append_info_data(InfoBridgePort::Learning(false))
            .append_info_data(InfoBridgePort::UnicastFlood(is_flooded))
            .build();
        self.request(
            "set a bridge port",
            RouteNetlinkMessage::NewLink(message),
            NLM_F_ACK,
        )
        .map(drop)
    }

    /// Adds or replaces a forwarding entry of a tunnel.
    pub(crate) fn add_forwarding(
        &mut self,
        index: u32,
        mac: Mac,
        node: IpAddr,
    ) -> Result<(), NetlinkError> {
        let message = forwarding(index, mac, Some(node));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.neighbour("add a forwarding entry", message, flags)
    }

    /// Removes a forwarding entry of a tunnel. A missing one is fine.
    pub(crate) fn remove_forwarding(
        &mut self,
        index: u32,
        mac: Mac,
        node: IpAddr,
    ) -> Result<(), NetlinkError> {
        let message = forwarding(index, mac, Some(node));
        self.remove_neighbour_entry("remove a forwarding entry", message)
    }

    /// Adds the forwarding entry of a bridge port's own container.
    pub(crate) fn add_port_forwarding(&mut self, index: u32, mac: Mac) -> Result<(), NetlinkError> {
        let mut message = forwarding(index, mac, None);
        message.header.flags = NeighbourFlags::Controller;
        message.header.state = NeighbourState::Noarp;
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.neighbour("add a port's forwarding entry", message, flags)
    }

    /// Adds or replaces a permanent neighbour.
    pub(crate) fn add_neighbour(
        &mut self,
        index: u32,
        address: IpAddr,
        mac: Mac,
    ) -> Result<(), NetlinkError> {
        let mut message = neighbour(index, address);
        let link_layer = NeighbourAttribute::LinkLayerAddress(mac.0.to_vec());
        message.attributes.push(link_layer);
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.neighbour("add a neighbour", message, flags)
    }

    /// Removes a neighbour. A missing one is fine.
    pub(crate) fn remove_neighbour(
        &mut self,
        index: u32,
        address: IpAddr,
    ) -> Result<(), NetlinkError> {
        self.remove_neighbour_entry("remove a neighbour", neighbour(index, address))
    }

    /// Permanent entries of a family: the bridge family's are forwarding entries.
    pub(crate) fn neighbours(
        &mut self,
        family: AddressFamily,
    ) -> Result<Vec<NeighbourMessage>, NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family;
        let request = RouteNetlinkMessage::GetNeighbour(message);
        let answers = self.request("list neighbours", request, NLM_F_DUMP)?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewNeighbour(neighbour) => Some(neighbour),
                _ => None,
            })
            .filter(|neighbour| u16::from(neighbour.header.state) & NUD_PERMANENT != 0)
            .collect())
    }

    /// Gives a link an address at once: no other can have it, so IPv6 need not look for duplicates.
    pub(crate) fn add_unique_address(
        &mut self,
        index: u32,
        address: IpNet,
    ) -> Result<(), NetlinkError> {
        let mut message = address_message(index, address);
        if address.addr().is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
            let flags = AddressAttribute::Flags(AddressFlags::Nodad);
            message.attributes.push(flags);
        }
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.request(
            "add an address",
            RouteNetlinkMessage::NewAddress(message),
            flags,
        )
        .map(drop)
    }

    /// Routes a subnet straight to a link.
    pub(crate) fn add_direct_route(
        &mut self,
        index: u32,
        subnet: IpNet,
    ) -> Result<(), NetlinkError> {
        let mut message = to_link(index, subnet);
        message.header.protocol = RouteProtocol::Boot;
        message.header.kind = RouteType::Unicast;
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.request("add a route", RouteNetlinkMessage::NewRoute(message), flags)
            .map(drop)
    }

    /// All routes of the namespace.
    pub(crate) fn routes(&mut self) -> Result<Vec<RouteMessage>, NetlinkError> {
        let request = RouteNetlinkMessage::GetRoute(RouteMessage::default());
        let answers = self.request("list routes", request, NLM_F_DUMP)?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(route) => Some(route),
                _ => None,
            })
            .collect())
    }

    fn neighbour(
        &mut self,
        operation: &'static str,
        message: NeighbourMessage,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        self.request(operation, RouteNetlinkMessage::NewNeighbour(message), flags)
            .map(drop)
    }

    fn remove_neighbour_entry(
        &mut self,
        operation: &'static str,
        message: NeighbourMessage,
    ) -> Result<(), NetlinkError> {
        let request = RouteNetlinkMessage::DelNeighbour(message);
        self.request(operation, request, NLM_F_ACK)
            .map(drop)
            .or_else(NetlinkError::unless_gone)
    }
}

fn forwarding(index: u32, mac: Mac, node: Option<IpAddr>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())];
    if let Some(node) = node {
        let destination = NeighbourAttribute::Destination(node.into());
        message.attributes.push(destination);
    }
    message
}

fn neighbour(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.attributes = vec![NeighbourAttribute::Destination(address.into())];
    message
}

/// What names a route of a subnet straight to a link.
pub(super) fn to_link(index: u32, subnet: IpNet) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(subnet.addr()),
        destination_prefix_length: subnet.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        scope: RouteScope::Link,
        ..RouteHeader::default()
    };
    message.attributes = vec![
        RouteAttribute::Destination(subnet.network().into()),
        RouteAttribute::Oif(index),
    ];
    message
}

/// The subnet of a route straight to a link; none of another route.
pub(crate) fn direct_route(message: &RouteMessage, index: u32) -> Option<IpNet> {
    let mut destination = None;
    let mut is_here = false;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => {
                destination = Some(IpAddr::V4(*ip));
            }
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => {
                destination = Some(IpAddr::V6(*ip));
            }
            RouteAttribute::Oif(oif) => is_here = *oif == index,
            RouteAttribute::Gateway(_) => return None,
            _ => {}
        }
    }
    let is_direct =
        destination.is_some_and(|ip| ip.is_ipv6()) || message.header.scope == RouteScope::Link;
    let net = IpNet::new(destination?, message.header.destination_prefix_length).ok()?;
    (is_here && is_direct).then_some(net)
}
