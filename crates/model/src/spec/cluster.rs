//! Settings of the whole cluster.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    redact::Redacted,
    spec::{Annotations, Driver},
};

/// Swarm's default number of dead tasks kept per slot.
pub const DEFAULT_TASK_HISTORY_LIMIT: i64 = 5;
/// Swarm's default period of agent heartbeats.
pub const DEFAULT_HEARTBEAT_PERIOD: Duration = Duration::from_secs(5);
/// Swarm's default life of node certificates: 90 days.
pub const DEFAULT_CERT_EXPIRY: Duration = Duration::from_secs(2160 * 3600);

/// The operator's settings for the cluster. The only cluster object is named `default`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSpec {
    /// Name (`default`) and labels.
    pub annotations: Annotations,
    /// Dead tasks kept per slot or node; negative keeps all.
    pub task_history_limit: i64,
    /// Raft settings as stored. Compat ticks; see `docs/design/raft.md` for what Skep uses.
    pub raft: RaftSettings,
    /// Time between heartbeats of agents.
    pub heartbeat_period: Duration,
    /// Certificate authority.
    pub ca: CaConfig,
    /// Log driver of tasks that name none.
    pub default_log_driver: Option<Driver>,
    /// Seal manager keys so that a restart needs the unlock key.
    pub auto_lock_managers: bool,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            annotations: Annotations {
                name: "default".to_owned(),
                ..Annotations::default()
            },
            task_history_limit: DEFAULT_TASK_HISTORY_LIMIT,
            raft: RaftSettings::default(),
            heartbeat_period: DEFAULT_HEARTBEAT_PERIOD,
            ca: CaConfig::default(),
            default_log_driver: None,
            auto_lock_managers: false,
        }
    }
}

/// Raft settings an operator can see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftSettings {
    /// Log entries between snapshots.
    pub snapshot_interval: u64,
    /// Snapshots kept beyond the newest.
    pub keep_old_snapshots: u64,
    /// Entries kept behind a snapshot for slow followers.
    pub log_entries_for_slow_followers: u64,
    /// Ticks between heartbeats.
    pub heartbeat_tick: u32,
    /// Ticks without a leader until an election.
    pub election_tick: u32,
}

impl Default for RaftSettings {
    fn default() -> Self {
        Self {
            snapshot_interval: 10_000,
            keep_old_snapshots: 0,
            log_entries_for_slow_followers: 500,
            heartbeat_tick: 1,
            election_tick: 10,
        }
    }
}

/// Certificate authority settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaConfig {
    /// Life of node certificates.
    pub node_cert_expiry: Duration,
    /// External signers.
    pub external_cas: Vec<ExternalCa>,
    /// Root certificate an operator wants (PEM); empty: own.
    pub signing_ca_cert: Vec<u8>,
    /// Its key (PEM). A secret.
    pub signing_ca_key: Redacted<Vec<u8>>,
    /// Counter bumped to force a rotation.
    pub force_rotate: u64,
}

impl Default for CaConfig {
    fn default() -> Self {
        Self {
            node_cert_expiry: DEFAULT_CERT_EXPIRY,
            external_cas: Vec::new(),
            signing_ca_cert: Vec::new(),
            signing_ca_key: Redacted::default(),
            force_rotate: 0,
        }
    }
}

/// An external CFSSL signer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExternalCa {
    /// Where it listens.
    pub url: String,
    /// Its options.
    pub options: BTreeMap<String, String>,
    /// The root it signs for (PEM).
    pub ca_cert: Vec<u8>,
}
