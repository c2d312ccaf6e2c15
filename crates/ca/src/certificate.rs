//! What a node's certificate says, whether it holds, and who issued it.

#[cfg(test)]
mod tests;

use std::time::Duration;

use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use skep_model::{ClusterId, NodeId, NodeTlsInfo, Role, Timestamp};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _, time::ASN1Time};

use crate::{
    der::{BIT_STRING, SEQUENCE, elements},
    tls,
};

pub(crate) const MANAGER_UNIT: &str = "swarm-manager";
pub(crate) const WORKER_UNIT: &str = "swarm-worker";

/// Largest chain or bundle read. Real ones have one to three certificates of about 600 bytes.
pub(crate) const PEM_BYTES_MAX: usize = 64 << 10;
/// Most certificates read of a chain or bundle: bounds the signature checks a peer can cause.
const CERTIFICATES_MAX: usize = 8;

/// Who a certificate speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// Common name.
    pub node_id: NodeId,
    /// Organizational unit.
    pub role: Role,
    /// Organization.
    pub cluster_id: ClusterId,
}

/// A node's certificate, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeCertificate {
    /// Whose it is.
    pub subject: Subject,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
}

/// Who issued a certificate, as nodes report it and root rotations compare it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Issuer {
    /// DER of the subject.
    pub subject: Vec<u8>,
    /// DER of the public key (SPKI).
    pub public_key: Vec<u8>,
}

/// Why a certificate is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It does not decode, is missing, or there are too many.
    #[error("certificate is malformed")]
    Malformed,
    /// The subject is not a node's.
    #[error("certificate is not a node certificate")]
    NotANode,
    /// Not valid yet.
    #[error("certificate is not valid before {0:?}")]
    NotYet(Timestamp),
    /// No longer valid.
    #[error("certificate expired at {0:?}")]
    Expired(Timestamp),
    /// No chain of valid signatures leads to a root.
    #[error("certificate is not signed by a trusted root")]
    Untrusted,
}

// === impl NodeCertificate ===

impl NodeCertificate {
    /// Reads a node's certificate, without checking who signed it: TLS did, or [`verify_chain`] does.
    ///
    /// # Errors
    /// It is malformed or not a node's.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        Self::read(&parse(der)?)
    }

    fn read(certificate: &X509Certificate<'_>) -> Result<Self, CertificateError> {
        let name = certificate.subject();
        let unit = only(name.iter_organizational_unit()).ok_or(CertificateError::NotANode)?;
        let node_id = only(name.iter_common_name()).and_then(|text| text.parse().ok());
        let cluster_id = only(name.iter_organization()).and_then(|text| text.parse().ok());
        let subject = Subject {
            node_id: node_id.ok_or(CertificateError::NotANode)?,
            role: role_of(unit).ok_or(CertificateError::NotANode)?,
            cluster_id: cluster_id.ok_or(CertificateError::NotANode)?,
        };
        let validity = certificate.validity();
        Ok(Self {
            subject,
            not_before: timestamp(validity.not_before),
            not_after: timestamp(validity.not_after),
        })
    }
}

/// Checks a chain (PEM, the leaf first) against root certificates (PEM): signatures, validity at `now`, CA flags. Says whose
/// it is.
///
/// # Errors
/// It does not hold.
pub fn verify_chain(
    chain: &[u8],
    roots: &[u8],
    now: Timestamp,
) -> Result<NodeCertificate, CertificateError> {
    let (chain, roots) = (read_pem(chain)?, read_pem(roots)?);
    let chain = parse_all(&chain)?;
    let (leaf, intermediates) = chain.split_first().ok_or(CertificateError::Malformed)?;
    let node = NodeCertificate::read(leaf)?;
    check_validity(leaf, now)?;
    let mut current = leaf;
    let roots = parse_all(&roots)?;
    // Each intermediate is used at most once, so this ends.
    let mut left: Vec<_> = intermediates.iter().collect();
    loop {
        if let Some(root) = roots.iter().find(|root| is_issued_by(current, root)) {
            check_validity(root, now)?;
            return Ok(node);
        }
        let next = left
            .iter()
            .position(|candidate| is_issued_by(current, candidate));
        current = left.swap_remove(next.ok_or(CertificateError::Untrusted)?);
        check_validity(current, now)?;
    }
}

/// What a node reports of its trust: the roots as given, and name and key of the certificate that signed its own. A root
/// rotation compares these bytes.
///
/// # Errors
/// The chain is malformed, or neither it nor the roots hold the issuer.
pub fn tls_info(chain: &[u8], roots: &[u8]) -> Result<NodeTlsInfo, CertificateError> {
    let (chain, root_ders) = (read_pem(chain)?, read_pem(roots)?);
    let (chain, candidates) = (parse_all(&chain)?, parse_all(&root_ders)?);
    let (leaf, intermediates) = chain.split_first().ok_or(CertificateError::Malformed)?;
    let mut issuers = intermediates.iter().chain(&candidates);
    let issuer = issuers.find(|issuer| is_issued_by(leaf, issuer));
    let issuer = issuer.ok_or(CertificateError::Untrusted)?;
    Ok(NodeTlsInfo {
        trust_root: roots.to_vec(),
        cert_issuer_subject: issuer.subject().as_raw().to_vec(),
        cert_issuer_public_key: issuer.public_key().raw.to_vec(),
    })
}

