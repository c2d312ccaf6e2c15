//! Every state × desired state × outcome against Swarm's rules, and random runs against invariants.

use std::sync::Arc;

use proptest::prelude::*;
use skep_model::{
    Annotations, ContainerStatus, Id, Meta, Rng, Task, TaskId, TaskSpec, TaskState, TaskStatus,
    Timestamp,
};

use super::{Effect, Event, RETRY_DELAY, TaskMachine};
use crate::exec::{ControllerError, Op, OpResult, Outcome};

const NOW: Timestamp = Timestamp(1_000);

fn task(desired_state: TaskState) -> Arc<Task> {
    Arc::new(Task {
        id: TaskId(Id::random(&mut Rng::from_seed(1))),
        meta: Meta::default(),
        spec: Arc::new(TaskSpec::default()),
        spec_version: None,
        service_id: None,
        slot: 1,
        node_id: None,
        annotations: Arc::new(Annotations::default()),
        service_annotations: Arc::new(Annotations::default()),
        status: TaskStatus::default(),
        desired_state,
        endpoint: None,
        log_driver: None,
        networks: Vec::new(),
        assigned_generic_resources: Vec::new(),
        job_iteration: None,
    })
}

/// A machine in `state` whose controller is known, with the effects since.
fn resolved(state: TaskState, desired: TaskState) -> (TaskMachine, Vec<Effect>) {
    let status = TaskStatus {
        state,
        message: "before".to_owned(),
        ..TaskStatus::default()
    };
    let mut machine = TaskMachine::new(task(desired), status);
    let mut out = Vec::new();
    machine.start(NOW, &mut out);
    if machine.running_op() == Some(Op::Resolve) {
        out.clear();
        done(&mut machine, Op::Resolve, OpResult::Done, &mut out);
    }
    (machine, out)
}

fn done(machine: &mut TaskMachine, op: Op, result: OpResult, out: &mut Vec<Effect>) {
    machine.handle(
        NOW,
        Event::Done {
            op,
            outcome: Outcome::bare(result),
        },
        out,
    );
}

fn messages(effects: &[Effect]) -> Vec<(TaskState, &str)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Status(status) => Some((status.state, status.message.as_str())),
            Effect::Run { .. } | Effect::Cancel | Effect::Removed => None,
        })
        .collect()
}

fn exit(code: i32) -> OpResult {
    OpResult::Failed(ControllerError::Exited { code, cause: None })
}

fn fatal() -> OpResult {
    OpResult::Failed(ControllerError::Fatal("no such image".to_owned()))
}

fn temporary() -> OpResult {
    OpResult::Failed(ControllerError::Temporary("registry is away".to_owned()))
}

#[test]
fn a_task_that_runs_to_its_end_shows_swarms_messages() {
    let mut machine = TaskMachine::new(
        task(TaskState::Running),
        TaskStatus {
            state: TaskState::Assigned,
            ..TaskStatus::default()
        },
    );
    let mut out = Vec::new();
    machine.start(NOW, &mut out);
    for op in [
        Op::Resolve,
        Op::Prepare,
        Op::Start,
        Op::Wait { is_ready: true },
    ] {
        assert_eq!(machine.running_op(), Some(op));
        done(&mut machine, op, OpResult::Done, &mut out);
    }
    assert_eq!(
        messages(&out),
        [
            (TaskState::Accepted, "accepted"),
            (TaskState::Preparing, "preparing"),
            (TaskState::Ready, "prepared"),
            (TaskState::Starting, "starting"),
            (TaskState::Running, "started"),
            (TaskState::Complete, "finished"),
        ]
    );
    assert_eq!(machine.running_op(), None);
}

/// The operation Swarm's rules call for, written down state by state rather than computed.
fn expected_op(state: TaskState, desired: TaskState) -> Option<Op> {
    use TaskState::{
        Accepted, Assigned, Complete, New, Pending, Preparing, Ready, Running, Starting,
    };
    let is_stopping = desired >= TaskState::Shutdown;
    match state {
        New | Pending | Assigned | Accepted => match desired {
            _ if is_stopping => Some(Op::Shutdown),
            Preparing | Ready | Starting | Running | Complete => Some(Op::Prepare),
            _ => None,
        },
        Preparing if is_stopping => Some(Op::Shutdown),
        Preparing => (desired >= Preparing).then_some(Op::Prepare),
        Ready => match desired {
            _ if is_stopping => Some(Op::Shutdown),
            Starting | Running | Complete => Some(Op::Start),
            _ => None,
        },
        Starting if is_stopping => Some(Op::Shutdown),
        Starting => (desired >= Starting).then_some(Op::Start),
        Running if is_stopping => Some(Op::Shutdown),
        Running => (desired >= Running).then_some(Op::Wait { is_ready: true }),
        _ => None,
    }
}

