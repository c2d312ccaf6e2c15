//! Rotations as nodes live through them, judged by rustls; and roots as users give them. The roots in `fixtures/roots` were
//! made by openssl.

use std::sync::Arc;

use proptest::prelude::*;
use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, SignatureAlgorithm};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::{
    PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime, pem::PemObject as _,
};
use skep_model::{ExternalCa, JoinTokens};

use super::*;
use crate::{
    certificate::{tls_info, verify_chain},
    issuer,
    join_token::{JoinToken, bundle_hash},
    normalize_certificates,
};

const HOUR: Duration = Duration::from_hours(1);

macro_rules! fixture {
    ($name:literal) => {
        (
            include_bytes!(concat!("../../fixtures/roots/", $name, ".crt")).as_slice(),
            include_bytes!(concat!("../../fixtures/roots/", $name, ".key")).as_slice(),
        )
    };
}

/// 2026-11-23, two days after the fixtures were made.
fn now() -> Timestamp {
    Timestamp::ZERO.saturating_add(Duration::from_secs(1_795_430_000))
}

fn stored(root: &RootCa) -> StoredRootCa {
    let bundle = root.certificates_pem().as_bytes();
    let token = || Redacted(JoinToken::generate(bundle).to_string());
    StoredRootCa {
        ca_key: Redacted(root.key_pem().as_bytes().to_vec()),
        ca_cert: bundle.to_vec(),
        ca_cert_hash: root.hash(),
        join_tokens: JoinTokens {
            worker: token(),
            manager: token(),
        },
        root_rotation: None,
        last_forced_rotation: 0,
    }
}

fn generated() -> StoredRootCa {
    stored(&RootCa::generate(now()).unwrap())
}

fn rotating(root: &StoredRootCa, wanted: &CaConfig) -> StoredRootCa {
    StoredRootCa {
        root_rotation: Some(rotation(root, wanted, now()).unwrap()),
        ..root.clone()
    }
}

fn finished(rotating: &StoredRootCa) -> StoredRootCa {
    let rotation = rotating.root_rotation.clone().unwrap();
    StoredRootCa {
        ca_cert_hash: bundle_hash(&rotation.ca_cert),
        ca_key: rotation.ca_key,
        ca_cert: rotation.ca_cert,
        root_rotation: None,
        ..rotating.clone()
    }
}

fn wanted((certificate, key): (&[u8], &[u8])) -> CaConfig {
    CaConfig {
        signing_ca_cert: certificate.to_vec(),
        signing_ca_key: Redacted(key.to_vec()),
        ..CaConfig::default()
    }
}

/// A node as TLS sees it: chain and key (PEM).
struct Node {
    chain: String,
    key: Zeroizing<String>,
}

impl Node {
    fn new(root: &StoredRootCa, role: Role) -> Self {
        let request = KeyRequest::generate().unwrap();
        let subject = Subject {
            node_id: "a".repeat(25).parse().unwrap(),
            role,
            cluster_id: "b".repeat(25).parse().unwrap(),
        };
        let signer = Signer::from_stored(root).unwrap();
        let csr = request.csr_pem.as_bytes();
        Self {
            chain: signer.issue(csr, &subject, now(), HOUR * 2).unwrap(),
            key: request.key_pem,
        }
    }

    fn certified(
        &self,
    ) -> (
        Vec<rustls_pki_types::CertificateDer<'static>>,
        PrivateKeyDer<'static>,
    ) {
        let key = PrivatePkcs8KeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        (read_pem(self.chain.as_bytes()).unwrap(), key.into())
    }
}

#[derive(Debug)]
struct Clock;

impl rustls::time_provider::TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let (seconds, _) = now().to_parts();
        Some(UnixTime::since_unix_epoch(Duration::from_secs(
            seconds.try_into().unwrap(),
        )))
    }
}

fn trust(roots: &[u8]) -> Arc<RootCertStore> {
    let mut store = RootCertStore::empty();
    for root in read_pem(roots).unwrap() {
        store.add(root).unwrap();
    }
    store.into()
}

