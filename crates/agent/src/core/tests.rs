//! Sessions, assignments and reports against a scripted dispatcher; random runs are in `chaos`.

mod chaos;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use skep_model::{
    Annotations, Id, Meta, NodeDescription, Rng, Secret, SecretSpec, SessionId, Task, TaskId,
    TaskSpec, TaskState, TaskStatus, Timestamp,
    dispatch::{
        AssignmentChange, AssignmentSequence, AssignmentsKind, AssignmentsMessage, DispatchError,
        HeartbeatResponse, SessionMessage, StatusUpdate,
    },
};

use super::{AgentCore, Attempt, Change, Effect, Event, StoredTask};
use crate::exec::{ControllerError, Op, OpResult, Outcome};

const PERIOD: Duration = Duration::from_secs(5);

fn task_id(number: u64) -> TaskId {
    TaskId(Id::random(&mut Rng::from_seed(number)))
}

fn session_id(number: u64) -> SessionId {
    SessionId(Id::random(&mut Rng::from_seed(1000 + number)))
}

fn task(number: u64, desired_state: TaskState) -> Arc<Task> {
    Arc::new(Task {
        id: task_id(number),
        meta: Meta::default(),
        spec: Arc::new(TaskSpec::default()),
        spec_version: None,
        service_id: None,
        slot: number,
        node_id: None,
        annotations: Arc::new(Annotations::default()),
        service_annotations: Arc::new(Annotations::default()),
        status: TaskStatus {
            state: TaskState::Assigned,
            ..TaskStatus::default()
        },
        desired_state,
        endpoint: None,
        log_driver: None,
        networks: Vec::new(),
        assigned_generic_resources: Vec::new(),
        job_iteration: None,
    })
}

fn update(number: u64, desired: TaskState) -> AssignmentChange {
    AssignmentChange::UpdateTask(task(number, desired))
}

fn description(hostname: &str) -> NodeDescription {
    NodeDescription {
        hostname: hostname.to_owned(),
        ..NodeDescription::default()
    }
}

fn lost() -> DispatchError {
    DispatchError::Unavailable("gone".to_owned())
}

/// A core with the effects not yet looked at.
struct Rig {
    core: AgentCore,
    now: Timestamp,
    out: Vec<Effect>,
}

impl Rig {
    fn new(stored: Vec<StoredTask>, known: Vec<TaskId>) -> Self {
        let core = AgentCore::new(Rng::from_seed(1), stored, known);
        let mut rig = Self {
            core,
            now: Timestamp(0),
            out: Vec::new(),
        };
        rig.core.start(rig.now, &mut rig.out);
        rig
    }

    fn handle(&mut self, event: Event) {
        self.core.handle(self.now, event, &mut self.out);
    }

    /// Jumps to the next deadline.
    fn tick(&mut self) -> Duration {
        let at = self.core.next_deadline().expect("something is due");
        let waited = at.since(self.now);
        self.now = self.now.max(at);
        self.handle(Event::Tick);
        waited
    }

    fn take(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.out)
    }

    fn opened(&mut self) -> (Attempt, Option<SessionId>) {
        let found = self.out.iter().find_map(|effect| match effect {
            Effect::OpenSession { attempt, request } => Some((*attempt, request.session_id)),
            _ => None,
        });
        found.expect("a session is asked for")
    }

    fn message(&mut self, attempt: Attempt, id: SessionId) {
        let message = SessionMessage {
            session_id: id,
            node: None,
            managers: Vec::new(),
            network_bootstrap_keys: Vec::new(),
            root_ca: Vec::new(),
        };
        self.handle(Event::Session { attempt, message });
    }

    /// Described and registered as session 1.
    fn registered(stored: Vec<StoredTask>, known: Vec<TaskId>) -> (Self, Attempt) {
        let mut rig = Self::new(stored, known);
        rig.handle(Event::Described(Some(description("a"))));
        let (attempt, _) = rig.opened();
        rig.message(attempt, session_id(1));
        (rig, attempt)
    }

    fn assign(
        &mut self,
        attempt: Attempt,
        kind: AssignmentsKind,
        (from, to): (u64, u64),
        changes: Vec<AssignmentChange>,
    ) {
        let message = AssignmentsMessage {
            kind,
            applies_to: AssignmentSequence(from),
            results_in: AssignmentSequence(to),
            changes,
        };
        self.handle(Event::Assignments { attempt, message });
    }

    fn done(&mut self, number: u64, op: Op) {
        let outcome = Outcome::bare(OpResult::Done);
        self.handle(Event::OpDone {
            task: task_id(number),
            op,
            outcome,
        });
    }
}

