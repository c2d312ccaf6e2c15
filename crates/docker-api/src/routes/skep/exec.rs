//! `/skep/v1/exec`: a command beside a task, wherever it runs. Design: `docs/design/remote-exec.md`.

use std::sync::Arc;

use skep_model::{Task, TaskState};

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
    let node = task.node_id.ok_or_else(|| not_running(&task))?;
    if task.status.state != TaskState::Running {
        return Err(not_running(&task));
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
        let tasks = view.tasks_of_service(service.id).into_iter();
        let running = tasks
            .filter(is_running)
            .min_by_key(|task| (task.slot, task.id));
        return running
            .ok_or_else(|| ApiError::conflict(format!("service {wanted} has no running task")));
    }
    if let Some((name, place)) = wanted.rsplit_once('.')
        && let Some(service) = view.service_by_name(name)
    {
        let is_there = |task: &Arc<Task>| {
            let node = task.node_id.and_then(|id| view.node(id));
            task.slot.to_string() == place && !place.starts_with('0')
                || node.is_some_and(|node| node.id.as_str() == place || node.hostname() == place)
        };
        let there: Vec<Arc<Task>> = view
            .tasks_of_service(service.id)
            .into_iter()
            .filter(is_there)
            .collect();
        if let Some(running) = there.iter().find(|task| is_running(task)) {
            return Ok(Arc::clone(running));
        }
        let newest = there.into_iter().max_by_key(|task| task.meta.created_at);
        return Err(match newest {
            Some(task) => not_running(&task),
            None => ApiError::not_found(format!("service {name} has no task {place}")),
        });
    }
    lookup::task(view, wanted)
}

fn is_running(task: &Arc<Task>) -> bool {
    task.status.state == TaskState::Running && task.desired_state <= TaskState::Running
}

fn not_running(task: &Task) -> ApiError {
    let state = task.status.state;
    ApiError::conflict(format!(
        "task {} is not running: it is {state}",
        task.name()
    ))
}