/// A whole handshake, both sides with certificates, as between an agent and a manager.
fn handshake(
    manager: &Node,
    manager_trusts: &[u8],
    worker: &Node,
    worker_trusts: &[u8],
) -> Result<(), rustls::Error> {
    let provider = || tls::provider().clone();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        trust(manager_trusts),
        provider(),
    );
    let (chain, key) = manager.certified();
    let server = ServerConfig::builder_with_details(provider(), Arc::new(Clock))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key)?;
    let (chain, key) = worker.certified();
    let client = ClientConfig::builder_with_details(provider(), Arc::new(Clock))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(trust(worker_trusts))
        .with_client_auth_cert(chain, key)?;
    let mut client = ClientConnection::new(
        client.into(),
        ServerName::try_from("swarm-manager").unwrap(),
    )?;
    let mut server = ServerConnection::new(server.into())?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(())
}

#[track_caller]
fn check_life(old: &StoredRootCa, config: &CaConfig) {
    let during = rotating(old, config);
    let after = finished(&during);
    let (manager, worker) = (Node::new(old, Role::Manager), Node::new(old, Role::Worker));
    let (manager_new, worker_new) = (
        Node::new(&during, Role::Manager),
        Node::new(&during, Role::Worker),
    );
    handshake(&manager, &old.ca_cert, &worker, &old.ca_cert).unwrap();
    // While it lasts, everybody trusts the old root, whichever certificate they have.
    for manager in [&manager, &manager_new] {
        for worker in [&worker, &worker_new] {
            handshake(manager, &old.ca_cert, worker, &old.ca_cert).unwrap();
        }
    }
    // Nodes learn of its end one by one; their certificates hold under both roots.
    for manager_trusts in [&old.ca_cert, &after.ca_cert] {
        for worker_trusts in [&old.ca_cert, &after.ca_cert] {
            handshake(&manager_new, manager_trusts, &worker_new, worker_trusts).unwrap();
        }
    }
    // After it, what the old root signed is nothing.
    let worker_after = Node::new(&after, Role::Worker);
    handshake(&manager_new, &after.ca_cert, &worker_after, &after.ca_cert).unwrap();
    handshake(&manager_new, &after.ca_cert, &worker, &after.ca_cert).unwrap_err();
    handshake(&manager, &after.ca_cert, &worker_new, &after.ca_cert).unwrap_err();
    handshake(&manager_new, &after.ca_cert, &worker_after, &old.ca_cert).unwrap();
    handshake(&manager_new, &old.ca_cert, &worker_after, &old.ca_cert).unwrap_err();
    // What nodes report is what the rotation waits for, under either root.
    let expected = issuer(&after.ca_cert).unwrap();
    for roots in [&old.ca_cert, &after.ca_cert] {
        let info = tls_info(worker_new.chain.as_bytes(), roots).unwrap();
        assert_eq!(
            (info.cert_issuer_subject, info.cert_issuer_public_key),
            (expected.subject.clone(), expected.public_key.clone())
        );
        verify_chain(worker_new.chain.as_bytes(), roots, now()).unwrap();
    }
    assert_ne!(
        issuer(&old.ca_cert).unwrap().public_key,
        expected.public_key
    );
}

#[test]
fn nodes_move_to_a_generated_root() {
    check_life(&generated(), &CaConfig::default());
}

#[test]
fn nodes_move_between_roots_of_other_origins() {
    let old = generated();
    for given in [fixture!("openssl"), fixture!("rsa3072")] {
        check_life(&old, &wanted(given));
        // And on from there.
        check_life(
            &finished(&rotating(&old, &wanted(given))),
            &CaConfig::default(),
        );
    }
}

#[test]
fn every_curve_serves() {
    for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ECDSA_P521_SHA512] {
        let (certificate, key) = root_of(algorithm);
        let given = wanted((certificate.as_bytes(), key.as_bytes()));
        check_life(&generated(), &given);
        check_life(
            &finished(&rotating(&generated(), &given)),
            &CaConfig::default(),
        );
    }
}

