//! Keys sealed by openssl and by us, and what is not a sealed key. `fixtures/keys` has one key in several forms, made by
//! openssl.

use std::{fs, process::Command};

use proptest::prelude::*;

use super::*;

const PLAIN: &str = include_str!("../../fixtures/keys/plain.key");
/// As dockerd writes it: openssl's with HMAC-SHA-1 and 2048 iterations is the same, but for the header added.
const DOCKER: &str = include_str!("../../fixtures/keys/docker.key");
/// Printable, so that openssl takes it for a password.
const UNLOCK: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

fn unlock() -> UnlockKey {
    UnlockKey::from_bytes(*UNLOCK)
}

fn lock() -> Lock {
    Lock {
        key: Some(unlock()),
        version: 42,
    }
}

fn open(text: &str, unlock: Option<&UnlockKey>) -> Result<String, NotOpened> {
    let stored = StoredKey::read(text).ok_or(NotOpened::Malformed)?;
    stored.open(unlock).map(|opened| opened.pem.to_string())
}

#[test]
fn sealed_keys_of_other_programs_open() {
    for text in [include_str!("../../fixtures/keys/sha256.key"), DOCKER] {
        assert_eq!(open(text, Some(&unlock())).unwrap(), PLAIN);
        assert_eq!(open(text, None), Err(NotOpened::Locked));
        let other = UnlockKey::from_bytes([1; 32]);
        assert_eq!(open(text, Some(&other)), Err(NotOpened::WrongKey));
    }
    let scrypt = include_str!("../../fixtures/keys/scrypt.key");
    assert_eq!(open(scrypt, Some(&unlock())), Err(NotOpened::WrongKey));
}

#[test]
fn sealed_key_is_dockers_form() {
    let text = seal(PLAIN, &lock()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let known: Vec<&str> = DOCKER.lines().collect();
    assert_eq!(lines[..3], known[..3]);
    assert_eq!(
        lines[..3],
        [
            "-----BEGIN ENCRYPTED PRIVATE KEY-----",
            "kek-version: 42",
            ""
        ]
    );
    let [ours, known] = [&text, DOCKER].map(|text| StoredKey::read(text).unwrap());
    assert_eq!(ours.version, 42);
    assert!(ours.is_sealed());
    // The same but for salt, initialisation vector and ciphertext.
    let fixed = |key: &StoredKey| {
        let mut der = key.der.to_vec();
        for random in [35..43, 62..78, 81..der.len()] {
            der[random].fill(0);
        }
        der
    };
    assert_eq!(fixed(&ours), fixed(&known));
    assert_ne!(ours.der, known.der);
    assert_eq!(open(&text, Some(&unlock())).unwrap(), PLAIN);
    assert_ne!(*text, *seal(PLAIN, &lock()).unwrap());
}

#[test]
fn openssl_opens_what_is_sealed_here() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    // openssl does not read unknown headers, dockerd does.
    let text = seal(PLAIN, &lock())
        .unwrap()
        .replace("kek-version: 42\n\n", "");
    fs::write(&path, text).unwrap();
    let password = format!("pass:{}", str::from_utf8(UNLOCK).unwrap());
    let output = Command::new("openssl")
        .args(["pkcs8", "-passin", &password, "-in"])
        .arg(&path)
        .output();
    let Ok(output) = output else {
        skipped();
        return;
    };
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(String::from_utf8(output.stdout).unwrap(), PLAIN);
}

#[expect(clippy::print_stderr, reason = "a skipped test is reported")]
fn skipped() {
    eprintln!("SKIPPED: openssl is not installed");
}

#[test]
fn plain_key_has_a_header_only_after_a_lock() {
    assert_eq!(*seal(PLAIN, &Lock::default()).unwrap(), PLAIN);
    let unlocked = Lock {
        key: None,
        version: 43,
    };
    let text = seal(PLAIN, &unlocked).unwrap();
    assert!(
        text.starts_with("-----BEGIN PRIVATE KEY-----\nkek-version: 43\n\n"),
        "{text:?}"
    );
    assert_eq!(StoredKey::read(&text).unwrap().version, 43);
    assert_eq!(open(&text, None).unwrap(), PLAIN);
    assert_eq!(open(&text, Some(&unlock())).unwrap(), PLAIN);
    assert!(seal("x", &lock()).is_none());
    assert!(seal(DOCKER, &lock()).is_none());
}

proptest! {
    #[test]
    fn damage_is_noticed_and_never_panics(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let stored = StoredKey::read(DOCKER).unwrap();
        let mut der = stored.der.clone();
        let at = at.index(der.len());
        der[at] ^= 1 << bit;
        let damaged = StoredKey { der, ..stored };
        // Undetected only where nothing says what is right: in the padding's block nothing but its
        // end, and in the key's own public half, which its certificate is compared with.
        if let Ok(opened) = damaged.open(Some(&unlock())) {
            prop_assert!(*opened.pem == *PLAIN || at > 60, "{at}");
        }
    }

    #[test]
    fn any_text_is_read_without_panic(body in any::<Vec<u8>>(), label in "(ENCRYPTED |EC |)PRIVATE KEY", header in "(kek-version: [0-9a-z]{0,30}\n\n)?") {
        let mut block = Pem::new(label, body);
        let _ = block.headers_mut().add("kek-version", &header.replace([':', '\n'], ""));
        let text = pem_text::write(&block);
        if let Some(stored) = StoredKey::read(&text) {
            let _ = stored.open(Some(&unlock()));
        }
        let _ = StoredKey::read(&format!("{header}{text}"));
    }
}
