//! Groups of replicas on disks in memory and a network that can be cut. The simulator goes further.

mod found;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use skep_model::{
    Annotations, Certificate, CertificateState, Membership, Meta, Node, NodeSpec, NodeStatus,
    Redacted, Role,
};
use skep_raft::{MemoryDisk, SnapshotMetadata, Storage};
use skep_wire::member::encode_member;

use super::*;
use crate::{
    bootstrap,
    command::{Answer, CertificateRequest, Code, Command},
    vault::tests::FakeVault,
};

const START: Timestamp = Timestamp(1_000_000_000_000);

struct Running {
    replica: Replica,
    disk: MemoryDisk,
    raft_id: u64,
    node_id: NodeId,
    /// Writes until one fails.
    writes_left: Option<usize>,
}

/// Members by raft id; messages are delivered in order unless a member is cut off.
struct Cluster {
    members: BTreeMap<u64, Running>,
    wire: VecDeque<Message>,
    cut: BTreeSet<u64>,
    now: Timestamp,
    next_reply: u64,
    replies: BTreeMap<ReplyTo, Result<Answer, CommandError>>,
    joined: BTreeMap<ReplyTo, Result<Joined, CommandError>>,
}

fn core_config(node_id: NodeId, seed: u64) -> core::Config {
    core::Config {
        node_id,
        seed,
        request_prefix: u16::try_from(seed).unwrap(),
        bootstrap: None,
        reconcile: core::reconcile,
    }
}

impl Cluster {
    fn of_one() -> Self {
        let bootstrap = bootstrap::tests::new_cluster(&mut Rng::from_seed(1));
        let node_id = bootstrap.node.id;
        let mut disk = MemoryDisk::default();
        let member = Member {
            raft_id: 1,
            node_id,
            addr: "192.0.2.1:2377".to_owned(),
        };
        let restored = Restored::new_group(1, encode_member(&member));
        disk.bootstrap(&restored).unwrap();
        let mut config = core_config(node_id, 101);
        config.bootstrap = Some(bootstrap);
        let config = Config {
            core: config,
            raft_id: 1,
            members: Vec::new(),
            is_compat: false,
        };
        let replica = Replica::new(config, Box::new(FakeVault::default()), &restored).unwrap();
        let mut cluster = Self {
            members: BTreeMap::new(),
            wire: VecDeque::new(),
            cut: BTreeSet::new(),
            now: START,
            next_reply: 0,
            replies: BTreeMap::new(),
            joined: BTreeMap::new(),
        };
        cluster.add(replica, disk, 1, node_id);
        cluster
    }

    fn of(count: u64) -> Self {
        let mut cluster = Self::of_one();
        for number in 2..=count {
            let node_id = cluster.admit(number);
            cluster.join(node_id, number).unwrap();
        }
        cluster.pass(10);
        cluster
    }

    fn add(&mut self, replica: Replica, disk: MemoryDisk, raft_id: u64, node_id: NodeId) {
        let member = Running {
            replica,
            disk,
            raft_id,
            node_id,
            writes_left: None,
        };
        self.members.insert(raft_id, member);
        let mut out = Vec::new();
        let member = self.members.get_mut(&raft_id).unwrap();
        member.replica.campaign_alone(&mut out);
        self.carry_out(raft_id, out);
        self.settle();
    }

    fn leader(&self) -> Option<u64> {
        let mut leaders = self.members.values().filter(|member| {
            member.replica.core().is_leading() && !self.cut.contains(&member.raft_id)
        });
        let leader = leaders.next()?;
        Some(leader.raft_id)
    }

    fn carry_out(&mut self, raft_id: u64, outputs: Vec<Output>) {
        let mut queue = VecDeque::from(outputs);
        while let Some(output) = queue.pop_front() {
            match output {
                Output::Message { message, .. } => self.wire.push_back(message),
                Output::Reply { to, result } => {
                    self.replies.insert(to, result);
                }
                Output::Joined { to, result } => {
                    self.joined.insert(to, result);
                }
                Output::Disk(request) => {
                    let member = self.members.get_mut(&raft_id).unwrap();
                    let done = disk_work(member, request);
                    let mut out = Vec::new();
                    member.replica.disk_done(self.now, done, &mut out);
                    member.replica.progress(self.now, &mut out);
                    queue.extend(out);
                }
                _ => {}
            }
        }
    }

