//! Files as dockerd names them, and a pair that changes together whatever happens in between.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use skep_model::{Role, Timestamp};

use super::*;
use crate::{KeyRequest, PublicKey, RootCa, Subject, UnlockKey};

fn identity(root: &RootCa, node: &str) -> (String, Zeroizing<String>) {
    let request = KeyRequest::generate().unwrap();
    let key = PublicKey::from_csr_pem(request.csr_pem.as_bytes()).unwrap();
    let cluster_id = "zzzzzzzzzzzzzzzzzzzzzzzzz".parse().unwrap();
    let subject = Subject {
        node_id: node.repeat(25).parse().unwrap(),
        role: Role::Worker,
        cluster_id,
    };
    let now = Timestamp::ZERO.saturating_add(Duration::from_secs(1_795_264_496));
    (
        root.issue(&key, &subject, now, Duration::from_hours(2))
            .unwrap(),
        request.key_pem,
    )
}

fn root() -> RootCa {
    RootCa::generate(Timestamp::ZERO.saturating_add(Duration::from_secs(1_795_264_496))).unwrap()
}

#[track_caller]
fn check_node(dir: &CertificateDir, node: &str) {
    let identity = dir.load_identity().unwrap().unwrap();
    assert_eq!(
        identity.certificate.subject.node_id.as_str(),
        node.repeat(25)
    );
}

#[test]
fn files_have_dockerds_names_and_modes() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("certificates");
    let dir = CertificateDir::open(&path).unwrap();
    assert!(dir.load_root().unwrap().is_none());
    assert!(dir.load_identity().unwrap().is_none());
    let root = root();
    let (chain, key) = identity(&root, "a");
    dir.save_root(root.certificates_pem()).unwrap();
    dir.save_identity(&chain, &key).unwrap();
    assert_eq!(dir.load_root().unwrap().unwrap(), root.certificates_pem());
    let loaded = dir.load_identity().unwrap().unwrap();
    assert_eq!((&loaded.chain_pem, &loaded.key_pem), (&chain, &key));
    assert!(!format!("{loaded:?}").contains("PRIVATE"));
    let mode = |name: &str| fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("swarm-node.key"), 0o600);
    assert_eq!(mode("swarm-node.crt"), 0o644);
    assert_eq!(mode("swarm-root-ca.crt"), 0o644);
    assert_eq!(mode("."), 0o700);
    assert_eq!(fs::read_dir(&path).unwrap().count(), 3);
}

#[test]
fn renewal_interrupted_anywhere_leaves_a_matching_pair() {
    let root = root();
    let (old, new) = (identity(&root, "a"), identity(&root, "b"));
    for steps in 0..=4 {
        let temporary = tempfile::tempdir().unwrap();
        let dir = CertificateDir::open(temporary.path()).unwrap();
        dir.save_identity(&old.0, &old.1).unwrap();
        // What `save_identity` does, up to the crash.
        let all: [&dyn Fn() -> Result<(), FileError>; 4] = [
            &|| dir.stage(CERTIFICATE_FILE, &new.0, 0o644),
            &|| dir.stage(KEY_FILE, &new.1, 0o600),
            &|| dir.enforce(KEY_FILE),
            &|| dir.enforce(CERTIFICATE_FILE),
        ];
        all.iter().take(steps).for_each(|step| step().unwrap());
        check_node(&dir, if steps < 3 { "a" } else { "b" });
        check_node(&dir, if steps < 3 { "a" } else { "b" });
        dir.save_identity(&new.0, &new.1).unwrap();
        check_node(&dir, "b");
    }
}

#[test]
fn half_written_stage_is_ignored() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = CertificateDir::open(temporary.path()).unwrap();
    let (chain, key) = identity(&root(), "a");
    dir.save_identity(&chain, &key).unwrap();
    fs::write(temporary.path().join("swarm-node.crt.tmp"), &chain[..200]).unwrap();
    check_node(&dir, "a");
}

#[test]
fn foreign_key_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = CertificateDir::open(temporary.path()).unwrap();
    let root = root();
    let (first, second) = (identity(&root, "a"), identity(&root, "b"));
    assert!(matches!(
        dir.save_identity(&first.0, &second.1),
        Err(FileError::Key(_))
    ));
    assert!(dir.load_identity().unwrap().is_none());
    dir.save_identity(&first.0, &first.1).unwrap();
    fs::write(temporary.path().join(KEY_FILE), second.1.as_bytes()).unwrap();
    assert!(matches!(dir.load_identity(), Err(FileError::Key(_))));
    fs::write(temporary.path().join(CERTIFICATE_FILE), "nothing").unwrap();
    assert!(matches!(
        dir.load_identity(),
        Err(FileError::Certificate { .. })
    ));
}

/// A manager's files: the directory, and what decides which unlock key is asked for (raft's key file).
struct Manager {
    temporary: tempfile::TempDir,
    decides: std::cell::RefCell<Lock>,
}

impl Manager {
    fn new(lock: &Lock) -> Self {
        let manager = Self {
            temporary: tempfile::tempdir().unwrap(),
            decides: lock.clone().into(),
        };
        let (chain, key) = identity(&root(), "a");
        manager.open(lock).save_identity(&chain, &key).unwrap();
        manager
    }

