//! Flags of `skep daemon`. Each overrides the same key of the config file.

use std::path::PathBuf;

use clap::Parser;

/// Run the engine and, once part of a cluster, its control plane.
#[derive(Debug, Clone, Default, Parser)]
pub struct Args {
    /// Config file (TOML); an explicit one must exist
    #[arg(long, value_name = "FILE", env = "SKEP_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where state is kept [default: /var/lib/skep]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where sockets and namespaces live until the next boot [default: /run/skep]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Address of the Engine API: unix:///PATH or tcp://LOOPBACK:PORT; may be repeated
    /// [default: unix:///run/skep/skep.sock]
    #[arg(short = 'H', long = "host", value_name = "ADDR")]
    pub hosts: Vec<String>,
    /// Group that may use the unix sockets [default: docker, when it exists]
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// Log filter, e.g. info or skep_manager=debug [default: info]
    #[arg(long, value_name = "FILTER", env = "SKEP_LOG")]
    pub log_level: Option<String>,
    /// Log format: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Address that serves metrics for Prometheus at /metrics, without TLS [default: none]
    #[arg(long, value_name = "IP:PORT")]
    pub metrics_addr: Option<String>,
    /// Raft with Docker's ticks (1 s, elections of 10 s and more), for a group with Docker's managers
    #[arg(long)]
    pub raft_compat: bool,
    /// OCI runtime: auto, crun, runc or a path [default: auto]
    #[arg(long, value_name = "RUNTIME")]
    pub oci_runtime: Option<String>,
    /// Name of the node network's bridge [default: skep0]
    #[arg(long, value_name = "NAME")]
    pub bridge: Option<String>,
    /// Node network of a cluster initialised here, of which every node gets a part [default: one that
    /// nothing on this host uses]
    #[arg(long, value_name = "CIDR")]
    pub bridge_subnet: Option<String>,
    /// Registry spoken to over plain HTTP besides loopback ones; may be repeated
    #[arg(long = "insecure-registry", value_name = "HOST[:PORT]")]
    pub insecure_registries: Vec<String>,
    /// Engine label KEY=VALUE; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// User-defined resource tasks can reserve, KIND=VALUE: a count (SSD=4) or an item (GPU=UUID1); may be
    /// repeated
    #[arg(long = "node-generic-resource", value_name = "KIND=VALUE")]
    pub node_generic_resources: Vec<String>,
}