#[test]
fn every_state_and_desired_state_gives_swarms_operation() {
    for state in TaskState::ALL {
        for desired in TaskState::ALL {
            let (machine, _) = resolved(state, desired);
            assert_eq!(
                machine.running_op(),
                expected_op(state, desired),
                "{state} -> {desired}"
            );
        }
    }
}

#[test]
fn every_failure_rejects_before_starting_and_fails_afterwards() {
    for state in TaskState::ALL {
        for desired in TaskState::ALL {
            let (mut machine, _) = resolved(state, desired);
            let Some(op) = machine.running_op() else {
                continue;
            };
            let at_op = machine.status().state;
            let mut out = Vec::new();
            done(&mut machine, op, fatal(), &mut out);
            let expect = if at_op < TaskState::Starting {
                TaskState::Rejected
            } else {
                TaskState::Failed
            };
            assert_eq!(
                machine.status().state,
                expect,
                "{state} -> {desired}, {op:?}"
            );
            assert_eq!(machine.status().err, "no such image");
            assert_eq!(machine.running_op(), None);
        }
    }
}

#[test]
fn every_temporary_failure_is_shown_and_retried_after_a_second() {
    for state in TaskState::ALL {
        for desired in TaskState::ALL {
            let (mut machine, _) = resolved(state, desired);
            let Some(op) = machine.running_op() else {
                continue;
            };
            let at_op = machine.status().state;
            let mut out = Vec::new();
            done(&mut machine, op, temporary(), &mut out);
            assert_eq!(
                (machine.status().state, machine.running_op()),
                (at_op, None)
            );
            assert_eq!(machine.status().err, "registry is away");
            assert_eq!(machine.next_deadline(), Some(NOW + RETRY_DELAY));
            machine.handle(NOW + RETRY_DELAY, Event::Tick, &mut out);
            assert_eq!(machine.running_op(), Some(op), "{state} -> {desired}");
        }
    }
}

#[test]
fn already_done_counts_as_success() {
    let (mut machine, mut out) = resolved(TaskState::Preparing, TaskState::Running);
    let prepared = OpResult::Failed(ControllerError::AlreadyPrepared);
    done(&mut machine, Op::Prepare, prepared, &mut out);
    let started = OpResult::Failed(ControllerError::AlreadyStarted);
    done(&mut machine, Op::Start, started, &mut out);
    assert_eq!(machine.running_op(), Some(Op::Wait { is_ready: true }));
    assert_eq!(machine.status().state, TaskState::Running);
}

#[test]
fn readiness_is_told_while_the_task_goes_on() {
    let (mut machine, _) = resolved(TaskState::Starting, TaskState::Running);
    let mut out = Vec::new();
    done(&mut machine, Op::Start, OpResult::Done, &mut out);
    out.clear();
    let later = NOW + RETRY_DELAY;
    let turn = |machine: &mut TaskMachine, is_ready: bool, why: Option<&str>| {
        let mut out = Vec::new();
        let result = OpResult::Turned(why.map(str::to_owned));
        let outcome = Outcome::bare(result);
        let op = Op::Wait { is_ready };
        machine.handle(later, Event::Done { op, outcome }, &mut out);
        assert_eq!(out.len(), 2, "{out:?}");
        let status = machine.status().clone();
        // It runs since then, whatever happened to it meanwhile.
        assert_eq!((status.state, status.timestamp), (TaskState::Running, NOW));
        assert_eq!(out[0], Effect::Status(status.clone()));
        (status.message, status.err)
    };
    let told = turn(&mut machine, true, Some("not ready (1)"));
    assert_eq!(told, ("not ready".to_owned(), "not ready (1)".to_owned()));
    assert_eq!(machine.running_op(), Some(Op::Wait { is_ready: false }));

    let mut again = TaskMachine::new(task(TaskState::Running), machine.status().clone());
    let mut out = Vec::new();
    again.start(later, &mut out);
    done(&mut again, Op::Resolve, OpResult::Done, &mut out);
    assert_eq!(again.running_op(), Some(Op::Wait { is_ready: false }));

    let told = turn(&mut machine, false, None);
    assert_eq!(told, ("started".to_owned(), String::new()));
    assert_eq!(machine.running_op(), Some(Op::Wait { is_ready: true }));
}

