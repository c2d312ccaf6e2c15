//! Key material of the simulated managers: readable texts, different each time.

use std::sync::{Arc, Mutex};

use skep_manager::vault::{Issuer, Order, Vault};
use skep_model::{CaConfig, NodeId, Redacted, Rng, RootCa, Timestamp, object::RootRotation};

/// Certificates as they are made, before anything is committed.
pub(crate) type Leak = Arc<Mutex<Vec<(NodeId, Vec<u8>)>>>;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct FakeVault {
    rng: Rng,
    leak: Leak,
}

impl FakeVault {
    /// A vault that also puts what it issues into `leak`.
    pub(crate) fn new(rng: Rng, leak: Leak) -> Self {
        Self { rng, leak }
    }

    fn made(&mut self, what: &str) -> String {
        format!("{what}-{:016x}", self.rng.next_u64())
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
        let root = String::from_utf8_lossy(root).into_owned();
        let text = format!("{} {:?} by {root}", order.node_id, order.role);
        let chain = self.made(&text).into_bytes();
        let mut leak = self.leak.lock().expect("one thread");
        leak.push((order.node_id, chain.clone()));
        Ok(chain)
    }

    fn join_token(&mut self, _ca_cert: &[u8]) -> Redacted<String> {
        Redacted(self.made("token"))
    }

    fn unlock_key(&mut self) -> Redacted<Vec<u8>> {
        Redacted(self.made("key").into_bytes())
    }

    fn rotate_root(
        &mut self,
        _root: &RootCa,
        _wanted: &CaConfig,
        _now: Timestamp,
    ) -> Result<RootRotation, String> {
        Ok(RootRotation {
            ca_cert: self.made("root").into_bytes(),
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

/// Whether a certificate is a manager's.
pub(crate) fn is_managers(chain: &[u8]) -> bool {
    String::from_utf8_lossy(chain).contains(" Manager ")
}