/// Who certificates issued by the root in `ca_cert` (PEM) say issued them; of a bundle, the first.
///
/// # Errors
/// The bundle is malformed.
pub fn issuer(ca_cert: &[u8]) -> Result<Issuer, CertificateError> {
    let ders = read_pem(ca_cert)?;
    let certificate = parse(ders.first().ok_or(CertificateError::Malformed)?)?;
    Ok(Issuer {
        subject: certificate.subject().as_raw().to_vec(),
        public_key: certificate.public_key().raw.to_vec(),
    })
}

/// When to renew: at a point between 50 and 80 % of the validity, chosen by `random`, so that nodes do not come all at once.
#[must_use]
pub fn renewal_time(certificate: &NodeCertificate, random: u64) -> Timestamp {
    let validity = certificate.not_after.since(certificate.not_before);
    let per_mille = 500 + u32::try_from(random % 301).unwrap_or(0);
    certificate
        .not_before
        .saturating_add(validity / 1000 * per_mille)
}

pub(crate) fn unit_of(role: Role) -> &'static str {
    match role {
        Role::Manager => MANAGER_UNIT,
        Role::Worker => WORKER_UNIT,
    }
}

fn role_of(unit: &str) -> Option<Role> {
    match unit {
        MANAGER_UNIT => Some(Role::Manager),
        WORKER_UNIT => Some(Role::Worker),
        _ => None,
    }
}

pub(crate) fn read_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    if pem.len() > PEM_BYTES_MAX {
        return Err(CertificateError::Malformed);
    }
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem)
        .take(CERTIFICATES_MAX + 1)
        .collect();
    let certificates = certificates.map_err(|_| CertificateError::Malformed)?;
    if certificates.is_empty() || certificates.len() > CERTIFICATES_MAX {
        return Err(CertificateError::Malformed);
    }
    Ok(certificates)
}

pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) if is_envelope(der) => Ok(certificate),
        Ok(_) | Err(_) => Err(CertificateError::Malformed),
    }
}

/// Whether the parts around what is signed are as DER has them. No signature covers these bytes and x509-parser reads some other
/// ways to write them, but a certificate has one form: others compare it byte by byte.
fn is_envelope(der: &[u8]) -> bool {
    let Some(parts) = elements(der).filter(|all| all.len() == 1 && all[0].tag == SEQUENCE) else {
        return false;
    };
    let Some(parts) = elements(parts[0].content) else {
        return false;
    };
    let tags: Vec<u8> = parts.iter().map(|part| part.tag).collect();
    let is_whole_bytes = parts
        .last()
        .is_some_and(|part| part.content.first() == Some(&0));
    tags == [SEQUENCE, SEQUENCE, BIT_STRING] && is_whole_bytes
}

fn parse_all<'d>(
    ders: &'d [CertificateDer<'_>],
) -> Result<Vec<X509Certificate<'d>>, CertificateError> {
    ders.iter().map(|der| parse(der)).collect()
}

/// By name and signature, and the issuer may issue.
fn is_issued_by(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    certificate.issuer().as_raw() == issuer.subject().as_raw()
        && issuer.is_ca()
        && is_signed_by(certificate, issuer)
}

/// By signature alone, with the algorithms TLS accepts (x509-parser knows fewer).
pub(crate) fn is_signed_by(
    certificate: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
) -> bool {
    let key = issuer.public_key();
    let (Some(key_algorithm), Some(signature_algorithm)) = (
        algorithm_of(key.raw),
        elements(certificate.as_raw())
            .and_then(|parts| elements(parts.first()?.content))
            .and_then(|parts| Some(parts.get(1)?.content)),
    ) else {
        return false;
    };
    tls::provider()
        .signature_verification_algorithms
        .all
        .iter()
        .any(|algorithm| {
            algorithm.public_key_alg_id().as_ref() == key_algorithm
                && algorithm.signature_alg_id().as_ref() == signature_algorithm
                && algorithm
                    .verify_signature(
                        &key.subject_public_key.data,
                        certificate.tbs_certificate.as_ref(),
                        &certificate.signature_value.data,
                    )
                    .is_ok()
        })
}

/// The algorithm of a key (SPKI), without the tag and length around it.
pub(crate) fn algorithm_of(spki: &[u8]) -> Option<&[u8]> {
    let parts = elements(elements(spki)?.first()?.content)?;
    Some(parts.first()?.content)
}

fn check_validity(
    certificate: &X509Certificate<'_>,
    now: Timestamp,
) -> Result<(), CertificateError> {
    let validity = certificate.validity();
    let (from, until) = (
        timestamp(validity.not_before),
        timestamp(validity.not_after),
    );
    if now < from {
        return Err(CertificateError::NotYet(from));
    }
    if now > until {
        return Err(CertificateError::Expired(until));
    }
    Ok(())
}

pub(crate) fn timestamp(time: ASN1Time) -> Timestamp {
    Timestamp::ZERO.saturating_add(Duration::from_secs(
        u64::try_from(time.timestamp()).unwrap_or(0),
    ))
}

/// The text of the only attribute of a kind.
fn only<'a>(
    mut attributes: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
) -> Option<&'a str> {
    let first = attributes.next()?.as_str().ok()?;
    attributes.next().is_none().then_some(first)
}
