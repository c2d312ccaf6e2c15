//! Moves the tasks of replicated services off nodes that are being drained, a few at a time.
//!
//! A task that serves keeps serving until its replacement is as far as the service's update order
//! wants: prepared on its node (stop-first) or running (start-first). So a task for which there is
//! no other node stays where it is, and its replacement says why it waits. At most as many slots
//! of a service move at once as its updates may replace at once, both counted together. See
//! `docs/design/orchestration.md`, "Drain". Not here: tasks of global services, which just stop,
//! and tasks that do not run yet, which are made anew elsewhere like failed ones (`slot.rs`).
//!
//! A task that is moved for balance (`rebalance.rs`) leaves its node in the same way: it is *leaving* as long as a
//! replacement made for that shall run.

use std::{collections::BTreeSet, sync::Arc};

use skep_model::{
    RestartCondition, Rng, Service, ServiceId, Slot, Task, TaskState, Timestamp, UpdateOrder,
    reserved::task::{MOVE_REASON, REASON, moved_by},
};
use skep_store::Store;

use crate::{
    plan::{Change, Plan, Wait},
    restart,
    revision::{Template, is_dirty, is_draining, is_live, node_of},
    slot::{Place, desire},
    update,
};

/// Whether a task serves on a node that is being drained, or is being moved off its node.
pub(crate) fn is_leaving(view: &Store, task: &Task) -> bool {
    is_live(task)
        && task.status.state == TaskState::Running
        && (is_draining(node_of(view, task)) || mover_of(view, task).is_some())
}

/// The replacement made to move a task off its node, while it shall run.
fn mover_of<'a>(view: &'a Store, task: &Task) -> Option<&'a Arc<Task>> {
    let (service, slot) = task.service_id.zip(task.slot())?;
    let mut others = view.tasks_in_slot(service, slot);
    others.find(|other| is_live(other) && moved_by(other) == Some(task.id))
}

/// Tells a task to stop; one that is moved is told why.
pub(crate) fn stop(view: &Store, task: &Task) -> Change {
    let Some(mover) = mover_of(view, task) else {
        return desire(task, TaskState::Shutdown);
    };
    let why = mover
        .annotations
        .labels
        .get(MOVE_REASON)
        .map(String::as_str);
    let reason = format!("{} (task {})", why.unwrap_or("moved"), mover.id);
    let mut stopped = Task {
        desired_state: TaskState::Shutdown,
        ..task.clone()
    };
    let annotations = Arc::make_mut(&mut stopped.annotations);
    annotations.labels.insert(REASON.to_owned(), reason);
    Change::UpdateTask(Arc::new(stopped))
}

/// In which order the service wants old and new tasks to change places.
pub(crate) fn order(service: &Service) -> UpdateOrder {
    let config = service.spec.update.as_ref();
    config.map_or(UpdateOrder::StopFirst, |config| config.order)
}

/// Slots of which a task is on its way from a drained node to another.
pub(crate) fn moving(view: &Store, places: &[Place<'_>]) -> BTreeSet<Slot> {
    if !has_draining_node(view) && !places.iter().any(Place::has_mover) {
        return BTreeSet::new();
    }
    let moving = places.iter().filter(|place| is_moving(view, place));
    moving.map(|place| place.slot).collect()
}

/// Whether there can be anything to move at all.
pub(crate) fn has_draining_node(view: &Store) -> bool {
    view.drained_nodes().next().is_some()
}

/// A slot moves from when the replacement is made until it, or one after it, has run or ended.
fn is_moving(view: &Store, place: &Place<'_>) -> bool {
    let live = place.live();
    let Some((newest, older)) = live.split_last() else {
        return false;
    };
    if older.iter().any(|task| is_leaving(view, task)) {
        return true;
    }
    if newest.status.state < TaskState::Running && moved_by(newest).is_some() {
        return true;
    }
    let before = |task: &&&Arc<Task>| restart::order(task) < restart::order(newest);
    let predecessor = place
        .tasks
        .iter()
        .filter(before)
        .max_by_key(|task| restart::order(task));
    newest.status.state < TaskState::Running
        && predecessor.is_some_and(|task| is_draining(node_of(view, task)))
}

/// Whether tasks of the service have yet to leave their nodes. Every step of another slot then may
/// be the one they wait for.
pub(crate) fn has_waiting(view: &Store, service: ServiceId) -> bool {
    view.drained_nodes().any(|node| {
        let mut tasks = view.tasks_on_node(node.id);
        tasks.any(|task| task.service_id == Some(service) && is_leaving(view, task))
    })
}

/// Makes replacements for tasks on drained nodes, as many as may move at once. `busy` are slots an
/// update is at work on.
pub(crate) fn plan(
    places: &[Place<'_>],
    template: &Template,
    busy: &BTreeSet<Slot>,
    (now, rng): (Timestamp, &mut Rng),
    plan: &mut Plan,
) {
    let Some(Place { view, service, .. }) = places.first() else {
        return;
    };
    if !has_draining_node(view) {
        return;
    }
    let moving = moving(view, places);
    for place in places.iter().filter(|place| moving.contains(&place.slot)) {
        explain(place, plan);
    }
    let occupied = moving.union(busy).count();
    let mut free = update::workers(service).saturating_sub(occupied);
    for place in places.iter().filter(|place| !moving.contains(&place.slot)) {
        let live = place.live();
        let [task] = live.as_slice() else { continue };
        // An update under way will replace the task anyway; its turn comes with that.
        let is_updates_business = update::is_active(service) && is_dirty(view, service, task);
        if !is_leaving(view, task) || is_updates_business {
            continue;
        }
        if free == 0 {
            plan.report.push(Wait::Drain { task: task.id });
            continue;
        }
        free -= 1;
        plan.changes.push(begin(task, place, template, now, rng));
    }
}

fn begin(
    task: &Task,
    place: &Place<'_>,
    template: &Template,
    now: Timestamp,
    rng: &mut Rng,
) -> Change {
    if task.spec.restart.condition == RestartCondition::None {
        // As in Swarm: it stops with its node, and the policy wants no other.
        return desire(task, TaskState::Shutdown);
    }
    let desired_state = match order(place.service) {
        UpdateOrder::StartFirst => TaskState::Running,
        UpdateOrder::StopFirst => TaskState::Ready,
    };
    let replacement = template.task(place.slot, desired_state, now, rng);
    Change::CreateTask(Arc::new(replacement))
}

/// Why a move takes its time.
fn explain(place: &Place<'_>, plan: &mut Plan) {
    let live = place.live();
    let Some((newest, older)) = live.split_last() else {
        return;
    };
    if newest.status.state == TaskState::Pending && !newest.status.err.is_empty() {
        plan.report.push(Wait::NoNode {
            task: newest.id,
            explanation: newest.status.err.clone(),
        });
    }
    if let Some(old) = older.first() {
        plan.report.push(Wait::Replacement {
            task: old.id,
            replacement: newest.id,
        });
    }
}