    /// Delivers messages until none is under way.
    fn settle(&mut self) {
        let ids: Vec<u64> = self.members.keys().copied().collect();
        for id in ids {
            self.progress(id);
        }
        for _ in 0..100_000 {
            let Some(message) = self.wire.pop_front() else {
                return;
            };
            let (from, to) = (message.from, message.to);
            if self.cut.contains(&from) || self.cut.contains(&to) {
                continue;
            }
            let Some(member) = self.members.get_mut(&to) else {
                continue;
            };
            let stepped = member.replica.step(self.now, message);
            self.progress(to);
            if stepped == Err(StepRefused::SenderRemoved) {
                // It is told, and deletes its log.
                self.members.remove(&from);
            }
        }
        panic!("messages do not end");
    }

    fn progress(&mut self, id: u64) {
        let member = self.members.get_mut(&id).unwrap();
        let mut out = Vec::new();
        member.replica.progress(self.now, &mut out);
        self.carry_out(id, out);
    }

    /// Lets ticks pass.
    fn pass(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.now = self.now + TICK;
            let now = self.now;
            for member in self.members.values_mut() {
                member.replica.tick(now);
            }
            self.settle();
        }
    }

    fn command(&mut self, command: Command) -> Result<Answer, CommandError> {
        let leader = self.leader().expect("somebody leads");
        let reply_to = self.send(leader, command);
        self.settle();
        self.replies.remove(&reply_to).expect("it is answered")
    }

    fn send(&mut self, to: u64, command: Command) -> ReplyTo {
        self.next_reply += 1;
        let reply_to = ReplyTo(self.next_reply);
        let mut out = Vec::new();
        let member = self.members.get_mut(&to).unwrap();
        let event = Event::Command { reply_to, command };
        member.replica.handle(self.now, event, &mut out);
        self.carry_out(to, out);
        reply_to
    }

    fn store(&self) -> &Store {
        self.members[&self.leader().unwrap()].replica.core().store()
    }

    /// Gives a new node the certificate of a manager.
    fn admit(&mut self, number: u64) -> NodeId {
        let cluster = self.store().cluster().unwrap();
        let (version, spec) = (cluster.meta.version, cluster.spec.clone());
        if cluster.root_ca.join_tokens.manager.0.is_empty() {
            let rotate = crate::command::Rotate {
                manager_token: true,
                worker_token: true,
                unlock_key: false,
            };
            let spec = Box::new(spec);
            let update = Command::UpdateCluster {
                version,
                spec,
                rotate,
            };
            self.command(update).unwrap();
        }
        let token = self
            .store()
            .cluster()
            .unwrap()
            .root_ca
            .join_tokens
            .manager
            .clone();
        let answer = self.command(Command::IssueCertificate {
            csr: format!("csr {number}").into_bytes(),
            request: CertificateRequest::Join {
                token,
                availability: skep_model::Availability::Active,
            },
        });
        match answer.unwrap() {
            Answer::Certificate { node_id, .. } => node_id,
            other => panic!("unexpected {other:?}"),
        }
    }

    fn join(&mut self, node_id: NodeId, number: u64) -> Result<u64, CommandError> {
        self.next_reply += 1;
        let reply_to = ReplyTo(self.next_reply);
        let leader = self.leader().unwrap();
        let mut out = Vec::new();
        let addr = format!("192.0.2.{number}:2377");
        let member = self.members.get_mut(&leader).unwrap();
        member
            .replica
            .join(self.now, reply_to, node_id, addr, &mut out);
        self.carry_out(leader, out);
        self.settle();
        let joined = self.joined.remove(&reply_to).expect("it is answered")?;
        if !self.members.contains_key(&joined.raft_id) {
            let config = Config {
                core: core_config(node_id, number),
                raft_id: joined.raft_id,
                members: joined.members,
                is_compat: false,
            };
            let vault = Box::new(FakeVault::default());
            let replica = Replica::new(config, vault, &Restored::default()).unwrap();
            self.add(replica, MemoryDisk::default(), joined.raft_id, node_id);
        }
        self.pass(3);
        Ok(joined.raft_id)
    }

    fn create(&mut self, name: &str) -> Result<Answer, CommandError> {
        self.command(core::tests::create(name, 1))
    }

    fn set_role(&mut self, node_id: NodeId, role: Role) -> Result<Answer, CommandError> {
        let node = self.store().node(node_id).unwrap();
        let mut spec = node.spec.clone();
        spec.desired_role = role;
        let update = Command::UpdateNode {
            id: node_id,
            version: node.meta.version,
            spec: Box::new(spec),
        };
        self.command(update)
    }

    fn assert_equal_stores(&self) {
        let mut stores = self.members.values().map(|member| {
            let core = member.replica.core();
            (core.index(), core.store().objects().collect::<Vec<_>>())
        });
        let first = stores.next().unwrap();
        for other in stores {
            assert_eq!(first.0, other.0);
            assert_eq!(first.1, other.1);
        }
    }
}

