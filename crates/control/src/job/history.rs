//! Which tasks of a job are kept: runs as a whole up to a limit, and in each place of a run what people
//! and the restart policy need. Completions of runs that are kept stay, as they are counted from tasks.

use std::sync::Arc;

use skep_model::{Service, Slot, Task, TaskState, reserved::service::schedule::JobPolicy};
use skep_store::Store;

use super::run::{Run, place_of, runs};
use crate::{
    key::Key,
    plan::{Change, Plan},
};

/// Tasks of a forgotten run that one plan removes. More would only be cut by the entry's limit.
const REMOVALS_PER_PLAN_MAX: usize = 2000;

/// `configured` is the cluster's limit, `per_place` what each place of a run keeps. With `slot`, of the runs
/// that are kept only that place is looked at.
pub(crate) fn reconcile(
    view: &Store,
    service: &Service,
    slot: Option<Slot>,
    configured: usize,
    per_place: usize,
) -> Plan {
    let mut plan = Plan::default();
    let policy = JobPolicy::of(&service.spec.annotations.labels);
    let kept = policy.history.unwrap_or(configured).max(1);
    let per_place = per_place.max(2);
    for (index, run) in runs(view, service).values().rev().enumerate() {
        if index >= kept && run.has_ended() {
            forget(run, Key::History(service.id, slot), &mut plan);
        } else if index < kept {
            let crowded = |(place, count)| (count > per_place).then_some(place);
            let places: Vec<Slot> = match slot {
                Some(slot) => vec![place_of(service.spec.mode, slot)],
                None => run.places().filter_map(crowded).collect(),
            };
            for place in places {
                reap(run, &run.tasks_in(place), per_place, &mut plan);
            }
        }
    }
    plan
}

/// Lowest first, each place at once: what is left between two entries is known to be over.
fn forget(run: &Run<'_>, key: Key, plan: &mut Plan) {
    let mut room = REMOVALS_PER_PLAN_MAX;
    for (place, count) in run.places() {
        if room == 0 {
            plan.follow_up.push(key);
            return;
        }
        room = room.saturating_sub(count);
        let tasks = run.tasks_in(place);
        let removals = tasks.into_iter().map(remove).collect();
        plan.changes.push(Change::Together(removals));
    }
}

fn reap(run: &Run<'_>, tasks: &[&Arc<Task>], limit: usize, plan: &mut Plan) {
    let excess = tasks.len().saturating_sub(limit);
    if excess == 0 {
        return;
    }
    // The deadline counts from the first task.
    let first = run.began_at().filter(|_| run.has_wanted());
    let ended = tasks.iter().filter(|task| {
        task.status.state.is_terminal()
            && task.status.state != TaskState::Complete
            && task.desired_state > TaskState::Complete
            && Some(task.meta.created_at) != first
    });
    plan.changes
        .extend(ended.take(excess).map(|task| remove(task)));
}

fn remove(task: &Arc<Task>) -> Change {
    Change::RemoveTask(task.id, task.meta.version)
}