fn runs(effects: &[Effect]) -> Vec<(TaskId, Op)> {
    let runs = effects.iter().filter_map(|effect| match effect {
        Effect::Run { task, op } => Some((task.id, *op)),
        _ => None,
    });
    runs.collect()
}

fn sent(effects: &[Effect]) -> Vec<StatusUpdate> {
    let sent = effects.iter().filter_map(|effect| match effect {
        Effect::SendStatuses { update, .. } => Some(update.clone()),
        _ => None,
    });
    sent.collect()
}

fn is_heartbeat(effect: &Effect) -> bool {
    matches!(effect, Effect::SendHeartbeat { .. })
}

fn stored(number: u64, state: TaskState) -> StoredTask {
    StoredTask {
        task: task(number, TaskState::Running),
        status: TaskStatus {
            state,
            ..TaskStatus::default()
        },
        is_assigned: true,
    }
}

#[test]
fn stored_tasks_resume_before_any_manager_is_asked() {
    let rig = Rig::new(vec![stored(1, TaskState::Running)], vec![]);
    let described = rig
        .out
        .iter()
        .position(|effect| *effect == Effect::Describe)
        .unwrap();
    let resumed = rig
        .out
        .iter()
        .position(|effect| matches!(effect, Effect::Run { .. }))
        .unwrap();
    assert!(resumed < described);
    assert_eq!(runs(&rig.out), [(task_id(1), Op::Resolve)]);
}

#[test]
fn registering_opens_assignments_beats_and_reports_everything() {
    let (mut rig, attempt) = Rig::registered(
        vec![stored(1, TaskState::Running), stored(2, TaskState::Failed)],
        vec![],
    );
    let effects = rig.take();
    let open = Effect::OpenAssignments {
        attempt,
        session_id: session_id(1),
    };
    assert!(effects.contains(&open));
    assert!(effects.iter().any(is_heartbeat));
    let reported: BTreeSet<_> = sent(&effects)[0]
        .updates
        .iter()
        .map(|(id, _)| *id)
        .collect();
    assert_eq!(reported, BTreeSet::from([task_id(1), task_id(2)]));
}

#[test]
fn heartbeats_follow_the_period_the_dispatcher_names() {
    let (mut rig, attempt) = Rig::registered(vec![], vec![]);
    rig.assign(attempt, AssignmentsKind::Complete, (0, 1), vec![]);
    rig.take();
    rig.handle(Event::Heartbeat {
        attempt,
        result: Ok(HeartbeatResponse { period: PERIOD }),
    });
    assert!(!rig.out.iter().any(is_heartbeat));
    assert_eq!(rig.tick(), PERIOD);
    assert!(rig.take().iter().any(is_heartbeat));
}

#[test]
fn an_unanswered_heartbeat_ends_the_session() {
    let (mut rig, attempt) = Rig::registered(vec![], vec![]);
    rig.assign(attempt, AssignmentsKind::Complete, (0, 1), vec![]);
    rig.take();
    assert_eq!(rig.tick(), Duration::from_secs(5));
    assert!(rig.out.contains(&Effect::CloseSession(attempt)));
    assert_eq!(rig.core.session_id(), None);
}

#[test]
fn losses_back_off_with_jitter_up_to_eight_seconds_and_keep_the_session_id() {
    let (mut rig, attempt) = Rig::registered(vec![], vec![]);
    rig.take();
    rig.handle(Event::SessionEnded {
        attempt,
        error: lost(),
    });
    let mut bound = Duration::from_millis(100);
    let mut longest = Duration::ZERO;
    for _ in 0..60 {
        rig.take();
        let mut waited = rig.tick();
        while !rig
            .out
            .iter()
            .any(|effect| matches!(effect, Effect::OpenSession { .. }))
        {
            rig.handle(Event::Described(Some(description("a"))));
            waited += rig.tick();
        }
        assert!(waited <= bound, "{waited:?} > {bound:?}");
        longest = longest.max(waited);
        bound = (Duration::from_millis(100) + 2 * bound).min(Duration::from_secs(8));
        let (attempt, id) = rig.opened();
        assert_eq!(id, Some(session_id(1)));
        rig.handle(Event::SessionEnded {
            attempt,
            error: lost(),
        });
    }
    assert!(
        longest > Duration::from_secs(4),
        "the delay is spread over its whole range"
    );
}