fn disk_work(member: &mut Running, request: DiskRequest) -> DiskDone {
    let disk = &mut member.disk;
    match request {
        DiskRequest::Write(ready) => {
            let left = member.writes_left.take();
            disk.set_full(left == Some(0));
            let written = disk.write(&ready);
            disk.set_full(false);
            member.writes_left = left.and_then(|left| left.checked_sub(1));
            match written {
                Ok(()) => DiskDone::Written(ready.number),
                Err(error) => DiskDone::WriteFailed(error),
            }
        }
        DiskRequest::Snapshot {
            content,
            metadata,
            compact_to,
        } => {
            let snapshot = skep_raft::Snapshot {
                data: content.encode().into(),
                metadata: metadata.clone(),
            };
            disk.save_snapshot(&snapshot).unwrap();
            disk.compact(compact_to).unwrap();
            DiskDone::SnapshotSaved {
                metadata,
                compact_to,
            }
        }
        DiskRequest::Attach(mut message) => {
            message.attach_snapshot(disk.snapshot().unwrap().unwrap());
            DiskDone::Attached(message)
        }
        DiskRequest::Restore => DiskDone::Restored(disk.restored()),
    }
}

#[test]
fn managers_join_and_hold_the_same_state() {
    let mut cluster = Cluster::of(3);
    cluster.create("web").unwrap();
    cluster.pass(2);
    cluster.assert_equal_stores();
    for member in cluster.members.values() {
        assert_eq!(member.replica.group().members.len(), 3);
        assert_eq!(member.replica.group().leader, Some(1));
    }
    assert!(cluster.store().nodes().all(|node| {
        node.certificate.state == CertificateState::Issued && node.role == Role::Manager
    }));
}

#[test]
fn a_certificate_is_in_the_log_before_it_is_given_out() {
    let mut cluster = Cluster::of(1);
    let node_id = cluster.admit(7);
    let node = cluster.store().node(node_id).unwrap();
    assert!(
        node.certificate
            .certificate
            .starts_with(node_id.as_str().as_bytes())
    );
    assert_eq!(
        cluster.admit(7),
        node_id,
        "the same request is the same node"
    );
}

#[test]
fn a_wrong_token_admits_nobody() {
    let mut cluster = Cluster::of(2);
    for wrong in ["", "SWMTKN-1-x-y"] {
        let answer = cluster.command(Command::IssueCertificate {
            csr: b"csr".to_vec(),
            request: CertificateRequest::Join {
                token: Redacted(wrong.to_owned()),
                availability: skep_model::Availability::Active,
            },
        });
        assert_eq!(answer.unwrap_err().code, Code::InvalidArgument);
    }
    assert_eq!(cluster.store().nodes().count(), 2);
}

#[test]
fn a_leader_that_is_cut_off_is_replaced_and_follows_after() {
    let mut cluster = Cluster::of(3);
    cluster.cut.insert(1);
    cluster.pass(40);
    let leader = cluster.leader().expect("the others elect one");
    assert_ne!(leader, 1);
    cluster.create("after").unwrap();
    assert!(
        !cluster.members[&1].replica.core().is_leading(),
        "check-quorum"
    );
    cluster.cut.clear();
    cluster.pass(20);
    cluster.assert_equal_stores();
}

#[test]
fn a_lost_connection_to_the_leader_starts_an_election_at_once() {
    let mut cluster = Cluster::of(3);
    cluster.cut.insert(1);
    let others: Vec<u64> = cluster
        .members
        .keys()
        .copied()
        .filter(|id| *id != 1)
        .collect();
    for id in others {
        let now = cluster.now;
        cluster
            .members
            .get_mut(&id)
            .unwrap()
            .replica
            .peer_lost(now, 1);
    }
    let lost_at = cluster.now;
    while cluster.leader().is_none() {
        cluster.now = cluster.now + Duration::from_millis(5);
        cluster.settle();
        assert!(cluster.now.since(lost_at) < Duration::from_millis(600));
    }
}

