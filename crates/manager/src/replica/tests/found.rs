//! What the simulator found, told again: groups that wedged.

use super::*;

impl Cluster {
    /// A node asks to join, and the answer is lost with the node.
    fn join_unheard(
        &mut self,
        node_id: NodeId,
        number: u64,
    ) -> Option<Result<Joined, CommandError>> {
        self.next_reply += 1;
        let reply_to = ReplyTo(self.next_reply);
        let asked = self.leader().unwrap_or(1);
        let addr = format!("192.0.2.{number}:2377");
        let mut out = Vec::new();
        let member = self.members.get_mut(&asked).unwrap();
        let now = self.now;
        member.replica.join(now, reply_to, node_id, addr, &mut out);
        self.carry_out(asked, out);
        self.settle();
        self.joined.remove(&reply_to)
    }
}

#[test]
fn a_second_member_that_missed_its_answer_learns_its_id_without_a_leader() {
    let mut cluster = Cluster::of(1);
    let node_id = cluster.admit(2);
    let missed = cluster.join_unheard(node_id, 2).unwrap().unwrap();
    cluster.pass(40);
    assert_eq!(cluster.leader(), None, "one of two is no quorum");
    let told = cluster.join_unheard(node_id, 2).unwrap().unwrap();
    assert_eq!(told, missed);
    let stranger = NodeId::random(&mut Rng::from_seed(77));
    assert!(cluster.join_unheard(stranger, 3).unwrap().is_err());
    let config = Config {
        core: core_config(node_id, 2),
        raft_id: told.raft_id,
        members: told.members,
        is_compat: false,
    };
    let vault = Box::new(FakeVault::default());
    let replica = Replica::new(config, vault, &Restored::default()).unwrap();
    cluster.add(replica, MemoryDisk::default(), told.raft_id, node_id);
    cluster.pass(60);
    assert!(cluster.leader().is_some());
    cluster.create("after").unwrap();
    cluster.pass(2);
    cluster.assert_equal_stores();
}

#[test]
fn a_node_demoted_while_it_joins_does_not_stay_a_member() {
    let mut cluster = Cluster::of(3);
    let node_id = cluster.admit(4);
    let leader = cluster.leader().unwrap();
    let member = cluster.members.get_mut(&leader).unwrap();
    let now = cluster.now;
    let addr = "192.0.2.4:2377".to_owned();
    let mut out = Vec::new();
    member
        .replica
        .join(now, ReplyTo(9999), node_id, addr, &mut out);
    // Both are under way together.
    cluster.set_role(node_id, Role::Worker).unwrap();
    cluster.carry_out(leader, out);
    cluster.pass(40);
    let group = cluster.members[&leader].replica.group();
    assert!(group.by_node(node_id).is_none(), "{group:?}");
    assert_eq!(cluster.store().node(node_id).unwrap().role, Role::Worker);
}

#[test]
fn two_members_that_are_both_to_leave_do_not_lead_in_turns() {
    let mut cluster = Cluster::of(2);
    // A third manager that never joins lets both be demoted.
    cluster.admit(3);
    let leader = cluster.leader().unwrap();
    let nodes: BTreeMap<u64, NodeId> = cluster
        .members
        .iter()
        .map(|(id, member)| (*id, member.node_id))
        .collect();
    let other = *nodes.keys().find(|id| **id != leader).unwrap();
    for id in [leader, other] {
        let node = cluster.store().node(nodes[&id]).unwrap();
        let mut spec = node.spec.clone();
        spec.desired_role = Role::Worker;
        let update = Command::UpdateNode {
            id: node.id,
            version: node.meta.version,
            spec: Box::new(spec),
        };
        cluster.send(leader, update);
    }
    cluster.pass(100);
    let last = cluster.leader().expect("one stays until the third joins");
    let replica = &cluster.members[&last].replica;
    assert_eq!(replica.group().members.len(), 1);
    assert!(replica.raft().term() < 10, "{}", replica.raft().term());
}

#[test]
fn a_loop_may_sleep_while_leadership_is_handed_over() {
    let mut cluster = Cluster::of(3);
    let peers: Vec<u64> = cluster.members.keys().copied().collect();
    cluster.cut.extend(peers.iter().filter(|id| **id != 1));
    let now = cluster.now;
    let replica = &mut cluster.members.get_mut(&1).unwrap().replica;
    assert!(replica.hand_over());
    let mut out = Vec::new();
    let event = Event::Command {
        reply_to: ReplyTo(5000),
        command: core::tests::create("web", 1),
    };
    replica.handle(now, event, &mut out);
    replica.progress(now, &mut out);
    let due = replica.next_deadline();
    assert!(due.is_none_or(|due| due > now), "{due:?}");
}

/// Whichever write of the leader fails while it removes the only other member, one of the two leads
/// in the end, and the other is no member.
#[test]
fn a_failed_write_during_a_removal_leaves_no_two_that_wait_for_each_other() {
    for writes_left in 0..8 {
        let mut cluster = Cluster::of(2);
        let leader = cluster.leader().unwrap();
        let members = cluster.members.values();
        let mut others = members.filter(|member| member.raft_id != leader);
        let other = others.next().unwrap();
        let (other, node_id) = (other.raft_id, other.node_id);
        let node = cluster.store().node(node_id).unwrap();
        let mut spec = node.spec.clone();
        spec.desired_role = Role::Worker;
        let update = Command::UpdateNode {
            id: node_id,
            version: node.meta.version,
            spec: Box::new(spec),
        };
        let member = cluster.members.get_mut(&leader).unwrap();
        member.writes_left = Some(writes_left);
        cluster.send(leader, update);
        cluster.pass(60);
        assert!(cluster.leader().is_some(), "write {writes_left}");
        // The command itself may be what was lost.
        if cluster.store().node(node_id).unwrap().spec.desired_role == Role::Manager {
            cluster.set_role(node_id, Role::Worker).unwrap();
            cluster.pass(60);
        }
        let last = cluster.leader().expect("one leads alone");
        let group = cluster.members[&last].replica.group();
        assert_eq!(group.members.len(), 1, "write {writes_left}");
        assert!(!group.members.contains_key(&other) || last == other);
        cluster.members.get_mut(&last).unwrap().writes_left = None;
        cluster.create("after").unwrap();
    }
}
