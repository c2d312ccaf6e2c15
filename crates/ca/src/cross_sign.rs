//! A root's certificate once more, signed by another root: what nodes that trust the other one accept as intermediate.
//!
//! The certificate is spliced from the bytes of the original, so that names, validity and extensions stay as they are, of
//! whatever origin the root is. Only the serial, the issuer, the authority key identifier and the signature are its own.

use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512,
    PKCS_RSA_SHA256, SigningKey as _,
};
use rustls_pki_types::{AlgorithmIdentifier, alg_id};
use x509_parser::{certificate::X509Certificate, extensions::ParsedExtension};

use crate::der::{BIT_STRING, INTEGER, OCTET_STRING, SEQUENCE, element, elements};

/// `[0]`, explicit: the version.
const VERSION: u8 = 0xa0;
/// `[3]`, explicit: the extensions.
const EXTENSIONS: u8 = 0xa3;
/// `[0]`, implicit: the key identifier in an authority key identifier.
const KEY_IDENTIFIER: u8 = 0x80;
/// 2.5.29.35 with tag and length.
const AUTHORITY_KEY_IDENTIFIER: [u8; 5] = [0x06, 3, 0x55, 0x1d, 0x23];
/// Elements of a certificate's body from serial to public key.
const BODY_ELEMENTS: usize = 6;

/// Who signs.
pub(crate) struct By<'a> {
    pub(crate) certificate: &'a X509Certificate<'a>,
    pub(crate) key: &'a KeyPair,
}

/// The certificate `original` signed by another; `None` if it cannot be taken apart or signed.
pub(crate) fn cross_sign(
    original: &X509Certificate<'_>,
    serial: &[u8],
    by: &By<'_>,
) -> Option<Vec<u8>> {
    let algorithm = element(SEQUENCE, &[signature_algorithm(by.key)?.as_ref()]);
    let body = elements(original.tbs_certificate.as_ref())?;
    let [body] = body[..] else { return None };
    let parts = elements(body.content)?;
    let [version, fixed @ ..] = &parts[..] else {
        return None;
    };
    let (fixed, optional) = fixed.split_at_checked(BODY_ELEMENTS)?;
    let [_serial, _algorithm, _issuer, validity, subject, key] = fixed else {
        return None;
    };
    let extensions = optional.iter().find(|part| part.tag == EXTENSIONS)?;
    if version.tag != VERSION {
        return None;
    }
    let extensions = replace_authority(extensions.content, by.certificate)?;
    let body = element(
        SEQUENCE,
        &[
            version.whole,
            &element(INTEGER, &[serial]),
            &algorithm,
            by.certificate.subject().as_raw(),
            validity.whole,
            subject.whole,
            key.whole,
            &extensions,
        ],
    );
    let signature = by.key.sign(&body).ok()?;
    // No unused bits.
    let signature = element(BIT_STRING, &[&[0], &signature]);
    Some(element(SEQUENCE, &[&body, &algorithm, &signature]))
}

/// The extensions in `content`, pointing to `issuer`'s key instead of their own.
fn replace_authority(content: &[u8], issuer: &X509Certificate<'_>) -> Option<Vec<u8>> {
    let sequence = elements(content)?;
    let [sequence] = sequence[..] else {
        return None;
    };
    let mut kept: Vec<&[u8]> = elements(sequence.content)?
        .iter()
        .filter(|extension| !extension.content.starts_with(&AUTHORITY_KEY_IDENTIFIER))
        .map(|extension| extension.whole)
        .collect();
    let own = key_identifier(issuer).map(|identifier| {
        let identifier = element(SEQUENCE, &[&element(KEY_IDENTIFIER, &[identifier])]);
        let identifier = element(OCTET_STRING, &[&identifier]);
        element(SEQUENCE, &[&AUTHORITY_KEY_IDENTIFIER, &identifier])
    });
    kept.extend(own.as_deref());
    Some(element(EXTENSIONS, &[&element(SEQUENCE, &kept)]))
}

fn key_identifier<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0),
            _ => None,
        })
}

/// What `key` signs with, as rcgen chooses it.
fn signature_algorithm(key: &KeyPair) -> Option<AlgorithmIdentifier> {
    [
        (&PKCS_ECDSA_P256_SHA256, alg_id::ECDSA_SHA256),
        (&PKCS_ECDSA_P384_SHA384, alg_id::ECDSA_SHA384),
        (&PKCS_ECDSA_P521_SHA512, alg_id::ECDSA_SHA512),
        (&PKCS_RSA_SHA256, alg_id::RSA_PKCS1_SHA256),
    ]
    .into_iter()
    .find_map(|(known, id)| key.is_compatible(known).then_some(id))
}
