//! The restart policy: whether an ended task is replaced, and when the replacement starts.
//!
//! Everything is read from the tasks of the slot. A replacement is created at once with desired
//! state READY, so that the node can prepare it, and told to run when its delay is over and the
//! task before it has stopped. How often a slot failed quickly is noted on each replacement. See
//! `docs/design/orchestration.md`, "Restarts".

use std::{sync::Arc, time::Duration};

use skep_model::{
    Availability, NodeState, RestartCondition, Task, TaskId, TaskState, Timestamp,
    reserved::{service::rollout, task::moved_by},
};
use skep_store::Store;

use crate::{
    node::EVICTED_MESSAGE,
    revision::{has_ended_by_itself, is_gone, node_of, repeats, status_time},
};

/// How long a replacement waits for the task before it to stop. As in Swarm: a task that does not
/// stop (node gone silent) must not keep the slot down for ever; the cost is two tasks at once.
pub(crate) const OLD_TASK_TIMEOUT: Duration = Duration::from_secs(60);

/// When a task with desired state READY may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// At once.
    Now,
    /// When the restart delay is over.
    AfterDelay(Timestamp),
    /// When the named task has stopped, or at the time.
    AfterStop(TaskId, Timestamp),
}

/// Whether the policy of `task` asks for a replacement once it has ended, given all tasks of its
/// slot.
pub(crate) fn should_restart(task: &Task, slot: &[&Arc<Task>]) -> bool {
    let policy = &task.spec.restart;
    match policy.condition {
        RestartCondition::None => return false,
        RestartCondition::OnFailure if task.status.state == TaskState::Complete => return false,
        RestartCondition::OnFailure | RestartCondition::Any => {}
    }
    // Attempts are for tasks that end by themselves; losing a node is nobody's attempt.
    policy.max_attempts == 0
        || !has_ended_by_itself(task)
        || restart_count(task, slot) < policy.max_attempts
}

/// Whether all attempts the policy allows are used up; other policies may leave it ended, too.
pub(crate) fn is_exhausted(task: &Task, slot: &[&Arc<Task>]) -> bool {
    let policy = &task.spec.restart;
    let wants_more = match policy.condition {
        RestartCondition::None => false,
        RestartCondition::OnFailure => task.status.state != TaskState::Complete,
        RestartCondition::Any => true,
    };
    wants_more && !should_restart(task, slot)
}

/// How many tasks in a row have failed quickly when `old` has ended and is followed by one of the
/// same spec. What ends well, was evicted or is lost with its node has not failed.
pub(crate) fn failures_after(old: &Task) -> u32 {
    let has_failed = match old.status.state {
        TaskState::Failed => true,
        TaskState::Rejected => old.status.message != EVICTED_MESSAGE,
        TaskState::New
        | TaskState::Pending
        | TaskState::Assigned
        | TaskState::Accepted
        | TaskState::Preparing
        | TaskState::Ready
        | TaskState::Starting
        | TaskState::Running
        | TaskState::Complete
        | TaskState::Shutdown
        | TaskState::Remove
        | TaskState::Orphaned => false,
    };
    let failures = rollout::failures_before(old);
    // The first task of a revision waits for nothing, so this is at most too late.
    let delay = if failures == 0 {
        Duration::ZERO
    } else {
        rollout::restart_delay(old)
    };
    let lived = status_time(old).since(old.meta.created_at + delay);
    if has_failed && lived < delay.max(rollout::QUICK_FAILURE) {
        failures.saturating_add(1)
    } else {
        0
    }
}

/// Which attempt the task that follows `old` is, where that is noted with it: attempts without a window are not counted from
/// history, which would have to be as long.
pub(crate) fn attempt_after(old: &Task, slot: &[&Arc<Task>], new: &Task) -> Option<u64> {
    let policy = &new.spec.restart;
    if policy.max_attempts == 0 || !policy.window.is_zero() {
        return None;
    }
    let is_attempt = has_ended_by_itself(old);
    (old.spec_version == new.spec_version)
        .then(|| restart_count(old, slot).saturating_add(u64::from(is_attempt)))
}

/// Restarts that led to `task`: tasks of its revision that followed one which ended by itself.
/// With a window, those created within it before the task ended.
fn restart_count(task: &Task, slot: &[&Arc<Task>]) -> u64 {
    if task.spec.restart.window.is_zero()
        && let Some(attempt) = rollout::attempt(task)
    {
        return attempt;
    }
    let mut earlier: Vec<&Task> = slot
        .iter()
        .map(|other| other.as_ref())
        .filter(|other| order(other) <= order(task))
        .collect();
    earlier.sort_by_key(|other| order(other));
    // A rollback brings a version back; only the last unbroken run of it is this revision.
    let run: Vec<&Task> = earlier
        .into_iter()
        .rev()
        .take_while(|other| other.spec_version == task.spec_version)
        .collect();
    let window = task.spec.restart.window;
    let ended_at = status_time(task);
    let count = run
        .iter()
        .zip(run.iter().skip(1))
        .filter(|(_, before)| has_ended_by_itself(before))
        .filter(|(other, _)| window.is_zero() || ended_at.since(other.meta.created_at) < window)
        .count();
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Tasks of a slot in the order they were made.
pub(crate) fn order(task: &Task) -> (Timestamp, TaskId) {
    (task.meta.created_at, task.id)
}

/// When `task`, whose desired state is READY, may run.
pub(crate) fn start_of(view: &Store, task: &Task, slot: &[&Arc<Task>], now: Timestamp) -> Start {
    let created_at = task.meta.created_at;
    let earlier = || {
        let others = slot.iter().filter(|other| {
            other.id != task.id
                && other.meta.created_at <= created_at
                && other.desired_state > TaskState::Running
        });
        others.map(|other| other.as_ref())
    };
    let delay = earlier()
        .max_by_key(|other| order(other))
        .map_or(Duration::ZERO, |old| delay_after(view, old, task));
    let due = created_at + delay;
    if now < due {
        return Start::AfterDelay(due);
    }
    let stop_due = created_at + delay.max(OLD_TASK_TIMEOUT);
    match earlier().find(|old| is_stopping(view, old)) {
        Some(old) if now < stop_due => Start::AfterStop(old.id, stop_due),
        Some(_) | None => Start::Now,
    }
}

/// The restart delay between `old` and the task that followed it, longer in a crash loop. None when `old` lost its node,
/// and none between revisions: the delay is there to slow a failing revision down, not to slow an
/// update, and not to make a machine's failure last longer.
pub(crate) fn delay_after(view: &Store, old: &Task, new: &Task) -> Duration {
    let node = node_of(view, old);
    let is_drained = node.is_some_and(|node| node.spec.availability == Availability::Drain);
    let is_lost = old.node_id.is_some() && is_gone(node) && !has_ended_by_itself(old);
    // Scaling makes a new version, too, but of the same task.
    let is_move = moved_by(new) == Some(old.id);
    if is_drained || is_lost || is_move || !repeats(old, new) {
        Duration::ZERO
    } else {
        rollout::restart_delay(new)
    }
}

/// Whether a task told to stop may still be running somewhere that will report its end.
fn is_stopping(view: &Store, task: &Task) -> bool {
    (TaskState::Assigned..=TaskState::Running).contains(&task.status.state)
        && node_of(view, task).is_some_and(|node| node.status.state != NodeState::Down)
}
