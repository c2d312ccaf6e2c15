//! The core alone: what it proposes, and what it gives out when. The simulator drives it in company.

mod networks;
mod revisions;
mod secrets;
mod stacks;

use std::{sync::Arc, time::Duration};

use skep_model::{
    Availability, Cluster, NodeDescription, NodeSpec, NodeState, Resources, Role, ServiceId,
    ServiceMode, ServiceSpec, Task, TaskId, TaskSpec, TaskState, TaskStatus,
    dispatch::{AssignmentsKind, SessionRequest},
};

use skep_store::Action;

use super::*;
use crate::{
    bootstrap,
    command::{Answer, ServiceChange},
    event::ToAgent,
    vault::tests::FakeVault,
};

const START: Timestamp = Timestamp(1_000_000_000_000);
const AGENT: ConnectionId = ConnectionId(1);

/// A core with a log that commits when told to.
struct Harness {
    core: Core,
    now: Timestamp,
    out: Vec<Effect>,
    index: u64,
    next_reply: u64,
}

impl Harness {
    /// A core that has made its cluster and leads it.
    fn leading() -> Self {
        let mut rng = Rng::from_seed(7);
        let bootstrap = bootstrap::tests::new_cluster(&mut rng);
        let config = Config {
            node_id: bootstrap.node.id,
            seed: 1,
            request_prefix: 1,
            bootstrap: Some(bootstrap),
            reconcile,
        };
        let mut harness = Self {
            core: Core::new(
                config,
                Box::new(FakeVault::default()),
                Store::default(),
                1,
                1,
            ),
            now: START,
            out: Vec::new(),
            index: 1,
            next_reply: 0,
        };
        harness.handle(Event::Led { term: 2 });
        harness.settle();
        harness.out.clear();
        harness
    }

    /// The same with its own node registered and able to run tasks.
    fn with_agent() -> Self {
        let mut harness = Self::leading();
        harness.register(AGENT);
        harness.settle();
        harness.out.clear();
        harness
    }

    fn handle(&mut self, event: Event) {
        self.core.handle(self.now, event, &mut self.out);
    }

    /// Lets time pass as it does: tick by tick.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.now = self.now + Duration::from_millis(100);
            self.settle();
        }
    }

    fn node_id(&self) -> NodeId {
        self.core.config.node_id
    }

    fn register(&mut self, connection: ConnectionId) {
        self.register_from(connection, "192.0.2.1:1");
    }

    fn register_from(&mut self, connection: ConnectionId, addr: &str) {
        let resources = Resources {
            nano_cpus: 4_000_000_000,
            memory_bytes: 1 << 30,
            generic: Vec::new(),
        };
        let description = NodeDescription {
            resources,
            ..NodeDescription::default()
        };
        let request = SessionRequest {
            description,
            session_id: None,
        };
        let message = FromAgent::Register {
            node_id: self.node_id(),
            addr: addr.to_owned(),
            request: Box::new(request),
        };
        self.handle(Event::Agent {
            connection,
            message,
        });
    }

    fn report(&mut self, connection: ConnectionId, task: TaskId, state: TaskState) -> ReplyTo {
        let status = TaskStatus {
            state,
            ..TaskStatus::default()
        };
        let reply_to = self.next_reply();
        let updates = vec![(task, status)];
        let message = FromAgent::Statuses { reply_to, updates };
        self.handle(Event::Agent {
            connection,
            message,
        });
        reply_to
    }

    fn command(&mut self, command: Command) -> ReplyTo {
        let reply_to = self.next_reply();
        self.handle(Event::Command { reply_to, command });
        reply_to
    }

    fn next_reply(&mut self) -> ReplyTo {
        self.next_reply += 1;
        ReplyTo(self.next_reply)
    }

    /// Takes a turn; the proposal it makes, if any.
    fn turn(&mut self) -> Option<(RequestId, Vec<Action>)> {
        let mut effects = Vec::new();
        self.core.turn(self.now, &mut effects);
        let mut proposal = None;
        for effect in effects {
            match effect {
                Effect::Propose {
                    request_id,
                    actions,
                    is_whole: _,
                } => proposal = Some((request_id, actions)),
                other => self.out.push(other),
            }
        }
        proposal
    }

    fn commit(&mut self, request_id: RequestId, actions: Vec<Action>) {
        self.commit_sized(request_id, actions, 0);
    }

    fn commit_sized(&mut self, request_id: RequestId, actions: Vec<Action>, bytes: usize) {
        self.index += 1;
        let entry = Some(CommittedEntry {
            request_id,
            actions,
            bytes,
        });
        let index = self.index;
        self.handle(Event::Committed { index, entry });
    }

    /// Turns and commits until there is nothing to do.
    fn settle(&mut self) {
        while let Some((request_id, _)) = self.turn() {
            self.commit(request_id, Vec::new());
        }
    }

    fn reply(&self, wanted: ReplyTo) -> Option<&Result<Answer, CommandError>> {
        self.out.iter().find_map(|effect| match effect {
            Effect::Reply { to, result } if *to == wanted => Some(result),
            _ => None,
        })
    }

    fn status_reply(&self, wanted: ReplyTo) -> Option<&Result<(), DispatchError>> {
        self.out.iter().find_map(|effect| match effect {
            Effect::StatusReply { to, result } if *to == wanted => Some(result),
            _ => None,
        })
    }

    fn closed(&self, wanted: ConnectionId) -> Option<&DispatchError> {
        self.out.iter().find_map(|effect| match effect {
            Effect::Close { connection, reason } if *connection == wanted => Some(reason),
            _ => None,
        })
    }

    fn create_service(&mut self, name: &str, replicas: u64) -> ServiceId {
        let to = self.command(create(name, replicas));
        self.settle();
        match self.reply(to) {
            Some(Ok(Answer::Service(id))) => *id,
            other => panic!("not created: {other:?}"),
        }
    }

    fn only_task(&self) -> Arc<Task> {
        let mut tasks = self.core.store().tasks();
        let task = tasks.next().expect("there is a task");
        assert!(tasks.next().is_none(), "there is one task");
        Arc::clone(task)
    }
}

