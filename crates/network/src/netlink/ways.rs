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
    is_v6: bool,
}

/// What comes from a link with a mark is routed by the table with the mark's number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MarkRule<'a> {
    pub(crate) link: &'a str,
    pub(crate) mark: u32,
    pub(crate) is_v6: bool,
}

// === impl MarkRule ===

impl MarkRule<'_> {
    /// The way to everywhere, in the rule's table.
    pub(crate) fn way(self, index: u32) -> Way {
        Way {
            destination: None,
            table: self.mark,
            index,
            is_v6: self.is_v6,
        }
    }
}

fn family(is_v6: bool) -> AddressFamily {
    if is_v6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    }
}

// === impl Way ===

impl Way {
    /// To a subnet, in the main table.
    pub(crate) fn to(destination: IpNet, index: u32) -> Way {
        Way {
            destination: Some(destination),
            table: u32::from(RouteHeader::RT_TABLE_MAIN),
            index,
            is_v6: destination.addr().is_ipv6(),
        }
    }

    fn message(self, gateway: Option<IpAddr>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: family(self.is_v6),
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

    /// Adds a rule. One that is there is fine.
    pub(crate) fn add_mark_rule(
        &mut self,
        rule: MarkRule<'_>,
        priority: u32,
    ) -> Result<(), NetlinkError> {
        let mut message = RuleMessage::default();
        message.header.family = family(rule.is_v6);
        message.header.action = RuleAction::ToTable;
        message.attributes = vec![
            RuleAttribute::Iifname(rule.link.to_owned()),
            RuleAttribute::FwMark(rule.mark),
            RuleAttribute::FwMask(u32::MAX),
            RuleAttribute::Table(rule.mark),
            RuleAttribute::Priority(priority),
        ];
        let request = RouteNetlinkMessage::NewRule(message);
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.request("add a routing rule", request, flags)
            .map(drop)
            .or_else(NetlinkError::unless_exists)
    }

    /// Removes a rule for what comes from a link with a mark, wherever it leads. A missing one is fine.
    pub(crate) fn remove_mark_rule(&mut self, rule: MarkRule<'_>) -> Result<(), NetlinkError> {
        let mut message = RuleMessage::default();
        message.header.family = family(rule.is_v6);
        message.attributes = vec![
            RuleAttribute::Iifname(rule.link.to_owned()),
            RuleAttribute::FwMark(rule.mark),
        ];
        let request = RouteNetlinkMessage::DelRule(message);
        self.request("remove a routing rule", request, NLM_F_ACK)
            .map(drop)
            .or_else(NetlinkError::unless_gone)
    }

    /// Marks that rules of a family for what comes from a link look for.
    pub(crate) fn mark_rules(&mut self, link: &str, is_v6: bool) -> Result<Vec<u32>, NetlinkError> {
        let mut message = RuleMessage::default();
        message.header.family = family(is_v6);
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
