//! One task: allocation at its beginning, removal at its end.

use std::sync::Arc;

use skep_model::{Endpoint, Task, TaskId, TaskState, Timestamp};
use skep_store::Store;

use crate::{
    plan::{Change, Plan},
    revision::status,
};

/// Message of a task that waits for the scheduler; Swarm's text.
pub(crate) const PENDING_MESSAGE: &str = "pending task scheduling";

pub(crate) fn reconcile(view: &Store, id: TaskId, now: Timestamp) -> Plan {
    let change = view.task(id).and_then(|task| plan(view, task, now));
    Plan {
        changes: change.into_iter().collect(),
        ..Plan::default()
    }
}

fn plan(view: &Store, task: &Task, now: Timestamp) -> Option<Change> {
    let state = task.status.state;
    let is_on_no_agent = state < TaskState::Assigned || state.is_terminal();
    let is_unowned = task.service_id.is_none() && state == TaskState::Orphaned;
    if task.desired_state >= TaskState::Remove && is_on_no_agent || is_unowned {
        return Some(Change::RemoveTask(task.id, task.meta.version));
    }
    if state < TaskState::Assigned && task.desired_state >= TaskState::Shutdown {
        return Some(end_unplaced(task, now));
    }
    (state == TaskState::New).then(|| allocate(view, task, now))
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

/// Gives a new task what it needs before it can be placed. Addresses come with networks; today
/// these are the ports and the log driver, which a task made elsewhere may lack.
fn allocate(view: &Store, task: &Task, now: Timestamp) -> Change {
    let mut task = task.clone();
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
