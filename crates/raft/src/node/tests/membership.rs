//! Joining by log and by snapshot, removal, and etcd's kinds of changes.

use super::*;

fn change(kind: ConfChangeKind, id: u64) -> ConfChange {
    ConfChange::new(kind, id, "context")
}

#[test]
fn member_joins_by_snapshot() {
    let mut group = Group::new(1, 3);
    for command in ["a", "b", "c"] {
        group.propose(command);
    }
    group.members.get_mut(&1).unwrap().take_snapshot(0);
    group.propose("d");
    group.join(2);
    group.check_applied(2, &["a", "b", "c", "d"]);
    assert_eq!(group.node(2).members().voters, [1, 2]);
    assert!(group.members[&2].node.snapshot_index() > 0);
    group.restart(2);
    group.run(3);
    group.check_applied(2, &["a", "b", "c", "d"]);
}

#[test]
fn a_slow_write_of_a_snapshot_outlasts_the_election_timeout() {
    let mut group = Group::new(1, 3);
    for command in ["a", "b", "c"] {
        group.propose(command);
    }
    group.members.get_mut(&1).unwrap().take_snapshot(0);
    let stored = group.members.get_mut(&1).unwrap().disk.snapshot().unwrap();
    let mut newcomer = Member::start(2, 3, MemoryDisk::new());
    let snapshot = Message {
        kind: MessageKind::Snapshot as i32,
        to: 2,
        from: 1,
        term: 2,
        snapshot: stored,
        ..Message::default()
    };
    newcomer.node.step(snapshot).unwrap();
    let ready = newcomer.node.ready().unwrap();
    assert!(ready.snapshot.is_some());
    for _ in 0..100 {
        newcomer.node.tick();
    }
    assert!(newcomer.node.campaign().is_err());
    let hurry = Message {
        kind: MessageKind::TimeoutNow as i32,
        to: 2,
        from: 1,
        term: 2,
        ..Message::default()
    };
    newcomer.node.step(hurry).unwrap();
    newcomer.disk.write(&ready).unwrap();
    newcomer.node.persisted(ready.number);
    for _ in 0..100 {
        newcomer.node.tick();
    }
    newcomer.pump();
    assert_eq!(newcomer.node.role(), Role::PreCandidate);
}

#[test]
fn member_missing_from_the_snapshots_membership_is_added() {
    let mut group = Group::new(1, 3);
    group.propose("a");
    group.members.get_mut(&1).unwrap().take_snapshot(0);
    let stored = group.members.get_mut(&1).unwrap().disk.snapshot().unwrap();
    let mut newcomer = Member::start(2, 3, MemoryDisk::new());
    let message = Message {
        kind: MessageKind::Snapshot as i32,
        to: 2,
        from: 1,
        term: 2,
        snapshot: stored,
        ..Message::default()
    };
    newcomer.node.step(message).unwrap();
    newcomer.pump();
    assert_eq!(newcomer.node.members().voters, [1, 2]);
    assert_eq!(newcomer.applied, [b"a"]);
}

#[test]
fn a_snapshot_stored_since_it_was_announced_keeps_its_own_membership() {
    let snapshot = |index, voters: &[u64]| Snapshot {
        data: Bytes::from_static(b"x"),
        metadata: SnapshotMetadata {
            conf_state: ConfState {
                voters: voters.to_vec(),
                ..ConfState::default()
            },
            index,
            term: 1,
        },
    };
    let attach = |stored: Snapshot| {
        let mut message = Message {
            snapshot: Some(snapshot(4, &[1])),
            ..Message::default()
        };
        message.attach_snapshot(stored);
        message.snapshot.unwrap()
    };
    let newer = attach(snapshot(8, &[1, 2, 3]));
    assert_eq!(newer.metadata.conf_state.voters, [1, 2, 3]);
    let same = attach(snapshot(4, &[1, 2]));
    assert_eq!(same.metadata.conf_state.voters, [1]);
}