/// A command that creates a service.
pub(crate) fn create(name: &str, replicas: u64) -> Command {
    let mut task = TaskSpec::default();
    "app:1".clone_into(&mut task.container.image);
    let mut spec = ServiceSpec {
        task: task.into(),
        mode: ServiceMode::Replicated { replicas },
        ..ServiceSpec::default()
    };
    name.clone_into(&mut Arc::make_mut(&mut spec.annotations).name);
    Command::CreateService {
        spec: Box::new(spec),
    }
}

#[test]
fn a_new_leader_of_nothing_makes_the_cluster_and_its_node() {
    let harness = Harness::leading();
    let store = harness.core.store();
    assert!(store.cluster().is_some());
    let node = store.node(harness.node_id()).unwrap();
    assert_eq!(node.role, Role::Manager);
}

#[test]
fn an_answer_waits_for_the_commit() {
    let mut harness = Harness::leading();
    let to = harness.command(create("web", 1));
    let (request_id, _) = harness.turn().unwrap();
    assert_eq!(harness.reply(to), None);
    assert_eq!(harness.core.store().service_count(), 0);
    harness.commit(request_id, Vec::new());
    assert!(matches!(harness.reply(to), Some(Ok(Answer::Service(_)))));
    assert_eq!(harness.core.store().service_count(), 1);
}

#[test]
fn commands_that_wait_together_become_one_entry() {
    let mut harness = Harness::leading();
    let names = ["a", "b", "c"];
    let replies = names.map(|name| harness.command(create(name, 0)));
    let (request_id, _) = harness.turn().unwrap();
    harness.commit(request_id, Vec::new());
    assert!(replies.iter().all(|to| harness.reply(*to).is_some()));
}

#[test]
fn one_batch_is_under_way_at_a_time() {
    let mut harness = Harness::leading();
    harness.command(create("a", 0));
    assert!(harness.turn().is_some());
    harness.command(create("b", 0));
    assert!(harness.turn().is_none());
}

#[test]
fn of_two_with_one_name_in_a_batch_the_second_is_refused() {
    let mut harness = Harness::leading();
    let first = harness.command(create("web", 0));
    let second = harness.command(create("WEB", 0));
    harness.settle();
    assert!(matches!(harness.reply(first), Some(Ok(_))));
    let refused = harness.reply(second).unwrap().as_ref().unwrap_err();
    assert_eq!(refused.code, Code::AlreadyExists);
}