#[test]
fn an_exit_code_reaches_error_and_container() {
    let (mut machine, mut out) = resolved(TaskState::Running, TaskState::Running);
    let container = ContainerStatus {
        container_id: "c1".to_owned(),
        pid: 0,
        exit_code: 0,
    };
    let outcome = Outcome {
        result: exit(3),
        container: Some(container),
        ports: Vec::new(),
    };
    machine.handle(
        NOW,
        Event::Done {
            op: Op::Wait { is_ready: true },
            outcome,
        },
        &mut out,
    );
    let status = machine.status();
    assert_eq!(status.state, TaskState::Failed);
    assert_eq!(status.err, "task: non-zero exit (3)");
    let container = status.container.as_ref().unwrap();
    assert_eq!(
        (container.container_id.as_str(), container.exit_code),
        ("c1", 3)
    );
}

#[test]
fn the_container_is_shown_from_starting_on() {
    let (mut machine, _) = resolved(TaskState::Preparing, TaskState::Running);
    let container = ContainerStatus {
        container_id: "c1".to_owned(),
        pid: 0,
        exit_code: 0,
    };
    let outcome = Outcome {
        result: OpResult::Done,
        container: Some(container.clone()),
        ports: Vec::new(),
    };
    let mut out = Vec::new();
    machine.handle(
        NOW,
        Event::Done {
            op: Op::Prepare,
            outcome,
        },
        &mut out,
    );
    let shown: Vec<_> = out
        .iter()
        .filter_map(|effect| match effect {
            Effect::Status(status) => Some((status.state, status.container.clone())),
            Effect::Run { .. } | Effect::Cancel | Effect::Removed => None,
        })
        .collect();
    assert_eq!(
        shown,
        [
            (TaskState::Ready, None),
            (TaskState::Starting, Some(container))
        ]
    );
}

#[test]
fn a_task_wanted_ready_waits_until_it_is_wanted_running() {
    let (mut machine, mut out) = resolved(TaskState::Assigned, TaskState::Ready);
    done(&mut machine, Op::Prepare, OpResult::Done, &mut out);
    assert_eq!(
        (machine.status().state, machine.running_op()),
        (TaskState::Ready, None)
    );
    machine.handle(NOW, Event::Update(task(TaskState::Running)), &mut out);
    assert_eq!(machine.running_op(), Some(Op::Update));
    done(&mut machine, Op::Update, OpResult::Done, &mut out);
    assert_eq!(machine.running_op(), Some(Op::Start));
}

#[test]
fn shutdown_cancels_whatever_runs() {
    for (state, op) in [
        (TaskState::Preparing, Op::Prepare),
        (TaskState::Starting, Op::Start),
        (TaskState::Running, Op::Wait { is_ready: true }),
    ] {
        let (mut machine, _) = resolved(state, TaskState::Running);
        let mut out = Vec::new();
        machine.handle(NOW, Event::Update(task(TaskState::Shutdown)), &mut out);
        assert_eq!(out, [Effect::Cancel]);
        assert_eq!(machine.running_op(), Some(op), "one operation at a time");
        done(&mut machine, op, OpResult::Cancelled, &mut out);
        assert_eq!(machine.running_op(), Some(Op::Shutdown));
        done(&mut machine, Op::Shutdown, OpResult::Done, &mut out);
        assert_eq!(machine.status().state, TaskState::Shutdown);
        assert_eq!(machine.status().message, "shutdown");
    }
}