#[test]
fn an_invalid_session_is_not_presented_again() {
    let (mut rig, attempt) = Rig::registered(vec![], vec![]);
    rig.take();
    rig.handle(Event::Heartbeat {
        attempt,
        result: Err(DispatchError::SessionInvalid),
    });
    rig.tick();
    assert_eq!(rig.opened().1, None);
    assert_eq!(
        rig.core.session_error(),
        Some(&DispatchError::SessionInvalid)
    );
}

#[test]
fn a_silent_dispatcher_is_given_up_after_five_seconds() {
    let mut rig = Rig::new(vec![], vec![]);
    rig.handle(Event::Described(Some(description("a"))));
    let (attempt, _) = rig.opened();
    assert_eq!(rig.tick(), Duration::from_secs(5));
    assert!(rig.out.contains(&Effect::CloseSession(attempt)));
}

#[test]
fn a_changed_description_reopens_the_session_with_its_id() {
    let (mut rig, attempt) = Rig::registered(vec![], vec![]);
    rig.take();
    rig.handle(Event::Described(Some(description("a"))));
    assert_eq!(rig.take(), [], "the same description changes nothing");
    rig.handle(Event::Described(Some(description("b"))));
    assert!(rig.out.contains(&Effect::CloseSession(attempt)));
    assert_eq!(rig.opened(), (Attempt(attempt.0 + 1), Some(session_id(1))));
}

#[test]
fn a_node_that_changed_is_described_at_once_and_again_when_one_was_under_way() {
    let (mut rig, _) = Rig::registered(vec![], vec![]);
    rig.take();
    rig.handle(Event::Redescribe);
    assert_eq!(rig.take(), [Effect::Describe]);
    rig.handle(Event::Redescribe);
    assert_eq!(rig.take(), [], "one is under way");
    rig.handle(Event::Described(Some(description("a"))));
    assert_eq!(
        rig.take(),
        [Effect::Describe],
        "it may have missed the change"
    );
    rig.handle(Event::Described(Some(description("a"))));
    assert_eq!(rig.take(), []);
}

#[test]
fn root_certificates_are_kept_until_others_come() {
    let (mut rig, attempt) = Rig::registered(vec![], vec![]);
    assert_eq!(rig.core.root_ca(), b"");
    for (sent, kept) in [("one", "one"), ("", "one"), ("two", "two")] {
        let message = SessionMessage {
            session_id: session_id(1),
            node: None,
            managers: Vec::new(),
            network_bootstrap_keys: Vec::new(),
            root_ca: sent.into(),
        };
        rig.handle(Event::Session { attempt, message });
        assert_eq!(rig.core.root_ca(), kept.as_bytes());
    }
}

#[test]
fn losing_the_session_leaves_tasks_alone() {
    let (mut rig, attempt) = Rig::registered(vec![stored(1, TaskState::Running)], vec![]);
    rig.done(1, Op::Resolve);
    rig.take();
    rig.handle(Event::SessionEnded {
        attempt,
        error: lost(),
    });
    assert!(
        !rig.out
            .iter()
            .any(|effect| matches!(effect, Effect::Run { .. } | Effect::Cancel(_)))
    );
    let outcome = Outcome::bare(OpResult::Failed(ControllerError::Exited {
        code: 1,
        cause: None,
    }));
    rig.handle(Event::OpDone {
        task: task_id(1),
        op: Op::Wait { is_ready: true },
        outcome,
    });
    assert_eq!(sent(&rig.take()), []);
    rig.tick();
    let (attempt, _) = rig.opened();
    rig.message(attempt, session_id(2));
    let report = sent(&rig.take()).remove(0);
    assert_eq!(report.session_id, session_id(2));
    assert_eq!(report.updates[0].1.state, TaskState::Failed);
}

