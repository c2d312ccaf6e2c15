//! Bytes that earlier versions wrote must read as the same objects for ever.
//!
//! `golden/*.bin` are never rewritten: a change of the format adds files beside them. A missing
//! file is written, and the test fails once so that it gets noticed.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

#[path = "golden/objects.rs"]
mod objects;

use std::{fs, path::PathBuf};

use skep_store::{Action, ActionKind};
use skep_wire::{
    SpecCache,
    log::{decode_actions, encode_actions},
    member::{Member, decode_member, encode_member},
    record,
    snapshot::{Membership, Snapshot, decode_snapshot, encode_snapshot},
};

use crate::objects::{
    network_objects, node, objects, resource_objects, supply_objects, task, task_status,
};

/// The stored bytes called `name`; `current` is what today's encoder makes of the same object.
#[track_caller]
fn golden(name: &str, current: &[u8]) -> Vec<u8> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let path = directory.join(format!("{name}.bin"));
    if !path.exists() {
        fs::write(&path, current).unwrap();
        panic!(
            "{} did not exist and was written; commit it",
            path.display()
        );
    }
    fs::read(path).unwrap()
}

#[test]
fn old_log_entries_are_read() {
    let actions: Vec<_> = [ActionKind::Create, ActionKind::Update, ActionKind::Remove]
        .into_iter()
        .cycle()
        .zip(objects())
        .map(|(kind, object)| Action { kind, object })
        .collect();
    let bytes = golden(
        "log-entry",
        &encode_actions(0x0001_a1fc_8736_bd01, &actions),
    );
    let decoded = decode_actions(&bytes, &mut SpecCache::new()).unwrap();
    assert_eq!(decoded, (0x0001_a1fc_8736_bd01, actions));
}

#[test]
fn old_snapshots_are_read() {
    let member = Member {
        raft_id: u64::MAX >> 1,
        node_id: node().id,
        addr: "192.0.2.1:2377".to_owned(),
    };
    let membership = Membership {
        members: vec![member],
        removed: vec![5, 6],
    };
    let bytes = golden("snapshot", &encode_snapshot(&membership, &objects()));
    let decoded = decode_snapshot(&bytes, &mut SpecCache::new()).unwrap();
    assert_eq!(
        decoded,
        Snapshot {
            membership,
            objects: objects()
        }
    );
}

#[test]
fn old_members_are_read() {
    let member = Member {
        raft_id: 9,
        node_id: node().id,
        addr: "192.0.2.1:2377".to_owned(),
    };
    let bytes = golden("member", &encode_member(&member));
    assert_eq!(decode_member(&bytes).unwrap(), member);
}

#[test]
fn old_worker_records_are_read() {
    let bytes = golden("worker-task", &record::encode_task(&task()));
    assert_eq!(
        record::decode_task(&bytes, &mut SpecCache::new()).unwrap(),
        task()
    );
    let bytes = golden(
        "worker-task-status",
        &record::encode_task_status(&task_status()),
    );
    assert_eq!(record::decode_task_status(&bytes).unwrap(), task_status());
}

/// One file for each kind of object, read through the log's codec.
#[test]
fn old_objects_are_read() {
    let names = ["node", "service", "task", "cluster"];
    let later_names = ["network", "attached-task", "attached-node"];
    let last_names = ["secret", "config"];
    let objects = names.into_iter().zip(objects());
    let networks = later_names.into_iter().zip(network_objects());
    let resources = ["extension", "service-revision"]
        .into_iter()
        .zip(resource_objects());
    let supplies = last_names.into_iter().zip(supply_objects());
    for (name, object) in objects.chain(networks).chain(resources).chain(supplies) {
        let actions = vec![Action {
            kind: ActionKind::Update,
            object,
        }];
        let bytes = golden(name, &encode_actions(0, &actions));
        let decoded = decode_actions(&bytes, &mut SpecCache::new()).unwrap();
        assert_eq!(decoded, (0, actions), "{name}");
    }
}
