//! Requests for routes through gateways and for routing rules by mark.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{NetlinkError, RouteSocket};

/// A route without its gateway.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    /// None for the default route.
    destination: Option<IpNet>,
    table: u32,
    index: u32,
}

// === impl Way ===

impl Way {
    /// To a subnet, in the main table.
    pub(crate) fn to(destination: IpNet, index: u32) -> Way {
        Way {
            destination: Some(destination),
            table: u32::from(RouteHeader::RT_TABLE_MAIN),
            index,
        }
    }

    /// To everywhere, in the table of a mark.
    pub(crate) fn back(mark: u32, index: u32) -> Way {
        Way {
            destination: None,
            table: mark,
            index,
        }
    }

    fn message(self, gateway: Option<IpAddr>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: AddressFamily::Inet,
            destination_prefix_length: self.destination.map_or(0, |net| net.prefix_len()),
            protocol: RouteProtocol::Boot,
            scope: RouteScope::Universe,
            kind: RouteType::Unicast,
            flags: RouteFlags::Onlink,
            ..RouteHeader::default()
        };
        message.attributes = vec![
            RouteAttribute::Table(self.table),
            RouteAttribute::Oif(self.index),
        ];
        let destination = self.destination.map(|net| net.network().into());
        let destination = destination.map(RouteAttribute::Destination);
        let gateway = gateway.map(|ip| RouteAttribute::Gateway(ip.into()));
        message
            .attributes
            .extend(destination.into_iter().chain(gateway));
        message
    }
}

// === impl RouteSocket ===

impl RouteSocket {
    /// Whether the namespace takes packets to an address for its own.
    pub(crate) fn is_local(&mut self, address: IpAddr) -> Result<bool, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = super::family(address);
        message.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
        message.attributes = vec![RouteAttribute::Destination(address.into())];
        let request = RouteNetlinkMessage::GetRoute(message);
        let answers = match self.request("find a route", request, 0) {
            Err(NetlinkError::Refused { .. }) => return Ok(false),
            answers => answers?,
        };
        Ok(answers.iter().any(|answer| {
            matches!(answer, RouteNetlinkMessage::NewRoute(route) if route.header.kind == RouteType::Local)
        }))
    }

    /// Adds or replaces a route.
    pub(crate) fn add_way(&mut self, way: Way, gateway: IpAddr) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewRoute(way.message(Some(gateway)));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.request("add a route", message, flags).map(drop)
    }

    /// Removes a route. A missing one is fine.
    pub(crate) fn remove_way(&mut self, way: Way) -> Result<(), NetlinkError> {
        let mut message = way.message(None);
        message.header.flags = RouteFlags::empty();
        message.header.scope = RouteScope::NoWhere;
        let request = RouteNetlinkMessage::DelRoute(message);
        self.request("remove a route", request, NLM_F_ACK)
            .map(drop)
            .or_else(NetlinkError::unless_gone)
    }

    /// Sends what comes from a link with a mark to the table with the mark's number. A rule that is there is fine.
    pub(crate) fn add_mark_rule(
        &mut self,
        link: &str,
        mark: u32,
        priority: u32,
    ) -> Result<(), NetlinkError> {
        let request = RouteNetlinkMessage::NewRule(rule(link, mark, priority));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.request("add a routing rule", request, flags)
            .map(drop)
            .or_else(NetlinkError::unless_exists)
    }

    /// Removes a rule for what comes from a link with a mark, wherever it leads. A missing one is fine.
    pub(crate) fn remove_mark_rule(&mut self, link: &str, mark: u32) -> Result<(), NetlinkError> {
        let mut message = RuleMessage::default();
        message.header.family = AddressFamily::Inet;
        message.attributes = vec![
            RuleAttribute::Iifname(link.to_owned()),
            RuleAttribute::FwMark(mark),
        ];
        let request = RouteNetlinkMessage::DelRule(message);
        self.request("remove a routing rule", request, NLM_F_ACK)
            .map(drop)
            .or_else(NetlinkError::unless_gone)
    }

    /// Marks that rules for what comes from a link look for.
    pub(crate) fn mark_rules(&mut self, link: &str) -> Result<Vec<u32>, NetlinkError> {
        let mut message = RuleMessage::default();
        message.header.family = AddressFamily::Inet;
        let request = RouteNetlinkMessage::GetRule(message);
        let answers = self.request("list routing rules", request, NLM_F_DUMP)?;
        let rules = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewRule(rule) => Some(rule),
            _ => None,
        });
        let marks = rules.filter_map(|rule| {
            let is_from = |attribute: &RuleAttribute| {
                matches!(attribute, RuleAttribute::Iifname(name) if name == link)
            };
            let mark = rule.attributes.iter().find_map(|attribute| match attribute {
                RuleAttribute::FwMark(mark) => Some(*mark),
                _ => None,
            });
            mark.filter(|_| rule.attributes.iter().any(is_from))
        });
        Ok(marks.collect())
    }
}

fn rule(link: &str, mark: u32, priority: u32) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Iifname(link.to_owned()),
        RuleAttribute::FwMark(mark),
        RuleAttribute::FwMask(u32::MAX),
        RuleAttribute::Table(mark),
        RuleAttribute::Priority(priority),
    ];
    message
}