#[test]
fn an_update_of_an_older_version_is_out_of_sequence() {
    let mut harness = Harness::leading();
    let node = Arc::clone(harness.core.store().node(harness.node_id()).unwrap());
    let update = |version| Command::UpdateNode {
        id: node.id,
        version,
        spec: Box::new(NodeSpec {
            availability: Availability::Pause,
            ..node.spec.clone()
        }),
    };
    let first = harness.command(update(node.meta.version));
    let second = harness.command(update(node.meta.version));
    harness.settle();
    assert_eq!(harness.reply(first), Some(&Ok(Answer::Done)));
    let refused = harness.reply(second).unwrap().as_ref().unwrap_err();
    assert_eq!(refused.message, "update out of sequence");
}

#[test]
fn a_version_that_nobody_can_have_read_is_out_of_sequence() {
    let mut harness = Harness::leading();
    harness.command(create("web", 0));
    harness.settle();
    let service = Arc::clone(harness.core.store().service_by_name("web").unwrap());
    let update = |version| Command::UpdateService {
        id: service.id,
        version,
        change: ServiceChange::Spec(Box::new(ServiceSpec::clone(&service.spec))),
    };
    let first = harness.command(update(service.meta.version));
    let guessed = harness.command(update(skep_model::Version(harness.core.index())));
    harness.settle();
    assert_eq!(harness.reply(first), Some(&Ok(Answer::Done)));
    let refused = harness.reply(guessed).unwrap().as_ref().unwrap_err();
    assert_eq!(refused.message, "update out of sequence");
}

#[test]
fn a_refused_batch_is_told_and_thought_over_again() {
    let mut harness = Harness::leading();
    let to = harness.command(create("web", 1));
    let (request_id, _) = harness.turn().unwrap();
    harness.handle(Event::Refused {
        request_id,
        reason: "log is full".to_owned(),
    });
    let refused = harness.reply(to).unwrap().as_ref().unwrap_err();
    assert_eq!(refused.message, "log is full");
    assert_eq!(harness.core.store().service_count(), 0);
    harness.create_service("web", 1);
}

#[test]
fn a_deposed_leader_answers_all_and_forgets_its_batch() {
    let mut harness = Harness::with_agent();
    let proposed = harness.command(create("a", 0));
    assert!(harness.turn().is_some());
    let queued = harness.command(create("b", 0));
    harness.handle(Event::Deposed);
    // The first may still be committed by the next leader; the second certainly is not.
    for (to, code) in [(proposed, Code::Aborted), (queued, Code::Unavailable)] {
        let refused = harness.reply(to).unwrap().as_ref().unwrap_err();
        assert_eq!(refused.code, code);
    }
    assert!(matches!(
        harness.closed(AGENT),
        Some(DispatchError::NoLeader(_))
    ));
    assert!(!harness.core.is_leading());
    assert_eq!(harness.core.store().service_count(), 0);
}

#[test]
fn a_registered_agent_gets_its_session_and_then_the_whole_set() {
    let mut harness = Harness::with_agent();
    harness.create_service("web", 1);
    harness.out.clear();
    let connection = ConnectionId(2);
    harness.register(connection);
    harness.settle();
    assert_eq!(harness.closed(AGENT), Some(&DispatchError::SessionInvalid));
    let sent: Vec<&ToAgent> = harness
        .out
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send {
                connection: to,
                message,
            } if *to == connection => Some(message),
            _ => None,
        })
        .collect();
    let [ToAgent::Session(session), ToAgent::Assignments(set)] = sent.as_slice() else {
        panic!("sent {sent:?}");
    };
    assert_eq!(
        session.node.as_ref().map(|node| node.id),
        Some(harness.node_id())
    );
    assert_eq!(set.kind, AssignmentsKind::Complete);
    assert_eq!(set.changes.len(), 1);
}

#[test]
fn an_agent_that_registers_without_end_is_refused() {
    let mut harness = Harness::leading();
    for number in 1..=4 {
        harness.register(ConnectionId(number));
    }
    assert_eq!(harness.closed(ConnectionId(3)), None);
    assert_eq!(
        harness.closed(ConnectionId(4)),
        Some(&DispatchError::RegisteredTooOften)
    );
}