    fn open(&self, lock: &Lock) -> CertificateDir {
        let dir = CertificateDir::open(self.temporary.path()).unwrap();
        dir.with_lock(lock.clone())
    }

    /// A start: the key that opens what decides must open the identity, now and ever after.
    #[track_caller]
    fn check_starts(&self) {
        let lock = self.decides.borrow().clone();
        for _ in 0..2 {
            check_node(&self.open(&lock), "a");
        }
        let text = fs::read_to_string(self.temporary.path().join(KEY_FILE)).unwrap();
        assert!(
            StoredKey::read(&text)
                .unwrap()
                .open(lock.key.as_ref())
                .is_ok()
        );
    }

    fn file_count(&self) -> usize {
        fs::read_dir(self.temporary.path()).unwrap().count()
    }
}

fn locks() -> [Lock; 4] {
    let key = |byte| Some(UnlockKey::from_bytes([byte; 32]));
    [(None, 0), (key(1), 7), (key(2), 8), (None, 9)].map(|(key, version)| Lock { key, version })
}

fn changes() -> impl Iterator<Item = (Lock, Lock)> {
    locks()
        .into_iter()
        .flat_map(|old| locks().map(|new| (old.clone(), new)))
}

#[test]
fn lock_changes_and_asks_for_its_key() {
    for (old, new) in changes() {
        let manager = Manager::new(&old);
        let dir = manager.open(&old).reseal(new.clone(), || {
            *manager.decides.borrow_mut() = new.clone();
            Ok::<_, io::Error>(())
        });
        let dir = dir.unwrap();
        assert_eq!(dir.lock(), &new);
        assert_eq!(dir.is_locked().unwrap(), new.key.is_some());
        assert_eq!(
            dir.load_identity().unwrap().unwrap().lock_version,
            new.version
        );
        manager.check_starts();
        assert_eq!(manager.file_count(), 2);
        for other in locks() {
            let opened = manager.open(&other).load_identity();
            match (&new.key, &other.key) {
                (Some(_), None) => assert!(matches!(opened, Err(FileError::Locked(_)))),
                (Some(key), Some(other)) if key != other => {
                    assert!(matches!(opened, Err(FileError::WrongKek(_))));
                }
                _ => assert!(opened.unwrap().is_some()),
            }
        }
    }
}

#[test]
fn crash_while_the_lock_changes_leaves_what_one_key_opens() {
    for (old, new) in changes() {
        // Before anything decided, and after it did.
        for is_committed in [false, true] {
            let manager = Manager::new(&old);
            let crashed = manager.open(&old).reseal(new.clone(), || {
                if is_committed {
                    *manager.decides.borrow_mut() = new.clone();
                }
                Err(io::Error::other("crash"))
            });
            assert!(matches!(crashed, Err(ResealError::Commit(_))));
            manager.check_starts();
            // A start with a wrong key, or one who only looks, changes nothing.
            let version = manager.decides.borrow().version;
            for Lock { key, .. } in locks() {
                drop(manager.open(&Lock { key, version }).load_identity());
            }
            drop(manager.open(&Lock::default()).load_identity());
            manager.check_starts();
            // The next attempt, also to yet another lock, ends well.
            for next in [new.clone(), locks()[2].clone()] {
                let lock = manager.decides.borrow().clone();
                let done = manager.open(&lock).reseal(next.clone(), || {
                    *manager.decides.borrow_mut() = next.clone();
                    Ok::<_, io::Error>(())
                });
                done.unwrap();
                manager.check_starts();
                assert_eq!(manager.file_count(), 2);
            }
        }
    }
}

#[test]
fn half_written_reseal_is_ignored_and_replaced() {
    for (old, new) in changes() {
        let manager = Manager::new(&old);
        let (_, key) = identity(&root(), "b");
        let mut texts = vec![String::new(), "-----BEGIN".to_owned()];
        // Of an attempt before the last renewal: another key.
        texts.push(seal(&key, &new).unwrap().to_string());
        for text in texts {
            fs::write(manager.temporary.path().join(RESEALED_FILE), text).unwrap();
            manager.check_starts();
        }
        let (chain, key) = identity(&root(), "b");
        manager.open(&old).save_identity(&chain, &key).unwrap();
        check_node(&manager.open(&old), "b");
        assert_eq!(manager.file_count(), 2);
    }
}

#[test]
fn renewal_is_sealed_from_the_start() {
    for lock in locks() {
        let manager = Manager::new(&lock);
        let (chain, key) = identity(&root(), "b");
        let dir = manager.open(&lock);
        dir.save_identity(&chain, &key).unwrap();
        check_node(&dir, "b");
        let body = key.lines().nth(1).unwrap();
        let text = fs::read_to_string(manager.temporary.path().join(KEY_FILE)).unwrap();
        assert_eq!(text.contains(body), lock.key.is_none());
        assert!(!format!("{dir:?}").contains(body));
    }
}

#[test]
fn nothing_is_resealed_without_a_certificate() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = CertificateDir::open(temporary.path()).unwrap();
    assert!(!dir.is_locked().unwrap());
    let [_, lock, ..] = locks();
    let failed = dir.reseal(lock, || -> Result<(), io::Error> {
        panic!("nothing to commit")
    });
    assert!(matches!(failed, Err(ResealError::NoIdentity)));
}
