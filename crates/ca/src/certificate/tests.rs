//! Roots, leaves and chains, judged by x509-parser and, where it is installed, by openssl.

use std::{fs, process::Command, time::Duration};

use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair};
use x509_parser::extensions::{GeneralName, ParsedExtension};

use super::*;
use crate::{
    request::{KeyRequest, PublicKey, RequestError},
    root::{LIFETIME_DEFAULT, RootCa, RootError},
};

const HOUR: Duration = Duration::from_hours(1);

/// 2026-11-21T12:34:56Z.
fn now() -> Timestamp {
    Timestamp::ZERO.saturating_add(Duration::from_secs(1_795_264_496))
}

fn subject(role: Role) -> Subject {
    Subject {
        node_id: "0123456789abcdefghijklmno".parse().unwrap(),
        role,
        cluster_id: "zzzzzzzzzzzzzzzzzzzzzzzzz".parse().unwrap(),
    }
}

fn issue(root: &RootCa, role: Role) -> String {
    let request = KeyRequest::generate().unwrap();
    let key = PublicKey::from_csr_pem(request.csr_pem.as_bytes()).unwrap();
    root.issue(&key, &subject(role), now(), LIFETIME_DEFAULT)
        .unwrap()
}

fn verify(chain: &str, root: &RootCa, at: Timestamp) -> Result<NodeCertificate, CertificateError> {
    verify_chain(chain.as_bytes(), root.certificates_pem().as_bytes(), at)
}

#[test]
fn root_is_as_swarms() {
    let root = RootCa::generate(now()).unwrap();
    let ders = read_pem(root.certificates_pem().as_bytes()).unwrap();
    let certificate = parse(&ders[0]).unwrap();
    assert_eq!(certificate.subject().to_string(), "CN=swarm-ca");
    assert_eq!(certificate.issuer(), certificate.subject());
    let usage = certificate.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
    assert_eq!(usage.value.flags.count_ones(), 2);
    let constraints = certificate.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, None);
    assert!(has_key_identifier(&certificate));
    let until = timestamp(certificate.validity().not_after);
    assert_eq!(until.since(now()).as_secs() / 3600, 630_720_000 / 3600 - 1);
    certificate.verify_signature(None).unwrap();
    assert!(format!("{root:?}").starts_with("RootCa { hash: \"sha256:"));
    assert!(!format!("{root:?}").contains("PRIVATE"));
}

fn has_key_identifier(certificate: &X509Certificate<'_>) -> bool {
    let is_ski = |extension: &ParsedExtension<'_>| {
        matches!(extension, ParsedExtension::SubjectKeyIdentifier(_))
    };
    certificate
        .extensions()
        .iter()
        .any(|extension| is_ski(extension.parsed_extension()))
}

#[test]
fn leaf_is_as_swarms() {
    let root = RootCa::generate(now()).unwrap();
    for (role, unit, names) in [
        (
            Role::Manager,
            "swarm-manager",
            &["swarm-manager", "0123456789abcdefghijklmno", "swarm-ca"][..],
        ),
        (
            Role::Worker,
            "swarm-worker",
            &["swarm-worker", "0123456789abcdefghijklmno"],
        ),
    ] {
        let ders = read_pem(issue(&root, role).as_bytes()).unwrap();
        let certificate = parse(&ders[0]).unwrap();
        let name = certificate.subject().to_string();
        assert_eq!(
            name,
            format!("O=zzzzzzzzzzzzzzzzzzzzzzzzz, OU={unit}, CN=0123456789abcdefghijklmno")
        );
        let alternatives = &certificate
            .subject_alternative_name()
            .unwrap()
            .unwrap()
            .value
            .general_names;
        let expected: Vec<_> = names
            .iter()
            .map(|name| GeneralName::DNSName(name))
            .collect();
        assert_eq!(*alternatives, expected);
        let usage = certificate.key_usage().unwrap().unwrap();
        assert!(
            usage.critical && usage.value.digital_signature() && usage.value.key_encipherment()
        );
        assert_eq!(usage.value.flags.count_ones(), 2);
        let extended = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.server_auth && extended.client_auth && !extended.any);
        let constraints = certificate.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && !constraints.value.ca);
        assert!(has_key_identifier(&certificate));
        let is_aki = |extension: &x509_parser::extensions::X509Extension<'_>| {
            matches!(
                extension.parsed_extension(),
                ParsedExtension::AuthorityKeyIdentifier(_)
            )
        };
        assert!(certificate.extensions().iter().any(is_aki));
        assert_eq!(
            NodeCertificate::from_der(&ders[0]).unwrap().subject,
            subject(role)
        );
    }
}

