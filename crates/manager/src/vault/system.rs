//! The real vault: keys from the kernel's randomness, certificates signed by the cluster's root.

use std::error::Error;

use skep_ca::{JoinToken, Signer, Subject, UnlockKey};
use skep_model::{CaConfig, Redacted, RootCa, Timestamp, object::RootRotation};

use super::{Issuer, Order, Vault};

/// See the module's documentation.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemVault;

impl Vault for SystemVault {
    fn issue(
        &mut self,
        root: &RootCa,
        order: &Order<'_>,
        now: Timestamp,
    ) -> Result<Vec<u8>, String> {
        let signer = Signer::from_stored(root).map_err(|error| chain(&error))?;
        let subject = Subject {
            node_id: order.node_id,
            role: order.role,
            cluster_id: order.cluster_id,
        };
        let issued = signer.issue(order.csr, &subject, now, order.expiry);
        issued
            .map(String::into_bytes)
            .map_err(|error| chain(&error))
    }

    fn join_token(&mut self, ca_cert: &[u8]) -> Redacted<String> {
        Redacted(JoinToken::generate(ca_cert).to_string())
    }

    fn unlock_key(&mut self) -> Redacted<Vec<u8>> {
        Redacted(UnlockKey::generate().expose().to_vec())
    }

    fn rotate_root(
        &mut self,
        root: &RootCa,
        wanted: &CaConfig,
        now: Timestamp,
    ) -> Result<RootRotation, String> {
        skep_ca::rotation(root, wanted, now).map_err(|error| chain(&error))
    }

    fn issuer(&self, ca_cert: &[u8]) -> Option<Issuer> {
        let issuer = skep_ca::issuer(ca_cert).ok()?;
        Some(Issuer {
            subject: issuer.subject,
            public_key: issuer.public_key,
        })
    }

    fn hash(&self, ca_cert: &[u8]) -> String {
        skep_ca::bundle_hash(ca_cert)
    }
}

/// An error with its causes, for an operator who sees nothing else of it.
fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