#[test]
fn a_leader_that_was_removed_by_the_one_before_hands_over_first() {
    let mut group = Group::new(2, 3);
    group
        .node(1)
        .propose_conf_change(&change(ConfChangeKind::RemoveNode, 2))
        .unwrap();
    // The entry reaches the follower, which wins an election before anybody commits it.
    let append = group.members.get_mut(&1).unwrap().pump();
    let follower = group.members.get_mut(&2).unwrap();
    for message in append.into_iter().filter(|message| message.to == 2) {
        follower.node.step(message).unwrap();
    }
    follower.pump();
    for _ in 0..40 {
        follower.node.tick();
    }
    group.settle();
    group.run(30);
    assert!(group.node(2).is_stopped());
    assert_eq!(group.node(1).members().voters, [1]);
    assert_eq!(group.node(1).role(), Role::Leader);
}

/// A leader of two that finds the removal of the other committed: its next `ready`.
fn removal_committed(group: &mut Group) -> Ready {
    let remove = change(ConfChangeKind::RemoveNode, 2);
    group.node(1).propose_conf_change(&remove).unwrap();
    // Up to the acknowledgement of the entry that removes the member.
    let leader = group.members.get_mut(&1).unwrap();
    let append = leader.pump();
    let follower = group.members.get_mut(&2).unwrap();
    for message in append.into_iter().filter(|message| message.to == 2) {
        follower.node.step(message).unwrap();
    }
    let acknowledged = follower.pump();
    let leader = group.members.get_mut(&1).unwrap();
    for message in acknowledged {
        leader.node.step(message).unwrap();
    }
    let ready = leader.node.ready().unwrap();
    assert!(ready.messages.is_empty(), "nobody hears before the write");
    assert!(ready.committed.is_empty(), "nobody acts before the write");
    assert!(ready.must_write());
    ready
}

#[test]
fn a_removal_is_durable_before_anybody_hears_of_it() {
    let mut group = Group::new(2, 3);
    let ready = removal_committed(&mut group);
    let leader = group.members.get_mut(&1).unwrap();
    leader.disk.write(&ready).unwrap();
    assert!(!leader.node.persisted(ready.number).is_empty());
    let ready = leader.node.ready().unwrap();
    assert_eq!(ready.committed.len(), 1);
    assert!(!ready.must_write());
    group.restart(1);
    group.members.get_mut(&1).unwrap().pump();
    assert_eq!(group.node(1).members().voters, [1]);
}

#[test]
fn a_removal_whose_write_is_lost_is_committed_again() {
    let mut group = Group::new(2, 3);
    let _lost = removal_committed(&mut group);
    group.restart(1);
    assert_eq!(group.node(1).members().voters, [1, 2]);
    assert!(!group.node(2).is_stopped());
    group.elect();
    group.run(30);
    assert!(group.node(2).is_stopped());
    assert_eq!(group.node(1).members().voters, [1]);
    assert!(group.node(1).is_leader());
}

#[test]
fn leader_does_not_remove_itself() {
    let mut group = Group::new(3, 3);
    let remove = change(ConfChangeKind::RemoveNode, 1);
    assert_eq!(
        group.node(1).propose_conf_change(&remove),
        Err(ProposeError::RemovesLeader)
    );
    group.node(1).transfer(2).unwrap();
    group.settle();
    group.run(1);
    group.node(2).propose_conf_change(&remove).unwrap();
    group.settle();
    group.propose("after");
    assert_eq!(group.node(2).members().voters, [2, 3]);
    group.check_applied(3, &["after"]);
}

#[test]
fn removed_member_stops() {
    let mut group = Group::new(3, 3);
    group
        .node(1)
        .propose_conf_change(&change(ConfChangeKind::RemoveNode, 3))
        .unwrap();
    // Member 3 learns of the commit only if told so before the leader drops it: feed it by hand.
    let mut member = group.members.remove(&3).unwrap();
    group.settle();
    let entry = group.members[&1]
        .disk
        .clone()
        .restored()
        .unwrap()
        .entries
        .pop()
        .unwrap();
    let append = Message {
        kind: MessageKind::Append as i32,
        to: 3,
        from: 1,
        term: 2,
        log_term: entry.term,
        index: entry.index - 1,
        commit: entry.index,
        entries: vec![entry],
        ..Message::default()
    };
    member.node.step(append.clone()).unwrap();
    member.pump();
    assert!(member.node.is_stopped());
    assert_eq!(member.node.members().voters, [1, 2]);
    assert_eq!(member.node.step(append), Err(StepError::Stopped));
    assert_eq!(member.node.campaign(), Err(LeadershipError::Stopped));
    for _ in 0..50 {
        member.node.tick();
    }
    assert!(member.node.ready().is_none());
    let mut again = Member::start(3, 3, member.disk);
    again.pump();
    assert!(
        again.node.is_stopped(),
        "the removal is found again after a restart"
    );
}

