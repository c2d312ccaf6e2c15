//! `/tasks`.

use std::{collections::BTreeSet, sync::Arc};

use skep_model::{
    NodeId, NodeState, Service, ServiceId, Task, TaskState, reserved::service::stopping_text,
};

use crate::{
    backend::ClusterView,
    dto::task as dto,
    error::{ApiError, Result},
    http::{
        filter::Filters,
        request::Request,
        response::{self, Response},
        server::Context,
    },
    routes::lookup,
};

/// The one with a dash below is the CLI's own, to follow a deployment.
const FILTERS: [&str; 8] = [
    "_up-to-date",
    "desired-state",
    "id",
    "label",
    "name",
    "node",
    "runtime",
    "service",
];

/// `GET /tasks`
pub(crate) async fn list(context: &Context, request: &Request) -> Result<Response> {
    let filters = Filters::from_query(&request.query, &FILTERS)?;
    let states = states(&filters)?;
    let view = lookup::view(context).await?;
    // A name that is not found is an empty answer only where ids are meant; Docker refuses it.
    let services: BTreeSet<ServiceId> = filters
        .values("service")
        .map(|name| lookup::service(&*view, name).map(|service| service.id))
        .collect::<Result<_>>()?;
    let nodes: BTreeSet<NodeId> = filters
        .values("node")
        .map(|name| lookup::node(context, &*view, name).map(|node| node.id))
        .collect::<Result<_>>()?;
    let up_to_date = filters.has("_up-to-date");
    let tasks = candidates(&*view, &services, &nodes);
    let wanted = tasks.iter().filter(|task| {
        (services.is_empty() || task.service_id.is_some_and(|id| services.contains(&id)))
            && (nodes.is_empty() || task.node_id.is_some_and(|id| nodes.contains(&id)))
            && (states.is_empty() || states.contains(&task.desired_state))
            && filters.starts("id", task.id.as_str())
            && (!filters.has("name") || filters.starts("name", &task.name()))
            && filters.labels("label", &task.service_annotations.labels)
            && filters.equals("runtime", "container")
            && (!up_to_date || is_up_to_date(&*view, task))
    });
    response::json(&wanted.map(|task| shown(&*view, task)).collect::<Vec<_>>())
}

/// The fewest tasks an index gives that hold all wanted ones, in id order.
fn candidates(
    view: &dyn ClusterView,
    services: &BTreeSet<ServiceId>,
    nodes: &BTreeSet<NodeId>,
) -> Vec<Arc<Task>> {
    let mut tasks: Vec<_> = if !services.is_empty() {
        services
            .iter()
            .flat_map(|id| view.tasks_of_service(*id))
            .collect()
    } else if !nodes.is_empty() {
        nodes
            .iter()
            .flat_map(|id| view.tasks_on_node(*id))
            .collect()
    } else {
        view.tasks()
    };
    tasks.sort_by_key(|task| task.id);
    tasks
}

fn states(filters: &Filters) -> Result<Vec<TaskState>> {
    let state = |name: &str| {
        let mut all = TaskState::ALL.into_iter();
        all.find(|state| state.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| ApiError::invalid(format!("Invalid desired-state filter: '{name}'")))
    };
    filters
        .values("desired-state")
        .filter(|name| !name.is_empty())
        .map(state)
        .collect()
}

/// Whether the task was made from its service's present spec.
fn is_up_to_date(view: &dyn ClusterView, task: &Task) -> bool {
    let made_from = |service: &Service| {
        task.spec_version == Some(service.spec_version)
            || (task.spec == service.spec.task
                && task
                    .endpoint
                    .as_ref()
                    .and_then(|endpoint| endpoint.spec.as_ref())
                    == service.spec.endpoint.as_ref())
    };
    task.service_id
        .and_then(|id| view.service(id))
        .is_some_and(|service| made_from(&service))
}

/// `GET /tasks/{id}`
pub(crate) async fn inspect(context: &Context, id: &str) -> Result<Response> {
    let view = lookup::view(context).await?;
    let task = lookup::task(&*view, id)?;
    response::json(&shown(&*view, &task))
}

/// A task that goes on after it was told to stop says why; of a node that is not there nobody knows.
fn shown(view: &dyn ClusterView, task: &Task) -> dto::Task {
    let mut shown = dto::Task::from(task);
    let is_there = |id| {
        view.node(id)
            .is_some_and(|n| n.status.state == NodeState::Ready)
    };
    if shown.status.err.is_empty()
        && let Some(text) = stopping_text(task)
        && task.node_id.is_some_and(is_there)
    {
        shown.status.err = text;
    }
    shown
}
