//! Global services: one task on every node that takes part and satisfies the constraints.
//!
//! A node that takes part but lacks the platform, resources or ports gets its task too; it waits
//! there, with the scheduler's explanation, as in Swarm.

use std::{collections::BTreeSet, sync::Arc};

use skep_model::{
    Availability, NodeId, Rng, Service, Slot, TaskState, Timestamp, UpdateState,
    constraint::{self, Constraint},
};
use skep_store::Store;

use crate::{
    key::Key,
    plan::{Change, Plan},
    replicated::CREATIONS_PER_PLAN_MAX,
    revision::{Template, is_dirty, is_lost},
    slot::{Place, desire},
    update,
};

/// What a node is to a global service.
enum Fit {
    /// Runs one task.
    Runs,
    /// Keeps what it has, gets nothing new.
    Paused,
    /// Runs none.
    Excluded,
    /// Is no longer a member.
    Gone,
}

/// All nodes of a service.
pub(crate) fn reconcile(view: &Store, service: &Service, now: Timestamp, rng: &mut Rng) -> Plan {
    let template = Template::new(view, service);
    let constraints = constraints(service);
    let mut nodes: BTreeSet<NodeId> = view.nodes().map(|node| node.id).collect();
    nodes.extend(view.tasks_of_service(service.id).filter_map(|t| t.node_id));
    let mut plan = Plan::default();
    let mut places = Vec::new();
    let mut updatable = Vec::new();
    for node in nodes {
        let place = Place::read(view, service, Slot::Node(node));
        match fit(view, node, &constraints) {
            Fit::Runs => updatable.push(place),
            fit @ (Fit::Paused | Fit::Excluded | Fit::Gone) => places.push((place, fit)),
        }
    }
    if let Some(change) = update::failure(view, service, &updatable) {
        plan.changes.push(change);
        return plan;
    }
    let runs = updatable.iter().map(|place| (place, &Fit::Runs));
    for (place, fit) in runs.chain(places.iter().map(|(place, fit)| (place, fit))) {
        plan.absorb(plan_node(place, fit, &template, now, rng));
        if u64::try_from(plan.changes.len()).is_ok_and(|count| count > CREATIONS_PER_PLAN_MAX) {
            break;
        }
    }
    if !plan.changes.is_empty() {
        plan.follow_up.push(Key::Service(service.id));
        return plan;
    }
    plan.absorb(update::plan(
        view,
        service,
        &updatable,
        &template,
        (now, rng),
    ));
    plan
}

/// One node of a service with no update under way.
pub(crate) fn reconcile_node(
    view: &Store,
    service: &Service,
    node: NodeId,
    now: Timestamp,
    rng: &mut Rng,
) -> Plan {
    let template = Template::new(view, service);
    let place = Place::read(view, service, Slot::Node(node));
    let fit = fit(view, node, &constraints(service));
    let mut plan = plan_node(&place, &fit, &template, now, rng);
    if plan.changes.is_empty() && matches!(fit, Fit::Runs) {
        plan_outdated(&place, &template, now, rng, &mut plan);
    }
    plan
}

/// A node that missed an update, because it was paused then, catches up when it is back.
fn plan_outdated(
    place: &Place<'_>,
    template: &Template,
    now: Timestamp,
    rng: &mut Rng,
    plan: &mut Plan,
) {
    let live = place.live();
    let is_outdated = !live.is_empty()
        && live
            .iter()
            .all(|task| is_dirty(place.view, place.service, task));
    if !is_outdated {
        return;
    }
    let status = place.service.update_status.as_ref();
    match status.map(|status| status.state) {
        Some(UpdateState::Completed | UpdateState::RollbackCompleted) => {
            let mut changes: Vec<Change> = live
                .iter()
                .map(|task| desire(task, TaskState::Shutdown))
                .collect();
            let task = template.task(place.slot, TaskState::Running, now, rng);
            changes.push(Change::CreateTask(Arc::new(task)));
            plan.changes.push(Change::Together(changes));
        }
        // The update has not begun, or is under way or paused: its own business.
        Some(
            UpdateState::Unknown
            | UpdateState::Updating
            | UpdateState::Paused
            | UpdateState::RollbackStarted
            | UpdateState::RollbackPaused,
        )
        | None => plan.follow_up.push(Key::Service(place.service.id)),
    }
}

fn plan_node(
    place: &Place<'_>,
    fit: &Fit,
    template: &Template,
    now: Timestamp,
    rng: &mut Rng,
) -> Plan {
    let mut plan = Plan::default();
    let live = place.live();
    match fit {
        Fit::Gone => {
            for task in &place.tasks {
                plan.changes.push(match task.status.state.is_terminal() {
                    true => Change::RemoveTask(task.id, task.meta.version),
                    false if task.desired_state < TaskState::Shutdown => {
                        desire(task, TaskState::Shutdown)
                    }
                    false => continue,
                });
            }
        }
        Fit::Excluded => {
            let stops = live.iter().map(|task| desire(task, TaskState::Shutdown));
            plan.changes.extend(stops);
        }
        Fit::Paused => {
            let failed = live.iter().filter(|task| place.has_failed(task));
            plan.changes
                .extend(failed.map(|task| desire(task, TaskState::Shutdown)));
            if plan.changes.is_empty() && !live.is_empty() {
                plan.absorb(place.plan(template, now, rng));
            }
        }
        Fit::Runs if place.updatable().is_empty() => {
            let task = template.task(place.slot, TaskState::Running, now, rng);
            plan.changes.push(Change::CreateTask(Arc::new(task)));
        }
        Fit::Runs => plan.absorb(place.plan(template, now, rng)),
    }
    plan
}

fn constraints(service: &Service) -> Vec<Constraint> {
    // Constraints were checked before the service was stored; one that cannot be read is void.
    constraint::parse(&service.spec.task.placement.constraints).unwrap_or_default()
}

fn fit(view: &Store, node: NodeId, constraints: &[Constraint]) -> Fit {
    let node = view.node(node);
    let Some(present) = node else {
        return Fit::Gone;
    };
    if is_lost(node) || !constraint::matches(constraints, present) {
        Fit::Excluded
    } else if present.spec.availability == Availability::Pause {
        Fit::Paused
    } else {
        Fit::Runs
    }
}
