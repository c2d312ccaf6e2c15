//! A node: evicts tasks it can no longer run, gives up on tasks it took with it, and tells the
//! slots concerned.

use std::{sync::Arc, time::Duration};

use skep_model::{
    Availability, Cluster, Node, NodeId, NodeState, Role, ServiceId, ServiceMode, Slot, Task,
    TaskState, TaskStatus, Timestamp, constraint, reserved,
};
use skep_store::Store;

use crate::{
    key::Key,
    placement::Pool,
    plan::{Change, Plan},
    restart,
    revision::{is_live, is_lost, status},
};

/// How long tasks of a silent node may still be running, as far as anybody knows. As in Swarm.
pub(crate) const ORPHAN_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// Message of a task that no longer fits its node; Swarm's text.
pub(crate) const EVICTED_MESSAGE: &str = "task rejected by constraint enforcer";

pub(crate) fn reconcile(view: &Store, id: NodeId, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let node = view.node(id);
    match node {
        None => plan_gone(view, id, now, &mut plan),
        Some(node) if node.status.state == NodeState::Down => {
            plan_silent(view, node, now, &mut plan);
            plan_forgotten(view, node, now, &mut plan);
        }
        Some(node) if node.spec.availability == Availability::Active => {
            plan_evictions(view, node, now, &mut plan);
        }
        // Drained: the slots move. Paused: nothing is touched.
        Some(_) => {}
    }
    for task in view.tasks_on_node(id).filter(|task| is_live(task)) {
        let slot = task.service_id.zip(task.slot());
        // A node that is well again keeps tasks whose move elsewhere has begun.
        let concerned = slot.filter(|slot| is_lost(node) || is_shared(view, *slot));
        plan.follow_up
            .extend(concerned.map(|(service, slot)| Key::Slot(service, slot)));
    }
    let globals = view
        .services()
        .filter(|service| service.spec.mode == ServiceMode::Global);
    plan.follow_up
        .extend(globals.map(|service| Key::Slot(service.id, Slot::Node(id))));
    plan.follow_up.extend(concerned_jobs(view, id));
    plan
}

/// Places of global jobs, and of others with tasks on the node that have not ended: they may wait for that.
fn concerned_jobs(view: &Store, id: NodeId) -> impl Iterator<Item = Key> {
    let globals = view
        .services()
        .filter(|service| service.spec.mode == ServiceMode::GlobalJob);
    let globals = globals.map(move |service| Key::Slot(service.id, Slot::Node(id)));
    let tasks = running_on(view, id).filter(|task| task.job_iteration.is_some());
    let others = tasks.filter_map(|task| task.service_id.zip(task.slot()));
    globals.chain(others.map(|(service, slot)| Key::Slot(service, slot)))
}

/// Whether a slot has more than one task that shall run.
fn is_shared(view: &Store, (service, slot): (ServiceId, Slot)) -> bool {
    let tasks = view.tasks_in_slot(service, slot);
    tasks.filter(|task| is_live(task)).count() > 1
}

/// Nobody will ever report on tasks of a removed node.
fn plan_gone(view: &Store, id: NodeId, now: Timestamp, plan: &mut Plan) {
    let running = running_on(view, id);
    plan.changes.extend(running.map(|task| {
        let message = "Task belonged to a node that has been deleted";
        set_status(task, status(TaskState::Orphaned, message, now))
    }));
}

/// A node that has been down too long is presumed never to report again. When it went down is
/// not stored; the node object was last written then or later.
fn plan_silent(view: &Store, node: &Node, now: Timestamp, plan: &mut Plan) {
    let due = node.meta.updated_at + ORPHAN_TIMEOUT;
    let mut running = running_on(view, node.id).peekable();
    if running.peek().is_none() {
        return;
    }
    if now < due {
        plan.wake_by(due);
        return;
    }
    plan.changes.extend(running.map(|task| {
        let message = task.status.message.clone();
        set_status(task, status(TaskState::Orphaned, &message, now))
    }));
}

/// A worker that has been down for longer than the cluster keeps such nodes is removed, and its
/// certificate refused. Counted like the above. A manager is a member of the raft group, which
/// only people may make smaller.
fn plan_forgotten(view: &Store, node: &Node, now: Timestamp, plan: &mut Plan) {
    let is_manager = Role::Manager == node.role || Role::Manager == node.spec.desired_role;
    let Some(cluster) = view.cluster().filter(|_| !is_manager) else {
        return;
    };
    // A label that cannot be read was refused when it was set; it removes nothing.
    let ttl = reserved::node_ttl(&cluster.spec.annotations.labels);
    let Some(ttl) = ttl.ok().flatten() else {
        return;
    };
    let due = node.meta.updated_at + ttl;
    if now < due {
        plan.wake_by(due);
        return;
    }
    let mut cluster = Cluster::clone(cluster);
    cluster.blacklist(node, now);
    plan.changes.push(Change::Together(vec![
        Change::UpdateCluster(Box::new(cluster)),
        Change::RemoveNode(node.id, node.meta.version),
    ]));
}

fn running_on(view: &Store, id: NodeId) -> impl Iterator<Item = &Arc<Task>> {
    view.tasks_on_node(id)
        .filter(|task| !task.status.state.is_terminal())
}

/// Rejects tasks whose node no longer satisfies constraints or holds their reservations. The
/// observed state is written, not the desired one, so that the restart policy applies. Older tasks
/// keep their place.
fn plan_evictions(view: &Store, node: &Node, now: Timestamp, plan: &mut Plan) {
    let mut tasks: Vec<&Arc<Task>> = view
        .tasks_on_node(node.id)
        .filter(|task| {
            (TaskState::Assigned..=TaskState::Running).contains(&task.status.state)
                && (TaskState::Assigned..=TaskState::Complete).contains(&task.desired_state)
        })
        .collect();
    tasks.sort_by_key(|task| restart::order(task));
    let mut pool = Pool::whole(node);
    for task in tasks {
        if satisfies_constraints(view, node, task) && pool.holds(task) {
            pool.take(task);
            continue;
        }
        let rejected = TaskStatus {
            timestamp: now,
            applied_at: None,
            state: TaskState::Rejected,
            message: EVICTED_MESSAGE.to_owned(),
            err: "assigned node no longer meets constraints".to_owned(),
            ..task.status.clone()
        };
        plan.changes.push(set_status(task, rejected));
    }
}

/// The service's constraints count, not the task's: a change of constraints alone leaves tasks in
/// place whose node fits, with the old constraints in them.
fn satisfies_constraints(view: &Store, node: &Node, task: &Task) -> bool {
    let service = task.service_id.and_then(|id| view.service(id));
    let spec = service.map_or(&task.spec, |service| &service.spec.task);
    constraint::parse(&spec.placement.constraints)
        .is_ok_and(|constraints| constraint::matches(&constraints, node))
}

fn set_status(task: &Task, status: TaskStatus) -> Change {
    Change::UpdateTask(Arc::new(Task {
        status,
        ..task.clone()
    }))
}
