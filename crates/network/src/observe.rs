//! Reads the kernel's state into a value. No decisions: `plan` compares.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoBridgePort, InfoPortData, LinkAttribute, LinkInfo, LinkMessage,
};

use crate::apply::ApplyError;
use crate::config::Layout;
use crate::endpoint::Mac;
use crate::netlink::{self, RouteSocket};
use crate::netns;
use crate::nft;
use crate::plan::{Desired, Observed, ObservedBridge, ObservedLink, ObservedRules};
use crate::rules::{self, Ruleset};
use crate::sysctl;

/// Everything the node network consists of, in the namespace of the socket and the calling thread.
pub(crate) fn observe(
    desired: &Desired,
    socket: &mut RouteSocket,
    netns_dir: &Path,
) -> Result<Observed, ApplyError> {
    let links = socket.links()?;
    let bridge = links
        .iter()
        .find(|link| name(link) == Some(&desired.bridge));
    let bridge_index = bridge.map(|link| link.header.index);
    let prefix = format!("{}-", desired.bridge);
    let ours = links.iter().filter_map(|link| {
        let name = name(link).filter(|name| name.starts_with(&prefix))?;
        Some((name.to_owned(), observe_link(link, bridge_index)))
    });
    Ok(Observed {
        is_forwarding: sysctl::is_on(sysctl::IP_FORWARD),
        is_forwarding6: sysctl::is_on(sysctl::IP6_FORWARD),
        is_bridge_filtered: is_bridge_filtered(&desired.layout),
        links: ours.collect(),
        bridge: match bridge {
            Some(link) => {
                let (addresses, routes) = (socket.addresses()?, socket.routes()?);
                let mut bridge = observe_bridge(desired, link, &addresses);
                let index = link.header.index;
                let routes = routes.iter();
                bridge.routes = routes
                    .filter_map(|route| netlink::direct_route(route, index))
                    .collect();
                Some(bridge)
            }
            None => None,
        },
        netns: observe_netns(netns_dir).map_err(|source| ApplyError::List {
            path: netns_dir.to_owned(),
            source,
        })?,
        rules: observe_rules(desired, false)?,
        rules6: observe_rules(desired, true)?,
    })
}

/// Whether IP rules see all that the bridge forwards, of both families if it has both.
pub(crate) fn is_bridge_filtered(layout: &Layout) -> bool {
    sysctl::is_on(sysctl::BRIDGE_FILTER)
        && (layout.v6.is_none() || sysctl::is_on(sysctl::BRIDGE_FILTER6))
}

fn observe_rules(desired: &Desired, is_v6: bool) -> Result<Option<ObservedRules>, ApplyError> {
    let expected = Ruleset::new(&desired.bridge, &desired.layout, is_v6);
    Ok(nft::observe(rules::table(is_v6), expected.as_ref())?)
}

fn observe_bridge(desired: &Desired, link: &LinkMessage, all: &[AddressMessage]) -> ObservedBridge {
    let mut addresses = BTreeSet::new();
    for message in all
        .iter()
        .filter(|message| message.header.index == link.header.index)
    {
        let ip = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Local(ip) => Some(*ip),
                _ => None,
            });
        // IPv6 addresses have no other than that.
        let ip = ip.or_else(|| {
            message
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    AddressAttribute::Address(ip) => Some(*ip),
                    _ => None,
                })
        });
        let net = ip.map(|ip| IpNet::new(ip, message.header.prefix_len));
        addresses.extend(net.and_then(Result::ok));
    }
    ObservedBridge {
        is_up: netlink::is_up(link),
        mac: link
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok().map(Mac),
                _ => None,
            }),
        mtu: link
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                LinkAttribute::Mtu(mtu) => Some(*mtu),
                _ => None,
            })
            .unwrap_or(0),
        addresses,
        routes: BTreeSet::new(),
        is_localhost_routed: sysctl::is_on(&sysctl::route_localnet(&desired.bridge)),
    }
}

fn observe_link(link: &LinkMessage, bridge_index: Option<u32>) -> ObservedLink {
    let mut observed = ObservedLink {
        is_up: netlink::is_up(link),
        ..ObservedLink::default()
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfAlias(alias) => observed.alias = Some(alias.clone()),
            LinkAttribute::Controller(index) => {
                observed.is_in_bridge = Some(*index) == bridge_index;
            }
            LinkAttribute::LinkInfo(infos) => observed.is_isolated = infos.iter().any(is_isolated),
            _ => {}
        }
    }
    observed
}

fn is_isolated(info: &LinkInfo) -> bool {
    match info {
        LinkInfo::PortData(InfoPortData::BridgePort(port)) => {
            port.contains(&InfoBridgePort::Isolated(true))
        }
        _ => false,
    }
}

fn observe_netns(dir: &Path) -> io::Result<BTreeMap<String, bool>> {
    let mut entries = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        // A name that is not UTF-8 is not ours.
        if let Ok(id) = entry.file_name().into_string() {
            entries.insert(id, netns::is_mounted(&entry.path()));
        }
    }
    Ok(entries)
}

fn name(link: &LinkMessage) -> Option<&String> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        })
}
