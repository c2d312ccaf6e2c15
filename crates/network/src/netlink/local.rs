//! Requests for networks of one node: macvlans, and the links they are on.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage, MacVlanMode};
use rtnetlink::{LinkDummy, LinkMacVlan, LinkVeth, LinkVlan};

use super::{NetlinkError, RouteSocket};
use crate::endpoint::Mac;

/// A new macvlan.
#[derive(Debug)]
pub(crate) struct MacvlanRequest<'a> {
    pub(crate) name: &'a str,
    pub(crate) parent_index: u32,
    pub(crate) mode: MacVlanMode,
    pub(crate) mac: Mac,
    pub(crate) mtu: Option<u32>,
    /// Where it is born.
    pub(crate) netns: BorrowedFd<'a>,
}

// === impl RouteSocket ===

impl RouteSocket {
    /// Makes a macvlan in a namespace, on a link of the socket's.
    pub(crate) fn create_macvlan(
        &mut self,
        request: &MacvlanRequest<'_>,
    ) -> Result<(), NetlinkError> {
        let mut message = LinkMacVlan::new(request.name, request.parent_index, request.mode)
            .address(request.mac.0.to_vec())
            .setns_by_fd(request.netns.as_raw_fd());
        if let Some(mtu) = request.mtu {
            message = message.mtu(mtu);
        }
        self.create("create a macvlan", message.build())
    }

    /// Makes a link that leads nowhere, and puts it up. One of that name is fine. Where the kernel has no dummies it is a pair
    /// whose other end nobody uses.
    pub(crate) fn create_dummy(&mut self, name: &str) -> Result<(), NetlinkError> {
        let operation = "create a link that leads nowhere";
        let message = LinkDummy::new(name).up().build();
        match self.create(operation, message) {
            Err(error) if error.is_unsupported() => {
                // A name has at most 15 bytes.
                let end = format!("{}~", name.get(..name.len().min(14)).unwrap_or("dm"));
                let message = LinkVeth::new(name, &end).up().build();
                self.create(operation, message)
                    .or_else(NetlinkError::unless_exists)?;
                self.set_up(&end)
            }
            made => made.or_else(NetlinkError::unless_exists),
        }
    }

    /// Makes a VLAN of a link, and puts it up. One of that name is fine.
    pub(crate) fn create_vlan(
        &mut self,
        name: &str,
        parent_index: u32,
        id: u16,
    ) -> Result<(), NetlinkError> {
        let message = LinkVlan::new(name, parent_index, id).up().build();
        self.create("create a VLAN", message)
            .or_else(NetlinkError::unless_exists)
    }

    /// Whether a link is a bridge.
    pub(crate) fn is_bridge(&mut self, index: u32) -> Result<bool, NetlinkError> {
        let links = self.links()?.into_iter();
        let mut link = links.filter(|link| link.header.index == index);
        let attributes = link.next().map(|link| link.attributes).unwrap_or_default();
        Ok(attributes.iter().any(|attribute| match attribute {
            LinkAttribute::LinkInfo(info) => info.contains(&LinkInfo::Kind(InfoKind::Bridge)),
            _ => false,
        }))
    }

    /// Addresses of a link.
    pub(crate) fn addresses_of(&mut self, index: u32) -> Result<Vec<IpAddr>, NetlinkError> {
        let addresses = self.addresses()?.into_iter();
        let of_link = addresses.filter(|address| address.header.index == index);
        let ips = of_link.flat_map(|address| address.attributes);
        Ok(ips
            .filter_map(|attribute| match attribute {
                AddressAttribute::Local(ip) | AddressAttribute::Address(ip) => Some(ip),
                _ => None,
            })
            .collect())
    }

    /// Names of links with an alias, and their alias.
    pub(crate) fn aliases(&mut self) -> Result<Vec<(String, String)>, NetlinkError> {
        let links = self.links()?.into_iter();
        let named = |link: LinkMessage| {
            let (mut name, mut alias) = (None, None);
            for attribute in link.attributes {
                match attribute {
                    LinkAttribute::IfName(text) => name = Some(text),
                    LinkAttribute::IfAlias(text) => alias = Some(text),
                    _ => {}
                }
            }
            Some((name?, alias?))
        };
        Ok(links.filter_map(named).collect())
    }

    fn create(
        &mut self,
        operation: &'static str,
        message: LinkMessage,
    ) -> Result<(), NetlinkError> {
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.request(operation, RouteNetlinkMessage::NewLink(message), flags)
            .map(drop)
    }
}