#[test]
fn a_task_is_stored_before_anything_runs() {
    let (mut rig, attempt) = Rig::registered(vec![], vec![]);
    rig.take();
    rig.assign(
        attempt,
        AssignmentsKind::Complete,
        (0, 1),
        vec![update(1, TaskState::Running)],
    );
    let persisted = Effect::Persist(Change::Task(task(1, TaskState::Running)));
    let others = |effect: &&Effect| !matches!(effect, Effect::Supply(_));
    assert_eq!(rig.out.iter().find(others), Some(&persisted));
    assert_eq!(runs(&rig.out), [(task_id(1), Op::Resolve)]);
}

#[test]
fn what_tasks_use_is_there_before_them() {
    let (mut rig, attempt) = Rig::registered(vec![], vec![]);
    rig.take();
    let secret = Arc::new(Secret {
        id: "secret0000000000000000001".parse().unwrap(),
        meta: Meta::default(),
        spec: SecretSpec::default(),
        is_internal: false,
    });
    let given = AssignmentChange::UpdateSecret(Arc::clone(&secret));
    let changes = vec![update(1, TaskState::Running), given];
    rig.assign(attempt, AssignmentsKind::Complete, (0, 1), changes);
    let supply = |out: &[Effect]| {
        let mut effects = out.iter().enumerate();
        effects.find_map(|(index, effect)| match effect {
            Effect::Supply(supplies) => Some((index, supplies.clone())),
            _ => None,
        })
    };
    let (index, supplies) = supply(&rig.out).unwrap();
    assert!(supplies.is_complete && supplies.secrets == [Arc::clone(&secret)]);
    let run = rig
        .out
        .iter()
        .position(|it| matches!(it, Effect::Run { .. }));
    assert!(run.is_some_and(|run| index < run));
    rig.take();
    let gone = vec![AssignmentChange::RemoveSecret(secret.id)];
    rig.assign(attempt, AssignmentsKind::Incremental, (1, 2), gone);
    let (_, supplies) = supply(&rig.out).unwrap();
    assert!(!supplies.is_complete && supplies.gone_secrets == [secret.id]);
}

#[test]
fn a_repeated_message_is_applied_once() {
    let (mut rig, attempt) = Rig::registered(vec![], vec![]);
    rig.assign(
        attempt,
        AssignmentsKind::Complete,
        (0, 1),
        vec![update(1, TaskState::Running)],
    );
    rig.take();
    rig.assign(attempt, AssignmentsKind::Complete, (0, 1), vec![]);
    assert_eq!(rig.take(), [], "an older set must not remove the task");
    let changes = vec![AssignmentChange::RemoveTask(task_id(1))];
    rig.assign(attempt, AssignmentsKind::Incremental, (0, 1), changes);
    assert_eq!(rig.take(), []);
}

#[test]
fn a_gap_in_the_assignments_ends_the_session() {
    for (kind, from, to) in [
        (AssignmentsKind::Incremental, 0, 1),
        (AssignmentsKind::Incremental, 4, 5),
    ] {
        let (mut rig, attempt) = Rig::registered(vec![], vec![]);
        rig.take();
        rig.assign(
            attempt,
            kind,
            (from, to),
            vec![update(1, TaskState::Running)],
        );
        assert!(rig.out.contains(&Effect::CloseSession(attempt)));
        assert_eq!(runs(&rig.out), [], "the change is not applied");
    }
}

#[test]
fn answers_to_an_earlier_attempt_are_dropped() {
    let (mut rig, attempt) = Rig::registered(vec![], vec![]);
    rig.handle(Event::SessionEnded {
        attempt,
        error: lost(),
    });
    rig.tick();
    let expected_state = rig.core.next_deadline();
    rig.take();
    rig.message(attempt, session_id(9));
    rig.assign(
        attempt,
        AssignmentsKind::Complete,
        (0, 1),
        vec![update(1, TaskState::Running)],
    );
    rig.handle(Event::StatusesSent {
        attempt,
        result: Err(lost()),
    });
    rig.handle(Event::Heartbeat {
        attempt,
        result: Err(lost()),
    });
    rig.handle(Event::SessionEnded {
        attempt,
        error: lost(),
    });
    assert_eq!(rig.take(), []);
    assert_eq!(rig.core.next_deadline(), expected_state);
}

