//! One task of a slot shall run, or one each of two revisions: a start-first update, or what one
//! that was replaced by another left for a while. A task that leaves a drained node, or is moved for balance, has
//! its replacement beside it. Of jobs see `jobs`.

use std::{collections::BTreeSet, sync::Arc};

use skep_model::{Availability, ServiceId, Slot, Task, TaskState, reserved::task::moved_by};
use skep_store::{Object, Store};

use crate::{
    facts::{Applied, Facts, Observation},
    invariants::Invariant,
};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct OneTaskPerSlot;

impl Invariant for OneTaskPerSlot {
    fn name(&self) -> &'static str {
        "one-task-per-slot"
    }

    fn observe(&mut self, _: &Facts, observation: &Observation<'_>) -> Result<(), String> {
        let Some(Applied { changes, after, .. }) = observation.committed() else {
            return Ok(());
        };
        let mut slots: BTreeSet<(ServiceId, Slot)> = BTreeSet::new();
        for change in changes {
            if let Some(Object::Task(task)) = &change.new {
                slots.extend(task.service_id.zip(task.slot()));
            }
        }
        for (service, slot) in slots {
            check_slot(after, service, slot)?;
        }
        Ok(())
    }
}

/// A task on a drained node stays until its replacement is there.
fn leaves(store: &Store, task: &Task) -> bool {
    let node = task.node_id.and_then(|id| store.node(id));
    node.is_some_and(|node| node.spec.availability == Availability::Drain)
}

fn check_slot(store: &Store, service: ServiceId, slot: Slot) -> Result<(), String> {
    let tasks = store.tasks_in_slot(service, slot);
    let live: Vec<&Arc<Task>> = tasks
        .filter(|task| {
            task.job_iteration.is_none()
                && task.desired_state <= TaskState::Running
                && task.status.state <= TaskState::Running
        })
        .collect();
    let is_right = match live.as_slice() {
        [] | [_] => true,
        [one, other] => {
            one.spec_version != other.spec_version
                || leaves(store, one)
                || leaves(store, other)
                || moved_by(other) == Some(one.id)
                || moved_by(one) == Some(other.id)
        }
        _ => false,
    };
    if is_right {
        return Ok(());
    }
    let count = live.len();
    Err(format!("{count} tasks shall run in {slot:?} of {service}"))
}