fn root_of(algorithm: &'static SignatureAlgorithm) -> (String, String) {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn cross_signed_certificate_is_the_new_root_but_for_its_issuer() {
    let old = generated();
    for config in [CaConfig::default(), wanted(fixture!("openssl"))] {
        let rotation = rotation(&old, &config, now()).unwrap();
        let ders = [
            &old.ca_cert,
            &rotation.ca_cert,
            &rotation.cross_signed_ca_cert,
        ]
        .map(|pem| read_pem(pem).unwrap().remove(0));
        let [old, new, cross] = ders.each_ref().map(|der| parse(der).unwrap());
        assert_eq!(cross.subject().as_raw(), new.subject().as_raw());
        assert_eq!(cross.public_key().raw, new.public_key().raw);
        assert_eq!(cross.validity(), new.validity());
        assert_eq!(cross.issuer().as_raw(), old.subject().as_raw());
        assert_ne!(cross.raw_serial(), new.raw_serial());
        let extension = |certificate: &X509Certificate<'_>, id: &str| {
            let mut all = certificate.extensions().iter();
            all.find(|extension| extension.oid.to_id_string() == id)
                .map(|extension| extension.value.to_vec())
        };
        // Key identifier, basic constraints, key usage.
        for id in ["2.5.29.14", "2.5.29.19", "2.5.29.15"] {
            assert_eq!(extension(&cross, id), extension(&new, id), "{id}");
        }
        let identifier = extension(&old, "2.5.29.14").unwrap();
        let authority = extension(&cross, "2.5.29.35").unwrap();
        // 04 14 and the identifier; 30 16 80 14 and the identifier.
        assert_eq!(authority[4..], identifier[2..]);
        assert!(is_signed_by(&cross, &old) && !is_signed_by(&cross, &new));
    }
}

#[test]
fn replaced_rotation_starts_from_the_trusted_root() {
    let old = generated();
    let first = rotating(&old, &CaConfig::default());
    let second = rotating(&first, &CaConfig::default());
    let (manager, worker) = (
        Node::new(&second, Role::Manager),
        Node::new(&first, Role::Worker),
    );
    handshake(&manager, &old.ca_cert, &worker, &old.ca_cert).unwrap();
    assert_ne!(first.root_rotation, second.root_rotation);
}

#[test]
fn tokens_and_hash_follow_the_bundle() {
    let old = generated();
    let after = finished(&rotating(&old, &CaConfig::default()));
    let token: JoinToken = old.join_tokens.worker.0.parse().unwrap();
    assert!(token.matches_bundle(&old.ca_cert) && !token.matches_bundle(&after.ca_cert));
    assert_eq!(after.ca_cert_hash, bundle_hash(&after.ca_cert));
    assert!(JoinToken::generate(&after.ca_cert).matches_bundle(&after.ca_cert));
}

#[track_caller]
fn check_refused(config: &CaConfig, text: &str) {
    let error = rotation(&generated(), config, now()).unwrap_err();
    assert_eq!(error.to_string(), text, "{error:?}");
    assert!(!format!("{error:?}").contains("PRIVATE"));
}

#[test]
fn unfit_roots_are_refused_in_dockers_words() {
    for (given, text) in [
        (fixture!("rsa1024"), "unsupported RSA key parameters"),
        (
            fixture!("sha1"),
            "unsupported signature algorithm: SHA1-RSA",
        ),
        (
            fixture!("ed25519"),
            "unsupported signature algorithm: Ed25519",
        ),
        (fixture!("secp256k1"), "unsupported ECDSA key parameters"),
        (fixture!("notaca"), "certificate not a CA"),
        (
            fixture!("constrained"),
            "certificates issued by the desired CA certificate would not be accepted",
        ),
    ] {
        check_refused(&wanted(given), text);
    }
}

#[test]
fn incomplete_and_mismatched_roots_are_refused_in_dockers_words() {
    let (certificate, key) = fixture!("openssl");
    for (given, text) in [
        (
            (certificate, fixture!("rsa3072").1),
            "certificate key mismatch",
        ),
        (
            (
                certificate,
                include_bytes!("../../fixtures/roots/encrypted.key").as_slice(),
            ),
            "malformed private key",
        ),
        ((certificate, b"x".as_slice()), "malformed private key"),
        ((certificate, certificate), "malformed private key"),
        (
            (b"x".as_slice(), key),
            "could not parse the desired CA certificate",
        ),
        ((key, key), "could not parse the desired CA certificate"),
        (
            (b"".as_slice(), key),
            "if a signing CA key is provided, the signing CA cert must also be provided",
        ),
        (
            (certificate, b"".as_slice()),
            "there must be at least one valid, reachable external CA corresponding to the desired CA certificate",
        ),
        (
            (
                [certificate, fixture!("rsa3072").0].concat().as_slice(),
                key,
            ),
            "the desired CA certificate cannot contain multiple certificates",
        ),
        (
            (
                include_bytes!("../../fixtures/roots/multivalue.crt").as_slice(),
                key,
            ),
            "subject of the desired CA certificate is not supported",
        ),
    ] {
        check_refused(&wanted(given), text);
    }
    let external = CaConfig {
        external_cas: vec![ExternalCa::default()],
        ..CaConfig::default()
    };
    check_refused(
        &external,
        "external CAs are not supported: give the CA's certificate and key instead",
    );
}

