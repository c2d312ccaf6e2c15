//! What the engine remembers of a container beyond what the runtime does. One JSON file each.

use std::{collections::BTreeMap, fs, io, net::IpAddr, path::Path};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use skep_network::Mac;

use super::places::{DnsRecord, NodeMode};
use crate::{
    dataplane::Place,
    image::Healthcheck,
    runtime::{ContainerConfig, ContainerId, config::NetworkNamespace},
};

/// The version of `record.json` this code writes.
pub(super) const RECORD_VERSION: u32 = 1;
/// Name of the record in the container's directory.
const FILE: &str = "record.json";
/// Longest record read back; a longer one is damaged (specs are limited to 1 MiB by the API).
const RECORD_BYTES_MAX: u64 = 16 << 20;

/// A container as the engine made it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Format version.
    pub version: u32,
    /// 64 hex digits.
    pub id: ContainerId,
    /// Name without slash; unique on the node.
    pub name: String,
    /// Image as asked for.
    pub image: String,
    /// `sha256:…` of the image's config.
    pub image_id: String,
    /// Nanoseconds since the epoch.
    pub created_at_ns: i64,
    /// Labels of the container: image's, user's and Swarm's.
    pub labels: BTreeMap<String, String>,
    /// The task it runs.
    pub task_id: Option<String>,
    /// Entrypoint in force.
    pub entrypoint: Vec<String>,
    /// Arguments in force.
    pub cmd: Vec<String>,
    /// Ports the image exposes, as `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Grace between stop signal and SIGKILL.
    pub stop_grace_ms: u64,
    /// Stop signal as given; empty: SIGTERM.
    pub stop_signal: String,
    /// Health check in force: the service's over the image's.
    #[serde(default)]
    pub healthcheck: Option<Healthcheck>,
    /// Log driver and options as given.
    pub log_driver: (String, BTreeMap<String, String>),
    /// Mounts in effect.
    pub mounts: Vec<MountRecord>,
    /// Volumes to remove with the container.
    pub anonymous_volumes: Vec<String>,
    /// Its place on the node network; absent with the host's network or without a way out.
    pub network: Option<NetworkRecord>,
    /// Where it is on the node itself.
    #[serde(default)]
    pub node_mode: NodeMode,
    /// Its places on overlay networks.
    #[serde(default)]
    pub places: Vec<Place>,
    /// Its places on networks that the node has for itself.
    #[serde(default)]
    pub local_places: Vec<LocalPlaceRecord>,
    /// The user's wishes for name resolution.
    #[serde(default)]
    pub dns: DnsRecord,
    /// What the runtime was given.
    pub config: ContainerConfig,
}

/// A mount in effect, as `docker inspect` shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRecord {
    /// `bind`, `volume` or `tmpfs`.
    pub kind: String,
    /// Volume name.
    pub name: String,
    /// Host path.
    pub source: String,
    /// Path in the container.
    pub destination: String,
    /// Volume driver.
    pub driver: String,
    /// May be written to.
    pub is_writable: bool,
    /// Propagation (`rprivate`, …).
    pub propagation: String,
}

/// A container's place on a network that the node has for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalPlaceRecord {
    /// The network's id.
    pub network_id: String,
    /// Its name.
    pub network_name: String,
    /// Its driver.
    pub driver: String,
    /// Its subnets.
    pub subnets: Vec<IpNet>,
    /// Its gateways, whether the container leaves through them or not.
    pub gateways: Vec<IpAddr>,
    /// Name of the interface.
    pub interface: String,
    /// The container's addresses with prefix length.
    pub addresses: Vec<IpNet>,
    /// Other names of the container there.
    pub aliases: Vec<String>,
    /// Whether it is the container's way out.
    pub is_way_out: bool,
}

impl LocalPlaceRecord {
    /// Ethernet address of the interface.
    pub fn mac(&self) -> Option<Mac> {
        self.addresses.first().map(|net| Mac::from_ip(net.addr()))
    }
}

/// A container's place on the node network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// Address with prefix length.
    pub address: String,
    /// Default route.
    pub gateway: String,
    /// IPv6 address with prefix length; empty without one.
    #[serde(default)]
    pub address6: String,
    /// Default route of IPv6; empty without one.
    #[serde(default)]
    pub gateway6: String,
    /// Link address.
    pub mac: String,
    /// Network namespace.
    pub netns_path: String,
    /// Published ports.
    pub ports: Vec<skep_network::HostPort>,
}

impl Record {
    /// Its network namespace; `None`: the node's own.
    pub fn netns_path(&self) -> Option<&Path> {
        match &self.config.namespaces.network {
            NetworkNamespace::Path(path) => Some(path),
            NetworkNamespace::Private | NetworkNamespace::Host => None,
        }
    }

    /// Stores the record so that a crash leaves the old one or the new one.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(self)?;
        replace_file(&dir.join(FILE), &bytes)
    }

    /// Reads a record back.
    pub fn read(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        if fs::metadata(&path)?.len() > RECORD_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "record is too long",
            ));
        }
        let record: Self = serde_json::from_slice(&fs::read(path)?)?;
        if record.version != RECORD_VERSION {
            let message = format!("record has unknown version {}", record.version);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(record)
    }
}

/// Writes a file whole or not at all: temporary name, then rename. Not synced: the records of a
/// machine that lost power describe containers that are gone.
pub(super) fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    fs::write(&temporary, bytes)?;
    fs::rename(&temporary, path)
}
