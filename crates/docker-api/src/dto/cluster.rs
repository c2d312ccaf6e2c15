//! The cluster ("swarm") and this node's place in it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::dto::{
    Map, is_default,
    meta::{Driver, Meta, TlsInfo},
};

/// The cluster with its join tokens.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Swarm {
    #[serde(flatten)]
    pub(crate) info: ClusterInfo,
    pub(crate) join_tokens: JoinTokens,
}

/// The cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ClusterInfo {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) meta: Meta,
    pub(crate) spec: Spec,
    #[serde(rename = "TLSInfo")]
    pub(crate) tls_info: TlsInfo,
    pub(crate) root_rotation_in_progress: bool,
    pub(crate) default_addr_pool: Vec<String>,
    pub(crate) subnet_size: u32,
    pub(crate) data_path_port: u32,
}

/// Tokens that admit nodes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct JoinTokens {
    pub(crate) worker: String,
    pub(crate) manager: String,
}

/// Settings of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Spec {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) name: String,
    pub(crate) labels: Map,
    pub(crate) orchestration: Orchestration,
    pub(crate) raft: Raft,
    pub(crate) dispatcher: Dispatcher,
    #[serde(rename = "CAConfig")]
    pub(crate) ca_config: CaConfig,
    pub(crate) task_defaults: TaskDefaults,
    pub(crate) encryption_config: EncryptionConfig,
}

/// Settings of the orchestrators.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Orchestration {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) task_history_retention_limit: Option<i64>,
}

/// Settings of raft.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Raft {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) snapshot_interval: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keep_old_snapshots: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) log_entries_for_slow_followers: u64,
    pub(crate) election_tick: u32,
    pub(crate) heartbeat_tick: u32,
}

/// Settings of the dispatcher.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Dispatcher {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) heartbeat_period: i64,
}

/// Settings of the certificate authority. Certificate and key are read, never written.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct CaConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) node_cert_expiry: i64,
    #[serde(rename = "ExternalCAs", skip_serializing_if = "is_default")]
    pub(crate) external_cas: Vec<ExternalCa>,
    #[serde(rename = "SigningCACert", skip_serializing)]
    pub(crate) signing_ca_cert: String,
    #[serde(rename = "SigningCAKey", skip_serializing)]
    pub(crate) signing_ca_key: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) force_rotate: u64,
}

impl fmt::Debug for CaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaConfig").finish_non_exhaustive()
    }
}

/// An external signer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ExternalCa {
    pub(crate) protocol: String,
    #[serde(rename = "URL")]
    pub(crate) url: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) options: Map,
    #[serde(rename = "CACert")]
    pub(crate) ca_cert: String,
}

/// Defaults of tasks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct TaskDefaults {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_driver: Option<Driver>,
}

/// Encryption at rest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct EncryptionConfig {
    pub(crate) auto_lock_managers: bool,
}

/// `POST /swarm/init`.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct InitRequest {
    pub(crate) listen_addr: String,
    pub(crate) advertise_addr: String,
    pub(crate) data_path_addr: String,
    pub(crate) data_path_port: u32,
    pub(crate) force_new_cluster: bool,
    pub(crate) spec: Spec,
    pub(crate) auto_lock_managers: bool,
    pub(crate) availability: String,
    pub(crate) default_addr_pool: Vec<String>,
    pub(crate) subnet_size: u32,
}

/// `POST /swarm/join`.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct JoinRequest {
    pub(crate) listen_addr: String,
    pub(crate) advertise_addr: String,
    pub(crate) data_path_addr: String,
    pub(crate) remote_addrs: Vec<String>,
    pub(crate) join_token: String,
    pub(crate) availability: String,
}

/// `GET /swarm/unlockkey` answers it, `POST /swarm/unlock` takes it.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct UnlockKey {
    pub(crate) unlock_key: String,
}

/// The `Swarm` part of `/info`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct LocalInfo {
    #[serde(rename = "NodeID")]
    pub(crate) node_id: String,
    pub(crate) node_addr: String,
    pub(crate) local_node_state: &'static str,
    pub(crate) control_available: bool,
    pub(crate) error: String,
    /// `null` when there is none.
    pub(crate) remote_managers: Option<Vec<Peer>>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) nodes: usize,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) managers: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<ClusterInfo>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) warnings: Vec<String>,
}

/// A known manager.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Peer {
    #[serde(rename = "NodeID")]
    pub(crate) node_id: String,
    #[serde(rename = "Addr")]
    pub(crate) addr: String,
}
