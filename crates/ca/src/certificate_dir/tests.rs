//! Files as dockerd names them, and a pair that changes together whatever happens in between.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use skep_model::{Role, Timestamp};

use super::*;
use crate::{KeyRequest, PublicKey, RootCa, Subject};

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
