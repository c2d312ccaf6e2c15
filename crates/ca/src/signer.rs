//! What a cluster object says about issuing, ready to issue: the root, or during a rotation the new root and the
//! certificate that makes it acceptable to those who know the old one only.

use std::time::Duration;

use skep_model::{RootCa as StoredRootCa, Timestamp};

use crate::{
    certificate::{self, Subject},
    pem_text,
    request::{PublicKey, RequestError},
    root::{RootCa, RootError},
};

/// Issues certificates for a cluster.
#[derive(Debug)]
pub struct Signer {
    root: RootCa,
    /// PEM, behind each certificate issued.
    intermediates: String,
}

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The request is refused.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The root does not issue.
    #[error(transparent)]
    Root(#[from] RootError),
}

// === impl Signer ===

impl Signer {
    /// The signer of a stored root.
    ///
    /// # Errors
    /// What is stored is malformed or does not belong together, or the key is not there.
    pub fn from_stored(stored: &StoredRootCa) -> Result<Self, RootError> {
        let Some(rotation) = &stored.root_rotation else {
            let root = root(&stored.ca_cert, &stored.ca_key.0)?;
            return Ok(Self {
                root,
                intermediates: String::new(),
            });
        };
        let root = root(&rotation.ca_cert, &rotation.ca_key.0)?;
        let cross_signed = &rotation.cross_signed_ca_cert;
        let issuer = certificate::issuer(cross_signed).map_err(RootError::Certificates)?;
        if issuer != root.issuer() {
            return Err(RootError::CrossSigned);
        }
        let intermediates = pem_text::normalize_certificates(cross_signed);
        Ok(Self {
            root,
            intermediates: intermediates.ok_or(RootError::CrossSigned)?,
        })
    }

    /// Certifies the key of a request (PEM) for `subject`: a chain in PEM, the certificate first. See [`RootCa::issue`] for
    /// `expiry`.
    ///
    /// # Errors
    /// The request is refused, or the cryptographic library fails.
    pub fn issue(
        &self,
        csr_pem: &[u8],
        subject: &Subject,
        now: Timestamp,
        expiry: Duration,
    ) -> Result<String, SignError> {
        let key = PublicKey::from_csr_pem(csr_pem)?;
        self.issue_for(&key, subject, now, expiry)
    }

    pub(crate) fn root(&self) -> &RootCa {
        &self.root
    }

    pub(crate) fn issue_for(
        &self,
        key: &PublicKey,
        subject: &Subject,
        now: Timestamp,
        expiry: Duration,
    ) -> Result<String, SignError> {
        let certificate = self.root.issue(key, subject, now, expiry)?;
        Ok(certificate + &self.intermediates)
    }
}

fn root(certificates: &[u8], key: &[u8]) -> Result<RootCa, RootError> {
    if key.is_empty() {
        return Err(RootError::NoKey);
    }
    let malformed = RootError::Certificates(certificate::CertificateError::Malformed);
    let certificates = std::str::from_utf8(certificates).map_err(|_| malformed)?;
    let key = pem_text::normalize_key(key).ok_or(RootError::Key)?;
    RootCa::from_pem(certificates, &key)
}
