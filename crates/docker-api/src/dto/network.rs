//! Networks of this node and of the cluster.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dto::{
    Map, is_default,
    meta::{Driver, Meta},
};

/// A network, as `docker network` shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Network {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) created: String,
    pub(crate) scope: String,
    pub(crate) driver: String,
    #[serde(rename = "EnableIPv4")]
    pub(crate) has_ipv4: bool,
    #[serde(rename = "EnableIPv6")]
    pub(crate) has_ipv6: bool,
    #[serde(rename = "IPAM")]
    pub(crate) ipam: Ipam,
    pub(crate) internal: bool,
    pub(crate) attachable: bool,
    pub(crate) ingress: bool,
    pub(crate) config_from: ConfigReference,
    pub(crate) config_only: bool,
    /// Those of this node; `null` for networks of the cluster that this node is no part of.
    pub(crate) containers: Option<BTreeMap<String, EndpointResource>>,
    pub(crate) options: Option<Map>,
    pub(crate) labels: Option<Map>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) peers: Vec<PeerInfo>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) services: BTreeMap<String, ServiceInfo>,
}

/// A container's place on a network.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct EndpointResource {
    pub(crate) name: String,
    #[serde(rename = "EndpointID")]
    pub(crate) endpoint_id: String,
    pub(crate) mac_address: String,
    #[serde(rename = "IPv4Address")]
    pub(crate) ipv4_address: String,
    #[serde(rename = "IPv6Address")]
    pub(crate) ipv6_address: String,
}

/// A node that is part of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PeerInfo {
    pub(crate) name: String,
    #[serde(rename = "IP")]
    pub(crate) ip: String,
}

/// A service on a network.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ServiceInfo {
    #[serde(rename = "VIP")]
    pub(crate) vip: String,
    pub(crate) ports: Vec<String>,
    #[serde(rename = "LocalLBIndex")]
    pub(crate) local_lb_index: u32,
    pub(crate) tasks: Vec<TaskInfo>,
}

/// A task of a service on a network.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TaskInfo {
    pub(crate) name: String,
    #[serde(rename = "EndpointID")]
    pub(crate) endpoint_id: String,
    #[serde(rename = "EndpointIP")]
    pub(crate) endpoint_ip: String,
    pub(crate) info: Map,
}

/// How addresses are managed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Ipam {
    pub(crate) driver: String,
    pub(crate) options: Option<Map>,
    pub(crate) config: Option<Vec<IpamConfig>>,
}

/// One subnet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct IpamConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) subnet: String,
    #[serde(rename = "IPRange", skip_serializing_if = "is_default")]
    pub(crate) ip_range: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) gateway: String,
    #[serde(rename = "AuxiliaryAddresses", skip_serializing_if = "is_default")]
    pub(crate) auxiliary_addresses: BTreeMap<String, String>,
}

/// Names the network whose settings are used.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ConfigReference {
    pub(crate) network: String,
}

/// `POST /networks/create`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct CreateNetwork {
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) scope: String,
    #[serde(rename = "EnableIPv4")]
    pub(crate) has_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    pub(crate) has_ipv6: Option<bool>,
    #[serde(rename = "IPAM")]
    pub(crate) ipam: Option<Ipam>,
    pub(crate) internal: bool,
    pub(crate) attachable: bool,
    pub(crate) ingress: bool,
    pub(crate) config_only: bool,
    pub(crate) config_from: Option<ConfigReference>,
    pub(crate) options: Option<Map>,
    pub(crate) labels: Option<Map>,
}

impl CreateNetwork {
    /// The driver in force.
    pub(crate) fn driver_name(&self) -> &str {
        match self.driver.as_str() {
            "" => "bridge",
            driver => driver,
        }
    }
}

/// `POST /networks/{id}/connect` and `disconnect`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ConnectNetwork {
    pub(crate) container: String,
}

/// Answer to a creation.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NetworkCreated {
    pub(crate) id: String,
    pub(crate) warning: &'static str,
}

/// `POST /networks/prune`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NetworksPruned {
    pub(crate) networks_deleted: Option<Vec<String>>,
}

/// A place of a task on a network.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Attachment {
    pub(crate) network: ClusterNetwork,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) addresses: Vec<String>,
}

/// A network as the cluster stores it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ClusterNetwork {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) meta: Meta,
    pub(crate) spec: ClusterNetworkSpec,
    pub(crate) driver_state: Driver,
    #[serde(rename = "IPAMOptions", skip_serializing_if = "Option::is_none")]
    pub(crate) ipam_options: Option<IpamOptions>,
}

/// What a network of the cluster is.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ClusterNetworkSpec {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) name: String,
    pub(crate) labels: Option<Map>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) driver_configuration: Option<Driver>,
    #[serde(rename = "IPv6Enabled", skip_serializing_if = "is_default")]
    pub(crate) has_ipv6: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) internal: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) attachable: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) ingress: bool,
    #[serde(rename = "IPAMOptions", skip_serializing_if = "Option::is_none")]
    pub(crate) ipam_options: Option<IpamOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) config_from: Option<ConfigReference>,
    pub(crate) scope: &'static str,
}

/// How addresses of a network of the cluster are managed.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct IpamOptions {
    pub(crate) driver: Driver,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) configs: Vec<ClusterIpamConfig>,
}

/// One subnet of a network of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ClusterIpamConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) subnet: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) range: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) gateway: String,
}

/// A wish of a service to be on a network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct AttachmentConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) target: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) aliases: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) driver_opts: Option<Map>,
}
