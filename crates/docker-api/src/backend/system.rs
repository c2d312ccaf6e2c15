//! Facts about this node and its engine.

use std::collections::BTreeMap;

use async_trait::async_trait;
use skep_model::{GenericResource, IpamConfig, NetworkSpec, Timestamp, directory::Entry};

use crate::error::{ApiError, Result};

/// System side of the API. Everything is answered from memory.
#[async_trait]
pub trait SystemBackend: Send + Sync + 'static {
    /// What does not change while the daemon runs (labels aside).
    fn facts(&self) -> EngineFacts;

    /// Counts shown by `docker info`.
    async fn totals(&self) -> Result<EngineTotals>;

    /// Networks of this node, at least `bridge`, `host` and `none`, and its parts of the cluster's.
    async fn networks(&self) -> Result<Vec<NetworkDetail>>;

    /// Makes a network of this node alone, or settings for others; answers its id.
    async fn create_network(&self, spec: NetworkSpec, is_config_only: bool) -> Result<String> {
        let _ = (spec, is_config_only);
        Err(ApiError::not_implemented("networks of this node"))
    }

    /// Removes a network of this node, by id.
    async fn remove_network(&self, id: &str) -> Result<()> {
        Err(ApiError::not_found(format!("network {id} not found")))
    }

    /// What differs from what should be in the node's networks, in words; changes nothing.
    async fn examine_networks(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// What was repaired in the last minutes without anybody asking, in words, with when.
    async fn repaired_networks(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Repairs the node's networks; what was found before and is not any more.
    async fn heal_networks(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// What this node's data plane was told: the cluster's networks that its containers are on, and
    /// what else is there. Empty outside of clusters.
    async fn directory(&self) -> Result<Vec<Entry>> {
        Ok(Vec::new())
    }
}

/// What `docker version` and `docker info` show of the node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EngineFacts {
    /// Engine id.
    pub id: String,
    /// Skep's version.
    pub version: String,
    /// Commit it was built from.
    pub git_commit: String,
    /// When it was built, RFC 3339.
    pub build_time: String,
    /// Kernel release.
    pub kernel_version: String,
    /// `PRETTY_NAME` of the distribution.
    pub operating_system: String,
    /// `VERSION_ID` of the distribution.
    pub os_version: String,
    /// `uname -m` style architecture.
    pub architecture: String,
    /// CPUs online.
    pub cpu_count: u32,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// User-defined resources tasks can reserve.
    pub generic_resources: Vec<GenericResource>,
    /// Host name.
    pub name: String,
    /// Engine labels, `key=value`.
    pub labels: Vec<String>,
    /// Data directory.
    pub root_dir: String,
    /// Storage driver, e.g. `overlay2`.
    pub storage_driver: String,
    /// What it says of itself, in order.
    pub storage_status: Vec<(String, String)>,
    /// Default log driver.
    pub log_driver: String,
    /// `cgroupfs` or `systemd`.
    pub cgroup_driver: String,
    /// 1 or 2.
    pub cgroup_version: u8,
    /// Runtimes by name.
    pub runtimes: BTreeMap<String, RuntimeFacts>,
    /// The one in use.
    pub default_runtime: String,
    /// `name=seccomp,profile=builtin`, ….
    pub security_options: Vec<String>,
    /// Init binary for `--init`.
    pub init_binary: String,
    /// Registries spoken to over plain HTTP: host names and CIDRs.
    pub insecure_registries: Vec<String>,
    /// `Plugins` of `info`: volume, network and log drivers.
    pub volume_drivers: Vec<String>,
    /// Network drivers.
    pub network_drivers: Vec<String>,
    /// Log drivers.
    pub log_drivers: Vec<String>,
    /// Proxies in use.
    pub http_proxy: String,
    /// Proxies in use.
    pub https_proxy: String,
    /// Exceptions to the proxies.
    pub no_proxy: String,
    /// Debug mode.
    pub is_debug: bool,
    /// What limits the kernel supports; shown, and warned about when missing.
    pub has_memory_limit: bool,
    /// See above.
    pub has_swap_limit: bool,
    /// See above.
    pub has_cpu_quota: bool,
    /// See above.
    pub has_cpu_set: bool,
    /// See above.
    pub has_pids_limit: bool,
    /// IPv4 forwarding is on.
    pub has_ipv4_forwarding: bool,
    /// Warnings for `docker info`.
    pub warnings: Vec<String>,
}

/// An OCI runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeFacts {
    /// Program.
    pub path: String,
    /// Its version; empty: unknown.
    pub version: String,
}

/// Counts of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineTotals {
    /// Running containers.
    pub running: u64,
    /// Paused containers.
    pub paused: u64,
    /// Other containers.
    pub stopped: u64,
    /// Images.
    pub images: u64,
}

/// A network of this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkDetail {
    /// Id, 64 hex digits.
    pub id: String,
    /// Name.
    pub name: String,
    /// Driver (`bridge`, `host`, `null`).
    pub driver: String,
    /// `local` or `swarm`.
    pub scope: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// Subnets.
    pub subnets: Vec<IpamConfig>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// IPv6 is on.
    pub has_ipv6: bool,
    /// Without a way out.
    pub is_internal: bool,
    /// Whether containers outside of services may use it.
    pub is_attachable: bool,
    /// Settings for other networks only.
    pub is_config_only: bool,
    /// Network whose settings it has; empty: its own.
    pub config_from: String,
}
