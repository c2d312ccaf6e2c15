//! A rolling update takes no more of a service away than its parallelism; with start-first, nothing. Nor
//! does a drain stop a task that serves before its replacement is prepared.
//!
//! A slot is *down* when an update told its task to stop while that served on a node in good health, until
//! a task of the slot runs, ends by itself or loses its node, or the slot is given up: whatever of it
//! is missing after that is lost to faults, not to the update. At the moment an update takes a slot
//! down, no more than its parallelism are, those that updates before it have left included: so at least
//! replicas less parallelism less what faults took away serve or are about to.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::{
    Availability as NodeAvailability, NodeState, RestartCondition, Service, ServiceId, ServiceMode,
    Slot, Task, TaskState, UpdateConfig, UpdateOrder, UpdateState,
};
use skep_store::{Change, Object, Store};

use crate::{
    facts::{Applied, Facts, Observation},
    invariants::Invariant,
};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Availability {
    down: BTreeMap<ServiceId, BTreeSet<Slot>>,
}

impl Invariant for Availability {
    fn name(&self) -> &'static str {
        "availability"
    }

    fn observe(&mut self, _: &Facts, observation: &Observation<'_>) -> Result<(), String> {
        let Some(Applied {
            changes,
            before,
            after,
            ..
        }) = observation.committed()
        else {
            return Ok(());
        };
        for change in changes {
            self.forget_ended(change);
        }
        for (service, slots) in &mut self.down {
            slots.retain(|slot| is_still_down(after, *service, *slot));
        }
        self.down.retain(|_, slots| !slots.is_empty());
        let mut taken = BTreeSet::new();
        for change in changes {
            let (Some(Object::Task(old)), Some(Object::Task(new))) = (&change.old, &change.new)
            else {
                continue;
            };
            let service = new.service_id.and_then(|id| after.service(id));
            let Some((service, slot)) = service.zip(new.slot()) else {
                continue;
            };
            check_drain(after, service, (old, new), slot)?;
            if takes_away(before, after, service, (old, new)) && !serves(after, service.id, slot) {
                check_order(after, service, new, slot)?;
                self.down.entry(service.id).or_default().insert(slot);
                taken.insert(service.id);
            }
        }
        for id in taken {
            check_count(after, id, self.down[&id].len())?;
        }
        Ok(())
    }
}

impl Availability {
    /// A task of the slot that was to run has run or ended by itself.
    fn forget_ended(&mut self, change: &Change) {
        let (Some(Object::Task(old)), Some(Object::Task(new))) = (&change.old, &change.new) else {
            return;
        };
        let has_come_up = matches!(
            new.status.state,
            TaskState::Running | TaskState::Complete | TaskState::Failed | TaskState::Rejected
        );
        if is_live(old)
            && has_come_up
            && let Some((service, slot)) = new.service_id.zip(new.slot())
            && let Some(slots) = self.down.get_mut(&service)
        {
            slots.remove(&slot);
        }
    }
}

/// Whether the update under way told a task to stop that served.
fn takes_away(
    before: &Store,
    after: &Store,
    service: &Service,
    (old, new): (&Task, &Task),
) -> bool {
    let is_well = |store: &Store| {
        let node = new.node_id.and_then(|id| store.node(id));
        node.is_some_and(|node| {
            node.spec.availability == NodeAvailability::Active
                && node.status.state != NodeState::Down
        })
    };
    let is_of_update = config(service).is_some() && new.spec_version != Some(service.spec_version);
    let is_replicated = matches!(service.spec.mode, ServiceMode::Replicated { .. });
    is_of_update && is_replicated && is_told_to_stop(old, new) && is_well(before) && is_well(after)
}

fn is_told_to_stop(old: &Task, new: &Task) -> bool {
    old.desired_state == TaskState::Running
        && old.status.state == TaskState::Running
        && new.desired_state == TaskState::Shutdown
        && new.status.state == TaskState::Running
}

/// Outside updates a task on a drained node stops when another of its slot can take over.
fn check_drain(
    store: &Store,
    service: &Service,
    (old, new): (&Task, &Task),
    slot: Slot,
) -> Result<(), String> {
    let node = new.node_id.and_then(|id| store.node(id));
    let is_drained = node.is_some_and(|node| {
        node.spec.availability == NodeAvailability::Drain && node.status.state != NodeState::Down
    });
    let is_rolling = matches!(service.spec.mode, ServiceMode::Replicated { .. })
        && new.spec.restart.condition != RestartCondition::None
        && config(service).is_none();
    if !is_drained || !is_rolling || !is_told_to_stop(old, new) {
        return Ok(());
    }
    let mut others = store.tasks_in_slot(service.id, slot);
    if others.any(|task| is_live(task) && task.status.state >= TaskState::Ready) {
        return Ok(());
    }
    let (name, id) = (service.name(), new.id);
    Err(format!(
        "{name} drains task {id} of {slot:?} before another can take over"
    ))
}

/// Settings of the update under way.
fn config(service: &Service) -> Option<UpdateConfig> {
    let config = match service.update_status.as_ref()?.state {
        UpdateState::Updating => &service.spec.update,
        UpdateState::RollbackStarted => &service.spec.rollback,
        UpdateState::Unknown
        | UpdateState::Paused
        | UpdateState::Completed
        | UpdateState::RollbackPaused
        | UpdateState::RollbackCompleted => return None,
    };
    Some(config.clone().unwrap_or_default())
}

fn is_live(task: &Task) -> bool {
    task.desired_state <= TaskState::Running && !task.status.state.is_terminal()
}

fn is_on_dead_node(store: &Store, task: &Task) -> bool {
    let node = task.node_id.map(|id| store.node(id));
    node.is_some_and(|node| node.is_none_or(|node| node.status.state == NodeState::Down))
}

fn serves(store: &Store, service: ServiceId, slot: Slot) -> bool {
    let mut tasks = store.tasks_in_slot(service, slot);
    tasks.any(|task| {
        is_live(task) && task.status.state == TaskState::Running && !is_on_dead_node(store, task)
    })
}

/// With start-first a task that serves stops only when another does, or when the slot is given up.
fn check_order(store: &Store, service: &Service, task: &Task, slot: Slot) -> Result<(), String> {
    let order = config(service).map(|config| config.order);
    let mut tasks = store.tasks_in_slot(service.id, slot);
    if order == Some(UpdateOrder::StartFirst) && tasks.any(|task| is_live(task)) {
        let (name, id) = (service.name(), task.id);
        return Err(format!(
            "{name} stops task {id} of {slot:?} before another runs"
        ));
    }
    Ok(())
}

/// Whether a task of the slot is to run, is not lost, and does not run yet.
fn is_still_down(store: &Store, service: ServiceId, slot: Slot) -> bool {
    let live = || {
        let tasks = store.tasks_in_slot(service, slot);
        tasks.filter(|task| is_live(task))
    };
    live().next().is_some()
        && !live()
            .any(|task| task.status.state == TaskState::Running || is_on_dead_node(store, task))
}

fn check_count(store: &Store, id: ServiceId, count: usize) -> Result<(), String> {
    let Some(service) = store.service(id) else {
        return Ok(());
    };
    let parallelism = config(service).map_or(0, |config| config.parallelism);
    if parallelism == 0 || u64::try_from(count).is_ok_and(|count| count <= parallelism) {
        return Ok(());
    }
    let name = service.name();
    Err(format!(
        "{count} slots of {name} are down at once, {parallelism} may be"
    ))
}
