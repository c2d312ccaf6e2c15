//! Files of a membership through locks and crashes.

use std::net::SocketAddr;

use skep_ca::{KeyRequest, PublicKey, RootCa, Subject, UnlockKey};
use skep_model::{ClusterId, NodeId, Rng, Role};
use skep_raft::{Restored, Storage};
use tempfile::TempDir;

use super::{
    super::{address::Addresses, identity},
    *,
};

struct Rig {
    _dir: TempDir,
    home: Home,
    identity: Identity,
}

fn locked(byte: u8, version: u64) -> Lock {
    Lock {
        key: Some(UnlockKey::from_bytes([byte; 32])),
        version,
    }
}

/// A manager's files, sealed with `lock`.
fn rig(lock: &Lock) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::new(dir.path().join("swarm"));
    home.prepare().unwrap();
    let mut rng = Rng::from_seed(1);
    let advertised: SocketAddr = "192.0.2.1:2377".parse().unwrap();
    let identity = Identity {
        node_id: NodeId::random(&mut rng),
        cluster_id: ClusterId::random(&mut rng),
        raft_id: Some(7),
        former_raft_ids: Vec::new(),
        addresses: Addresses {
            advertised,
            listen: advertised,
            interface: String::new(),
            data_path: advertised.ip(),
        },
    };
    let now = identity::now();
    let root = RootCa::generate(now).unwrap();
    let key = KeyRequest::generate().unwrap();
    let subject = Subject {
        node_id: identity.node_id,
        role: Role::Manager,
        cluster_id: identity.cluster_id,
    };
    let public_key = PublicKey::from_csr_pem(key.csr_pem.as_bytes()).unwrap();
    let expiry = std::time::Duration::from_secs(7200);
    let chain = root.issue(&public_key, &subject, now, expiry).unwrap();
    home.store_roots(root.certificates_pem()).unwrap();
    home.store_certificate(&chain, &key.key_pem, lock).unwrap();
    let group = Restored::new_group(7, Vec::new());
    home.open_log(7, lock).unwrap().bootstrap(&group).unwrap();
    Rig {
        _dir: dir,
        home,
        identity,
    }
}

#[test]
fn what_is_stored_is_read_back_and_gone_when_cleared() {
    let Rig {
        _dir,
        home,
        identity,
    } = rig(&Lock::default());
    assert!(home.identity().unwrap().is_none());
    home.store_identity(&identity).unwrap();
    assert_eq!(home.identity().unwrap(), Some(identity.clone()));
    assert!(home.managers().is_empty());
    let peers = vec![WeightedPeer {
        node_id: identity.node_id,
        addr: "192.0.2.1:2377".to_owned(),
        weight: 10,
    }];
    home.store_managers(&peers).unwrap();
    assert_eq!(home.managers(), peers);
    fs::write(home.0.join(MANAGERS), "{").unwrap();
    assert!(home.managers().is_empty(), "damaged ones are none");
    home.clear().unwrap();
    assert!(home.identity().unwrap().is_none() && !home.0.exists());
    home.clear().unwrap();
}

#[test]
fn state_without_identity_is_set_aside() {
    let Rig { _dir, home, .. } = rig(&Lock::default());
    home.set_aside().unwrap();
    assert!(!home.0.exists());
    assert!(home.0.with_extension("incomplete").join(KEY).exists());
    home.set_aside().unwrap();
}

#[test]
fn a_log_is_found_by_its_raft_id_and_others_are_debris() {
    let Rig { _dir, home, .. } = rig(&Lock::default());
    drop(home.open_log(8, &Lock::default()).unwrap());
    home.remove_stale_logs(7);
    assert!(!home.log_dir(8).exists());
    let mut log = home.open_log(7, &Lock::default()).unwrap();
    assert!(!log.restored().unwrap().is_empty());
    drop(log);
    // Version 1 named it without the id.
    fs::rename(home.log_dir(7), home.0.join(OLD_LOG)).unwrap();
    let mut log = home.open_log(7, &Lock::default()).unwrap();
    assert!(!log.restored().unwrap().is_empty());
    drop(log);
    home.remove_stale_logs(7);
    assert!(home.0.join(OLD_LOG).exists());
    home.remove_logs().unwrap();
    assert!(home.logs().is_empty() && !home.0.join(KEY).exists());
    home.remove_logs().unwrap();
}

#[track_caller]
fn check_opens(home: &Home, lock: &Lock, others: &[&Lock]) {
    assert!(home.opens(lock).unwrap());
    assert!(
        !home
            .open_log(7, lock)
            .unwrap()
            .restored()
            .unwrap()
            .is_empty()
    );
    for other in others {
        assert!(!home.opens(other).unwrap_or(false));
    }
}

#[test]
fn keys_are_sealed_and_opened_with_the_cluster() {
    let Rig { _dir, home, .. } = rig(&Lock::default());
    let (open, first, second) = (Lock::default(), locked(1, 5), locked(2, 9));
    assert!(!home.is_locked().unwrap());
    home.reseal(&open, &first).unwrap();
    assert!(home.is_locked().unwrap());
    check_opens(&home, &first, &[&open, &second]);
    home.reseal(&first, &second).unwrap();
    check_opens(&home, &second, &[&open, &first]);
    assert!(home.reseal(&first, &open).is_err(), "only who can open may");
    home.reseal(&second, &open).unwrap();
    assert!(!home.is_locked().unwrap());
    check_opens(&home, &open, &[]);
}

#[test]
fn crash_while_sealing_leaves_what_one_key_opens() {
    let (open, first, second) = (Lock::default(), locked(1, 5), locked(2, 9));
    let unlocked = Lock {
        key: None,
        version: 11,
    };
    for (old, new) in [
        (&open, &first),
        (&first, &second),
        (&second, &unlocked),
        (&unlocked, &first),
    ] {
        for is_decided in [false, true] {
            let Rig { _dir, home, .. } = rig(old);
            let dek = home.log_key(old).unwrap().unwrap().dek;
            let key = KeyFile {
                dek,
                kek_version: new.version,
            };
            let files = home.certificates(old).unwrap();
            let crashed = files.reseal(new.clone(), || {
                if is_decided {
                    key.save(&home.0.join(KEY), kek(new).as_ref()).unwrap();
                }
                Err(io::Error::other("crash"))
            });
            assert!(crashed.is_err());
            let (decided, other) = if is_decided { (new, old) } else { (old, new) };
            assert_eq!(home.is_locked().unwrap(), decided.key.is_some());
            // Users know the key, not the version.
            let typed = |lock: &Lock| Lock {
                version: 0,
                ..lock.clone()
            };
            if decided.key.is_some() {
                assert!(!home.opens(&typed(other)).unwrap_or(false));
            }
            check_opens(&home, &typed(decided), &[]);
            home.reseal(&typed(decided), &second).unwrap();
            check_opens(&home, &typed(&second), &[&first, &open]);
        }
    }
}

#[test]
fn a_manager_that_joins_a_locked_cluster_is_sealed_from_the_start() {
    let lock = locked(3, 4);
    let Rig { _dir, home, .. } = rig(&lock);
    assert!(home.is_locked().unwrap());
    check_opens(&home, &lock, &[&Lock::default(), &locked(4, 4)]);
}

#[test]
fn a_plain_log_key_means_no_lock_whatever_key_is_typed() {
    let (first, unlocked) = (locked(1, 5), Lock::default());
    let Rig { _dir, home, .. } = rig(&first);
    home.reseal(&first, &unlocked).unwrap();
    let found = home.lock_in_force([&first, &unlocked]).unwrap();
    assert_eq!(found.key, None, "the next certificate must not be sealed");
}