#[test]
fn tasks_missing_from_a_complete_set_are_stopped_deleted_and_forgotten() {
    let (mut rig, attempt) = Rig::registered(vec![stored(1, TaskState::Running)], vec![task_id(7)]);
    rig.done(1, Op::Resolve);
    rig.take();
    rig.assign(attempt, AssignmentsKind::Complete, (0, 1), vec![]);
    assert!(
        rig.out
            .contains(&Effect::Persist(Change::Unassign(task_id(1))))
    );
    assert!(rig.out.contains(&Effect::Cancel(task_id(1))));
    assert!(rig.out.contains(&Effect::RemoveOrphan(task_id(7))));
    let outcome = Outcome::bare(OpResult::Cancelled);
    rig.handle(Event::OpDone {
        task: task_id(1),
        op: Op::Wait { is_ready: true },
        outcome,
    });
    rig.done(1, Op::Shutdown);
    rig.take();
    rig.done(1, Op::Remove);
    assert_eq!(rig.take(), [Effect::Persist(Change::Forget(task_id(1)))]);
    assert_eq!(rig.core.tasks().count(), 0);
}

#[test]
fn a_container_whose_record_is_lost_is_adopted_when_its_task_is_assigned() {
    let (mut rig, attempt) = Rig::registered(vec![], vec![task_id(1)]);
    rig.take();
    rig.assign(
        attempt,
        AssignmentsKind::Complete,
        (0, 1),
        vec![update(1, TaskState::Running)],
    );
    assert!(
        !rig.out
            .iter()
            .any(|effect| matches!(effect, Effect::RemoveOrphan(_)))
    );
    assert_eq!(runs(&rig.out), [(task_id(1), Op::Resolve)]);
}

#[test]
fn a_removal_goes_on_after_a_restart() {
    let record = StoredTask {
        is_assigned: false,
        ..stored(1, TaskState::Running)
    };
    let mut rig = Rig::new(vec![record], vec![task_id(1)]);
    for op in [Op::Resolve, Op::Shutdown, Op::Remove] {
        assert_eq!(runs(&rig.take()), [(task_id(1), op)]);
        rig.done(1, op);
    }
    assert_eq!(rig.take(), [Effect::Persist(Change::Forget(task_id(1)))]);
}

#[test]
fn an_unchanged_assignment_is_not_stored_again() {
    let (mut rig, attempt) = Rig::registered(vec![], vec![]);
    rig.assign(
        attempt,
        AssignmentsKind::Complete,
        (0, 1),
        vec![update(1, TaskState::Running)],
    );
    rig.take();
    let changes = vec![update(1, TaskState::Running)];
    rig.assign(attempt, AssignmentsKind::Incremental, (1, 2), changes);
    assert_eq!(rig.take(), []);
    let changes = vec![update(1, TaskState::Shutdown)];
    rig.assign(attempt, AssignmentsKind::Incremental, (2, 3), changes);
    let stored = Effect::Persist(Change::Task(task(1, TaskState::Shutdown)));
    assert_eq!(rig.take(), [stored]);
}

#[test]
fn statuses_go_at_once_and_coalesce_while_a_report_is_under_way() {
    let (mut rig, attempt) = Rig::registered(vec![], vec![]);
    rig.assign(
        attempt,
        AssignmentsKind::Complete,
        (0, 1),
        vec![update(1, TaskState::Running)],
    );
    rig.take();
    rig.done(1, Op::Resolve);
    let first = sent(&rig.take());
    assert_eq!(first[0].updates[0].1.state, TaskState::Preparing);
    rig.done(1, Op::Prepare);
    rig.done(1, Op::Start);
    assert_eq!(sent(&rig.take()), []);
    rig.handle(Event::StatusesSent {
        attempt,
        result: Ok(()),
    });
    let second = sent(&rig.take());
    assert_eq!(second.len(), 1);
    assert_eq!(second[0].updates.len(), 1);
    assert_eq!(second[0].updates[0].1.state, TaskState::Running);
}

#[test]
fn leaving_kills_and_forgets_everything() {
    let (mut rig, attempt) = Rig::registered(vec![stored(1, TaskState::Running)], vec![task_id(7)]);
    rig.take();
    rig.handle(Event::Leave);
    assert!(rig.out.contains(&Effect::CloseSession(attempt)));
    assert!(rig.out.contains(&Effect::RemoveOrphan(task_id(7))));
    for op in [Op::Resolve, Op::Terminate, Op::Remove] {
        assert!(!rig.out.contains(&Effect::Left));
        rig.done(1, op);
    }
    assert_eq!(rig.out.last(), Some(&Effect::Left));
    assert_eq!(rig.core.next_deadline(), None);
}
