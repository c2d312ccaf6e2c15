//! Beginning a root rotation: the root to rotate to, generated or given, and its certificate signed by the current root.
//!
//! What a user gives is judged by `SwarmKit`'s rules and in its words, then tried: a rotation begins only if rustls accepts
//! a certificate of the new root under the old one and under the new one. Whether and when to rotate is the manager's.

#[cfg(test)]
mod tests;

use std::time::Duration;

use rustls_pki_types::alg_id;
use skep_model::{
    CaConfig, Redacted, Role, RootCa as StoredRootCa, Timestamp, object::RootRotation,
};
use x509_parser::{certificate::X509Certificate, public_key::PublicKey as ParsedKey};
use zeroize::Zeroizing;

use crate::{
    certificate::{Subject, algorithm_of, is_signed_by, parse, read_pem, timestamp},
    pem_text,
    request::{KeyRequest, PublicKey},
    root::{LIFETIME_MIN, RootCa, RootError},
    signer::{SignError, Signer},
    tls::{self, Refused},
};

/// A root given must be valid for another year, else the cluster soon stands where it was.
const VALIDITY_MIN: Duration = Duration::from_hours(8760);
/// As `SwarmKit`'s: shorter RSA keys count as broken.
const RSA_BITS_MIN: usize = 2048;