#[test]
fn a_stopping_leader_hands_over_without_an_election_timeout() {
    let mut cluster = Cluster::of(3);
    assert!(cluster.members.get_mut(&1).unwrap().replica.hand_over());
    cluster.settle();
    assert!(cluster.leader().is_some_and(|leader| leader != 1));
}

#[test]
fn a_demoted_leader_leaves_the_group_before_it_is_a_worker() {
    let mut cluster = Cluster::of(3);
    let node_id = cluster.members[&1].node_id;
    cluster.set_role(node_id, Role::Worker).unwrap();
    cluster.pass(40);
    let leader = cluster.leader().unwrap();
    assert_ne!(leader, 1);
    let group = cluster.members[&leader].replica.group();
    assert_eq!(group.members.len(), 2);
    assert!(group.removed.contains(&1));
    assert_eq!(cluster.store().node(node_id).unwrap().role, Role::Worker);
}

#[test]
fn nobody_is_demoted_at_the_price_of_the_quorum() {
    let mut cluster = Cluster::of(3);
    let ids: Vec<u64> = cluster
        .members
        .keys()
        .copied()
        .filter(|id| *id != 1)
        .collect();
    cluster.cut.insert(ids[0]);
    cluster.pass(40);
    let healthy = cluster.members[&ids[1]].node_id;
    let refusal = cluster.set_role(healthy, Role::Worker).unwrap_err();
    assert_eq!(refusal.code, Code::FailedPrecondition);
    assert!(refusal.message.contains("loss of quorum"), "{refusal}");
    let lost = cluster.members[&ids[0]].node_id;
    cluster.set_role(lost, Role::Worker).unwrap();
    cluster.pass(20);
    assert_eq!(cluster.members[&1].replica.group().members.len(), 2);
}

#[test]
fn the_last_manager_is_not_demoted_and_managers_are_not_removed() {
    let mut cluster = Cluster::of(1);
    let node_id = cluster.members[&1].node_id;
    let refusal = cluster.set_role(node_id, Role::Worker).unwrap_err();
    assert!(refusal.message.contains("last manager"), "{refusal}");
    let remove = Command::RemoveNode {
        id: node_id,
        is_forced: true,
    };
    let refusal = cluster.command(remove).unwrap_err();
    assert!(refusal.message.contains("must be demoted"), "{refusal}");
}

#[test]
fn a_node_becomes_one_member_however_often_it_asks() {
    let mut cluster = Cluster::of(2);
    let node_id = cluster.admit(3);
    let first = cluster.join(node_id, 3).unwrap();
    assert_eq!(cluster.join(node_id, 3).unwrap(), first);
    assert_eq!(cluster.join(node_id, 4).unwrap(), first, "a new address");
    let group = cluster.members[&1].replica.group();
    assert_eq!(group.members[&first].member.addr, "192.0.2.4:2377");
}

#[test]
fn only_managers_become_members() {
    let mut cluster = Cluster::of(1);
    let stranger = NodeId::random(&mut Rng::from_seed(99));
    assert_eq!(cluster.join(stranger, 9).unwrap_err().code, Code::NotFound);
    let node_id = cluster.admit(2);
    cluster.set_role(node_id, Role::Worker).unwrap();
    let refusal = cluster.join(node_id, 2).unwrap_err();
    assert_eq!(refusal.code, Code::FailedPrecondition);
}

#[test]
fn a_member_far_behind_gets_a_snapshot() {
    let mut cluster = Cluster::of(1);
    let stored = cluster.store().cluster().unwrap();
    let mut spec = stored.spec.clone();
    spec.raft.snapshot_interval = 5;
    spec.raft.log_entries_for_slow_followers = 0;
    let version = stored.meta.version;
    let update = Command::UpdateCluster {
        version,
        spec: Box::new(spec),
        rotate: crate::command::Rotate::default(),
    };
    cluster.command(update).unwrap();
    for number in 0..20 {
        cluster.create(&format!("s{number}")).unwrap();
    }
    let node_id = cluster.admit(2);
    let raft_id = cluster.join(node_id, 2).unwrap();
    cluster.pass(10);
    cluster.assert_equal_stores();
    let joiner = &cluster.members[&raft_id];
    assert!(
        joiner.replica.raft().snapshot_index() > 0,
        "it came by snapshot"
    );
    assert_eq!(joiner.replica.group().members.len(), 2);
    cluster.create("after").unwrap();
    cluster.pass(2);
    cluster.assert_equal_stores();
}

