//! `/skep/v1`: what Docker has not. Each route is told in `docs/design/engine-api.md`.

mod exec;
mod services;
mod stacks;

use std::sync::Arc;

use hyper::{Method, StatusCode};
use serde::Serialize;

use crate::{
    backend::{ClusterView, LocalNodeState, PlannedMove, RestoreRequest},
    error::{ApiError, Result},
    http::{
        request::Request,
        response::{self, Response},
        server::Context,
        timestamp,
    },
    routes::{cluster::ALREADY_IN_SWARM, jobs, lookup, page_not_found},
};

/// Media type of backups.
const OCTETS: &str = "application/octet-stream";

/// Routes below `/skep/v1`.
pub(crate) async fn dispatch(
    context: &Arc<Context>,
    path: &[&str],
    request: Request,
) -> Result<Response> {
    let method = request.method().clone();
    match (method, path) {
        (Method::GET, ["backup"]) => backup(context).await,
        (Method::POST, ["restore"]) => restore(context, request).await,
        (Method::GET, ["doctor"]) => doctor(context).await,
        (Method::POST, ["doctor", "heal"]) => heal(context).await,
        (Method::POST, ["exec"]) => exec::start(context, request).await,
        (Method::GET, ["nodes", id, "doctor"]) => examine(context, id, false).await,
        (Method::POST, ["nodes", id, "doctor", "heal"]) => examine(context, id, true).await,
        (Method::GET, ["jobs"]) => jobs::list(context).await,
        (Method::POST, ["jobs", name, "run"]) => jobs::run(context, name).await,
        (Method::GET, ["services"]) => services::list(context).await,
        (Method::GET, ["services", id, "revisions"]) => services::revisions(context, id).await,
        (Method::POST, ["services", id, "rollback"]) => {
            services::roll_back(context, id, &request).await
        }
        (_, ["stacks", rest @ ..]) => stacks::dispatch(context, rest, request).await,
        (Method::GET, ["rebalance"]) => rebalance(context).await,
        _ => Err(page_not_found()),
    }
}

/// What is wrong with the node's networks.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Diagnosis {
    node: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    repaired: Option<Vec<String>>,
    findings: Vec<String>,
}

async fn doctor(context: &Context) -> Result<Response> {
    let system = &context.backends.system;
    let repaired = system.repaired_networks().await?;
    response::json(&Diagnosis {
        node: system.facts().name,
        repaired: (!repaired.is_empty()).then_some(repaired),
        findings: system.examine_networks().await?,
    })
}

async fn heal(context: &Context) -> Result<Response> {
    let system = &context.backends.system;
    let repaired = system.heal_networks().await?;
    response::json(&Diagnosis {
        node: system.facts().name,
        repaired: Some(repaired),
        findings: system.examine_networks().await?,
    })
}

/// What a node, on any machine, says of its networks.
async fn examine(context: &Context, id: &str, heal: bool) -> Result<Response> {
    let view = lookup::view(context).await?;
    let node = lookup::node(context, &*view, id)?;
    let report = context.backends.cluster.examine_node(node.id, heal).await?;
    Ok(response::full(
        StatusCode::OK,
        response::JSON,
        report.into(),
    ))
}

/// A move that would spread a service's tasks better.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownMove {
    #[serde(rename = "TaskID")]
    task_id: String,
    task: String,
    #[serde(rename = "FromID")]
    from_id: String,
    from: String,
    #[serde(rename = "ToID")]
    to_id: String,
    to: String,
    reason: String,
}

/// What `skep.rebalance` would do; changes nothing.
async fn rebalance(context: &Context) -> Result<Response> {
    let view = lookup::view(context).await?;
    // Every task and every node is looked at.
    let planned = tokio::task::spawn_blocking(move || {
        let moves = view.planned_moves(timestamp::now());
        moves
            .iter()
            .map(|step| shown(&*view, step))
            .collect::<Vec<_>>()
    });
    let moves = planned.await;
    let moves = moves.map_err(|error| ApiError::system("failed to plan moves", error))?;
    response::json(&moves)
}

fn shown(view: &dyn ClusterView, step: &PlannedMove) -> ShownMove {
    let node = |id| {
        let node = view.node(id);
        node.map_or(String::new(), |node| node.hostname().to_owned())
    };
    let task = view.task(step.task);
    ShownMove {
        task_id: step.task.to_string(),
        task: task.map_or(String::new(), |task| {
            format!("{}.{}", task.service_annotations.name, task.slot)
        }),
        from_id: step.from.to_string(),
        from: node(step.from),
        to_id: step.to.to_string(),
        to: node(step.to),
        reason: step.reason.clone(),
    }
}

async fn backup(context: &Context) -> Result<Response> {
    lookup::check_manager(context)?;
    let bytes = context.backends.cluster.backup().await?;
    Ok(response::stream(OCTETS, bytes, &context.shutdown))
}

async fn restore(context: &Context, request: Request) -> Result<Response> {
    if context.backends.cluster.status().state != LocalNodeState::Inactive {
        return Err(ApiError::unavailable(ALREADY_IN_SWARM));
    }
    let request = RestoreRequest {
        listen_addr: request.query.text("listenAddr").to_owned(),
        advertise_addr: request.query.text("advertiseAddr").to_owned(),
        backup: request.into_stream(),
    };
    let node = context.backends.cluster.restore(request).await?;
    response::json(node.as_str())
}