/// raft-rs panics when a leader applies its own removal with entries in flight. It comes to that when leadership moves to a
/// member whose removal is in the log: it hands leadership over before it takes the removal in.
#[test]
fn leader_that_finds_itself_removed_stops_with_entries_in_flight() {
    let mut group = Group::new(3, 3);
    group
        .node(1)
        .propose_conf_change(&change(ConfChangeKind::RemoveNode, 2))
        .unwrap();
    // The entry reaches member 2 and is not committed; then 2 is made leader.
    let sent = group.members.get_mut(&1).unwrap().pump();
    for message in sent.into_iter().filter(|message| message.to == 2) {
        group.node(2).step(message).unwrap();
    }
    group.members.get_mut(&2).unwrap().pump();
    let timeout = Message {
        kind: MessageKind::TimeoutNow as i32,
        to: 2,
        from: 1,
        term: 2,
        ..Message::default()
    };
    group.node(2).step(timeout).unwrap();
    group.isolated.insert(1);
    for _ in 0..200 {
        let sent = group.members.get_mut(&2).unwrap().pump();
        group.wire.extend(sent);
        if group.node(2).is_leader() {
            break;
        }
        let message = group.wire.pop_front().unwrap();
        group.deliver(message);
        let sent = group.members.get_mut(&3).unwrap().pump();
        group.wire.extend(sent);
    }
    assert!(group.node(2).is_leader());
    for number in 0..5 {
        group.node(2).propose(vec![number]).unwrap();
    }
    group.settle();
    assert!(group.node(2).is_leader(), "it hands over first");
    group.run(30);
    assert!(group.node(2).is_stopped());
    assert!(!group.node(2).is_leader());
    assert_eq!(
        group.node(2).propose(b"x".into()),
        Err(ProposeError::Stopped)
    );
    group.isolated = BTreeSet::from([2]);
    group.run(40);
    group.elect();
    group.propose("after");
    assert_eq!(group.node(3).members().voters, [1, 3]);
}

#[test]
fn update_changes_nothing_in_raft() {
    let mut group = Group::new(2, 3);
    let update = change(ConfChangeKind::UpdateNode, 2);
    let at = group.node(1).propose_conf_change(&update).unwrap();
    group.settle();
    group.run(2);
    for id in 1..=2 {
        assert_eq!(group.node(id).applied_index(), at.index);
        assert_eq!(group.node(id).members().voters, [1, 2]);
        assert!(group.node(id).members().learners.is_empty());
    }
    let stored = group.members[&2]
        .disk
        .clone()
        .restored()
        .unwrap()
        .entries
        .pop()
        .unwrap();
    assert_eq!(stored.conf_change().unwrap(), update);
}

#[test]
fn learner_receives_and_does_not_vote() {
    let mut group = Group::new(1, 3);
    group
        .node(1)
        .propose_conf_change(&change(ConfChangeKind::AddLearnerNode, 2))
        .unwrap();
    group
        .members
        .insert(2, Member::start(2, 3, MemoryDisk::new()));
    group.settle();
    group.run(3);
    group.propose("a");
    group.run(2);
    group.check_applied(2, &["a"]);
    assert_eq!(group.node(2).members().learners, [2]);
    assert_eq!(group.node(2).campaign(), Err(LeadershipError::NotVoter(2)));
}

#[test]
fn one_change_at_a_time_of_known_members() {
    let mut group = Group::new(2, 3);
    let unknown = change(ConfChangeKind::RemoveNode, 9);
    assert_eq!(
        group.node(1).propose_conf_change(&unknown),
        Err(ProposeError::UnknownMember(9))
    );
    let nobody = change(ConfChangeKind::AddNode, 0);
    assert_eq!(
        group.node(1).propose_conf_change(&nobody),
        Err(ProposeError::UnknownMember(0))
    );
    group
        .node(1)
        .propose_conf_change(&change(ConfChangeKind::AddNode, 3))
        .unwrap();
    let second = group
        .node(1)
        .propose_conf_change(&change(ConfChangeKind::AddNode, 4));
    assert_eq!(second, Err(ProposeError::ConfChangePending));
}
