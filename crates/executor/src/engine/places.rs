//! Which networks a task's container is on, decided from the task alone: a pure function.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use skep_model::{BRIDGE_DRIVER, MACVLAN_DRIVER, Network, NetworkAttachment, Task};
use skep_network::{DnsSettings, Given};

use crate::dataplane::Place;

/// A container's interface on the node network.
const NODE_INTERFACE: &str = "eth0";

/// Drivers of networks that are the node's own; Docker's names.
const HOST_DRIVER: &str = "host";
const NULL_DRIVER: &str = "null";
/// What an `/etc/hosts` entry may say instead of an address; Docker's.
pub(super) const HOST_GATEWAY: &str = "host-gateway";

/// The container's place on the node itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeMode {
    /// On the node network: a way out, published ports.
    #[default]
    Attached,
    /// A namespace of its own that is not on the node network: on internal networks only, on none, or with
    /// a network that the node has for itself as its way out.
    Closed,
    /// The node's own network.
    Host,
}

/// The user's wishes for name resolution, as stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsRecord {
    /// Servers instead of the node's.
    pub servers: Vec<IpAddr>,
    /// Search domains.
    pub search: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
}

/// A task's networks.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NetworkPlan {
    pub(super) mode: NodeMode,
    /// Address on the node network that the leader gave.
    pub(super) given: Option<Given>,
    /// Places on overlay networks, `eth1` and up in the order of the task's networks.
    pub(super) places: Vec<Place>,
    /// Networks that the node has for itself.
    pub(super) local: Vec<LocalWish>,
    pub(super) dns: DnsRecord,
    /// Entries for `/etc/hosts`: address and names.
    pub(super) hosts: Vec<(String, Vec<String>)>,
}

/// A network that the node has for itself, and how the container is to be on it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LocalWish {
    pub(super) network: Arc<Network>,
    pub(super) aliases: Vec<String>,
    pub(super) interface: String,
    /// Whether packets to elsewhere go through it.
    pub(super) is_way_out: bool,
}

/// Why a task's networks cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// The leader has not allocated it.
    #[error("network `{0}` has no addresses yet")]
    Unallocated(String),
    /// Some other driver.
    #[error("network `{0}` has driver `{1}`, which this node does not have")]
    Driver(String, String),
    /// A name server that is no address.
    #[error("`{0}` is not the address of a name server")]
    Server(String),
    /// A malformed entry for `/etc/hosts`.
    #[error("`{0}` is not an address and a host name")]
    Host(String),
}

/// Plans the networks of `task`.
pub(super) fn plan(task: &Task) -> Result<NetworkPlan, PlaceError> {
    let (mut places, mut is_host, mut is_null, mut is_bridge) = (Vec::new(), false, false, false);
    let mut own = Vec::new();
    for attachment in &task.networks {
        let spec = &attachment.network.spec;
        let name = attachment.network.name();
        match spec.driver_name() {
            _ if spec.is_node_network() => {}
            _ if spec.is_overlay() => {
                let interface = match spec.is_ingress {
                    // Published ports lead through the node network.
                    true => NODE_INTERFACE.to_owned(),
                    false => format!("eth{}", interface_count(&places) + 1),
                };
                let place = Place::of(attachment, interface);
                let place = place.filter(|place| !place.addresses.is_empty());
                places.push(place.ok_or_else(|| PlaceError::Unallocated(name.to_owned()))?);
            }
            HOST_DRIVER => is_host = true,
            NULL_DRIVER => is_null = true,
            BRIDGE_DRIVER if spec.is_predefined() => is_bridge = true,
            BRIDGE_DRIVER | MACVLAN_DRIVER => own.push(attachment),
            driver => return Err(PlaceError::Driver(name.to_owned(), driver.to_owned())),
        }
    }
    let given = given(task);
    let has_ports = task
        .endpoint
        .iter()
        .any(|endpoint| !endpoint.ports.is_empty());
    let is_on_some = !places.is_empty() || !own.is_empty();
    let leads_out = own.iter().any(|place| !place.network.spec.is_internal);
    let has_internal_only = is_on_some && places.iter().all(|place| place.network.is_internal);
    let needs_node = is_bridge || given.is_some() || has_ports;
    let mode = if is_host {
        NodeMode::Host
    } else if is_null || ((has_internal_only || leads_out) && !needs_node) {
        NodeMode::Closed
    } else {
        NodeMode::Attached
    };
    Ok(NetworkPlan {
        mode,
        given: given.filter(|_| mode == NodeMode::Attached),
        local: if is_host {
            Vec::new()
        } else {
            wishes(&own, mode, interface_count(&places))
        },
        places: if is_host { Vec::new() } else { places },
        dns: dns(task)?,
        hosts: hosts(task)?,
    })
}

/// Interfaces go on where those of overlay networks end; without the node network the first is `eth0`.
/// The first that leads out is the way out, unless the node network is.
fn wishes(own: &[&NetworkAttachment], mode: NodeMode, place_count: usize) -> Vec<LocalWish> {
    let way_out = own
        .iter()
        .position(|place| !place.network.spec.is_internal)
        .filter(|_| mode == NodeMode::Closed);
    let wishes = own.iter().enumerate().map(|(index, place)| {
        let number = match (mode, index) {
            (NodeMode::Closed, 0) => 0,
            (NodeMode::Closed, _) => place_count + index,
            (NodeMode::Attached | NodeMode::Host, _) => place_count + index + 1,
        };
        LocalWish {
            network: Arc::clone(&place.network),
            aliases: place.aliases.clone(),
            interface: format!("eth{number}"),
            is_way_out: way_out == Some(index),
        }
    });
    wishes.collect()
}

/// How many of the places have an interface of their own.
fn interface_count(places: &[Place]) -> usize {
    let places = places.iter();
    places.filter(|place| !place.network.is_ingress).count()
}

/// What the leader gave of the node network.
fn given(task: &Task) -> Option<Given> {
    let (mut v4, mut v6): (Option<Ipv4Addr>, Option<Ipv6Addr>) = (None, None);
    for net in task.node_addresses() {
        match net {
            IpNet::V4(net) => v4 = Some(net.addr()),
            IpNet::V6(net) => v6 = Some(net.addr()),
        }
    }
    Some(Given { v4: v4?, v6 })
}

fn dns(task: &Task) -> Result<DnsRecord, PlaceError> {
    let Some(config) = &task.spec.container.dns else {
        return Ok(DnsRecord::default());
    };
    let server = |text: &String| text.parse().map_err(|_| PlaceError::Server(text.clone()));
    Ok(DnsRecord {
        servers: config
            .nameservers
            .iter()
            .map(server)
            .collect::<Result<_, _>>()?,
        search: config.search.clone(),
        options: config.options.clone(),
    })
}

/// Swarm stores them as lines: an address, then names.
fn hosts(task: &Task) -> Result<Vec<(String, Vec<String>)>, PlaceError> {
    let parse = |line: &String| {
        let malformed = || PlaceError::Host(line.clone());
        let mut words = line.split_whitespace().map(str::to_owned);
        let address = words.next().ok_or_else(malformed)?;
        let is_address = address == HOST_GATEWAY || address.parse::<IpAddr>().is_ok();
        let names: Vec<String> = words.collect();
        if names.is_empty() || !is_address {
            return Err(malformed());
        }
        Ok((address, names))
    };
    task.spec.container.hosts.iter().map(parse).collect()
}

// === impl DnsRecord ===

impl DnsRecord {
    pub(super) fn settings(&self) -> DnsSettings {
        DnsSettings {
            servers: self.servers.clone(),
            search: self.search.clone(),
            options: self.options.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
