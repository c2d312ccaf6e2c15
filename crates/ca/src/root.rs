//! The cluster's root: generated, or read from the cluster object, and issuing.

use std::{fmt, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType,
    SerialNumber,
};
use rustls_pki_types::CertificateDer;
use skep_model::{Role, Timestamp};
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use zeroize::Zeroizing;

use crate::{
    certificate::{self, CertificateError, Subject, parse, read_pem, unit_of},
    cross_sign::{By, cross_sign},
    join_token::bundle_hash,
    pem_text,
    request::PublicKey,
};

/// A node certificate's lifetime unless the cluster says otherwise: 90 days.
pub const LIFETIME_DEFAULT: Duration = Duration::from_hours(2160);
/// Shortest lifetime; what is below counts as the default, as in `SwarmKit`.
pub const LIFETIME_MIN: Duration = Duration::from_hours(1);

/// Certificates are valid since an hour before they are issued: joiners' clocks differ.
const BACKDATE: Duration = Duration::from_hours(1);
/// 20 years, as `SwarmKit`'s root.
const ROOT_LIFETIME: Duration = Duration::from_secs(630_720_000);
const ROOT_NAME: &str = "swarm-ca";
/// As Go's serials: 20 bytes, positive.
const SERIAL_BYTES: usize = 20;

/// A root that can issue: certificates and the key of one of them.
pub struct RootCa {
    certificates_pem: String,
    key_pem: Zeroizing<String>,
    /// The one of the certificates that `issuer` signs for.
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// Why there is no root, or it does not issue.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The bundle is malformed.
    #[error("root certificates are malformed")]
    Certificates(#[source] CertificateError),
    /// The key is malformed or of an unsupported kind.
    #[error("root key is malformed")]
    Key,
    /// The key belongs to none of the certificates.
    #[error("root key belongs to none of the root certificates")]
    KeyMismatch,
    /// The subject has parts that the certificates it issues could not repeat.
    #[error("subject of the root certificate is not supported")]
    Name,
    /// The certificate of the key may not issue.
    #[error("root certificate is not a CA")]
    NotACa,
    /// A time is out of a certificate's range.
    #[error("time {0:?} cannot be put into a certificate")]
    Time(Timestamp),
    /// The cryptographic library failed.
    #[error("failed to sign a certificate")]
    Sign(#[source] rcgen::Error),
    /// A root's certificate cannot be signed by another root.
    #[error("failed to cross-sign a root certificate")]
    CrossSign,
    /// Only the certificate is stored: someone else has the key.
    #[error("no valid signer found")]
    NoKey,
    /// The cross-signed certificate is not one of the new root.
    #[error("cross-signed certificate does not belong to the new root")]
    CrossSigned,
}

// === impl RootCa ===

impl RootCa {
    /// A new root, valid for 20 years from `now`.
    ///
    /// # Errors
    /// The cryptographic library fails.
    pub fn generate(now: Timestamp) -> Result<Self, RootError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(RootError::Sign)?;
        let mut params = params(now, ROOT_LIFETIME)?;
        params
            .distinguished_name
            .push(DnType::CommonName, ROOT_NAME);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(RootError::Sign)?;
        Ok(Self {
            certificates_pem: pem_text::certificate(certificate.der()),
            key_pem: Zeroizing::new(key.serialize_pem()),
            certificate: certificate.into(),
            issuer: Issuer::new(params, key),
        })
    }

    /// The root stored in a cluster: its bundle and key, both PEM. The bundle is kept byte for byte.
    ///
    /// # Errors
    /// They are malformed or do not belong together.
    pub fn from_pem(certificates: &str, key: &str) -> Result<Self, RootError> {
        let pair = KeyPair::from_pem(key).map_err(|_| RootError::Key)?;
        let ders = read_pem(certificates.as_bytes()).map_err(RootError::Certificates)?;
        let spki = pair.subject_public_key_info();
        for der in &ders {
            let certificate = parse(der).map_err(RootError::Certificates)?;
            if certificate.public_key().raw != spki {
                continue;
            }
            if !certificate.is_ca() {
                return Err(RootError::NotACa);
            }
            let issuer = Issuer::from_ca_cert_der(der, pair).map_err(|_| RootError::Name)?;
            return Ok(Self {
                certificates_pem: certificates.to_owned(),
                key_pem: Zeroizing::new(key.to_owned()),
                certificate: der.clone(),
                issuer,
            });
        }
        Err(RootError::KeyMismatch)
    }

    /// The trust bundle, PEM: what is stored, served to joiners and hashed.
    #[must_use]
    pub fn certificates_pem(&self) -> &str {
        &self.certificates_pem
    }

    /// The private key, PEM: for the cluster object only.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// `RootCa.ca_cert_hash`.
    #[must_use]
    pub fn hash(&self) -> String {
        bundle_hash(self.certificates_pem.as_bytes())
    }

    /// Who the certificates it issues say issued them.
    #[must_use]
    pub fn issuer(&self) -> certificate::Issuer {
        let certificate = self.parsed();
        certificate::Issuer {
            subject: certificate.subject().as_raw().to_vec(),
            public_key: certificate.public_key().raw.to_vec(),
        }
    }

    /// The certificate of the root `new` once more, signed by this one (PEM): same subject, key, key identifier and
    /// validity. With it behind a certificate that `new` issued, those who know only this root accept that.
    ///
    /// # Errors
    /// The certificate has no extensions (so is no CA's), or the cryptographic library fails.
    pub fn cross_sign(&self, new: &Self) -> Result<String, RootError> {
        let by = By {
            certificate: &self.parsed(),
            key: self.issuer.key(),
        };
        let der = cross_sign(&new.parsed(), &serial(), &by).ok_or(RootError::CrossSign)?;
        Ok(pem_text::certificate(&der))
    }

    /// The certificate that the key belongs to.
    pub(crate) fn parsed(&self) -> X509Certificate<'_> {
        parse(&self.certificate).expect("the certificate was read before")
    }