#[test]
fn validity_is_checked_at_both_ends() {
    let key = KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let (seconds, _) = now().to_parts();
    let mut check = |from: i64, until: i64, text: &str| {
        let at =
            |days: i64| time::OffsetDateTime::from_unix_timestamp(seconds + days * 86_400).unwrap();
        (params.not_before, params.not_after) = (at(from), at(until));
        let certificate = params.self_signed(&key).unwrap().pem();
        let given = wanted((certificate.as_bytes(), key.serialize_pem().as_bytes())).clone();
        match rotation(&generated(), &given, now()) {
            Ok(_) => assert_eq!(text, ""),
            Err(error) => assert_eq!(error.to_string(), text),
        }
    };
    check(-1, 364, "CA certificate expires too soon");
    check(-1, 366, "");
    check(
        1,
        1000,
        "error while validating Root CA Certificate: certificate is not valid yet",
    );
}

#[test]
fn certificate_signed_by_another_is_no_root() {
    let old = generated();
    let rotation_ = rotation(&old, &CaConfig::default(), now()).unwrap();
    // The same name as its issuer's, so only the signature tells.
    let cross = wanted((&rotation_.cross_signed_ca_cert, &rotation_.ca_key.0));
    check_refused(
        &cross,
        "error while validating Root CA Certificate: certificate is not signed by itself",
    );
}

#[test]
fn same_key_is_refused() {
    let old = generated();
    let key = KeyPair::from_pem(std::str::from_utf8(&old.ca_key.0).unwrap()).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap().pem();
    let again = wanted((certificate.as_bytes(), &old.ca_key.0));
    let error = rotation(&old, &again, now()).unwrap_err();
    assert!(matches!(error, RotationError::SameKey), "{error:?}");
    let without_key = StoredRootCa {
        ca_key: Redacted::default(),
        ..old
    };
    let error = rotation(&without_key, &CaConfig::default(), now()).unwrap_err();
    assert!(
        matches!(error, RotationError::CrossSign(RootError::NoKey)),
        "{error:?}"
    );
}

#[test]
fn current_root_given_again_is_no_rotation() {
    let mut old = generated();
    old.ca_cert.extend(b"\n\n");
    let key = old.ca_key.0.clone();
    let again = rotation(&old, &wanted((&old.ca_cert, &key)), now()).unwrap();
    assert_eq!((&again.ca_cert, &again.ca_key), (&old.ca_cert, &old.ca_key));
    assert!(again.cross_signed_ca_cert.is_empty());
    let other = wanted((&old.ca_cert, fixture!("openssl").1));
    let error = rotation(&old, &other, now()).unwrap_err();
    assert!(matches!(error, RotationError::KeyMismatch), "{error:?}");
}

#[test]
fn text_around_a_given_root_is_dropped() {
    let (certificate, key) = fixture!("openssl");
    let plain = rotation(&generated(), &wanted((certificate, key)), now()).unwrap();
    let text = String::from_utf8(plain.ca_cert.clone()).unwrap();
    assert!(
        text.starts_with("-----BEGIN CERTIFICATE-----\nMII"),
        "{text}"
    );
    assert!(text.ends_with("\n-----END CERTIFICATE-----\n"), "{text}");
    let mangled = text.replace('\n', " \r\n\r\n\t ");
    let mangled = format!("\u{a0}\n  \n{mangled}\n\n# trailing: words\n");
    let key = String::from_utf8(key.to_vec())
        .unwrap()
        .replace('\n', "\r\n");
    let again = rotation(
        &generated(),
        &wanted((mangled.as_bytes(), key.as_bytes())),
        now(),
    )
    .unwrap();
    assert_eq!(again.ca_cert, plain.ca_cert);
    assert_eq!(again.ca_key, plain.ca_key);
    let normal = normalize_certificates(mangled.as_bytes()).unwrap();
    assert_eq!(normal, text);
    assert_eq!(normalize_certificates(normal.as_bytes()).unwrap(), normal);
    assert_eq!(normalize_certificates(b""), None);
}