#[test]
fn validity_is_backdated_and_short_lifetimes_are_the_default() {
    let root = RootCa::generate(now()).unwrap();
    let key =
        || PublicKey::from_csr_pem(KeyRequest::generate().unwrap().csr_pem.as_bytes()).unwrap();
    let minute = Timestamp::ZERO.saturating_add(Duration::from_secs(1_795_264_440));
    for (asked, given) in [
        (HOUR, HOUR),
        (HOUR * 5, HOUR * 5),
        (HOUR / 2, LIFETIME_DEFAULT),
    ] {
        let pem = root
            .issue(&key(), &subject(Role::Worker), now(), asked)
            .unwrap();
        let node = NodeCertificate::from_der(&read_pem(pem.as_bytes()).unwrap()[0]).unwrap();
        assert_eq!(node.not_before.saturating_add(HOUR), minute);
        assert_eq!(node.not_after, minute.saturating_add(given));
    }
}

#[test]
fn chain_holds_within_its_time_and_under_its_root_only() {
    let root = RootCa::generate(now()).unwrap();
    let chain = issue(&root, Role::Manager);
    let node = verify(&chain, &root, now()).unwrap();
    assert_eq!(node.subject, subject(Role::Manager));
    let early = Timestamp(now().0 - 2 * 3_600_000_000_000);
    assert_eq!(
        verify(&chain, &root, early),
        Err(CertificateError::NotYet(node.not_before))
    );
    let late = now().saturating_add(LIFETIME_DEFAULT);
    assert_eq!(
        verify(&chain, &root, late),
        Err(CertificateError::Expired(node.not_after))
    );
    let other = RootCa::generate(now()).unwrap();
    assert_eq!(
        verify(&chain, &other, now()),
        Err(CertificateError::Untrusted)
    );
    let both = other.certificates_pem().to_owned() + root.certificates_pem();
    verify_chain(chain.as_bytes(), both.as_bytes(), now()).unwrap();
    let root_itself = verify(root.certificates_pem(), &root, now());
    assert_eq!(root_itself, Err(CertificateError::NotANode));
}

#[test]
fn leaf_cannot_issue() {
    let root = RootCa::generate(now()).unwrap();
    let request = KeyRequest::generate().unwrap();
    let key = PublicKey::from_csr_pem(request.csr_pem.as_bytes()).unwrap();
    let leaf = root
        .issue(&key, &subject(Role::Worker), now(), HOUR)
        .unwrap();
    let refused = RootCa::from_pem(&leaf, &request.key_pem);
    assert!(matches!(refused, Err(RootError::NotACa)), "{refused:?}");
    // The same by force: a certificate signed by a leaf's key, named after it.
    let pair = KeyPair::from_pem(&request.key_pem).unwrap();
    let der = &read_pem(leaf.as_bytes()).unwrap()[0];
    let issuer = rcgen::Issuer::from_ca_cert_der(der, pair).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let name = &mut params.distinguished_name;
    name.push(
        rcgen::DnType::OrganizationName,
        subject(Role::Manager).cluster_id.as_str(),
    );
    name.push(rcgen::DnType::OrganizationalUnitName, "swarm-manager");
    name.push(
        rcgen::DnType::CommonName,
        subject(Role::Manager).node_id.as_str(),
    );
    let forged = params
        .signed_by(&KeyPair::generate().unwrap(), &issuer)
        .unwrap();
    let chain = forged.pem() + &leaf;
    assert_eq!(
        verify(&chain, &root, now()),
        Err(CertificateError::Untrusted)
    );
}

#[test]
fn stored_root_goes_on_issuing() {
    let root = RootCa::generate(now()).unwrap();
    let again = RootCa::from_pem(root.certificates_pem(), root.key_pem()).unwrap();
    assert_eq!(again.hash(), root.hash());
    verify(&issue(&again, Role::Worker), &root, now()).unwrap();
    let other = RootCa::generate(now()).unwrap();
    let refused = RootCa::from_pem(root.certificates_pem(), other.key_pem());
    assert!(matches!(refused, Err(RootError::KeyMismatch)));
    assert!(matches!(
        RootCa::from_pem("", root.key_pem()),
        Err(RootError::Certificates(_))
    ));
    assert!(matches!(
        RootCa::from_pem(root.certificates_pem(), "x"),
        Err(RootError::Key)
    ));
}

