//! `/skep/v1/exec`: a command beside a task, wherever it runs. Design: `docs/design/remote-exec.md`.

use std::{collections::BTreeMap, sync::Arc};

use skep_model::{ServiceMode, Task, TaskState, reserved::service::rollout};

use crate::{
    backend::{ClusterView, ExecStart},
    dto::container::ExecCreate,
    error::{ApiError, Result},
    http::{
        console,
        request::Request,
        response::{self, Response},
        server::Context,
    },
    routes::lookup,
};

/// Tasks that are named beside one that does not run or is not there.
const NAMED_MAX: usize = 5;

/// `POST /skep/v1/exec?task=NAME[&detach=1]`
pub(super) async fn start(context: &Arc<Context>, mut request: Request) -> Result<Response> {
    let body: ExecCreate = request.json().await?;
    if body.cmd.is_empty() {
        return Err(ApiError::invalid("No exec command specified"));
    }
    let is_detached = request.query.flag("detach");
    if !is_detached && !request.wants_upgrade() {
        return Err(ApiError::invalid("the connection must be upgraded"));
    }
    let view = lookup::view(context).await?;
    let task = find(&*view, request.query.text("task"))?;
    let node = task.node_id.ok_or_else(|| not_running(&*view, &task))?;
    if !is_up(task.status.state) {
        return Err(not_running(&*view, &task));
    }
    let start = ExecStart {
        is_detached,
        console_size: None,
    };
    let cluster = &context.backends.cluster;
    let exec = cluster
        .exec_in_task(node, task.id, body.into(), start)
        .await?;
    if is_detached {
        return Ok(response::empty(hyper::StatusCode::NO_CONTENT));
    }
    Ok(console::hand_over(context, request, exec))
}

/// The task that people mean: one of a service, one in a slot or on a node, or one by id or name.
fn find(view: &dyn ClusterView, wanted: &str) -> Result<Arc<Task>> {
    if let Some(service) = view.service_by_name(wanted) {
        let tasks = view.tasks_of_service(service.id);
        let running = tasks.iter().filter(|task| is_running(task));
        let running = running.min_by_key(|task| (task.slot, task.id)).cloned();
        let newest = tasks.iter().max_by_key(|task| task.meta.created_at);
        return running.ok_or_else(|| match newest {
            Some(newest) => not_running(view, newest),
            None => ApiError::conflict(format!("service {wanted} has no task")),
        });
    }
    if let Some((name, place)) = wanted.rsplit_once('.')
        && let Some(service) = view.service_by_name(name)
    {
        let tasks = view.tasks_of_service(service.id);
        let is_there = |task: &&Arc<Task>| {
            let node = task.node_id.and_then(|id| view.node(id));
            has_slot(&service.spec.mode) && task.slot.to_string() == place
                || node.is_some_and(|node| node.id.as_str() == place || node.hostname() == place)
        };
        let there: Vec<&Arc<Task>> = tasks.iter().filter(is_there).collect();
        if let Some(running) = there.iter().find(|task| is_running(task)) {
            return Ok(Arc::clone(running));
        }
        let newest = there.into_iter().max_by_key(|task| task.meta.created_at);
        return Err(match newest {
            Some(task) => not_running(view, task),
            None => no_such_place(view, name, place, &tasks),
        });
    }
    lookup::task(view, wanted)
}

/// Whether tasks are told apart by their slot, which of a job may be 0.
fn has_slot(mode: &ServiceMode) -> bool {
    match mode {
        ServiceMode::Replicated { .. } | ServiceMode::ReplicatedJob { .. } => true,
        ServiceMode::Global | ServiceMode::GlobalJob => false,
    }
}

/// Which tasks there are instead.
fn no_such_place(view: &dyn ClusterView, name: &str, place: &str, tasks: &[Arc<Task>]) -> ApiError {
    let mut newest: BTreeMap<String, &Task> = BTreeMap::new();
    for task in tasks {
        let known = newest.entry(place_name(view, task)).or_insert(task);
        if known.meta.created_at < task.meta.created_at {
            *known = task;
        }
    }
    let named = newest.iter().take(NAMED_MAX);
    let named = named.map(|(name, task)| format!("{name} ({})", task.status.state));
    let has = match named.collect::<Vec<_>>().join(", ").as_str() {
        "" => "it has none".to_owned(),
        named => format!("it has {named}"),
    };
    ApiError::not_found(format!("service {name} has no task {place}: {has}"))
}

fn is_running(task: &Arc<Task>) -> bool {
    is_up(task.status.state) && task.desired_state <= TaskState::Running
}

/// Whether there may be a container to run something in: before a task runs it may be up, but not healthy or ready yet, and its
/// node knows.
fn is_up(state: TaskState) -> bool {
    matches!(state, TaskState::Starting | TaskState::Running)
}

/// What the task is instead, why, and which tasks of its service do run.
fn not_running(view: &dyn ClusterView, task: &Task) -> ApiError {
    let name = place_name(view, task);
    let state = task.status.state;
    let what = match state {
        TaskState::Complete => "it is complete: its command has ended with exit code 0".to_owned(),
        _ => {
            let is_waiting = !state.is_terminal();
            let cause = match is_waiting {
                true => rollout::shown_error(task),
                false => rollout::cause(task),
            };
            match cause.as_str() {
                "" => format!("it is {state}"),
                cause => format!("it is {state} ({cause})"),
            }
        }
    };
    let others = task.service_id.map(|id| view.tasks_of_service(id));
    let mut others: Vec<Arc<Task>> = others.unwrap_or_default();
    others.retain(is_running);
    others.sort_by_key(|task| (task.slot, task.id));
    let others: Vec<String> = others
        .iter()
        .take(NAMED_MAX)
        .map(|task| place_name(view, task))
        .collect();
    let running = match others.as_slice() {
        [] => "no task of the service is running".to_owned(),
        others => format!("running: {}", others.join(", ")),
    };
    ApiError::conflict(format!("task {name} is not running: {what}; {running}"))
}

/// What people call the task to run a command beside it.
fn place_name(view: &dyn ClusterView, task: &Task) -> String {
    let service = &task.service_annotations.name;
    let of = task.service_id.and_then(|id| view.service(id));
    if of.is_some_and(|service| has_slot(&service.spec.mode)) {
        return format!("{service}.{}", task.slot);
    }
    match task.node_id.and_then(|id| view.node(id)) {
        Some(node) => format!("{service}.{}", node.hostname()),
        None => task.name(),
    }
}
