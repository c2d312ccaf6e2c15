//! `/exec`, and `/containers/{id}/exec`.

use std::sync::Arc;

use hyper::{Method, StatusCode};

use crate::{
    dto::container::{ExecCreate, ExecInspect, ExecStart, IdResponse},
    error::{ApiError, Result},
    http::{
        hijack::hijack,
        request::Request,
        response::{self, Response},
        server::Context,
    },
    routes::{containers::console_size, page_not_found},
};

/// Routes below `/exec`.
pub(crate) async fn dispatch(
    context: &Arc<Context>,
    path: &[&str],
    request: Request,
) -> Result<Response> {
    let method = request.method().clone();
    match (method, path) {
        (Method::GET, [id, "json"]) => inspect(context, id).await,
        (Method::POST, [id, "start"]) => start(context, id, request).await,
        (Method::POST, [id, "resize"]) => resize(context, id, &request).await,
        _ => Err(page_not_found()),
    }
}

/// `POST /containers/{id}/exec`
pub(crate) async fn create(context: &Context, id: &str, mut request: Request) -> Result<Response> {
    let body: ExecCreate = request.json().await?;
    if body.cmd.is_empty() {
        return Err(ApiError::invalid("No exec command specified"));
    }
    let id = context
        .backends
        .containers
        .exec_create(id, body.into())
        .await?;
    response::json_with(StatusCode::CREATED, &IdResponse { id })
}

async fn start(context: &Context, id: &str, mut request: Request) -> Result<Response> {
    let body: ExecStart = request.json().await?;
    let is_detached = body.detach;
    let io = context
        .backends
        .containers
        .exec_start(id, body.into())
        .await?;
    if is_detached {
        return Ok(response::empty(StatusCode::OK));
    }
    Ok(hijack(context, request, io))
}

async fn resize(context: &Context, id: &str, request: &Request) -> Result<Response> {
    context
        .backends
        .containers
        .exec_resize(id, console_size(&request.query)?)
        .await?;
    Ok(response::empty(StatusCode::OK))
}

async fn inspect(context: &Context, id: &str) -> Result<Response> {
    response::json(&ExecInspect::from(
        context.backends.containers.exec(id).await?,
    ))
}