#[test]
fn no_damaged_chain_speaks_of_anything_else() {
    let old = generated();
    let during = rotating(&old, &CaConfig::default());
    let node = Node::new(&during, Role::Worker);
    let ders = read_pem(node.chain.as_bytes()).unwrap();
    let expected = verify_chain(node.chain.as_bytes(), &old.ca_cert, now()).unwrap();
    for (index, der) in ders.iter().enumerate() {
        for position in 0..der.len() {
            let mut damaged = der.to_vec();
            damaged[position] ^= 1 << (position % 8);
            let mut all: Vec<_> = ders.iter().map(|der| pem_text::certificate(der)).collect();
            all[index] = pem_text::certificate(&damaged);
            let chain = all.concat();
            // A few bits around what is signed are read leniently; TLS is stricter.
            if let Ok(node) = verify_chain(chain.as_bytes(), &old.ca_cert, now()) {
                assert_eq!(node, expected, "certificate {index}, byte {position}");
            }
            let _ = tls_info(chain.as_bytes(), &old.ca_cert);
        }
    }
}

#[test]
fn signer_wants_a_cross_signed_certificate_of_its_root() {
    let old = generated();
    let mut first = rotating(&old, &CaConfig::default());
    let second = rotation(&old, &CaConfig::default(), now()).unwrap();
    first.root_rotation.as_mut().unwrap().cross_signed_ca_cert = second.cross_signed_ca_cert;
    assert!(matches!(
        Signer::from_stored(&first),
        Err(RootError::CrossSigned)
    ));
    first
        .root_rotation
        .as_mut()
        .unwrap()
        .cross_signed_ca_cert
        .clear();
    assert!(matches!(
        Signer::from_stored(&first),
        Err(RootError::Certificates(_))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A user's files, damaged: refused or fine, never a panic, and never a rotation that TLS refuses.
    #[test]
    fn damaged_roots_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), is_key in any::<bool>()) {
        let (certificate, key) = fixture!("openssl");
        let (mut certificate, mut key) = (normalize_certificates(certificate).unwrap().into_bytes(), key.to_vec());
        let text = if is_key { &mut key } else { &mut certificate };
        let at = at.index(text.len());
        text[at] = byte;
        let old = StoredRootCa::default();
        // Without a current root nothing comes of it, after everything given was read.
        prop_assert!(rotation(&old, &wanted((&certificate, &key)), now()).is_err());
    }

    #[test]
    fn der_damage_never_panics(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let (certificate, key) = fixture!("openssl");
        let mut der = read_pem(normalize_certificates(certificate).unwrap().as_bytes()).unwrap()[0].to_vec();
        let at = at.index(der.len());
        der[at] ^= 1 << bit;
        let damaged = pem_text::certificate(&der);
        prop_assert!(rotation(&StoredRootCa::default(), &wanted((damaged.as_bytes(), key)), now()).is_err());
        let _ = issuer(damaged.as_bytes());
        let _ = Signer::from_stored(&StoredRootCa { ca_cert: damaged.into_bytes(), ca_key: Redacted(key.to_vec()), ..StoredRootCa::default() });
    }

    #[test]
    fn any_bytes_are_read_without_panic(text in any::<Vec<u8>>(), tail in "(-----BEGIN [A-Z ]{0,20}-----[\n: A-Za-z0-9+/=]{0,80}-----END [A-Z ]{0,20}-----)?") {
        let text = [&text[..], tail.as_bytes()].concat();
        let _ = normalize_certificates(&text);
        let _ = pem_text::normalize_key(&text);
        let _ = PublicKey::from_csr_pem(&text);
        let _ = issuer(&text);
    }
}
