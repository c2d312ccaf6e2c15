//! A node's key, and the request to certify its public half.

use std::fmt;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject as _};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer as _};
use zeroize::Zeroizing;

/// Largest CSR read. A P-256 one has about 300 bytes; peers without a certificate send these.
const CSR_BYTES_MAX: usize = 16 << 10;

/// A fresh key pair with its request.
#[derive(Clone)]
pub struct KeyRequest {
    /// The private key, PKCS#8 PEM.
    pub key_pem: Zeroizing<String>,
    /// The CSR: no subject and no extensions, as `SwarmKit`'s.
    pub csr_pem: String,
}

/// A public key someone proved to hold.
pub struct PublicKey(pub(crate) rcgen::SubjectPublicKeyInfo);

/// Why a request is refused, or none could be made.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It is too large, or no CSR.
    #[error("certificate request is malformed")]
    Malformed,
    /// It is not signed with the key it presents.
    #[error("certificate request has a wrong signature")]
    Signature,
    /// The key is of a kind nodes do not use.
    #[error("certificate request has an unsupported key")]
    UnsupportedKey,
    /// The cryptographic library failed.
    #[error("failed to generate a key")]
    Generate(#[source] rcgen::Error),
}

// === impl KeyRequest ===

impl KeyRequest {
    /// A new ECDSA P-256 key from the kernel's random numbers.
    ///
    /// # Errors
    /// The cryptographic library fails.
    pub fn generate() -> Result<Self, RequestError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(RequestError::Generate)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params
            .serialize_request(&key)
            .map_err(RequestError::Generate)?;
        let csr_pem = request.pem().map_err(RequestError::Generate)?;
        Ok(Self {
            key_pem: Zeroizing::new(key.serialize_pem()),
            csr_pem,
        })
    }
}

impl fmt::Debug for KeyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyRequest(..)")
    }
}

// === impl PublicKey ===

impl PublicKey {
    /// The key of a CSR in PEM. Whatever else it asks for is ignored.
    ///
    /// # Errors
    /// It is malformed, not signed with its key, or the key is not ECDSA on P-256 or P-384.
    pub fn from_csr_pem(csr: &[u8]) -> Result<Self, RequestError> {
        if csr.len() > CSR_BYTES_MAX {
            return Err(RequestError::Malformed);
        }
        let der = CertificateSigningRequestDer::from_pem_slice(csr)
            .map_err(|_| RequestError::Malformed)?;
        let (rest, request) =
            X509CertificationRequest::from_der(&der).map_err(|_| RequestError::Malformed)?;
        if !rest.is_empty() {
            return Err(RequestError::Malformed);
        }
        request
            .verify_signature()
            .map_err(|_| RequestError::Signature)?;
        Self::from_spki_der(request.certification_request_info.subject_pki.raw)
    }

    pub(crate) fn from_spki_der(spki: &[u8]) -> Result<Self, RequestError> {
        let key = rcgen::SubjectPublicKeyInfo::from_der(spki)
            .map_err(|_| RequestError::UnsupportedKey)?;
        let algorithm = key.algorithm();
        if *algorithm == PKCS_ECDSA_P256_SHA256 || *algorithm == rcgen::PKCS_ECDSA_P384_SHA384 {
            Ok(Self(key))
        } else {
            Err(RequestError::UnsupportedKey)
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicKey(..)")
    }
}
