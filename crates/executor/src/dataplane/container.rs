//! A container of this node as the data plane needs to know it, and the networks it brings. Kept in
//! the container's record, so a daemon that starts knows them before any manager answers.

use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use skep_model::{ENCRYPTED_OPTION, MTU_OPTION, Network, NetworkAttachment, NetworkId};
use skep_network::{Mac, dns::Upstream, plane::Place as PlanePlace};

/// A container with places on overlay networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalContainer {
    /// Its namespace.
    pub netns_path: PathBuf,
    /// Its places, in the order of its interfaces.
    pub places: Vec<Place>,
    /// Servers for names that are not the cluster's.
    pub upstreams: Vec<Upstream>,
    /// Its places on networks that this node has for itself.
    pub local: Vec<LocalName>,
}

/// What a container is called on a network that its node has for itself. Only containers of the node
/// are found there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalName {
    /// The network's id.
    pub network: String,
    /// Its name.
    pub network_name: String,
    /// Its subnets.
    pub subnets: Vec<IpNet>,
    /// Names of the container, its own first.
    pub names: Vec<String>,
    /// Addresses of the container.
    pub addresses: Vec<IpAddr>,
}

/// A container's place on an overlay network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The network as the task brought it.
    pub network: NetworkFacts,
    /// Name of the interface: `eth1`, `eth2`, ….
    pub interface: String,
    /// Its addresses with their subnet's prefix length, IPv4 first.
    pub addresses: Vec<IpNet>,
    /// Other names of the container there.
    pub aliases: Vec<String>,
}

/// What a node needs to know of an overlay network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkFacts {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// VXLAN id.
    pub vni: u32,
    /// MTU wanted by the user.
    pub mtu: Option<u32>,
    /// Its subnets.
    pub subnets: Vec<IpNet>,
    /// Gateways by Docker's reckoning; nothing answers there.
    pub gateways: Vec<IpAddr>,
    /// Without a way out.
    pub is_internal: bool,
    /// Packets between nodes are to be encrypted.
    pub is_encrypted: bool,
    /// Where Docker's published ports lead through. Containers here are not on it, and the directory
    /// tells nothing of it.
    #[serde(default)]
    pub is_ingress: bool,
}

// === impl NetworkFacts ===

impl NetworkFacts {
    /// The facts of an overlay network; `None` for one that was not allocated.
    pub fn of(network: &Network) -> Option<Self> {
        let vni = network.vxlan_ids().next()?;
        let state = network.driver_state.as_ref();
        let spec = network.spec.driver.as_ref();
        let option = |key: &str| {
            let mut drivers = [spec, state].into_iter().flatten();
            drivers.find_map(|driver| driver.options.get(key))
        };
        let is_encrypted = option(ENCRYPTED_OPTION).is_some();
        Some(Self {
            id: network.id.to_string(),
            name: network.name().to_owned(),
            vni,
            mtu: option(MTU_OPTION).and_then(|mtu| mtu.parse().ok()),
            subnets: network.subnets().filter_map(|one| one.subnet).collect(),
            gateways: network.subnets().filter_map(|one| one.gateway).collect(),
            is_internal: network.spec.is_internal,
            is_encrypted,
            is_ingress: network.spec.is_ingress,
        })
    }

    /// Its id, unless a record was damaged.
    pub fn network_id(&self) -> Option<NetworkId> {
        self.id.parse().ok()
    }

    /// Whether an address is one of its own.
    pub(super) fn contains(&self, address: &IpAddr) -> bool {
        self.subnets.iter().any(|net| net.contains(address))
    }
}

// === impl Place ===

impl Place {
    /// The place that an attachment of a task is; `None` for attachments to other networks.
    pub fn of(attachment: &NetworkAttachment, interface: String) -> Option<Self> {
        if !attachment.network.spec.is_overlay() {
            return None;
        }
        let mut addresses = attachment.addresses.clone();
        addresses.sort_by_key(|net| net.addr().is_ipv6());
        Some(Self {
            network: NetworkFacts::of(&attachment.network)?,
            interface,
            addresses,
            aliases: attachment.aliases.clone(),
        })
    }

    /// Ethernet address of the interface.
    pub fn mac(&self) -> Option<Mac> {
        self.ips().next().map(Mac::from_ip)
    }

    /// Its addresses, IPv4 first.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(|net| net.addr())
    }

    /// As the plane wants it; `None` without address.
    pub(super) fn to_plane(&self) -> Option<PlanePlace> {
        Some(PlanePlace {
            interface: self.interface.clone(),
            mac: self.mac()?,
            addresses: self.ips().collect(),
        })
    }
}