    /// A certificate (PEM) for `subject`, valid for `lifetime` from `now`, and an hour before. A lifetime below
    /// [`LIFETIME_MIN`] means [`LIFETIME_DEFAULT`].
    ///
    /// # Errors
    /// The cryptographic library fails, or the times are out of range.
    pub fn issue(
        &self,
        key: &PublicKey,
        subject: &Subject,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<String, RootError> {
        let lifetime = if lifetime < LIFETIME_MIN {
            LIFETIME_DEFAULT
        } else {
            lifetime
        };
        let mut params = params(now, lifetime)?;
        let unit = unit_of(subject.role);
        let name = &mut params.distinguished_name;
        name.push(DnType::OrganizationName, subject.cluster_id.as_str());
        name.push(DnType::OrganizationalUnitName, unit);
        name.push(DnType::CommonName, subject.node_id.as_str());
        let mut names = vec![unit, subject.node_id.as_str()];
        if subject.role == Role::Manager {
            names.push(ROOT_NAME);
        }
        for name in names {
            let name = name.try_into().map_err(RootError::Sign)?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let certificate = params
            .signed_by(&key.0, &self.issuer)
            .map_err(RootError::Sign)?;
        Ok(pem_text::certificate(certificate.der()))
    }
}

impl fmt::Debug for RootCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootCa")
            .field("hash", &self.hash())
            .finish_non_exhaustive()
    }
}

fn serial() -> [u8; SERIAL_BYTES] {
    let mut serial = [0; SERIAL_BYTES];
    getrandom::fill(&mut serial).expect("the kernel gives random bytes");
    // Positive, and not shortened by a leading zero.
    serial[0] = serial[0] & 0x7f | 0x40;
    serial
}

/// Validity and serial; no name and no extensions yet.
fn params(now: Timestamp, lifetime: Duration) -> Result<CertificateParams, RootError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(&serial()));
    let (seconds, _) = now.to_parts();
    let minute = seconds - seconds.rem_euclid(60);
    let at = |base: i64, offset: Duration, sign: i64| {
        let offset = i64::try_from(offset.as_secs()).map_err(|_| RootError::Time(now))?;
        OffsetDateTime::from_unix_timestamp(base.saturating_add(sign * offset))
            .map_err(|_| RootError::Time(now))
    };
    params.not_before = at(minute, BACKDATE, -1)?;
    params.not_after = at(minute, lifetime, 1)?;
    Ok(params)
}
