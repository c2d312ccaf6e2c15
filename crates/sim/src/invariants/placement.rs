//! A task is placed only on a node that is ready, takes tasks and satisfies its constraints.

use skep_model::{
    Availability, Node, NodeState, Task, TaskState, constraint, reserved::task::moved_by,
};
use skep_store::{Object, Store};

use crate::{
    facts::{Applied, Facts, Observation},
    invariants::Invariant,
};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Placement;

impl Invariant for Placement {
    fn name(&self) -> &'static str {
        "placement"
    }

    fn observe(&mut self, _: &Facts, observation: &Observation<'_>) -> Result<(), String> {
        let Some(Applied { changes, after, .. }) = observation.committed() else {
            return Ok(());
        };
        for change in changes {
            let Some(Object::Task(new)) = &change.new else {
                continue;
            };
            let was_placed = matches!(
                &change.old,
                Some(Object::Task(old)) if old.status.state >= TaskState::Assigned
            );
            if !was_placed && new.status.state == TaskState::Assigned {
                check_task(after, new)?;
            }
        }
        Ok(())
    }
}

fn check_task(store: &Store, task: &Task) -> Result<(), String> {
    let Some(node) = task.node_id.and_then(|id| store.node(id)) else {
        return Err(format!("task {} is placed nowhere", task.id));
    };
    if node.status.state != NodeState::Ready {
        let state = node.status.state;
        return Err(format!(
            "task {} is placed on a node that is {state:?}",
            task.id
        ));
    }
    if node.spec.availability != Availability::Active {
        return Err(format!("task {} is placed on an inactive node", task.id));
    }
    let constraints = constraint::parse(&task.spec.placement.constraints);
    if !constraints.is_ok_and(|constraints| constraint::matches(&constraints, node)) {
        return Err(format!(
            "task {} is placed against its constraints",
            task.id
        ));
    }
    check_max_replicas(store, task, node)
}

/// Counts tasks on the node that shall run on and have the same limit: those of another revision
/// may have been placed in the same entry, by their own limit.
fn check_max_replicas(store: &Store, task: &Task, node: &Node) -> Result<(), String> {
    let max = usize::try_from(task.spec.placement.max_replicas).unwrap_or(usize::MAX);
    let siblings: Vec<String> = store
        .tasks_on_node(node.id)
        .filter(|other| {
            other.service_id == task.service_id
                && other.spec.placement.max_replicas == task.spec.placement.max_replicas
                && other.desired_state <= TaskState::Complete
                && (TaskState::Assigned..=TaskState::Running).contains(&other.status.state)
        })
        .map(|other| {
            let (state, version) = (other.status.state, other.spec_version);
            let (slot, run) = (other.slot, other.job_iteration);
            let moved = moved_by(other);
            format!(
                "{} {state} of {version:?}, slot {slot} of run {run:?}, moves {moved:?}",
                other.id
            )
        })
        .collect();
    if max > 0 && siblings.len() > max {
        let siblings = siblings.join(", ");
        return Err(format!(
            "{} makes more than {max} on a node: {siblings}",
            task.id
        ));
    }
    Ok(())
}
