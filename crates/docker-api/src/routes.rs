//! The route table: method and path to handler.
//!
//! Handlers decode, call a backend, encode. Paths are matched in segments, because names of images
//! hold slashes. A path or method nobody knows is `page not found`, as in Docker; what Docker has
//! and Skep has not is refused by name with 501.

mod cluster;
mod containers;
mod events;
mod exec;
mod images;
mod jobs;
mod logs;
mod lookup;
mod names;
mod networks;
mod nodes;
mod registry;
mod secrets;
mod services;
mod skep;
mod system;
mod tasks;
mod unsupported;
mod volumes;

use std::sync::Arc;

use hyper::Method;

use crate::{
    error::{ApiError, Result},
    http::{
        request::{Path, Request},
        response::Response,
        server::Context,
    },
};

/// What all unknown paths and methods get.
pub(crate) fn page_not_found() -> ApiError {
    ApiError::not_found("page not found")
}

/// Finds and runs the handler of a request.
pub(crate) async fn dispatch(
    context: &Arc<Context>,
    path: Path,
    request: Request,
) -> Result<Response> {
    let segments: Vec<&str> = path.segments.iter().map(String::as_str).collect();
    // Boxed: a connection then holds one handler's state, not the largest of all.
    match segments.as_slice() {
        ["services" | "tasks" | "nodes", ..] => {
            Box::pin(cluster_objects(context, &segments, request)).await
        }
        ["skep", "v1", rest @ ..] => Box::pin(skep::dispatch(context, rest, request)).await,
        ["swarm", rest @ ..] => Box::pin(cluster::dispatch(context, rest, request)).await,
        ["images", rest @ ..] => Box::pin(images::dispatch(context, rest, request)).await,
        ["containers", rest @ ..] => Box::pin(containers::dispatch(context, rest, request)).await,
        ["exec", rest @ ..] => Box::pin(exec::dispatch(context, rest, request)).await,
        ["networks", ..] => Box::pin(networks::dispatch(context, &segments, request)).await,
        ["secrets", rest @ ..] => Box::pin(secrets::secrets(context, rest, request)).await,
        ["configs", rest @ ..] => Box::pin(secrets::configs(context, rest, request)).await,
        ["volumes", ..] => Box::pin(volumes::dispatch(context, &segments, request)).await,
        _ => Box::pin(system(context, &segments, request)).await,
    }
}

async fn cluster_objects(
    context: &Arc<Context>,
    path: &[&str],
    request: Request,
) -> Result<Response> {
    let method = request.method().clone();
    match (method, path) {
        (Method::GET, ["services"]) => services::list(context, &request).await,
        (Method::POST, ["services", "create"]) => services::create(context, request).await,
        (Method::GET, ["services", id]) => services::inspect(context, id, &request).await,
        (Method::DELETE, ["services", id]) => services::remove(context, id).await,
        (Method::POST, ["services", id, "update"]) => services::update(context, id, request).await,
        (Method::GET, ["services", id, "logs"]) => logs::of_service(context, id, &request).await,
        (Method::GET, ["tasks"]) => tasks::list(context, &request).await,
        (Method::GET, ["tasks", id]) => tasks::inspect(context, id).await,
        (Method::GET, ["tasks", id, "logs"]) => logs::of_task(context, id, &request).await,
        (Method::GET, ["nodes"]) => nodes::list(context, &request).await,
        (Method::GET, ["nodes", id]) => nodes::inspect(context, id).await,
        (Method::DELETE, ["nodes", id]) => nodes::remove(context, id, &request).await,
        (Method::POST, ["nodes", id, "update"]) => nodes::update(context, id, request).await,
        _ => Err(page_not_found()),
    }
}

async fn system(context: &Arc<Context>, path: &[&str], request: Request) -> Result<Response> {
    let method = request.method().clone();
    match (method, path) {
        (Method::GET | Method::HEAD, ["_ping"]) => Ok(system::ping(context, &request)),
        (Method::GET, ["version"]) => system::version(context),
        (Method::GET, ["info"]) => system::info(context, &request).await,
        (Method::GET, ["system", "df"]) => system::disk_usage(context, &request).await,
        (Method::GET, ["events"]) => events::stream(context, &request),
        (Method::POST, ["auth"]) => registry::login(context, request).await,
        (Method::GET, ["distribution", name @ .., "json"]) if !name.is_empty() => {
            registry::distribution(context, &name.join("/"), &request).await
        }
        (method, path) => unsupported::answer(&method, path),
    }
}
