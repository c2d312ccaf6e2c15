//! Key material for the leader core: certificates, tokens, keys.
//!
//! The core decides when a certificate is issued or a token replaced; making one takes secrets and
//! the kernel's randomness, so it is a capability handed to the core. [`SystemVault`] is the real
//! one, over `skep_ca`; the simulator gives a deterministic one.

mod system;

use std::{fmt, time::Duration};

use skep_model::{
    CaConfig, ClusterId, NodeId, Redacted, Role, RootCa, Timestamp, object::RootRotation,
};

pub use self::system::SystemVault;

/// Bytes of a key of the data plane (AES-128-GCM).
const NETWORK_KEY_BYTES: usize = 16;

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

    /// A new key of the data plane: AES-128, so half of what unlocks a manager.
    fn network_key(&mut self) -> Redacted<Vec<u8>> {
        let mut key = self.unlock_key();
        key.0.truncate(NETWORK_KEY_BYTES);
        key
    }

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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Makes readable nonsense; tells one making from the next.
    #[derive(Debug, Default)]
    pub(crate) struct FakeVault {
        made: u64,
    }

    impl FakeVault {
        fn next(&mut self, what: &str) -> String {
            self.made += 1;
            format!("{what}-{}", self.made)
        }
    }

    impl Vault for FakeVault {
        fn issue(
            &mut self,
            root: &RootCa,
            order: &Order<'_>,
            _now: Timestamp,
        ) -> Result<Vec<u8>, String> {
            let root = root
                .root_rotation
                .as_ref()
                .map_or(&root.ca_cert, |new| &new.ca_cert);
            let root = String::from_utf8_lossy(root);
            let text = format!("{} {:?} by {root}", order.node_id, order.role);
            Ok(text.into_bytes())
        }

        fn join_token(&mut self, ca_cert: &[u8]) -> Redacted<String> {
            let root = String::from_utf8_lossy(ca_cert).into_owned();
            Redacted(self.next(&format!("token-{root}")))
        }

        fn unlock_key(&mut self) -> Redacted<Vec<u8>> {
            Redacted(self.next("key").into_bytes())
        }

        fn rotate_root(
            &mut self,
            _root: &RootCa,
            wanted: &CaConfig,
            _now: Timestamp,
        ) -> Result<RootRotation, String> {
            let ca_cert = if wanted.signing_ca_cert.is_empty() {
                self.next("root").into_bytes()
            } else {
                wanted.signing_ca_cert.clone()
            };
            Ok(RootRotation {
                ca_cert,
                ca_key: Redacted(b"a key".to_vec()),
                cross_signed_ca_cert: b"cross".to_vec(),
            })
        }

        fn issuer(&self, ca_cert: &[u8]) -> Option<Issuer> {
            Some(Issuer {
                subject: b"swarm-ca".to_vec(),
                public_key: ca_cert.to_vec(),
            })
        }

        fn hash(&self, ca_cert: &[u8]) -> String {
            format!("hash of {}", String::from_utf8_lossy(ca_cert))
        }
    }
}
