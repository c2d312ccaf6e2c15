//! Which tasks of a job are kept: runs as a whole up to a limit, and in each place of a run what people
//! and the restart policy need. Completions of runs that are kept stay, as they are counted from tasks.

use std::sync::Arc;

use skep_model::{Service, Task, TaskState, reserved::service::schedule::JobPolicy};
use skep_store::Store;

use super::run::{Run, runs};
use crate::plan::{Change, Plan};

/// `configured` is the cluster's limit, `per_place` what each place of a run keeps.
pub(crate) fn reconcile(
    view: &Store,
    service: &Service,
    configured: usize,
    per_place: usize,
) -> Plan {
    let mut plan = Plan::default();
    let policy = JobPolicy::of(&service.spec.annotations.labels);
    let kept = policy.history.unwrap_or(configured).max(1);
    for (index, run) in runs(view, service).values().rev().enumerate() {
        if index < kept {
            reap(run, per_place.max(2), &mut plan);
        } else if run.has_ended() {
            // Lowest first, each place at once: what is left between two entries is known to be over.
            let places = run.places.values();
            let places = places.map(|tasks| tasks.iter().map(|task| remove(task)).collect());
            plan.changes.extend(places.map(Change::Together));
        }
    }
    plan
}

fn reap(run: &Run<'_>, limit: usize, plan: &mut Plan) {
    // The deadline counts from the first task.
    let first = run.began_at().filter(|_| run.has_wanted());
    for tasks in run.places.values() {
        let excess = tasks.len().saturating_sub(limit);
        let ended = tasks.iter().filter(|task| {
            task.status.state.is_terminal()
                && task.status.state != TaskState::Complete
                && task.desired_state > TaskState::Complete
                && Some(task.meta.created_at) != first
        });
        plan.changes
            .extend(ended.take(excess).map(|task| remove(task)));
    }
}

fn remove(task: &Arc<Task>) -> Change {
    Change::RemoveTask(task.id, task.meta.version)
}
