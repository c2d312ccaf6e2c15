//! The deadline of an update: a new task that has not run by then has failed.
//!
//! Swarm waits for ever for a task that finds no node, or whose image never comes. Here such a task
//! is rejected, with what it was waiting for in its error, and counts like one that ended
//! early: the failure action follows, or the worker goes on to the next slot. It is the observed
//! state that is written, as for evicted tasks, so that the restart policy applies.

use std::{sync::Arc, time::Duration};

use skep_model::{
    Task, TaskState, Timestamp,
    reserved::service::rollout::{self, RolloutPolicy},
};

use super::{Touched, Update};
use crate::{
    depends,
    plan::{Change, Plan},
    revision::{is_live, status_time},
};

/// Message of a task that has not run by the deadline.
const OVERDUE_MESSAGE: &str = "update deadline exceeded";

impl<'a> Update<'a> {
    /// Rejects new tasks that should have run by now.
    pub(super) fn fail_overdue(&self, now: Timestamp, plan: &mut Plan) {
        let Some(deadline) = self.deadline() else {
            return;
        };
        for touched in &self.touched {
            for task in self.pending(touched) {
                let due = self.counts_from(task) + deadline;
                if now < due {
                    plan.wake_by(due);
                } else {
                    plan.changes.push(reject(task, deadline, now));
                }
            }
        }
    }

    /// When a slot that has no new task running will have failed.
    pub(super) fn due(&self, touched: &Touched<'_>) -> Option<Timestamp> {
        let deadline = self.deadline()?;
        let pending = self.pending(touched);
        pending.map(|task| self.counts_from(task) + deadline).min()
    }

    /// When the time of a task began. That of one which waited for other services began anew with
    /// each of its states.
    fn counts_from(&self, task: &Task) -> Timestamp {
        let created_at = task.meta.created_at;
        if depends::waits(&self.service.spec) {
            created_at.max(status_time(task))
        } else {
            created_at
        }
    }

    /// None while the service waits for others.
    fn deadline(&self) -> Option<Duration> {
        if depends::is_yet_to_start(self.view, self.service) {
            return None;
        }
        RolloutPolicy::of(&self.service.spec.annotations.labels).update_deadline
    }

    /// New tasks of a slot in which none has run or ended yet.
    fn pending<'t>(&self, touched: &'t Touched<'a>) -> impl Iterator<Item = &'a Arc<Task>> + 't {
        let is_waited_for = self.released_at(touched).is_none();
        let new = touched.new.iter().copied();
        new.filter(move |task| is_waited_for && is_live(task))
    }
}

/// Whether the task was rejected for the deadline.
pub(super) fn is_overdue(task: &Task) -> bool {
    task.status.state == TaskState::Rejected && task.status.message == OVERDUE_MESSAGE
}

/// Why the update failed: Swarm's words, and why the task did.
pub(super) fn because(culprit: &Task) -> String {
    let swarms = format!("due to failure or early termination of task {}", culprit.id);
    match rollout::cause(culprit).as_str() {
        "" => swarms,
        cause => format!("{swarms}: {cause}"),
    }
}

fn reject(task: &Task, deadline: Duration, now: Timestamp) -> Change {
    let (state, err) = (task.status.state, &task.status.err);
    let reason = match err.as_str() {
        "" => format!("still {state}"),
        err => format!("still {state}, {err}"),
    };
    let mut task = task.clone();
    let deadline = skep_model::reserved::go_duration_text(deadline);
    task.status.err = format!("not running within the update deadline of {deadline}: {reason}");
    task.status.state = TaskState::Rejected;
    OVERDUE_MESSAGE.clone_into(&mut task.status.message);
    task.status.timestamp = now;
    task.status.applied_at = Some(now);
    Change::UpdateTask(Arc::new(task))
}
