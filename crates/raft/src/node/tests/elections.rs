//! Three members: election, replication, partitions, transfer, and that a seed decides everything.

use super::*;

#[test]
fn three_members_replicate() {
    let mut group = Group::new(3, 5);
    group.propose("a");
    group.run(2);
    for id in 1..=3 {
        group.check_applied(id, &["a"]);
        assert_eq!(group.node(id).leader(), Some(1));
        assert_eq!(group.node(id).members().voters, [1, 2, 3]);
    }
    let peers = group.node(1).peers();
    assert!(
        peers
            .iter()
            .all(|peer| peer.is_active && peer.matched_index == 5),
        "{peers:?}"
    );
}

#[test]
fn majority_goes_on_and_the_lost_leader_follows() {
    let mut group = Group::new(3, 5);
    group.isolated.insert(1);
    group.node(1).propose(b"lost".into()).unwrap();
    group.run(60);
    let leader = group.elect();
    assert_ne!(leader, 1);
    assert!(
        !group.node(1).is_leader(),
        "check-quorum makes it step down"
    );
    group.propose("kept");
    group.isolated.clear();
    group.run(30);
    for id in 1..=3 {
        group.check_applied(id, &["kept"]);
    }
}

#[test]
fn minority_commits_nothing() {
    let mut group = Group::new(3, 5);
    group.isolated.extend([2, 3]);
    group.node(1).propose(b"alone".into()).unwrap();
    group.run(5);
    group.check_applied(1, &[]);
    group.isolated.clear();
    group.run(40);
    group.elect();
    group.run(5);
    let applied = group.members[&2].applied.clone();
    assert!(
        group
            .members
            .values()
            .all(|member| member.applied == applied)
    );
}

#[test]
fn returning_member_does_not_disturb() {
    let mut group = Group::new(3, 5);
    let term = group.node(1).term();
    group.isolated.insert(3);
    group.run(100);
    group.isolated.clear();
    group.run(30);
    assert_eq!(group.leader(), Some(1));
    assert_eq!(group.node(3).term(), term, "pre-vote keeps the term");
}

#[test]
fn leadership_is_transferred_on_request() {
    let mut group = Group::new(3, 5);
    assert_eq!(group.node(1).transfer(1), Err(LeadershipError::NotVoter(1)));
    assert_eq!(group.node(1).transfer(9), Err(LeadershipError::NotVoter(9)));
    assert_eq!(group.node(2).transfer(3), Err(LeadershipError::NotLeader));
    group.node(1).transfer(2).unwrap();
    assert_eq!(
        group.node(1).propose(b"x".into()),
        Err(ProposeError::Transferring)
    );
    group.settle();
    assert_eq!(group.leader(), Some(2));
    let refused = group.node(1).propose(b"x".into());
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: Some(2) }));
}

#[test]
fn restarted_member_catches_up() {
    let mut group = Group::new(3, 5);
    group.propose("a");
    group.isolated.insert(2);
    group.propose("b");
    group.isolated.clear();
    group.restart(2);
    group.run(5);
    group.check_applied(2, &["a", "b"]);
}

#[test]
fn whole_group_restarts() {
    let mut group = Group::new(3, 5);
    group.propose("a");
    for id in 1..=3 {
        group.restart(id);
    }
    group.elect();
    group.propose("b");
    group.run(3);
    for id in 1..=3 {
        group.check_applied(id, &["a", "b"]);
    }
}

#[test]
fn vote_survives_a_restart() {
    let mut member = Group::new(3, 5).members.remove(&3).unwrap();
    let index = member.node.last_index();
    // From a candidate after a transfer, whom no lease holds back.
    let request = |from| Message {
        kind: MessageKind::RequestVote as i32,
        to: 3,
        from,
        term: 9,
        log_term: 2,
        index,
        context: "CampaignTransfer".into(),
        ..Message::default()
    };
    let answer = |member: &mut Member, from| {
        member.node.step(request(from)).unwrap();
        let mut answers = member.pump();
        answers.retain(|answer| answer.to == from);
        answers.pop().unwrap().reject
    };
    assert!(!answer(&mut member, 1));
    let mut member = Member::start(3, 5, member.disk);
    assert!(answer(&mut member, 2), "it voted for another in that term");
    assert!(!answer(&mut member, 1));
}

/// Cuts, restarts and proposals for a while; gives the trace of everything said.
fn turmoil(seed: u64) -> u64 {
    let mut group = Group::new(3, seed);
    for round in 0..30_u64 {
        let victim = round % 3 + 1;
        group.isolated = BTreeSet::from([victim]);
        group.run(45);
        if let Some(leader) = group.leader() {
            let _ = group.node(leader).propose(round.to_be_bytes().to_vec());
            group.settle();
        }
        if round % 4 == 0 {
            group.restart(victim);
        }
    }
    group.isolated.clear();
    group.run(60);
    group.elect();
    group.propose("end");
    group.run(5);
    let applied = &group.members[&1].applied;
    assert!(
        applied.len() > 15,
        "{} commands were committed",
        applied.len()
    );
    assert!(
        group
            .members
            .values()
            .all(|member| member.applied == *applied)
    );
    group.trace
}

#[test]
fn seed_decides_everything() {
    assert_eq!(turmoil(1), turmoil(1));
    assert_ne!(turmoil(1), turmoil(2));
}
