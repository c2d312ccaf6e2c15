//! The cluster object: settings, root CA, keys. Exactly one exists, named `default`.

use std::{collections::BTreeMap, time::Duration};

use ipnet::IpNet;

use crate::{
    id::ClusterId,
    object::{Meta, Node},
    redact::Redacted,
    spec::{ClusterSpec, DEFAULT_CERT_EXPIRY},
    time::Timestamp,
};

/// How much longer than its certificate lives a removed node is refused, as in Swarm: clocks
/// differ.
pub const BLACKLIST_MARGIN: Duration = Duration::from_secs(7 * 24 * 3600);

/// UDP port of the data path where none was chosen; VXLAN's own (RFC 7348).
pub const DEFAULT_DATA_PATH_PORT: u16 = 4789;

/// The cluster as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Its id; the organisation of all certificates.
    pub id: ClusterId,
    /// Bookkeeping.
    pub meta: Meta,
    /// What is wanted.
    pub spec: ClusterSpec,
    /// Certificate authority.
    pub root_ca: RootCa,
    /// Keys of the data plane.
    pub network_bootstrap_keys: Vec<EncryptionKey>,
    /// Clock of those keys.
    pub encryption_key_lamport_clock: u64,
    /// Common names of removed nodes, until their certificates expire.
    pub blacklisted_certificates: BTreeMap<String, Timestamp>,
    /// Keys that unlock managers.
    pub unlock_keys: Vec<EncryptionKey>,
    /// FIPS mode; carried.
    pub is_fips: bool,
    /// Pools that network subnets are cut from.
    pub default_address_pool: Vec<IpNet>,
    /// Prefix length of those subnets.
    pub subnet_size: u32,
    /// UDP port of the data path; 0 means [`DEFAULT_DATA_PATH_PORT`].
    pub vxlan_udp_port: u16,
}

// === impl Cluster ===

impl Cluster {
    /// Refuses the certificate of a removed node for as long as any certificate issued by `now`
    /// can live, and [`BLACKLIST_MARGIN`] longer; forgets entries that are no longer needed.
    ///
    /// Swarm reads the end from the certificate itself. The bound taken here, `now` and the longer
    /// of the expiry in force and the default one, needs no parsing and is never earlier, unless
    /// the expiry was longer than both when the certificate was issued.
    pub fn blacklist(&mut self, node: &Node, now: Timestamp) {
        self.blacklisted_certificates
            .retain(|_, until| now < *until);
        let life = self.spec.ca.node_cert_expiry.max(DEFAULT_CERT_EXPIRY);
        let name = match node.certificate.cn.as_str() {
            "" => node.id.to_string(),
            name => name.to_owned(),
        };
        let until = now + life + BLACKLIST_MARGIN;
        self.blacklisted_certificates.insert(name, until);
    }
}

/// The cluster's certificate authority.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RootCa {
    /// Key (PEM). A secret.
    pub ca_key: Redacted<Vec<u8>>,
    /// Certificates (PEM).
    pub ca_cert: Vec<u8>,
    /// `sha256:` and the hex digest of `ca_cert`.
    pub ca_cert_hash: String,
    /// Tokens that admit nodes. Secrets.
    pub join_tokens: JoinTokens,
    /// A rotation under way.
    pub root_rotation: Option<RootRotation>,
    /// `CaConfig::force_rotate` last acted on.
    pub last_forced_rotation: u64,
}

/// A root rotation under way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RootRotation {
    /// New root (PEM).
    pub ca_cert: Vec<u8>,
    /// Its key (PEM). A secret.
    pub ca_key: Redacted<Vec<u8>>,
    /// New root signed by the old key (PEM).
    pub cross_signed_ca_cert: Vec<u8>,
}

/// Tokens that admit nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JoinTokens {
    /// Admits workers.
    pub worker: Redacted<String>,
    /// Admits managers.
    pub manager: Redacted<String>,
}

/// A symmetric key with its purpose. The only algorithm is AES-128-GCM (number 0).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncryptionKey {
    /// Purpose, e.g. `networking:gossip`.
    pub subsystem: String,
    /// The key. A secret.
    pub key: Redacted<Vec<u8>>,
    /// Order of keys of one purpose.
    pub lamport_time: u64,
}
