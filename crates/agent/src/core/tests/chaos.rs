//! Random runs against a lossy dispatcher and a moody executor, which must converge once faults stop.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use skep_model::{
    Rng, Task, TaskId, TaskState,
    dispatch::{
        AssignmentChange, AssignmentSequence, AssignmentsKind, AssignmentsMessage,
        HeartbeatResponse, SessionMessage,
    },
};

use super::{PERIOD, Rig, description, lost, session_id, task, task_id};
use crate::{
    core::{Attempt, Effect, Event},
    exec::{ControllerError, Op, OpResult, Outcome},
};

/// A dispatcher and an executor that answer late, twice, or not at all, as `rng` decides.
struct Chaos {
    rng: Rng,
    rig: Rig,
    assigned: BTreeMap<TaskId, Arc<Task>>,
    attempt: Option<Attempt>,
    sequence: u64,
    in_flight: BTreeMap<TaskId, Op>,
    waiting: Vec<Event>,
    reported: BTreeMap<TaskId, TaskState>,
    is_faulty: bool,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::from_seed(seed);
        let assigned = (1..=1 + rng.below(4))
            .map(|number| (task_id(number), task(number, TaskState::Running)))
            .collect();
        Self {
            rig: Rig::new(vec![], vec![]),
            rng,
            assigned,
            attempt: None,
            sequence: 0,
            in_flight: BTreeMap::new(),
            waiting: Vec::new(),
            reported: BTreeMap::new(),
            is_faulty: true,
        }
    }

    fn step(&mut self) {
        for effect in self.rig.take() {
            self.perform(effect);
        }
        if self.is_faulty && self.rng.percent(10) {
            self.break_something();
        }
        if self.waiting.is_empty() {
            if self.rig.core.next_deadline().is_some() {
                self.rig.tick();
            }
            return;
        }
        let count = u64::try_from(self.waiting.len()).unwrap();
        let index = usize::try_from(self.rng.below(count)).unwrap();
        let event = if self.is_faulty && self.rng.percent(10) {
            self.waiting[index].clone()
        } else {
            self.waiting.remove(index)
        };
        if let Event::OpDone { task, op, .. } = &event
            && self.in_flight.get(task) == Some(op)
        {
            self.in_flight.remove(task);
        }
        self.rig.handle(event);
    }

    fn break_something(&mut self) {
        if let Some(attempt) = self.attempt
            && self.rng.percent(50)
        {
            self.waiting.push(Event::SessionEnded {
                attempt,
                error: lost(),
            });
        } else if self.rng.percent(50) {
            let ids: Vec<_> = self.assigned.keys().copied().collect();
            let Some(id) = ids.first() else { return };
            self.assigned.remove(id);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Describe => self.answer(Event::Described(Some(description("a")))),
            Effect::OpenSession { attempt, .. } => {
                self.attempt = Some(attempt);
                self.sequence = 0;
                let message = SessionMessage {
                    session_id: session_id(attempt.0),
                    node: None,
                    managers: Vec::new(),
                    network_bootstrap_keys: Vec::new(),
                    root_ca: Vec::new(),
                };
                self.answer(Event::Session { attempt, message });
            }
            Effect::OpenAssignments { attempt, .. } => self.send_assignments(attempt),
            Effect::CloseSession(_) => self.attempt = None,
            Effect::SendHeartbeat { attempt, .. } => {
                let result = Ok(HeartbeatResponse { period: PERIOD });
                self.answer(Event::Heartbeat { attempt, result });
            }
            Effect::SendStatuses { attempt, update } => {
                for (id, status) in update.updates {
                    let known = self.reported.entry(id).or_default();
                    *known = status.state.max(*known);
                }
                self.answer(Event::StatusesSent {
                    attempt,
                    result: Ok(()),
                });
            }
            Effect::Run { task, op } => {
                assert_eq!(
                    self.in_flight.insert(task.id, op),
                    None,
                    "one operation per task"
                );
                // A container that runs does not end, so `Wait` ends only by cancellation.
                if !matches!(op, Op::Wait { .. }) {
                    let result = if self.is_faulty && self.rng.percent(20) {
                        OpResult::Failed(ControllerError::Temporary("later".to_owned()))
                    } else {
                        OpResult::Done
                    };
                    let outcome = Outcome::bare(result);
                    self.waiting.push(Event::OpDone {
                        task: task.id,
                        op,
                        outcome,
                    });
                }
            }
            Effect::Cancel(task) => {
                let op = self.in_flight[&task];
                self.waiting.retain(
                    |event| !matches!(event, Event::OpDone { task: id, .. } if *id == task),
                );
                let outcome = Outcome::bare(OpResult::Cancelled);
                self.waiting.push(Event::OpDone { task, op, outcome });
            }
            Effect::Persist(_)
            | Effect::Configure(_)
            | Effect::Supply(_)
            | Effect::ManagersChanged(_)
            | Effect::RemoveOrphan(_)
            | Effect::Left => {}
        }
    }

    fn send_assignments(&mut self, attempt: Attempt) {
        self.sequence += 1;
        let message = AssignmentsMessage {
            kind: AssignmentsKind::Complete,
            applies_to: AssignmentSequence(self.sequence - 1),
            results_in: AssignmentSequence(self.sequence),
            changes: self
                .assigned
                .values()
                .cloned()
                .map(AssignmentChange::UpdateTask)
                .collect(),
        };
        self.answer(Event::Assignments { attempt, message });
    }

    /// Faulty links lose one answer in five.
    fn answer(&mut self, event: Event) {
        let is_loss = !matches!(event, Event::Described(_));
        if !(is_loss && self.is_faulty && self.rng.percent(20)) {
            self.waiting.push(event);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn agents_converge_once_faults_stop(seed in any::<u64>()) {
        let mut chaos = Chaos::new(seed);
        for _ in 0..200 {
            chaos.step();
        }
        chaos.is_faulty = false;
        if let Some(attempt) = chaos.attempt {
            // The dispatcher restarts, so that the newest set is sent.
            chaos.waiting.push(Event::SessionEnded { attempt, error: lost() });
        }
        for _ in 0..300 {
            chaos.step();
            prop_assert_eq!(chaos.rig.core.validate(), Ok(()));
        }
        let states: BTreeMap<_, _> =
            chaos.rig.core.tasks().map(|task| (task.id(), task.status().state)).collect();
        let expect: BTreeMap<_, _> =
            chaos.assigned.keys().map(|id| (*id, TaskState::Running)).collect();
        prop_assert_eq!(&states, &expect);
        for id in chaos.assigned.keys() {
            prop_assert_eq!(chaos.reported.get(id), Some(&TaskState::Running));
        }
    }
}