#[test]
fn tls_info_names_the_issuer() {
    let root = RootCa::generate(now()).unwrap();
    let chain = issue(&root, Role::Worker);
    let other = RootCa::generate(now()).unwrap();
    let roots = other.certificates_pem().to_owned() + root.certificates_pem();
    let info = tls_info(chain.as_bytes(), roots.as_bytes()).unwrap();
    let der = &read_pem(root.certificates_pem().as_bytes()).unwrap()[0];
    let certificate = parse(der).unwrap();
    assert_eq!(info.trust_root, roots.as_bytes());
    assert_eq!(info.cert_issuer_subject, certificate.subject().as_raw());
    assert_eq!(info.cert_issuer_public_key, certificate.public_key().raw);
    let unknown = tls_info(chain.as_bytes(), other.certificates_pem().as_bytes());
    assert_eq!(unknown, Err(CertificateError::Untrusted));
}

#[test]
fn serials_differ_for_the_same_key() {
    let root = RootCa::generate(now()).unwrap();
    let request = KeyRequest::generate().unwrap();
    let serial = || {
        let key = PublicKey::from_csr_pem(request.csr_pem.as_bytes()).unwrap();
        let pem = root
            .issue(&key, &subject(Role::Worker), now(), HOUR)
            .unwrap();
        parse(&read_pem(pem.as_bytes()).unwrap()[0])
            .unwrap()
            .raw_serial()
            .to_vec()
    };
    assert_ne!(serial(), serial());
    assert_eq!(serial().len(), 20);
}

#[test]
fn request_is_bare_and_must_be_signed_by_its_key() {
    let request = KeyRequest::generate().unwrap();
    assert_eq!(format!("{request:?}"), "KeyRequest(..)");
    let check = |pem: &[u8]| PublicKey::from_csr_pem(pem).unwrap_err();
    assert!(matches!(check(b""), RequestError::Malformed));
    assert!(matches!(check(&[b'-'; 20_000]), RequestError::Malformed));
    use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject as _};
    use x509_parser::certification_request::X509CertificationRequest;
    let der = CertificateSigningRequestDer::from_pem_slice(request.csr_pem.as_bytes()).unwrap();
    let (_, parsed) = X509CertificationRequest::from_der(&der).unwrap();
    assert_eq!(parsed.certification_request_info.subject.iter().count(), 0);
    assert!(parsed.requested_extensions().is_none());
    // The signature of another request under this one's contents.
    let foreign = KeyRequest::generate().unwrap();
    let foreign = CertificateSigningRequestDer::from_pem_slice(foreign.csr_pem.as_bytes()).unwrap();
    let (_, foreign) = X509CertificationRequest::from_der(&foreign).unwrap();
    let own = parsed.signature_value.data.to_vec();
    let at = der
        .windows(own.len())
        .position(|window| window == own)
        .unwrap();
    let mut forged = der.to_vec();
    let length = own.len().min(foreign.signature_value.data.len());
    forged[at + 10..at + length].copy_from_slice(&foreign.signature_value.data[10..length]);
    let pem = to_pem("CERTIFICATE REQUEST", &forged);
    assert!(matches!(
        check(pem.as_bytes()),
        RequestError::Signature | RequestError::Malformed
    ));
}

#[test]
fn no_damaged_request_brings_another_key() {
    use rcgen::PublicKeyData as _;
    use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject as _};
    let request = KeyRequest::generate().unwrap();
    let der = CertificateSigningRequestDer::from_pem_slice(request.csr_pem.as_bytes()).unwrap();
    let expected = PublicKey::from_csr_pem(request.csr_pem.as_bytes()).unwrap();
    let expected = expected.0.subject_public_key_info();
    for position in 0..der.len() {
        for bit in 0..8 {
            let mut damaged = der.to_vec();
            damaged[position] ^= 1 << bit;
            let pem = to_pem("CERTIFICATE REQUEST", &damaged);
            // A few bits around what is signed are read leniently.
            if let Ok(key) = PublicKey::from_csr_pem(pem.as_bytes()) {
                let key = key.0.subject_public_key_info();
                assert_eq!(key, expected, "byte {position}, bit {bit}");
            }
        }
        let cut = to_pem("CERTIFICATE REQUEST", &der[..position]);
        PublicKey::from_csr_pem(cut.as_bytes()).unwrap_err();
    }
}