#[test]
fn a_node_that_is_not_heard_of_is_down() {
    let mut harness = Harness::with_agent();
    let node_id = harness.node_id();
    let state = |harness: &Harness| harness.core.store().node(node_id).unwrap().status.state;
    assert_eq!(state(&harness), NodeState::Ready);
    harness.pass(Duration::from_millis(3100));
    assert_eq!(state(&harness), NodeState::Down);
    assert_eq!(
        harness.closed(AGENT),
        Some(&DispatchError::NodeNotRegistered)
    );
}

/// Who watches for nodes that come, as rebalancing does, looks at when they were changed.
#[test]
fn a_change_of_leader_is_no_change_of_its_nodes() {
    let mut harness = Harness::with_agent();
    let node_id = harness.node_id();
    let node = |harness: &Harness| harness.core.store().node(node_id).unwrap().clone();
    let before = node(&harness);
    harness.now = harness.now + Duration::from_secs(3600);
    harness.handle(Event::Deposed);
    harness.handle(Event::Led { term: 3 });
    harness.settle();
    assert_eq!(node(&harness).status.state, NodeState::Unknown);
    harness.register(ConnectionId(2));
    harness.settle();
    let after = node(&harness);
    assert_eq!(after.status.state, NodeState::Ready);
    assert!(after.meta.version > before.meta.version);
    assert_eq!(after.meta.updated_at, before.meta.updated_at);
    // Silence is one, and so is the return.
    harness.pass(Duration::from_secs(4));
    let down = node(&harness);
    assert_eq!(down.status.state, NodeState::Down);
    assert!(down.meta.updated_at > after.meta.updated_at);
    harness.register(ConnectionId(3));
    harness.settle();
    assert!(node(&harness).meta.updated_at > down.meta.updated_at);
}

#[test]
fn a_leader_that_stood_still_does_not_blame_the_nodes() {
    let mut harness = Harness::with_agent();
    let node_id = harness.node_id();
    harness.now = harness.now + Duration::from_secs(60);
    harness.settle();
    let state = |harness: &Harness| harness.core.store().node(node_id).unwrap().status.state;
    assert_eq!(state(&harness), NodeState::Ready);
    harness.pass(Duration::from_millis(3100));
    assert_eq!(state(&harness), NodeState::Down, "it really is silent");
}

#[test]
fn a_heartbeat_moves_the_deadline() {
    let mut harness = Harness::with_agent();
    let before = harness.core.next_deadline().unwrap();
    harness.now = harness.now + Duration::from_secs(1);
    harness.handle(Event::Agent {
        connection: AGENT,
        message: FromAgent::Heartbeat,
    });
    assert_eq!(
        harness.core.next_deadline(),
        Some(before + Duration::from_secs(1))
    );
}

#[test]
fn a_report_is_acknowledged_once_stored_and_never_goes_back() {
    let mut harness = Harness::with_agent();
    harness.create_service("web", 1);
    let task = harness.only_task().id;
    let to = harness.report(AGENT, task, TaskState::Running);
    let (request_id, _) = harness.turn().unwrap();
    assert_eq!(harness.status_reply(to), None);
    harness.commit(request_id, Vec::new());
    assert_eq!(harness.status_reply(to), Some(&Ok(())));
    harness.report(AGENT, task, TaskState::Preparing);
    harness.settle();
    assert_eq!(harness.only_task().status.state, TaskState::Running);
}

#[test]
fn a_report_over_a_connection_without_a_session_is_refused() {
    let mut harness = Harness::with_agent();
    harness.create_service("web", 1);
    let task = harness.only_task().id;
    let to = harness.report(ConnectionId(9), task, TaskState::Running);
    assert_eq!(
        harness.status_reply(to),
        Some(&Err(DispatchError::SessionInvalid))
    );
}

#[test]
fn an_agent_cannot_claim_states_that_are_the_managers() {
    for state in [TaskState::Pending, TaskState::Remove, TaskState::Orphaned] {
        let mut harness = Harness::with_agent();
        harness.create_service("web", 1);
        let task = harness.only_task();
        harness.report(AGENT, task.id, state);
        harness.settle();
        assert_eq!(harness.only_task().status, task.status, "{state}");
    }
}

