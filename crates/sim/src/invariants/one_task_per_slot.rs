//! One task of a slot shall run, but during a start-first update.

use std::collections::BTreeSet;

use skep_model::{Service, ServiceId, Slot, TaskState, UpdateOrder};
use skep_store::{Object, Store};

use crate::{
    facts::{Facts, Observation},
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
        let Observation::Committed { changes, after, .. } = observation else {
            return Ok(());
        };
        let mut slots: BTreeSet<(ServiceId, Slot)> = BTreeSet::new();
        for change in *changes {
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

fn check_slot(store: &Store, service: ServiceId, slot: Slot) -> Result<(), String> {
    let tasks = store.tasks_in_slot(service, slot);
    let live = tasks.filter(|task| {
        task.desired_state <= TaskState::Running && task.status.state <= TaskState::Running
    });
    let count = live.count();
    let allowed = match store.service(service) {
        Some(service) if may_start_first(service) => 2,
        _ => 1,
    };
    if count > allowed {
        return Err(format!("{count} tasks shall run in {slot:?} of {service}"));
    }
    Ok(())
}

/// The order may stand in the spec in force, or in the one a rollback came from.
fn may_start_first(service: &Service) -> bool {
    let specs = [Some(&service.spec), service.previous_spec.as_ref()];
    let configs = specs.into_iter().flatten();
    let mut configs = configs.flat_map(|spec| [&spec.update, &spec.rollback]);
    service.update_status.is_some()
        && configs.any(|config| {
            config
                .as_ref()
                .is_some_and(|config| config.order == UpdateOrder::StartFirst)
        })
}
