//! Messages no correct member sends: raft-rs would abort on some.

use proptest::prelude::*;

use super::*;
use crate::{admission::Inadmissible, message::MessageKind};

/// Member 2 of three, following 1 in term 2, its log at 4 or more.
fn follower() -> Node {
    let mut group = Group::new(3, 9);
    group.propose("a");
    group.run(2);
    group.members.remove(&2).unwrap().node
}

fn leader() -> Node {
    let mut group = Group::new(3, 9);
    group.propose("a");
    group.members.remove(&1).unwrap().node
}

fn message(kind: MessageKind) -> Message {
    Message {
        kind: kind as i32,
        to: 2,
        from: 1,
        term: 2,
        ..Message::default()
    }
}

#[track_caller]
fn check(message: Message, expected: Inadmissible) {
    let mut node = follower();
    let before = format!("{node:?}");
    assert_eq!(node.step(message), Err(StepError::Inadmissible(expected)));
    assert_eq!(format!("{node:?}"), before);
}

#[test]
fn impossible_messages_are_refused() {
    let last = follower().last_index();
    let beyond = Inadmissible::BeyondLog {
        index: last + 1,
        last,
    };
    check(
        Message {
            commit: last + 1,
            ..message(MessageKind::Heartbeat)
        },
        beyond,
    );
    check(
        Message {
            to: 3,
            ..message(MessageKind::Heartbeat)
        },
        Inadmissible::Address,
    );
    check(
        Message {
            from: 0,
            ..message(MessageKind::Heartbeat)
        },
        Inadmissible::Address,
    );
    check(
        Message {
            from: 2,
            ..message(MessageKind::Heartbeat)
        },
        Inadmissible::Address,
    );
    check(
        Message {
            term: 0,
            ..message(MessageKind::Append)
        },
        Inadmissible::Number,
    );
    check(
        Message {
            term: u64::MAX,
            ..message(MessageKind::RequestVote)
        },
        Inadmissible::Number,
    );
    check(
        Message {
            kind: 19,
            ..message(MessageKind::Hup)
        },
        Inadmissible::Kind(19),
    );
    check(message(MessageKind::Snapshot), Inadmissible::Snapshot);
    for kind in [
        MessageKind::Propose,
        MessageKind::TransferLeader,
        MessageKind::Hup,
    ] {
        check(message(kind), Inadmissible::Kind(kind as i32));
    }
}

#[test]
fn malformed_entries_are_refused() {
    let last = follower().last_index();
    let append = |entry: Entry| Message {
        index: last,
        log_term: 2,
        entries: vec![entry],
        ..message(MessageKind::Append)
    };
    let good = Entry {
        index: last + 1,
        term: 2,
        ..Entry::default()
    };
    follower().step(append(good.clone())).unwrap();
    for bad in [
        Entry {
            index: last + 2,
            ..good.clone()
        },
        Entry {
            term: 3,
            ..good.clone()
        },
        Entry {
            term: 1,
            ..good.clone()
        },
        Entry {
            kind: 1,
            data: "\u{1}".into(),
            ..good.clone()
        },
        Entry {
            kind: 2,
            ..good.clone()
        },
        Entry { kind: 9, ..good },
    ] {
        check(append(bad), Inadmissible::Entries);
    }
    let beyond = Entry {
        index: last + 2,
        term: 2,
        ..Entry::default()
    };
    let leap = Message {
        index: last + 1,
        log_term: 0,
        ..append(beyond)
    };
    check(leap, Inadmissible::Entries);
}

#[test]
fn answers_of_strangers_are_refused() {
    let mut node = leader();
    let answer = Message {
        to: 1,
        from: 8,
        index: 1,
        ..message(MessageKind::AppendResponse)
    };
    assert_eq!(node.step(answer), Err(StepError::UnknownPeer(8)));
    let index = node.last_index() + 1;
    let lie = Message {
        to: 1,
        from: 2,
        index,
        ..message(MessageKind::AppendResponse)
    };
    assert!(matches!(node.step(lie), Err(StepError::Inadmissible(_))));
}