#[test]
fn a_second_machine_with_a_nodes_identity_is_refused_while_the_first_is_alive() {
    let mut harness = Harness::with_agent();
    let twin = ConnectionId(7);
    harness.register_from(twin, "192.0.2.77");
    assert!(matches!(
        harness.closed(twin),
        Some(DispatchError::PermissionDenied(reason)) if reason.contains("192.0.2.1")
    ));
    assert_eq!(harness.closed(AGENT), None);
    // A node that moved is silent at its old address.
    harness.pass(Duration::from_millis(1600));
    let moved = ConnectionId(8);
    harness.register_from(moved, "192.0.2.77");
    harness.settle();
    assert_eq!(harness.closed(moved), None);
}

#[test]
fn a_new_token_has_not_the_limits_of_the_old_one() {
    use skep_model::reserved::{JOIN_WORKER_USES, JoinPolicy};
    let mut harness = Harness::leading();
    let mut update = |uses: Option<&str>, is_rotated: bool| {
        let cluster = harness.core.store().cluster().unwrap();
        let (version, mut spec) = (cluster.meta.version, cluster.spec.clone());
        let labels = &mut spec.annotations.labels;
        if let Some(uses) = uses {
            labels.insert(JOIN_WORKER_USES.to_owned(), uses.to_owned());
        }
        harness.command(Command::UpdateCluster {
            version,
            spec: Box::new(spec),
            rotate: crate::command::Rotate {
                worker_token: is_rotated,
                ..crate::command::Rotate::default()
            },
        });
        harness.settle();
        let labels = &harness
            .core
            .store()
            .cluster()
            .unwrap()
            .spec
            .annotations
            .labels;
        JoinPolicy::read(labels, Role::Worker).unwrap().uses
    };
    assert_eq!(update(Some("1"), false), Some(1));
    assert_eq!(update(None, false), Some(1), "kept without rotation");
    assert_eq!(update(None, true), None, "gone with the token");
    assert_eq!(update(Some("5"), true), Some(5), "new limits come along");
}

#[test]
fn a_snapshot_is_due_after_its_interval() {
    let mut harness = Harness::leading();
    let mut cluster = Cluster::clone(harness.core.store().cluster().unwrap());
    cluster.spec.raft.snapshot_interval = 5;
    let (version, spec) = (cluster.meta.version, Box::new(cluster.spec));
    harness.command(Command::UpdateCluster {
        version,
        spec,
        rotate: crate::command::Rotate::default(),
    });
    harness.settle();
    harness.out.clear();
    for number in 0..10 {
        harness.create_service(&format!("s{number}"), 0);
    }
    let snapshots: Vec<u64> = harness
        .out
        .iter()
        .filter_map(|effect| match effect {
            Effect::Snapshot { index, .. } => Some(*index),
            _ => None,
        })
        .collect();
    assert!(snapshots.len() >= 2, "{snapshots:?}");
    assert!(snapshots.windows(2).all(|pair| pair[1] - pair[0] >= 5));
}

#[test]
fn large_entries_are_put_into_a_snapshot_sooner() {
    let mut harness = Harness::leading();
    harness.out.clear();
    for _ in 0..10 {
        harness.commit_sized(RequestId(u64::MAX), Vec::new(), 20 << 20);
    }
    let snapshots = harness.out.iter();
    let snapshots = snapshots.filter(|effect| matches!(effect, Effect::Snapshot { .. }));
    assert_eq!(snapshots.count(), 2);
}

#[test]
fn entries_of_another_life_are_applied_as_they_are() {
    let mut leader = Harness::leading();
    let mut config = leader.core.config.clone();
    config.bootstrap = None;
    let mut follower = Harness {
        core: Core::new(
            config,
            Box::new(FakeVault::default()),
            leader.core.store().clone(),
            leader.index,
            leader.index,
        ),
        now: START,
        out: Vec::new(),
        index: leader.index,
        next_reply: 0,
    };
    leader.command(create("web", 2));
    while let Some((request_id, actions)) = leader.turn() {
        leader.commit(request_id, Vec::new());
        follower.commit(request_id, actions);
    }
    let objects = |core: &Core| core.store().objects().collect::<Vec<_>>();
    assert_eq!(objects(&leader.core), objects(&follower.core));
    assert!(follower.core.store().service_count() > 0);
}