/// PEM in one long line, which parsers accept.
fn to_pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in der.chunks(3) {
        let mut bits = [0; 4];
        bits[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(bits);
        for digit in 0..4 {
            let value = usize::try_from(bits >> (18 - 6 * digit) & 63).unwrap();
            text.push(if digit <= chunk.len() {
                char::from(DIGITS[value])
            } else {
                '='
            });
        }
    }
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

fn openssl(arguments: &[&str], dir: &std::path::Path) -> Option<String> {
    let output = Command::new("openssl")
        .args(arguments)
        .current_dir(dir)
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(text)
}

/// Whether openssl is here; says so when a test is skipped.
#[expect(clippy::print_stderr, reason = "a skipped test is reported")]
fn has_openssl(dir: &std::path::Path) -> bool {
    let is_here = openssl(&["version"], dir).is_some();
    if !is_here {
        eprintln!("SKIPPED: openssl is not installed");
    }
    is_here
}

#[test]
fn openssl_agrees() {
    let dir = tempfile::tempdir().unwrap();
    if !has_openssl(dir.path()) {
        return;
    }
    let root = RootCa::generate(now()).unwrap();
    fs::write(dir.path().join("root"), root.certificates_pem()).unwrap();
    fs::write(dir.path().join("leaf"), issue(&root, Role::Manager)).unwrap();
    let at = (now().0 / 1_000_000_000).to_string();
    for purpose in ["sslserver", "sslclient"] {
        let command = [
            "verify",
            "-x509_strict",
            "-attime",
            &at,
            "-purpose",
            purpose,
            "-CAfile",
            "root",
            "leaf",
        ];
        assert_eq!(openssl(&command, dir.path()).unwrap(), "leaf: OK\n");
    }
}

/// A root as another program makes it: `PrintableString` name, SEC1 key. Its names must be copied, not written anew.
#[test]
fn foreign_root_issues_under_its_own_name() {
    let dir = tempfile::tempdir().unwrap();
    if !has_openssl(dir.path()) {
        return;
    }
    fs::write(
        dir.path().join("config"),
        "[req]\ndistinguished_name=dn\nstring_mask=pkix\n[dn]\n",
    )
    .unwrap();
    openssl(
        &[
            "ecparam",
            "-name",
            "prime256v1",
            "-genkey",
            "-noout",
            "-out",
            "key",
        ],
        dir.path(),
    );
    let request = [
        "req",
        "-x509",
        "-config",
        "config",
        "-key",
        "key",
        "-subj",
        "/CN=swarm-ca",
        "-days",
        "36500",
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign",
        "-out",
        "root",
    ];
    openssl(&request, dir.path());
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert!(read("key").starts_with("-----BEGIN EC PRIVATE KEY"));
    let root = RootCa::from_pem(&read("root"), &read("key")).unwrap();
    assert_eq!(root.certificates_pem(), read("root"));
    let der = &read_pem(root.certificates_pem().as_bytes()).unwrap()[0];
    let from = valid_from(der);
    let key = PublicKey::from_csr_pem(KeyRequest::generate().unwrap().csr_pem.as_bytes()).unwrap();
    let chain = root
        .issue(&key, &subject(Role::Worker), from, HOUR)
        .unwrap();
    let info = tls_info(chain.as_bytes(), root.certificates_pem().as_bytes()).unwrap();
    assert_eq!(
        info.cert_issuer_subject,
        parse(der).unwrap().subject().as_raw()
    );
    // 0x13 is PrintableString.
    assert!(
        info.cert_issuer_subject
            .windows(2)
            .any(|bytes| bytes == [0x13, 8])
    );
    verify(&chain, &root, from).unwrap();
}

/// The first instant a certificate is valid.
fn valid_from(der: &[u8]) -> Timestamp {
    timestamp(parse(der).unwrap().validity().not_before)
}

#[test]
fn bundles_are_bounded() {
    let root = RootCa::generate(now()).unwrap();
    let many = root.certificates_pem().repeat(CERTIFICATES_MAX + 1);
    assert_eq!(read_pem(many.as_bytes()), Err(CertificateError::Malformed));
    assert_eq!(
        read_pem(&vec![b'\n'; PEM_BYTES_MAX + 1]),
        Err(CertificateError::Malformed)
    );
    assert_eq!(read_pem(b"").unwrap_err(), CertificateError::Malformed);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn renewal_is_between_half_and_four_fifths(hours in 1..5000_u64, random in any::<u64>()) {
        let not_after = now().saturating_add(HOUR * u32::try_from(hours).unwrap());
        let node = NodeCertificate { subject: subject(Role::Worker), not_before: now(), not_after };
        let elapsed = renewal_time(&node, random).since(now()).as_secs();
        let validity = hours * 3600;
        prop_assert!(elapsed >= validity * 499 / 1000 && elapsed <= validity * 800 / 1000);
    }

}

#[test]
fn damaged_certificates_neither_pass_nor_panic() {
    let root = RootCa::generate(now()).unwrap();
    let sound = read_pem(issue(&root, Role::Worker).as_bytes()).unwrap()[0].to_vec();
    for position in 0..sound.len() {
        for bit in 0..8 {
            let mut der = sound.clone();
            der[position] ^= 1 << bit;
            let chain = to_pem("CERTIFICATE", &der);
            let verified = verify(&chain, &root, now());
            assert!(
                verified.is_err(),
                "byte {position}, bit {bit}: {:#x}",
                sound[position]
            );
        }
    }
}
