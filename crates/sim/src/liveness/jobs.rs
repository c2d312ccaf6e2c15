//! Every job comes to its end: what of it can run has run.

use std::collections::BTreeMap;

use skep_model::{
    Availability, NodeId, Service, ServiceMode, Task, TaskState,
    reserved::service::schedule::{DEADLINE, SCHEDULE},
};
use skep_store::Store;

use super::{fits, matches_constraints, may_stay_ended, networks};

/// A slot, or a node.
type Place = (u64, Option<NodeId>);

pub(super) fn check(store: &Store, service: &Service, unmet: &mut Vec<String>) {
    let name = service.name();
    let current = service.job_status.as_ref().map(|s| s.job_iteration);
    let mut is_waiting = false;
    let mut places: BTreeMap<Place, Vec<&Task>> = BTreeMap::new();
    for task in store.tasks_of_service(service.id) {
        let is_wanted =
            task.desired_state <= TaskState::Complete && task.status.state != TaskState::Complete;
        if is_wanted {
            if is_homeless(store, task) {
                is_waiting = true;
            } else {
                let (id, state, err) = (task.id, task.status.state, &task.status.err);
                unmet.push(format!(
                    "{name}: task {id} is {state} ({err}) and shall complete"
                ));
            }
        }
        if task.job_iteration == current {
            let node = task
                .node_id
                .filter(|_| service.spec.mode == ServiceMode::GlobalJob);
            places.entry((task.slot, node)).or_default().push(task);
        }
    }
    let labels = &service.spec.annotations.labels;
    // Runs on schedule come and go; what has a deadline may miss it.
    if is_waiting || labels.contains_key(SCHEDULE) || labels.contains_key(DEADLINE) {
        return;
    }
    let is_done = |place: &Place| {
        let tasks = places.get(place).map_or(&[][..], Vec::as_slice);
        let newest = tasks
            .iter()
            .max_by_key(|task| (task.meta.created_at, task.id));
        tasks
            .iter()
            .any(|task| task.status.state == TaskState::Complete)
            || newest.is_some_and(|task| may_stay_ended(task))
    };
    let wanted: Vec<Place> = match service.spec.mode {
        ServiceMode::ReplicatedJob {
            max_concurrent: 0, ..
        } => Vec::new(),
        ServiceMode::ReplicatedJob {
            total_completions, ..
        } => (0..total_completions).map(|slot| (slot, None)).collect(),
        ServiceMode::GlobalJob => {
            let constraints = &service.spec.task.placement.constraints;
            let nodes = store.nodes().filter(|node| {
                node.spec.availability == Availability::Active
                    && matches_constraints(constraints, node)
            });
            nodes.map(|node| (0, Some(node.id))).collect()
        }
        ServiceMode::Replicated { .. } | ServiceMode::Global => Vec::new(),
    };
    for place in wanted.iter().filter(|place| !is_done(place)) {
        unmet.push(format!("{name}: {place:?} is not done"));
    }
}

/// Whether the task waits for an address that is not there, or for a node that takes it.
fn is_homeless(store: &Store, task: &Task) -> bool {
    match task.status.state {
        TaskState::New => networks::is_starved(store, task),
        TaskState::Pending => !store.nodes().any(|node| fits(store, node, task)),
        _ => false,
    }
}
