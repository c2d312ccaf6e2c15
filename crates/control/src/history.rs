//! Ended tasks are kept for people and for the restart policy, up to a limit per slot.

use std::{collections::BTreeMap, sync::Arc};

use skep_model::{
    DEFAULT_TASK_HISTORY_LIMIT, Service, ServiceId, Slot, Task, TaskId, TaskState,
    validate::WINDOW_ATTEMPTS_MAX,
};
use skep_store::Store;

use crate::{
    job,
    plan::{Change, Plan},
    restart,
    revision::status_time,
    slot::Place,
    update,
};

pub(crate) fn reconcile(view: &Store, id: ServiceId, slot: Option<Slot>) -> Plan {
    let mut plan = Plan::default();
    let Some(service) = view.service(id) else {
        return plan;
    };
    let limit = limit(view, service);
    if job::is_job(service.spec.mode) {
        let runs = configured(view).unwrap_or(usize::MAX);
        return job::history::reconcile(view, service, slot, runs, limit.unwrap_or(usize::MAX));
    }
    let Some(limit) = limit else {
        return plan;
    };
    if let Some(slot) = slot {
        reap(&Place::read(view, service, slot), limit, &mut plan);
        return plan;
    }
    let mut by_slot: BTreeMap<Slot, Vec<&Arc<Task>>> = BTreeMap::new();
    for task in view.tasks_of_service(id) {
        if let Some(slot) = task.slot() {
            by_slot.entry(slot).or_default().push(task);
        }
    }
    for (slot, tasks) in by_slot {
        let place = Place {
            view,
            service,
            slot,
            tasks,
        };
        reap(&place, limit, &mut plan);
    }
    plan
}

/// The cluster's limit; `None` keeps all.
fn configured(view: &Store) -> Option<usize> {
    let configured = view
        .cluster()
        .map_or(DEFAULT_TASK_HISTORY_LIMIT, |c| c.spec.task_history_limit);
    usize::try_from(configured).ok()
}

/// Tasks kept per slot, the running one included; `None` keeps all. Restarts within a window are counted from
/// stored tasks, so as many as the policy allows must stay.
pub(crate) fn limit(view: &Store, service: &Service) -> Option<usize> {
    let configured = configured(view)?;
    let policy = &service.spec.task.restart;
    let needed = match policy.max_attempts {
        attempts if attempts > 0 && !policy.window.is_zero() => {
            // No spec has more, unless it was accepted by Swarm.
            let attempts = attempts.min(WINDOW_ATTEMPTS_MAX);
            usize::try_from(attempts).ok()?.saturating_add(1)
        }
        _ => 0,
    };
    Some(configured.max(needed))
}

/// Removes the tasks that ended longest ago until the slot holds `limit`.
fn reap(place: &Place<'_>, limit: usize, plan: &mut Plan) {
    let excess = place.tasks.len().saturating_sub(limit);
    if excess == 0 {
        return;
    }
    let predecessor = predecessor(place);
    // Without it the slot would be one that never had a task.
    let left = place.left_ended();
    let mut ended: Vec<&Arc<Task>> = place
        .tasks
        .iter()
        .copied()
        .filter(|task| has_ended(task) && !update::is_evidence(place.service, place, task))
        .filter(|task| predecessor != Some(task.id) && left != Some(task.id))
        .collect();
    ended.sort_by_key(|task| (status_time(task), restart::order(task)));
    let removed = ended.into_iter().take(excess);
    plan.changes
        .extend(removed.map(|task| Change::RemoveTask(task.id, task.meta.version)));
}

/// The task before one that waits to be started: how long it waits is read from both.
fn predecessor(place: &Place<'_>) -> Option<TaskId> {
    let mut waiting = place.tasks.iter();
    let waiting = waiting.find(|task| task.desired_state == TaskState::Ready)?;
    let before = place
        .tasks
        .iter()
        .filter(|task| restart::order(task) < restart::order(waiting));
    let newest = before.max_by_key(|task| restart::order(task));
    newest.map(|task| task.id)
}

/// Whether the task will never run again. An ended task that is still desired has yet to be looked
/// at by the restart policy.
fn has_ended(task: &Task) -> bool {
    let state = task.status.state;
    task.desired_state > TaskState::Running && (state.is_terminal() || state < TaskState::Assigned)
}
