//! A blocking route netlink socket and the few requests we make on it.
//!
//! Blocking on purpose: the kernel answers within microseconds and serialises on one mutex, so tasks and channels would only
//! add cost. A socket belongs to the network namespace it was opened in, wherever its thread goes later.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::IpNet;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
    State,
};
use rtnetlink::packet_route::route::{RouteProtocol, RouteScope};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rtnetlink::{LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};

use crate::endpoint::Mac;

mod local;
mod overlay;
mod ways;
mod wireguard;

pub(crate) use local::MacvlanRequest;
pub(crate) use overlay::{TunnelRequest, direct_route};
pub(crate) use ways::{MarkRule, Way};

/// Link group of links about to be deleted: "skep". One request deletes a group; nobody else uses this number by accident.
const GROUP_DYING: u32 = 0x736b_6570;

/// A failed netlink request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetlinkError {
    /// The socket failed.
    #[error("netlink socket failed")]
    Socket(#[source] io::Error),
    /// The kernel refused the request.
    #[error("kernel refused to {operation}")]
    Refused {
        /// What was asked.
        operation: &'static str,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// The kernel's answer makes no sense.
    #[error("netlink answer cannot be decoded")]
    Decode(#[source] rtnetlink::packet_core::DecodeError),
    /// A link does not exist.
    #[error("link `{0}` does not exist")]
    NoLink(String),
}

/// A socket in one network namespace.
#[derive(Debug)]
pub(crate) struct RouteSocket {
    socket: Socket,
    sequence: u32,
}

/// A new veth pair.
#[derive(Debug)]
pub(crate) struct VethRequest<'a> {
    pub(crate) link: &'a str,
    pub(crate) bridge_index: u32,
    pub(crate) peer: &'a str,
    pub(crate) peer_mac: Mac,
    pub(crate) peer_netns: BorrowedFd<'a>,
    pub(crate) mtu: u32,
}

// === impl RouteSocket ===

impl RouteSocket {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open() -> Result<RouteSocket, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(NetlinkError::Socket)?;
        socket.bind_auto().map_err(NetlinkError::Socket)?;
        socket
            .connect(&SocketAddr::new(0, 0))
            .map_err(NetlinkError::Socket)?;
        Ok(RouteSocket {
            socket,
            sequence: 0,
        })
    }

    /// All links of the namespace.
    pub(crate) fn links(&mut self) -> Result<Vec<LinkMessage>, NetlinkError> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.request("list links", request, NLM_F_DUMP)?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(link) => Some(link),
                _ => None,
            })
            .collect())
    }

    /// Names of all links, by index.
    pub(crate) fn link_names(&mut self) -> Result<Vec<(u32, String)>, NetlinkError> {
        let links = self.links()?.into_iter();
        let name = |link: LinkMessage| {
            let mut attributes = link.attributes.into_iter();
            let name = attributes.find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            });
            Some((link.header.index, name?))
        };
        Ok(links.filter_map(name).collect())
    }

    /// All addresses of the namespace.
    pub(crate) fn addresses(&mut self) -> Result<Vec<AddressMessage>, NetlinkError> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.request("list addresses", request, NLM_F_DUMP)?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewAddress(address) => Some(address),
                _ => None,
            })
            .collect())
    }

    /// The index of a link.
    pub(crate) fn link_index(&mut self, name: &str) -> Result<u32, NetlinkError> {
        let request = LinkMessageBuilder::<LinkUnspec>::new().name(name).build();
        match self.request("find a link", RouteNetlinkMessage::GetLink(request), 0) {
            Ok(answers) => answers
                .into_iter()
                .find_map(|answer| match answer {
                    RouteNetlinkMessage::NewLink(link) => Some(link.header.index),
                    _ => None,
                })
                .ok_or_else(|| NetlinkError::NoLink(name.to_owned())),
            Err(error) if error.is_gone() => Err(NetlinkError::NoLink(name.to_owned())),
            Err(error) => Err(error),
        }
    }

    /// Makes a bridge and puts it up. One of that name is fine.
    pub(crate) fn create_bridge(
        &mut self,
        name: &str,
        mac: Mac,
        mtu: u32,
    ) -> Result<(), NetlinkError> {
        let message = LinkBridge::new(name)
            .address(mac.0.to_vec())
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

    /// Corrects a link's Ethernet address and MTU and puts it up.
    pub(crate) fn set_link(&mut self, name: &str, mac: Mac, mtu: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_name(name)
            .address(mac.0.to_vec())
            .mtu(mtu)
            .up()
            .build();
        self.set("set a link", message)
    }

    /// Puts a link up.
    pub(crate) fn set_up(&mut self, name: &str) -> Result<(), NetlinkError> {
        self.set(
            "put a link up",
            LinkUnspec::new_with_name(name).up().build(),
        )
    }

    /// Makes a veth pair whose peer is born in its namespace: moving it there costs an RCU grace period. Our end is up,
    /// so that the peer has a carrier the moment it is put up.
    pub(crate) fn create_veth(&mut self, veth: &VethRequest<'_>) -> Result<(), NetlinkError> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(veth.peer)
            .address(veth.peer_mac.0.to_vec())
            .mtu(veth.mtu)
            .setns_by_fd(veth.peer_netns.as_raw_fd())
            .build();
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes = vec![
            LinkAttribute::IfName(veth.link.to_owned()),
            LinkAttribute::Mtu(veth.mtu),
            LinkAttribute::Controller(veth.bridge_index),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.request(
            "create a veth pair",
            RouteNetlinkMessage::NewLink(message),
            flags,
        )
        .map(drop)
    }

    /// Makes a link a port of a bridge.
    pub(crate) fn enslave(&mut self, name: &str, bridge_index: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_name(name)
            .controller(bridge_index)
            .build();
        self.set("add a link to a bridge", message)
    }

    /// Isolates a bridge port from the other isolated ports, or lets the bridge send packets on to them and back to itself.
    pub(crate) fn set_isolated(
        &mut self,
        index: u32,
        is_isolated: bool,
    ) -> Result<(), NetlinkError> {
        let message = LinkBridgePort::new(index)
            .append_info_data(InfoBridgePort::Isolated(is_isolated))
            .append_info_data(InfoBridgePort::HairpinMode(!is_isolated))
            .build();
        self.request(
            "isolate a bridge port",
            RouteNetlinkMessage::NewLink(message),
            NLM_F_ACK,
        )
        .map(drop)
    }

    /// Whether a link can carry packets, and the index of the bridge it is a port of.
    pub(crate) fn carrier(&mut self, index: u32) -> Result<(bool, Option<u32>), NetlinkError> {
        let request = LinkUnspec::new_with_index(index).build();
        let answers = self.request("find a link", RouteNetlinkMessage::GetLink(request), 0)?;
        let attributes = answers.iter().flat_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => link.attributes.as_slice(),
            _ => &[],
        });
        let mut carrier = (false, None);
        for attribute in attributes {
            match attribute {
                LinkAttribute::OperState(state) => carrier.0 = *state == State::Up,
                LinkAttribute::Controller(index) => carrier.1 = Some(*index),
                _ => {}
            }
        }
        Ok(carrier)
    }

    /// Names a link's endpoint and puts it up, in one request.
    pub(crate) fn set_alias_and_up(&mut self, index: u32, alias: &str) -> Result<(), NetlinkError> {
        self.set(
            "name a link",
            LinkUnspec::new_with_index(index).alias(alias).up().build(),
        )
    }

    /// Deletes links by name in one request, so that they share one grace period. Missing ones are fine.
    pub(crate) fn delete_links(&mut self, names: &[&str]) -> Result<(), NetlinkError> {
        for name in names {
            let message = LinkUnspec::new_with_name(name)
                .link_group(GROUP_DYING)
                .build();
            self.set("mark a link for deletion", message)
                .or_else(NetlinkError::unless_gone)?;
        }
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::Group(GROUP_DYING)];
        self.request(
            "delete links",
            RouteNetlinkMessage::DelLink(message),
            NLM_F_ACK,
        )
        .map(drop)
        .or_else(NetlinkError::unless_gone)
    }

    /// Deletes one link. A missing one is fine.
    pub(crate) fn delete_link(&mut self, name: &str) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_name(name).build();
        self.request(
            "delete a link",
            RouteNetlinkMessage::DelLink(message),
            NLM_F_ACK,
        )
        .map(drop)
        .or_else(NetlinkError::unless_gone)
    }

    /// Takes an address from a link. A missing one is fine.
    pub(crate) fn remove_address(
        &mut self,
        index: u32,
        address: IpNet,
    ) -> Result<(), NetlinkError> {
        let message = address_message(index, address);
        self.request(
            "remove an address",
            RouteNetlinkMessage::DelAddress(message),
            NLM_F_ACK,
        )
        .map(drop)
        .or_else(NetlinkError::unless_gone)
    }

    /// Sets the default route.
    pub(crate) fn set_default_route(
        &mut self,
        index: u32,
        gateway: IpAddr,
    ) -> Result<(), NetlinkError> {
        let message = match gateway {
            IpAddr::V4(gateway) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .gateway(gateway)
                .output_interface(index)
                .protocol(RouteProtocol::Boot)
                .scope(RouteScope::Universe)
                .build(),
            IpAddr::V6(gateway) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .gateway(gateway)
                .output_interface(index)
                .protocol(RouteProtocol::Boot)
                .scope(RouteScope::Universe)
                .build(),
        };
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.request(
            "set the default route",
            RouteNetlinkMessage::NewRoute(message),
            flags,
        )
        .map(drop)
    }

    fn set(&mut self, operation: &'static str, message: LinkMessage) -> Result<(), NetlinkError> {
        self.request(operation, RouteNetlinkMessage::SetLink(message), NLM_F_ACK)
            .map(drop)
    }

    fn request(
        &mut self,
        operation: &'static str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut buffer = vec![0; packet.buffer_len()];
        packet.serialize(&mut buffer);
        self.socket.send(&buffer, 0).map_err(NetlinkError::Socket)?;
        self.answers(operation, flags)
    }

    /// Reads until the answer to the last request is complete; answers to earlier ones are skipped.
    fn answers(
        &mut self,
        operation: &'static str,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let is_single = flags & (NLM_F_ACK | NLM_F_DUMP) == 0;
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full().map_err(NetlinkError::Socket)?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(NetlinkError::Decode)?;
                let length = aligned(message.header.length);
                rest = rest.get(length..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answers),
                    NetlinkPayload::Error(error) => {
                        let source = io::Error::from_raw_os_error(error.raw_code().abs());
                        return Err(NetlinkError::Refused { operation, source });
                    }
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    _ => {}
                }
                if is_single && !answers.is_empty() {
                    return Ok(answers);
                }
            }
        }
    }
}

