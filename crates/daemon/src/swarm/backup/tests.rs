//! Backups that are whole, cut short, foreign.

use skep_model::{Rng, object::Cluster};
use skep_store::{Object, Store};
use skep_wire::snapshot::Membership;

use super::*;

/// Made by the first version of the format; the state is of `state()`.
const GOLDEN: &[u8] = include_bytes!("../../../fixtures/backup-1.skepbak");

fn header() -> Header {
    let mut rng = Rng::from_seed(9);
    Header {
        cluster_id: ClusterId::random(&mut rng),
        made_by: Member {
            raft_id: 77,
            node_id: skep_model::NodeId::random(&mut rng),
            addr: "192.0.2.1:2377".to_owned(),
        },
        index: 42,
        made_at: 1_700_000_000,
    }
}

fn snapshot(cluster_id: ClusterId) -> Vec<u8> {
    let cluster = Cluster {
        id: cluster_id,
        ..super::super::alone::tests::cluster()
    };
    let store = Store::from_objects([Object::Cluster(cluster.into())]).unwrap();
    let membership = Membership {
        members: vec![header().made_by],
        removed: vec![3],
    };
    entry::encode_snapshot(&store, &membership)
}

fn file() -> Vec<u8> {
    encode(&header(), &snapshot(header().cluster_id))
}

#[test]
fn a_backup_reads_back() {
    let (read, state) = decode(&file()).unwrap();
    assert_eq!(read, header());
    assert_eq!(state.index, 42);
    assert_eq!(state.membership.members, [header().made_by]);
    assert_eq!(state.membership.removed, [3]);
    assert_eq!(state.store.cluster().unwrap().id, header().cluster_id);
}

#[test]
fn the_first_version_is_still_read() {
    let (read, state) = decode(GOLDEN).unwrap();
    assert_eq!(read, header());
    assert_eq!(state.store.cluster().unwrap().id, header().cluster_id);
}

#[track_caller]
fn check(file: &[u8], text: &str) {
    let error = decode(file).expect_err(text).to_string();
    assert!(error.contains(text), "{error}");
}

#[test]
fn damage_and_foreign_files_are_told_apart() {
    let good = file();
    check(b"", "no backup");
    check(b"PK\x03\x04 something else", "no backup");
    check(b"SKEPBAK", "cut off or damaged");
    check(b"SKEPBAK\x02 of the future", "version 2");
    for length in 8..good.len() {
        check(&good[..length], "cut off or damaged");
    }
    for index in 8..good.len() {
        let mut bad = good.clone();
        bad[index] ^= 1;
        check(&bad, "cut off or damaged");
    }
    let mut longer = good.clone();
    longer.push(0);
    check(&longer, "cut off or damaged");
}

#[test]
fn a_header_must_tell_the_truth() {
    let other = ClusterId::random(&mut Rng::from_seed(10));
    check(
        &encode(&header(), &snapshot(other)),
        "another cluster than it says",
    );
    check(&encode(&header(), b"\xff\xff"), "malformed state");
}
