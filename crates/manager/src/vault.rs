//! Key material for the leader core: certificates, tokens, keys.
//!
//! The core decides when a certificate is issued or a token replaced; making one takes secrets and
//! the kernel's randomness, so it is a capability handed to the core. [`SystemVault`] is the real
//! one, over `skep_ca`; the simulator gives a deterministic one.

use std::{fmt, time::Duration};

use skep_model::{
    CaConfig, ClusterId, NodeId, Redacted, Role, RootCa, Timestamp, object::RootRotation,
};

/// A certificate that is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// The request (PEM), whose signature was checked.
    pub csr: &'a [u8],
    /// For whom.
    pub node_id: NodeId,
    /// Of which cluster.
    pub cluster_id: ClusterId,
    /// In which role.
    pub role: Role,
    /// For how long.
    pub expiry: Duration,
}

/// Who issued a certificate, as nodes report it in their `NodeTlsInfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// Raw DER of the subject.
    pub subject: Vec<u8>,
    /// DER of the public key (SPKI).
    pub public_key: Vec<u8>,
}

/// See the module's documentation. Errors are texts for the operator.
pub trait Vault: fmt::Debug + Send {
    /// A certificate (PEM chain); during a rotation signed by the new root and followed by its
    /// cross-signed certificate.
    fn issue(
        &mut self,
        root: &RootCa,
        order: &Order<'_>,
        now: Timestamp,
    ) -> Result<Vec<u8>, String>;

    /// A new token that admits nodes to the cluster of this root.
    fn join_token(&mut self, ca_cert: &[u8]) -> Redacted<String>;

    /// A new key that unlocks managers, 32 bytes.
    fn unlock_key(&mut self) -> Redacted<Vec<u8>>;

    /// A rotation from `root` to the root that `wanted` names, or to a new one.
    fn rotate_root(
        &mut self,
        root: &RootCa,
        wanted: &CaConfig,
        now: Timestamp,
    ) -> Result<RootRotation, String>;

    /// What certificates of this root name as their issuer.
    fn issuer(&self, ca_cert: &[u8]) -> Option<Issuer>;

    /// `RootCa.ca_cert_hash` of a root.
    fn hash(&self, ca_cert: &[u8]) -> String;
}
