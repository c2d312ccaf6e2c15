//! An update is at work on no more slots than its parallelism.

use std::collections::BTreeMap;

use skep_model::{Availability, NodeState, Service, Slot, Task, TaskState, UpdateState};
use skep_store::Store;

use super::{Violation, is_live};

/// What is wrong with the step from `before` to `after`: an update that stops tasks which serve does
/// so in as many slots at once as its parallelism. Slots whose tasks were lost or have failed get
/// tasks of the new revision, too, and may be more; then nothing that serves is touched.
pub(super) fn check_step(before: &Store, after: &Store, found: &mut Vec<Violation>) {
    for service in after.services() {
        let Some(parallelism) = parallelism(service) else {
            continue;
        };
        let mut slots: BTreeMap<Slot, Vec<&Task>> = BTreeMap::new();
        for task in after.tasks_of_service(service.id) {
            if let Some(slot) = task.slot() {
                slots.entry(slot).or_default().push(task);
            }
        }
        slots.retain(|slot, tasks| is_open(after, *slot) && is_being_updated(service, tasks));
        let mut at_work = slots.values().flatten();
        let has_stopped_one = at_work.any(|task| {
            task.spec_version != Some(service.spec_version)
                && has_stopped_serving(before, after, task)
        });
        let count = slots.len();
        if has_stopped_one && count > parallelism {
            let service = service.id;
            found.push(Violation::OverParallel { service, count });
        }
    }
}

/// Whether a task that ran on a node in good health was told to stop.
pub(super) fn has_stopped_serving(before: &Store, after: &Store, task: &Task) -> bool {
    let is_well = |view: &Store| {
        let node = task.node_id.and_then(|id| view.node(id));
        node.is_some_and(|node| {
            node.spec.availability == Availability::Active && node.status.state != NodeState::Down
        })
    };
    let served = before.task(task.id).is_some_and(|task| {
        task.desired_state == TaskState::Running && task.status.state == TaskState::Running
    });
    let is_stopped =
        task.desired_state == TaskState::Shutdown && task.status.state == TaskState::Running;
    served && is_stopped && is_well(before) && is_well(after)
}

/// How many slots the update under way may work on; `None` when there is none, or no limit.
fn parallelism(service: &Service) -> Option<usize> {
    let config = match service.update_status.as_ref()?.state {
        UpdateState::Updating => &service.spec.update,
        UpdateState::RollbackStarted => &service.spec.rollback,
        UpdateState::Unknown
        | UpdateState::Paused
        | UpdateState::Completed
        | UpdateState::RollbackPaused
        | UpdateState::RollbackCompleted => return None,
    };
    let parallelism = config.clone().unwrap_or_default().parallelism;
    usize::try_from(parallelism).ok().filter(|count| *count > 0)
}

/// Nodes that cannot take tasks keep global services from being updated there; that is no work.
fn is_open(view: &Store, slot: Slot) -> bool {
    match slot {
        Slot::Number(_) => true,
        Slot::Node(node) => view.node(node).is_some_and(|node| {
            node.spec.availability == Availability::Active && node.status.state != NodeState::Down
        }),
    }
}

/// Whether the slot got a task of the present revision, in place of one of another, that shall run
/// and has not, nor any such before it.
fn is_being_updated(service: &Service, tasks: &[&Task]) -> bool {
    let status = service.update_status.as_ref();
    let started_at = status.and_then(|status| status.started_at);
    let is_current = |task: &&&Task| task.spec_version == Some(service.spec_version);
    let has_other = tasks.iter().any(|task| !is_current(&task));
    let new = tasks.iter().filter(is_current);
    let new: Vec<_> = new
        .filter(|task| started_at.is_none_or(|start| task.meta.created_at >= start))
        .collect();
    has_other
        && new.iter().any(|task| is_live(task))
        && new
            .iter()
            .all(|task| task.status.state < TaskState::Running)
}
