//! Key files: round trips, refusals, and a file written by version 1.

use super::*;

const PLAIN: &[u8] = include_bytes!("../../tests/golden/key-v1-plain");
const SEALED: &[u8] = include_bytes!("../../tests/golden/key-v1-sealed");

fn golden() -> KeyFile {
    KeyFile {
        dek: Dek::from_bytes([7; KEY_BYTES]),
        kek_version: 42,
    }
}

fn kek() -> Kek {
    Kek::from_bytes([9; KEY_BYTES])
}

#[test]
fn files_of_version_1_are_read() {
    assert_eq!(KeyFile::decode(PLAIN, None).unwrap(), golden());
    assert_eq!(KeyFile::decode(SEALED, Some(&kek())).unwrap(), golden());
}

#[test]
fn sealed_key_needs_its_unlock_key() {
    let file = golden().encode(Some(&kek()));
    assert!(matches!(
        KeyFile::decode(&file, None),
        Err(KeyFileError::Locked)
    ));
    let wrong = Kek::from_bytes([8; KEY_BYTES]);
    assert!(matches!(
        KeyFile::decode(&file, Some(&wrong)),
        Err(KeyFileError::WrongKek)
    ));
    assert_eq!(KeyFile::decode(&file, Some(&kek())).unwrap(), golden());
    let exposed = file
        .windows(KEY_BYTES)
        .any(|window| window == golden().dek.expose());
    assert!(!exposed);
}

#[test]
fn other_versions_and_damage_are_told_apart() {
    let mut newer = PLAIN.to_vec();
    newer[7] = 2;
    assert!(matches!(
        KeyFile::decode(&newer, None),
        Err(KeyFileError::Version(2))
    ));
    assert!(matches!(
        KeyFile::decode(b"-----BEGIN", None),
        Err(KeyFileError::NotAKeyFile)
    ));
    for length in 0..PLAIN.len() {
        KeyFile::decode(&PLAIN[..length], None).unwrap_err();
    }
    for position in 8..PLAIN.len() {
        let mut damaged = PLAIN.to_vec();
        damaged[position] ^= 2;
        KeyFile::decode(&damaged, None).unwrap_err();
    }
}

#[test]
fn saved_file_is_private_and_replaced_whole() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    golden().save(&path, None).unwrap();
    assert!(!KeyFile::is_locked(&path).unwrap());
    // Left by a crash.
    fs::write(path.with_extension("tmp"), "half a fi").unwrap();
    golden().save(&path, Some(&kek())).unwrap();
    assert!(KeyFile::is_locked(&path).unwrap());
    assert_eq!(KeyFile::load(&path, Some(&kek())).unwrap(), golden());
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn keys_do_not_show_in_debug_output() {
    assert_eq!(
        format!("{:?}", golden()),
        "KeyFile { dek: Dek(..), kek_version: 42 }"
    );
}
