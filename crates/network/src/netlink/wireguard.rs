//! Requests for WireGuard links and the routes through them. Their keys and peers are generic netlink's (`crate::tunnel`).

use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::IpNet;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};

use super::overlay::to_link;
use super::{NetlinkError, RouteSocket};

// === impl RouteSocket ===

impl RouteSocket {
    /// Makes a WireGuard link in a namespace; its datagrams leave and arrive in the socket's. One of that name is fine.
    pub(crate) fn create_wireguard(
        &mut self,
        name: &str,
        netns: BorrowedFd<'_>,
    ) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Wireguard)]),
            LinkAttribute::NetNsFd(netns.as_raw_fd()),
        ];
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.request(
            "create a WireGuard link",
            RouteNetlinkMessage::NewLink(message),
            flags,
        )
        .map(drop)
        .or_else(NetlinkError::unless_exists)
    }

    /// Removes the route of a subnet straight to a link. A missing one is fine.
    pub(crate) fn remove_direct_route(
        &mut self,
        index: u32,
        subnet: IpNet,
    ) -> Result<(), NetlinkError> {
        let message = to_link(index, subnet);
        self.request(
            "remove a route",
            RouteNetlinkMessage::DelRoute(message),
            NLM_F_ACK,
        )
        .map(drop)
        .or_else(NetlinkError::unless_gone)
    }
}

// === impl NetlinkError ===

impl NetlinkError {
    /// Whether the kernel does not know what it was asked for.
    pub(crate) fn is_unsupported(&self) -> bool {
        const EOPNOTSUPP: i32 = 95;
        matches!(self, NetlinkError::Refused { source, .. } if source.raw_os_error() == Some(EOPNOTSUPP))
    }
}
