//! One task: allocation at its beginning, removal at its end.

use std::sync::Arc;

use skep_model::{Endpoint, Task, TaskId, TaskState, Timestamp};
use skep_store::Store;

use crate::{
    key::Key,
    network,
    plan::{Change, Plan, Wait},
    revision::status,
};

/// Message of a task that waits for the scheduler; Swarm's text.
pub(crate) const PENDING_MESSAGE: &str = "pending task scheduling";

pub(crate) fn reconcile(view: &Store, id: TaskId, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if let Some(task) = view.task(id) {
        plan_task(view, task, now, &mut plan);
    }
    plan
}

fn plan_task(view: &Store, task: &Task, now: Timestamp, plan: &mut Plan) {
    let state = task.status.state;
    let is_on_no_agent = state < TaskState::Assigned || state.is_terminal();
    let is_unowned = task.service_id.is_none() && state == TaskState::Orphaned;
    if task.desired_state >= TaskState::Remove && is_on_no_agent || is_unowned {
        plan.changes
            .push(Change::RemoveTask(task.id, task.meta.version));
        return;
    }
    if state < TaskState::Assigned && task.desired_state >= TaskState::Shutdown {
        plan.changes.push(end_unplaced(task, now));
    } else if state == TaskState::New {
        plan_allocation(view, task, now, plan);
    }
}

/// A task told to stop before any agent knew of it has stopped. Without this, an update would wait
/// for an agent's report that never comes.
fn end_unplaced(task: &Task, now: Timestamp) -> Change {
    let mut task = task.clone();
    task.status.state = TaskState::Shutdown;
    task.status.timestamp = now;
    task.status.err.clear();
    Change::UpdateTask(Arc::new(task))
}

/// Gives a new task what it needs before it can be placed: addresses on its networks, and ports
/// and log driver, which a task made elsewhere may lack. One that cannot get an address says so,
/// and is looked at again when one goes back.
fn plan_allocation(view: &Store, task: &Task, now: Timestamp, plan: &mut Plan) {
    let mut allocated = task.clone();
    if let Err(wait) = network::attach(view, &mut allocated) {
        plan_waiting(task, wait, now, plan);
        return;
    }
    // Who waited with it may go on, too.
    let next = view.networks().next_task_to_allocate(task);
    plan.follow_up
        .extend(next.filter(|_| !task.status.err.is_empty()).map(Key::Task));
    plan.changes.push(allocate(view, allocated, now));
}

/// Writes why the task waits, unless it stands there already.
fn plan_waiting(task: &Task, wait: Wait, now: Timestamp, plan: &mut Plan) {
    let reason = wait.to_string();
    plan.report.push(wait);
    if task.status.err == reason {
        return;
    }
    let mut task = task.clone();
    task.status.timestamp = now;
    task.status.err = reason;
    plan.changes.push(Change::UpdateTask(Arc::new(task)));
}

fn allocate(view: &Store, mut task: Task, now: Timestamp) -> Change {
    let ports_wanted = task
        .endpoint
        .as_ref()
        .filter(|endpoint| endpoint.ports.is_empty())
        .and_then(|endpoint| endpoint.spec.as_ref())
        .map(|spec| spec.ports.clone())
        .filter(|ports| !ports.is_empty());
    if let (Some(ports), Some(endpoint)) = (ports_wanted, task.endpoint.as_deref()) {
        task.endpoint = Some(Arc::new(Endpoint {
            ports,
            ..endpoint.clone()
        }));
    }
    if task.log_driver.is_none() {
        let default = view
            .cluster()
            .and_then(|c| c.spec.default_log_driver.clone());
        task.log_driver = task.spec.log_driver.clone().or(default);
    }
    task.status = status(TaskState::Pending, PENDING_MESSAGE, now);
    Change::UpdateTask(Arc::new(task))
}