#[test]
fn an_unreadable_snapshot_is_not_acknowledged() {
    let mut cluster = Cluster::of(2);
    let to = *cluster.members.keys().find(|id| **id != 1).unwrap();
    let metadata = SnapshotMetadata {
        conf_state: cluster.members[&1].replica.raft().members().clone(),
        index: 10_000,
        term: 99,
    };
    let message = Message {
        kind: skep_raft::MessageKind::Snapshot as i32,
        to,
        from: 1,
        term: 99,
        snapshot: Some(skep_raft::Snapshot {
            data: vec![0xff; 40].into(),
            metadata,
        }),
        ..Message::default()
    };
    let now = cluster.now;
    let replica = &mut cluster.members.get_mut(&to).unwrap().replica;
    assert_eq!(replica.step(now, message), Err(StepRefused::Inadmissible));
    assert!(replica.raft().term() < 99);
}

#[test]
fn a_removed_member_is_told_so() {
    let mut cluster = Cluster::of(3);
    let (id, node_id) = cluster
        .members
        .values()
        .find(|member| member.raft_id != 1)
        .map(|member| (member.raft_id, member.node_id))
        .unwrap();
    cluster.cut.insert(id);
    cluster.pass(40);
    cluster.set_role(node_id, Role::Worker).unwrap();
    cluster.pass(10);
    let message = Message {
        kind: skep_raft::MessageKind::RequestPreVote as i32,
        to: 1,
        from: id,
        term: 50,
        ..Message::default()
    };
    let now = cluster.now;
    let leader = &mut cluster.members.get_mut(&1).unwrap().replica;
    assert_eq!(leader.step(now, message), Err(StepRefused::SenderRemoved));
}

#[test]
fn a_node_that_leaves_the_group_becomes_a_worker() {
    let mut cluster = Cluster::of(3);
    let node_id = cluster
        .members
        .values()
        .find(|member| member.raft_id != 1)
        .map(|member| member.node_id)
        .unwrap();
    cluster.command(Command::LeaveGroup { node_id }).unwrap();
    cluster.pass(10);
    assert_eq!(cluster.members[&1].replica.group().members.len(), 2);
    assert_eq!(cluster.store().node(node_id).unwrap().role, Role::Worker);
}

#[test]
fn a_node_admitted_by_another_kind_of_leader_gets_its_certificate() {
    let mut cluster = Cluster::of(1);
    let mut rng = Rng::from_seed(5);
    let node_id = NodeId::random(&mut rng);
    let node = Node {
        id: node_id,
        meta: Meta::default(),
        spec: NodeSpec {
            annotations: Annotations::default(),
            desired_role: Role::Worker,
            membership: Membership::Accepted,
            availability: skep_model::Availability::Active,
        },
        description: None,
        status: NodeStatus::default(),
        manager_status: None,
        certificate: Certificate {
            csr: b"theirs".to_vec(),
            state: CertificateState::Pending,
            ..Certificate::default()
        },
        role: Role::Worker,
        attachments: Vec::new(),
        vxlan_udp_port: 0,
    };
    let store = {
        let mut tx = skep_store::Transaction::new(cluster.store(), skep_model::Version(1), START);
        tx.create_node(node).unwrap();
        tx.finish().0
    };
    let config = core_config(NodeId::random(&mut rng), 3);
    let mut core = Core::new(config, Box::new(FakeVault::default()), store, 9, 9);
    let mut out = Vec::new();
    core.handle(cluster.now, Event::Led { term: 3 }, &mut out);
    core.turn(cluster.now, &mut out);
    let issued = out.iter().any(|effect| match effect {
        Effect::Propose { actions, .. } => actions.iter().any(|action| match &action.object {
            skep_store::Object::Node(node) => {
                node.id == node_id && node.certificate.state == CertificateState::Issued
            }
            _ => false,
        }),
        _ => false,
    });
    assert!(issued, "{out:?}");
    cluster.pass(1);
}
