//! A group of one: bootstrap, latency, restarts, snapshots, a full disk.

use super::*;
use crate::{
    entry::EntryKind,
    memory_disk::Crash,
    storage::{DiskError, compaction_point},
};

#[test]
fn new_group_begins_as_swarmkits() {
    let mut disk = MemoryDisk::new();
    disk.bootstrap(&Restored::new_group(7, "raft member"))
        .unwrap();
    let mut node = Node::new(Config::new(7, 0), &disk.restored().unwrap()).unwrap();
    let mut log = Vec::new();
    for _ in 0..2 {
        while let Some(ready) = node.ready() {
            disk.write(&ready).unwrap();
            node.persisted(ready.number);
            log.extend(ready.committed);
        }
        node.campaign().unwrap();
    }
    let change = log[0].conf_change().unwrap();
    assert_eq!((log[0].index, log[0].term), (1, 1));
    assert_eq!(
        (change.kind(), change.node_id),
        (ConfChangeKind::AddNode, 7)
    );
    assert_eq!(change.context, "raft member");
    assert_eq!(
        (log[1].index, log[1].term, log[1].kind()),
        (2, 2, EntryKind::Normal)
    );
    assert!(log[1].data.is_empty());
    assert_eq!(log.len(), 2);
    assert_eq!(node.members().voters, [7]);
    assert!(node.is_leader_ready());
}

#[test]
fn batch_is_committed_by_one_write() {
    let mut group = Group::new(1, 1);
    let node = group.node(1);
    let proposed: Vec<_> = (0..16)
        .map(|number| node.propose(vec![number]).unwrap())
        .collect();
    let ready = node.ready().unwrap();
    assert!(ready.must_write());
    assert_eq!(ready.entries.len(), 16);
    assert!(node.ready().is_none(), "waits for the disk");
    assert!(node.persisted(ready.number).is_empty());
    let ready = node.ready().unwrap();
    assert!(!ready.must_write());
    let committed: Vec<_> = ready.committed.iter().map(|entry| entry.index).collect();
    assert_eq!(
        committed,
        proposed.iter().map(|at| at.index).collect::<Vec<_>>()
    );
    assert_eq!(node.commit_index(), proposed[15].index);
    node.persisted(ready.number);
    assert!(!node.has_ready());
}

#[test]
fn node_takes_proposals_while_a_write_is_under_way() {
    let mut group = Group::new(1, 1);
    let member = group.members.get_mut(&1).unwrap();
    member.node.propose(b"first".into()).unwrap();
    let ready = member.node.ready().unwrap();
    member.node.propose(b"second".into()).unwrap();
    member.node.tick();
    member.disk.write(&ready).unwrap();
    member.node.persisted(ready.number);
    let ready = member.node.ready().unwrap();
    assert_eq!(ready.committed[0].data, "first");
    assert_eq!(ready.entries[0].data, "second");
}

#[test]
fn restart_applies_everything_again() {
    let mut group = Group::new(1, 1);
    group.propose("a");
    group.propose("b");
    group.restart(1);
    assert_eq!(group.elect(), 1);
    group.propose("c");
    group.check_applied(1, &["a", "b", "c"]);
}

#[test]
fn snapshot_replaces_the_log_before_it() {
    let mut group = Group::new(1, 1);
    for command in ["a", "b", "c"] {
        group.propose(command);
    }
    let member = group.members.get_mut(&1).unwrap();
    member.take_snapshot(1);
    assert_eq!(member.node.log_bytes(), 1);
    let applied = member.node.applied_index();
    let restored = member.disk.restored().unwrap();
    assert_eq!(
        restored.entries.first().unwrap().index,
        compaction_point(applied, 1)
    );
    assert_eq!(
        member.node.snapshot_at(applied, "".into()),
        Err(SnapshotError::Outdated(applied))
    );
    group.propose("d");
    group.restart(1);
    assert_eq!(group.node(1).members().voters, [1]);
    assert_eq!(group.node(1).snapshot_index(), applied);
    group.elect();
    group.check_applied(1, &["a", "b", "c", "d"]);
}

#[test]
fn unfinished_write_is_there_whole_or_not_at_all() {
    for (crash, expected) in [(Crash::Lost, &["a"][..]), (Crash::Kept, &["a", "b"])] {
        let mut group = Group::new(1, 1);
        group.propose("a");
        let member = group.members.get_mut(&1).unwrap();
        member.node.propose(b"b".into()).unwrap();
        let ready = member.node.ready().unwrap();
        member.disk.begin(&ready).unwrap();
        member.disk.crash(crash);
        group.restart(1);
        group.elect();
        group.check_applied(1, expected);
    }
}

#[test]
fn failed_write_can_be_tried_again() {
    let mut group = Group::new(1, 1);
    let member = group.members.get_mut(&1).unwrap();
    member.node.propose(b"a".into()).unwrap();
    let ready = member.node.ready().unwrap();
    member.disk.set_full(true);
    assert!(matches!(member.disk.write(&ready), Err(DiskError::Full(_))));
    assert_eq!(member.node.commit_index(), 2, "nothing is promised");
    member.disk.set_full(false);
    member.disk.write(&ready).unwrap();
    member.node.persisted(ready.number);
    group.settle();
    group.check_applied(1, &["a"]);
}

#[test]
fn proposals_have_limits() {
    let mut group = Group::new(1, 1);
    let node = group.node(1);
    assert_eq!(node.propose(Vec::new()), Err(ProposeError::Empty));
    let (bytes, max) = (Node::ENTRY_BYTES_MAX + 1, Node::ENTRY_BYTES_MAX);
    assert_eq!(
        node.propose(vec![0; bytes]),
        Err(ProposeError::TooLarge { bytes, max })
    );
    let fits = (0..1000)
        .take_while(|_| node.propose(vec![0; max]).is_ok())
        .count();
    assert!((30..100).contains(&fits), "{fits} proposals of 1.5 MiB fit");
    assert_eq!(node.propose(vec![0; max]), Err(ProposeError::Backlog));
    group.settle();
    group.propose("again");
}

#[test]
fn inconsistent_state_is_refused() {
    let entry = |index, term| Entry {
        index,
        term,
        ..Entry::default()
    };
    let check = |hard_state, entries, expected| {
        let restored = Restored {
            hard_state,
            snapshot: None,
            entries,
        };
        assert_eq!(
            Node::new(Config::new(1, 0), &restored).unwrap_err(),
            expected
        );
    };
    let at = |commit| HardState {
        term: 1,
        vote: 0,
        commit,
    };
    check(at(0), vec![entry(1, 1), entry(3, 1)], RestoreError::Gap(2));
    check(at(0), vec![entry(2, 1)], RestoreError::Gap(1));
    check(
        at(2),
        vec![entry(1, 1)],
        RestoreError::Short { last: 1, needed: 2 },
    );
    let joint = Entry {
        kind: 2,
        ..entry(1, 1)
    };
    check(at(0), vec![joint], RestoreError::Malformed(1));
}