#[test]
fn fields_of_other_libraries_are_neither_read_nor_sent() {
    let plain = Message {
        index: 3,
        ..message(MessageKind::RequestVote)
    }
    .encode_to_vec();
    let mut foreign = plain.clone();
    // Fields 13, 15, 16 as numbers, 14 as an embedded message.
    foreign.extend([13 << 3, 5, (14 << 3) | 2, 2, 16, 1, 15 << 3, 7]);
    foreign.extend([0x80, 1, 9]);
    let decoded = Message::decode(&foreign[..]).unwrap();
    assert_eq!(decoded.encode_to_vec(), plain);
}

/// Found by the property below: such a snapshot makes its receiver the only voter, which may not lead before it is written.
#[test]
fn only_voter_does_not_lead_before_its_log_is_written() {
    let mut member = bystander(false);
    let conf_state = ConfState {
        voters: vec![1],
        ..ConfState::default()
    };
    let metadata = SnapshotMetadata {
        conf_state,
        index: 7,
        term: 1,
    };
    let snapshot = Snapshot {
        data: "x".into(),
        metadata,
    };
    let snapshot = Message {
        to: 1,
        from: 2,
        term: 3,
        snapshot: Some(snapshot),
        ..message(MessageKind::Snapshot)
    };
    member.node.step(snapshot).unwrap();
    (0..30).for_each(|_| member.node.tick());
    let timeout = Message {
        to: 1,
        from: 2,
        term: 3,
        ..message(MessageKind::TimeoutNow)
    };
    member.node.step(timeout).unwrap();
    let ready = member.node.ready().unwrap();
    assert_eq!(member.node.campaign(), Err(LeadershipError::NotPersisted));
    (0..30).for_each(|_| member.node.tick());
    assert_eq!(member.node.role(), Role::Follower);
    member.disk.write(&ready).unwrap();
    member.node.persisted(ready.number);
    (0..30).for_each(|_| member.node.tick());
    member.pump();
    assert!(member.node.is_leader());
}

fn small() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..9_u64, 1 => any::<u64>()]
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let data = prop_oneof![Just(vec![]), Just(vec![16, 1, 24, 3]), any::<Vec<u8>>()];
    (0..3_i32, small(), small(), data).prop_map(|(kind, term, index, data)| Entry {
        kind,
        term,
        index,
        data: data.into(),
    })
}

fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    let ids = || proptest::collection::vec(0..5_u64, 0..4);
    (small(), small(), ids(), ids()).prop_map(|(index, term, voters, learners)| Snapshot {
        data: "x".into(),
        metadata: SnapshotMetadata {
            conf_state: ConfState {
                voters,
                learners,
                ..ConfState::default()
            },
            index,
            term,
        },
    })
}

prop_compose! {
    fn any_message()(
        kind in 0..20_i32,
        from in 0..5_u64,
        numbers in [small(), small(), small(), small(), small()],
        entries in proptest::collection::vec(any_entry(), 0..4),
        renumber in any::<bool>(),
        snapshot in proptest::option::of(any_snapshot()),
        reject in any::<bool>(),
    ) -> Message {
        let [term, log_term, index, commit, reject_hint] = numbers;
        let mut entries = entries;
        if renumber {
            for (entry, index) in entries.iter_mut().zip(index.saturating_add(1)..) {
                (entry.index, entry.term) = (index, entry.term.clamp(log_term.min(9), 9));
            }
        }
        Message { kind, to: 1, from, term, log_term, index, entries, commit, snapshot, reject, reject_hint, context: "".into() }
    }
}

/// A member that has written something, is a leader or a follower, and runs on.
fn bystander(is_leader: bool) -> Member {
    let mut group = Group::new(3, 9);
    group.propose("a");
    if !is_leader {
        group.node(1).transfer(2).unwrap();
        group.settle();
    }
    group.members.remove(&1).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_sequence_of_messages_panics(
        is_leader in any::<bool>(),
        messages in proptest::collection::vec((any_message(), 0..4_u8), 1..20),
    ) {
        let mut member = bystander(is_leader);
        for (message, then) in messages {
            let _ = member.node.step(message);
            match then {
                0 => drop(member.pump()),
                1 => (0..15).for_each(|_| member.node.tick()),
                2 => drop(member.node.propose(b"x".into())),
                _ => {}
            }
        }
        member.pump();
    }
}
