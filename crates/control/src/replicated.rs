//! Replicated services: as many slots as replicas, filled from 1.

use std::{collections::BTreeMap, sync::Arc};

use skep_model::{NodeId, Rng, Service, Slot, Task, TaskState, Timestamp};
use skep_store::Store;

use crate::{
    drain,
    key::Key,
    plan::{Change, Plan, Wait},
    revision::Template,
    slot::{Place, desire},
    update,
};

/// Tasks one plan creates. A larger plan would only be cut by the entry's limit; the service stays
/// dirty and the next activation goes on.
pub(crate) const CREATIONS_PER_PLAN_MAX: u64 = 2000;

pub(crate) fn reconcile(
    view: &Store,
    service: &Service,
    replicas: u64,
    now: Timestamp,
    rng: &mut Rng,
) -> Plan {
    let template = Template::new(view, service);
    let places = places(view, service);
    let mut plan = Plan::default();
    if let Some(change) = update::failure(view, service, &places) {
        plan.changes.push(change);
        return plan;
    }
    plan_slots(&places, &template, now, rng, &mut plan);
    if !plan.changes.is_empty() {
        // Counting slots after the restarts is simpler than foreseeing them.
        plan.follow_up.push(Key::Service(service.id));
        return plan;
    }
    let (mut filled, vacant): (Vec<_>, Vec<_>) = places
        .into_iter()
        .partition(|place| !place.updatable().is_empty());
    let filled_count = u64::try_from(filled.len()).expect("a count of tasks fits u64");
    if replicas > filled_count {
        let missing = replicas - filled_count;
        let slots = fill(&filled, missing, &template, now, rng, &mut plan);
        forget(
            vacant.iter().filter(|p| !slots.contains(&p.slot)),
            &mut plan,
        );
        if missing > CREATIONS_PER_PLAN_MAX || update::is_active(service) {
            plan.follow_up.push(Key::Service(service.id));
        }
        if update::is_active(service) {
            // Slots that a rollback fills again are work of its own: it counts them before it goes on.
            return plan;
        }
    } else {
        forget(vacant.iter(), &mut plan);
    }
    if replicas < filled_count {
        sort_for_removal(&mut filled);
        let kept = usize::try_from(replicas).expect("fewer than the slots there are");
        for place in filled.drain(kept..) {
            let live = place
                .tasks
                .iter()
                .filter(|t| t.desired_state < TaskState::Remove);
            plan.changes
                .extend(live.map(|task| desire(task, TaskState::Remove)));
        }
        filled.sort_by_key(|place| place.slot);
    }
    let updated = update::plan(view, service, &filled, &template, (now, &mut *rng));
    let is_updating = !updated.changes.is_empty();
    plan.absorb(updated);
    if is_updating {
        // What it started counts; the moves go on with what is left.
        plan.follow_up.push(Key::Service(service.id));
    } else {
        let busy = update::busy(service, &filled, now);
        drain::plan(&filled, &template, &busy, (now, rng), &mut plan);
    }
    plan
}

/// The slots that have tasks, by number.
fn places<'a>(view: &'a Store, service: &'a Service) -> Vec<Place<'a>> {
    let mut places: Vec<Place<'a>> = Vec::new();
    for task in view.tasks_of_service(service.id) {
        let slot = Slot::Number(task.slot);
        match places.last_mut() {
            Some(place) if place.slot == slot => place.tasks.push(task),
            Some(_) | None => places.push(Place {
                view,
                service,
                slot,
                tasks: vec![task],
            }),
        }
    }
    places
}

/// Restarts and starts. Outside updates each slot is looked at on its own, by its own key.
fn plan_slots(
    places: &[Place<'_>],
    template: &Template,
    now: Timestamp,
    rng: &mut Rng,
    plan: &mut Plan,
) {
    for place in places {
        if let Some(task) = place.left_ended() {
            plan.report.push(Wait::RestartPolicy { task });
        }
        if !place.needs_attention() {
            continue;
        }
        if update::is_active(place.service) || place.has_leaving() {
            plan.absorb(place.plan(template, now, rng));
        } else {
            let key = Key::Slot(place.service.id, place.slot);
            plan.follow_up.push(key);
        }
    }
}

/// Creates tasks in the lowest free slots; returns those slots.
fn fill(
    filled: &[Place<'_>],
    missing: u64,
    template: &Template,
    now: Timestamp,
    rng: &mut Rng,
    plan: &mut Plan,
) -> Vec<Slot> {
    let mut taken = filled.iter().map(|place| place.slot).peekable();
    let mut slots = Vec::new();
    let mut number = 0;
    for _ in 0..missing.min(CREATIONS_PER_PLAN_MAX) {
        number += 1;
        while let Some(slot) = taken.next_if(|slot| *slot <= Slot::Number(number)) {
            if slot == Slot::Number(number) {
                number += 1;
            }
        }
        let slot = Slot::Number(number);
        let task = template.task(slot, TaskState::Running, now, rng);
        plan.changes.push(Change::CreateTask(Arc::new(task)));
        slots.push(slot);
    }
    slots
}

/// Drops the history of slots that are no longer used. What may still run is told to stop first.
fn forget<'a, 'b: 'a>(vacant: impl Iterator<Item = &'a Place<'b>>, plan: &mut Plan) {
    for task in vacant.flat_map(|place| &place.tasks) {
        let state = task.status.state;
        if state.is_terminal() || state < TaskState::Assigned {
            plan.changes
                .push(Change::RemoveTask(task.id, task.meta.version));
        } else if task.desired_state < TaskState::Remove {
            plan.changes.push(desire(task, TaskState::Remove));
        }
    }
}

/// Puts the slots to keep first. Swarm's preference: each node keeps one copy before any keeps a
/// second; of equal ones the running stay, then those with low numbers. Slots in the middle of an
/// update, or not placed, go first.
fn sort_for_removal(places: &mut [Place<'_>]) {
    places.sort_by_key(|place| (!is_running(place), place.slot));
    let mut copies: BTreeMap<NodeId, u64> = BTreeMap::new();
    let mut ranks: BTreeMap<Slot, (bool, u64)> = BTreeMap::new();
    for place in places.iter() {
        let rank = match sole_node(place) {
            Some(node) => {
                let copies = copies.entry(node).or_default();
                *copies += 1;
                (false, *copies)
            }
            None => (true, 0),
        };
        ranks.insert(place.slot, rank);
    }
    places.sort_by_key(|place| ranks[&place.slot]);
}

fn is_running(place: &Place<'_>) -> bool {
    let tasks: Vec<&Arc<Task>> = place.updatable();
    tasks
        .iter()
        .any(|task| task.status.state == TaskState::Running)
}

/// The node of a slot with exactly one task.
fn sole_node(place: &Place<'_>) -> Option<NodeId> {
    match place.updatable().as_slice() {
        [task] => task.node_id,
        _ => None,
    }
}