/// Why there is no rotation. Texts are Docker's where Docker has one.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// A key without its certificate.
    #[error("if a signing CA key is provided, the signing CA cert must also be provided")]
    KeyWithoutCertificate,
    /// A certificate without its key, which an external CA would have.
    #[error(
        "there must be at least one valid, reachable external CA corresponding to the desired CA certificate"
    )]
    CertificateWithoutKey,
    /// An external CA is wanted.
    #[error("external CAs are not supported: give the CA's certificate and key instead")]
    ExternalCa,
    /// The certificate is no certificate.
    #[error("could not parse the desired CA certificate")]
    Malformed,
    /// A bundle.
    #[error("the desired CA certificate cannot contain multiple certificates")]
    Multiple,
    /// Signed with something else than RSA or ECDSA with SHA-256, 384 or 512.
    #[error("unsupported signature algorithm: {0}")]
    SignatureAlgorithm(String),
    /// The certificate is not signed with its own key.
    #[error("error while validating Root CA Certificate: certificate is not signed by itself")]
    NotSelfSigned,
    /// Its validity begins in the future.
    #[error("error while validating Root CA Certificate: certificate is not valid yet")]
    NotYetValid,
    /// It ends too early.
    #[error("CA certificate expires too soon")]
    ExpiresTooSoon,
    /// It may not issue.
    #[error("certificate not a CA")]
    NotACa,
    /// Its subject has several attributes in one part.
    #[error("subject of the desired CA certificate is not supported")]
    Name,
    /// An RSA key below 2048 bits.
    #[error("unsupported RSA key parameters")]
    RsaKey,
    /// An ECDSA key on another curve than P-256, P-384 or P-521.
    #[error("unsupported ECDSA key parameters")]
    EcdsaKey,
    /// Neither RSA nor ECDSA.
    #[error("unknown or unsupported certificate public key algorithm")]
    KeyAlgorithm,
    /// The key does not decode, or is encrypted.
    #[error("malformed private key")]
    Key,
    /// The key is another certificate's.
    #[error("certificate key mismatch")]
    KeyMismatch,
    /// The new root has the old one's key: certificates could not be told apart.
    #[error("Cannot update to a cert with an identical key")]
    SameKey,
    /// The current root cannot vouch for the new one.
    #[error("unable to generate a cross-signed certificate for root rotation")]
    CrossSign(#[source] RootError),
    /// TLS would refuse nodes with certificates of the new root; or the current root is expired.
    #[error("certificates issued by the desired CA certificate would not be accepted")]
    Refused(#[source] Refused),
    /// The cryptographic library failed.
    #[error("failed to try the desired CA certificate")]
    Sign(#[source] SignError),
}

/// A rotation from `root` to the root given in `wanted`, or to a new one if none is given. If the certificate given is the
/// current one, with its key, there is nothing to rotate: then `ca_cert` is the current one's and nothing is cross-signed.
///
/// # Errors
/// What is given is incomplete or unfit, or the current root cannot sign.
pub fn rotation(
    root: &StoredRootCa,
    wanted: &CaConfig,
    now: Timestamp,
) -> Result<RootRotation, RotationError> {
    if !wanted.external_cas.is_empty() {
        return Err(RotationError::ExternalCa);
    }
    let (certificate, key) = (&wanted.signing_ca_cert, &wanted.signing_ca_key.0);
    let new = match (certificate.is_empty(), key.is_empty()) {
        (true, true) => RootCa::generate(now).map_err(RotationError::CrossSign)?,
        (true, false) => return Err(RotationError::KeyWithoutCertificate),
        (false, true) => return Err(RotationError::CertificateWithoutKey),
        (false, false) => given(certificate, key, now)?,
    };
    let current = pem_text::normalize_certificates(&root.ca_cert);
    if current.as_deref() == Some(new.certificates_pem()) {
        return Ok(RootRotation {
            ca_cert: root.ca_cert.clone(),
            ca_key: Redacted(new.key_pem().as_bytes().to_vec()),
            cross_signed_ca_cert: Vec::new(),
        });
    }
    let old = Signer::from_stored(&StoredRootCa {
        root_rotation: None,
        ..root.clone()
    });
    let old = old.map_err(RotationError::CrossSign)?;
    if old.root().issuer().public_key == new.issuer().public_key {
        return Err(RotationError::SameKey);
    }
    let cross_signed = old.root().cross_sign(&new);
    let rotation = RootRotation {
        ca_cert: new.certificates_pem().as_bytes().to_vec(),
        ca_key: Redacted(new.key_pem().as_bytes().to_vec()),
        cross_signed_ca_cert: cross_signed.map_err(RotationError::CrossSign)?.into_bytes(),
    };
    check_trial(root, &rotation, now)?;
    Ok(rotation)
}

/// Checks that TLS accepts certificates issued in and after the rotation.
fn check_trial(
    root: &StoredRootCa,
    rotation: &RootRotation,
    now: Timestamp,
) -> Result<(), RotationError> {
    let old = &root.ca_cert;
    let during = StoredRootCa {
        root_rotation: Some(rotation.clone()),
        ..root.clone()
    };
    let after = StoredRootCa {
        ca_cert: rotation.ca_cert.clone(),
        ca_key: rotation.ca_key.clone(),
        ..StoredRootCa::default()
    };
    let sign = RotationError::Sign;
    let request = KeyRequest::generate().map_err(|error| sign(error.into()))?;
    let key = PublicKey::from_csr_pem(request.csr_pem.as_bytes());
    let key = key.map_err(|error| sign(error.into()))?;
    let id = "0".repeat(25);
    let subject = Subject {
        node_id: id.parse().expect("zeros are an id"),
        role: Role::Manager,
        cluster_id: id.parse().expect("zeros are an id"),
    };
    for (stored, roots) in [(during, old), (after, &rotation.ca_cert)] {
        let signer = Signer::from_stored(&stored).map_err(|error| sign(error.into()))?;
        let chain = signer
            .issue_for(&key, &subject, now, LIFETIME_MIN)
            .map_err(sign)?;
        let roots = std::str::from_utf8(roots).map_err(|_| RotationError::Malformed)?;
        tls::check_manager(&chain, roots, now).map_err(RotationError::Refused)?;
    }
    Ok(())
}

/// A root a user gives, judged by `SwarmKit`'s rules.
fn given(certificate: &[u8], key: &[u8], now: Timestamp) -> Result<RootCa, RotationError> {
    let text = pem_text::normalize_certificates(certificate).ok_or(RotationError::Malformed)?;
    let ders = read_pem(text.as_bytes()).map_err(|_| RotationError::Malformed)?;
    let [der] = &ders[..] else {
        return Err(RotationError::Multiple);
    };
    let parsed = parse(der).map_err(|_| RotationError::Malformed)?;
    check_signature_algorithm(&parsed)?;
    check_key_kind(&parsed)?;
    let is_self_issued = parsed.issuer().as_raw() == parsed.subject().as_raw();
    if !is_self_issued || !is_signed_by(&parsed, &parsed) {
        return Err(RotationError::NotSelfSigned);
    }
    if now < timestamp(parsed.validity().not_before) {
        return Err(RotationError::NotYetValid);
    }
    if timestamp(parsed.validity().not_after) < now + VALIDITY_MIN {
        return Err(RotationError::ExpiresTooSoon);
    }
    let key = pem_text::normalize_key(key).map(Zeroizing::new);
    let key = key.ok_or(RotationError::Key)?;
    RootCa::from_pem(&text, &key).map_err(|error| match error {
        RootError::NotACa => RotationError::NotACa,
        RootError::KeyMismatch => RotationError::KeyMismatch,
        RootError::Key => RotationError::Key,
        RootError::Name => RotationError::Name,
        other => RotationError::Sign(other.into()),
    })
}

fn check_signature_algorithm(certificate: &X509Certificate<'_>) -> Result<(), RotationError> {
    let algorithm = certificate.signature_algorithm.algorithm.to_id_string();
    let name = match &*algorithm {
        // RSA (PKCS #1 1.5) and ECDSA, each with SHA-256, SHA-384 and SHA-512.
        "1.2.840.113549.1.1.11"
        | "1.2.840.113549.1.1.12"
        | "1.2.840.113549.1.1.13"
        | "1.2.840.10045.4.3.2"
        | "1.2.840.10045.4.3.3"
        | "1.2.840.10045.4.3.4" => return Ok(()),
        "1.2.840.113549.1.1.4" => "MD5-RSA",
        "1.2.840.113549.1.1.5" => "SHA1-RSA",
        "1.2.840.113549.1.1.10" => "RSAPSS",
        "1.2.840.10045.4.1" => "ECDSA-SHA1",
        "1.3.101.112" => "Ed25519",
        other => other,
    };
    Err(RotationError::SignatureAlgorithm(name.to_owned()))
}

fn check_key_kind(certificate: &X509Certificate<'_>) -> Result<(), RotationError> {
    let key = certificate.public_key();
    match key.parsed() {
        Ok(ParsedKey::RSA(key)) if key.key_size() >= RSA_BITS_MIN => Ok(()),
        Ok(ParsedKey::RSA(_)) => Err(RotationError::RsaKey),
        Ok(ParsedKey::EC(_)) => {
            let curves = [alg_id::ECDSA_P256, alg_id::ECDSA_P384, alg_id::ECDSA_P521];
            let algorithm = algorithm_of(key.raw).ok_or(RotationError::EcdsaKey)?;
            let is_known = curves.iter().any(|curve| curve.as_ref() == algorithm);
            is_known.then_some(()).ok_or(RotationError::EcdsaKey)
        }
        Ok(_) | Err(_) => Err(RotationError::KeyAlgorithm),
    }
}
