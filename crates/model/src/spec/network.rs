//! What a network is: driver, subnets, who may use it.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use crate::spec::{Annotations, Driver};

/// The driver of networks that span nodes, and the default.
pub const OVERLAY_DRIVER: &str = "overlay";
/// The only address manager there is, by Docker's name.
pub const DEFAULT_IPAM_DRIVER: &str = "default";
/// Name of the network that carries published ports. As in Swarm it is made with the cluster.
pub const INGRESS_NETWORK: &str = "ingress";
/// Driver option with the VXLAN ids of a network, one per IPv4 subnet, separated by commas.
pub const VXLAN_IDS_OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";
/// Driver option with the MTU of a network.
pub const MTU_OPTION: &str = "com.docker.network.driver.mtu";
/// Driver option that asks for encryption between nodes, whatever its value.
pub const ENCRYPTED_OPTION: &str = "encrypted";
/// Label of the node-local networks that every cluster has.
pub const PREDEFINED_LABEL: &str = "com.docker.swarm.predefined";
/// The networks that carry [`PREDEFINED_LABEL`]; each is its own driver.
pub const PREDEFINED_NETWORKS: [&str; 2] = ["bridge", "host"];

/// Driver of the node network, of which every node of Skep has a slice. Also the network driver by
/// which a node shows that it is one of Skep's.
pub const NODE_NETWORK_DRIVER: &str = "skep";
/// Name of the node network. It does what `docker_gwbridge` does in Swarm, and the ways between
/// nodes besides.
pub const NODE_NETWORK: &str = "skep_gwbridge";

/// The user's wish for a network. Never changed once stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Name and labels.
    pub annotations: Annotations,
    /// Driver and its options; `None` or an empty name: [`OVERLAY_DRIVER`].
    pub driver: Option<Driver>,
    /// Whether it also has IPv6 subnets.
    pub has_ipv6: bool,
    /// Without a way out.
    pub is_internal: bool,
    /// Addresses wanted; `None`: chosen from the cluster's pools.
    pub ipam: Option<IpamOptions>,
    /// Whether containers outside of services may use it.
    pub is_attachable: bool,
    /// Whether it carries published ports; one network does.
    pub is_ingress: bool,
    /// Node-local network whose settings each node uses (`--config-from`).
    pub config_from: Option<String>,
}

impl NetworkSpec {
    /// Name of the driver in force.
    pub fn driver_name(&self) -> &str {
        let name = self.driver.as_ref().map_or("", |driver| &driver.name);
        if name.is_empty() {
            OVERLAY_DRIVER
        } else {
            name
        }
    }

    /// Whether the leader gives this network addresses; else each node has its own.
    pub fn is_overlay(&self) -> bool {
        self.driver_name() == OVERLAY_DRIVER
    }

    /// Whether it is the node network.
    pub fn is_node_network(&self) -> bool {
        self.driver_name() == NODE_NETWORK_DRIVER
    }

    /// Whether it is one of [`PREDEFINED_NETWORKS`].
    pub fn is_predefined(&self) -> bool {
        let label = self.annotations.labels.get(PREDEFINED_LABEL);
        label.is_some_and(|value| value == "true")
    }
}

/// How addresses are managed: as wanted in a spec, as allocated in a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IpamOptions {
    /// Address manager and its options.
    pub driver: Option<Driver>,
    /// One per subnet.
    pub configs: Vec<IpamConfig>,
}

/// One subnet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IpamConfig {
    /// Family as stored. Docker's API leaves it out; the subnet tells.
    pub family: AddressFamily,
    /// The subnet; `None`: to be chosen.
    pub subnet: Option<IpNet>,
    /// The part of the subnet addresses are taken from; `None`: all of it.
    pub range: Option<IpNet>,
    /// The gateway; `None`: to be chosen.
    pub gateway: Option<IpAddr>,
    /// Addresses in use by others, by name.
    pub reserved: BTreeMap<String, IpAddr>,
}

/// Address family, with Swarm's numbers 0, 4 and 6.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AddressFamily {
    /// Not said.
    #[default]
    Unknown,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}