#[test]
fn a_new_policy_of_the_service_reaches_a_shutdown_under_way() {
    let (mut machine, _) = resolved(TaskState::Running, TaskState::Shutdown);
    assert_eq!(machine.running_op(), Some(Op::Shutdown));
    let mut out = Vec::new();
    machine.handle(NOW, Event::Update(task(TaskState::Remove)), &mut out);
    assert_eq!(out, [], "it ends anyway");
    let mut newer = Task::clone(&task(TaskState::Remove));
    newer.service_annotations = Arc::new(Annotations {
        name: "other".to_owned(),
        ..Annotations::default()
    });
    machine.handle(NOW, Event::Update(Arc::new(newer)), &mut out);
    assert_eq!(out, [Effect::Cancel]);
    out.clear();
    done(&mut machine, Op::Shutdown, OpResult::Cancelled, &mut out);
    match &out[..] {
        [
            Effect::Run {
                op: Op::Shutdown,
                task,
            },
        ] => {
            assert_eq!(task.service_annotations.name, "other");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_start_that_beats_its_cancellation_counts() {
    let (mut machine, mut out) = resolved(TaskState::Starting, TaskState::Running);
    machine.handle(NOW, Event::Update(task(TaskState::Shutdown)), &mut out);
    done(&mut machine, Op::Start, OpResult::Done, &mut out);
    assert_eq!(machine.status().state, TaskState::Running);
    assert_eq!(machine.running_op(), Some(Op::Shutdown));
}

#[test]
fn the_desired_state_never_falls() {
    let (mut machine, _) = resolved(TaskState::Running, TaskState::Shutdown);
    let mut out = Vec::new();
    machine.handle(NOW, Event::Update(task(TaskState::Running)), &mut out);
    assert_eq!(out, []);
    assert_eq!(machine.task().desired_state, TaskState::Shutdown);
}

#[test]
fn an_update_that_changes_nothing_disturbs_nothing() {
    let (mut machine, _) = resolved(TaskState::Running, TaskState::Running);
    let mut same = Task::clone(&task(TaskState::Running));
    same.status.state = TaskState::Running;
    same.meta.version.0 = 9;
    let mut out = Vec::new();
    machine.handle(NOW, Event::Update(Arc::new(same)), &mut out);
    assert_eq!(
        (out, machine.running_op()),
        (vec![], Some(Op::Wait { is_ready: true }))
    );
}

#[test]
fn an_update_ends_the_pause_before_a_retry() {
    let (mut machine, mut out) = resolved(TaskState::Preparing, TaskState::Running);
    done(&mut machine, Op::Prepare, temporary(), &mut out);
    machine.handle(NOW, Event::Update(task(TaskState::Shutdown)), &mut out);
    assert_eq!(machine.running_op(), Some(Op::Shutdown));
}

#[test]
fn a_task_without_controller_is_rejected() {
    let status = TaskStatus {
        state: TaskState::Assigned,
        ..TaskStatus::default()
    };
    let mut machine = TaskMachine::new(task(TaskState::Running), status);
    let mut out = Vec::new();
    machine.start(NOW, &mut out);
    let unsupported = ControllerError::Unsupported("runtime `plugin`".to_owned());
    done(
        &mut machine,
        Op::Resolve,
        OpResult::Failed(unsupported),
        &mut out,
    );
    assert_eq!(
        messages(&out),
        [(TaskState::Rejected, "resolving controller failed")]
    );
    assert_eq!(machine.status().err, "runtime `plugin` is not supported");
}

#[test]
fn an_ended_task_needs_no_controller_until_it_is_removed() {
    let status = TaskStatus {
        state: TaskState::Failed,
        ..TaskStatus::default()
    };
    let mut machine = TaskMachine::new(task(TaskState::Running), status);
    let mut out = Vec::new();
    machine.start(NOW, &mut out);
    assert_eq!(out, []);
    machine.handle(NOW, Event::Remove { is_forced: false }, &mut out);
    done(&mut machine, Op::Resolve, OpResult::Done, &mut out);
    done(&mut machine, Op::Remove, OpResult::Done, &mut out);
    assert_eq!(out.last(), Some(&Effect::Removed));
}

#[test]
fn removing_a_running_task_stops_it_first_and_retries_deleting() {
    let (mut machine, _) = resolved(TaskState::Running, TaskState::Running);
    let mut out = Vec::new();
    machine.handle(NOW, Event::Remove { is_forced: false }, &mut out);
    done(
        &mut machine,
        Op::Wait { is_ready: true },
        OpResult::Cancelled,
        &mut out,
    );
    done(&mut machine, Op::Shutdown, OpResult::Done, &mut out);
    assert_eq!(machine.running_op(), Some(Op::Remove));
    let mut now = NOW;
    for delay_seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        machine.handle(
            now,
            Event::Done {
                op: Op::Remove,
                outcome: Outcome::bare(fatal()),
            },
            &mut out,
        );
        let at = machine.next_deadline().unwrap();
        assert_eq!((at - now).as_secs(), delay_seconds);
        now = at;
        machine.handle(now, Event::Tick, &mut out);
        assert_eq!(machine.running_op(), Some(Op::Remove));
    }
    assert_eq!(messages(&out), [], "nobody is told about a deleted task");
}

#[test]
fn a_forced_removal_kills_even_during_the_grace_period() {
    let (mut machine, _) = resolved(TaskState::Running, TaskState::Shutdown);
    let mut out = Vec::new();
    machine.handle(NOW, Event::Remove { is_forced: true }, &mut out);
    assert_eq!(out, [Effect::Cancel]);
    done(&mut machine, Op::Shutdown, OpResult::Cancelled, &mut out);
    assert_eq!(machine.running_op(), Some(Op::Terminate));
}

#[test]
fn a_late_answer_of_another_operation_is_ignored() {
    let (mut machine, _) = resolved(TaskState::Running, TaskState::Running);
    let mut out = Vec::new();
    done(&mut machine, Op::Start, fatal(), &mut out);
    assert_eq!((out, machine.status().state), (vec![], TaskState::Running));
}

#[derive(Debug, Clone)]
enum Action {
    Desire(TaskState),
    Remove(bool),
    Finish(u8),
    Wait(u8),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        prop::sample::select(TaskState::ALL.to_vec()).prop_map(Action::Desire),
        any::<bool>().prop_map(Action::Remove),
        any::<u8>().prop_map(Action::Finish),
        any::<u8>().prop_map(Action::Finish),
        any::<u8>().prop_map(Action::Finish),
        (0u8..3).prop_map(Action::Wait),
    ]
}

/// Counts operations in flight from the effects alone and checks what must hold of any run.
#[derive(Default)]
struct Oracle {
    in_flight: Option<Op>,
    state: TaskState,
    is_removed: bool,
}

impl Oracle {
    fn observe(&mut self, effects: &[Effect]) {
        for effect in effects {
            assert!(!self.is_removed, "{effect:?} after the end");
            match effect {
                Effect::Run { op, .. } => {
                    assert_eq!(self.in_flight, None, "{op:?} ordered beside another");
                    self.in_flight = Some(*op);
                }
                Effect::Cancel => assert!(self.in_flight.is_some(), "nothing to cancel"),
                Effect::Status(status) => {
                    assert!(
                        status.state >= self.state,
                        "{} after {}",
                        status.state,
                        self.state
                    );
                    assert!(status.state <= TaskState::Rejected, "not an agent's state");
                    self.state = status.state;
                }
                Effect::Removed => self.is_removed = true,
            }
        }
    }
}

fn result_from(number: u8) -> OpResult {
    match number % 8 {
        0 => exit(1),
        1 => fatal(),
        2 => temporary(),
        3 => OpResult::Cancelled,
        4 => OpResult::Failed(ControllerError::AlreadyStarted),
        _ => OpResult::Done,
    }
}

proptest! {
    #[test]
    fn states_only_grow_and_operations_never_overlap(
        actions in prop::collection::vec(action(), 1..60),
    ) {
        let status = TaskStatus { state: TaskState::Assigned, ..TaskStatus::default() };
        let mut machine = TaskMachine::new(task(TaskState::Ready), status);
        let mut oracle = Oracle::default();
        let (mut now, mut out) = (NOW, Vec::new());
        machine.start(now, &mut out);
        oracle.observe(&out);
        for action in actions {
            out.clear();
            match action {
                Action::Desire(desired) => {
                    machine.handle(now, Event::Update(task(desired)), &mut out);
                }
                Action::Remove(is_forced) => {
                    machine.handle(now, Event::Remove { is_forced }, &mut out);
                }
                Action::Finish(number) => {
                    let Some(op) = oracle.in_flight.take() else { continue };
                    done_at(&mut machine, now, op, result_from(number), &mut out);
                }
                Action::Wait(seconds) => {
                    now = now + RETRY_DELAY * u32::from(seconds);
                    machine.handle(now, Event::Tick, &mut out);
                }
            }
            oracle.observe(&out);
            prop_assert_eq!(oracle.in_flight, machine.running_op());
        }
    }

    /// Whatever happened before, once operations succeed a removed task disappears.
    #[test]
    fn removal_ends_once_operations_succeed(numbers in prop::collection::vec(any::<u8>(), 0..20)) {
        let (mut machine, mut out) = resolved(TaskState::Assigned, TaskState::Running);
        let mut now = NOW;
        for number in numbers {
            let Some(op) = machine.running_op() else { break };
            done_at(&mut machine, now, op, result_from(number), &mut out);
        }
        machine.handle(now, Event::Remove { is_forced: false }, &mut out);
        for _ in 0..8 {
            now = machine.next_deadline().unwrap_or(now);
            machine.handle(now, Event::Tick, &mut out);
            let Some(op) = machine.running_op() else { break };
            done_at(&mut machine, now, op, OpResult::Done, &mut out);
        }
        prop_assert_eq!(out.last(), Some(&Effect::Removed));
    }
}

fn done_at(
    machine: &mut TaskMachine,
    now: Timestamp,
    op: Op,
    result: OpResult,
    out: &mut Vec<Effect>,
) {
    machine.handle(
        now,
        Event::Done {
            op,
            outcome: Outcome::bare(result),
        },
        out,
    );
}