fn address_message(index: u32, address: IpNet) -> AddressMessage {
    let ip = address.addr();
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = address.prefix_len();
    message.header.family = family(ip);
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    if let IpNet::V4(net) = address {
        message
            .attributes
            .push(AddressAttribute::Broadcast(net.broadcast()));
    }
    message
}

/// The address family of an address.
fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// Netlink messages are padded to four bytes. A length of zero would never end; it counts as the header's.
fn aligned(length: u32) -> usize {
    let length = usize::try_from(length).unwrap_or(usize::MAX).max(16);
    length.checked_next_multiple_of(4).unwrap_or(usize::MAX)
}

/// Whether the link is up.
pub(crate) fn is_up(link: &LinkMessage) -> bool {
    link.header.flags.contains(LinkFlags::Up)
}

// === impl NetlinkError ===

impl NetlinkError {
    fn errno(&self) -> Option<i32> {
        match self {
            NetlinkError::Refused { source, .. } => source.raw_os_error(),
            NetlinkError::Socket(_) | NetlinkError::Decode(_) | NetlinkError::NoLink(_) => None,
        }
    }

    fn is_gone(&self) -> bool {
        let gone = [
            nix::libc::ENODEV,
            nix::libc::ENOENT,
            nix::libc::EADDRNOTAVAIL,
            nix::libc::ESRCH,
        ];
        self.errno().is_some_and(|errno| gone.contains(&errno))
    }

    fn unless_gone(self) -> Result<(), NetlinkError> {
        if self.is_gone() { Ok(()) } else { Err(self) }
    }

    /// Whether something of that name or number exists.
    pub(crate) fn is_taken(&self) -> bool {
        self.errno() == Some(nix::libc::EEXIST)
    }

    fn unless_exists(self) -> Result<(), NetlinkError> {
        if self.is_taken() { Ok(()) } else { Err(self) }
    }
}
