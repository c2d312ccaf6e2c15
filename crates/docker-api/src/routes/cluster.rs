//! `/swarm`, and the stubs of what clusters will have later: secrets and configs live in
//! [`super::unsupported`].

use std::sync::Arc;

use hyper::{Method, StatusCode};

use crate::{
    backend::{LocalNodeState, RotateFlags},
    convert,
    dto::cluster::{InitRequest, JoinRequest, Spec, UnlockKey},
    error::{ApiError, Result},
    http::{
        request::Request,
        response::{self, Response},
        server::Context,
    },
    routes::{lookup, page_not_found},
};

/// Docker's refusal to join twice.
pub(super) const ALREADY_IN_SWARM: &str = "This node is already part of a swarm. Use \"docker swarm leave\" to \
                                leave this swarm and join another one.";

/// Routes below `/swarm`.
pub(crate) async fn dispatch(
    context: &Arc<Context>,
    path: &[&str],
    request: Request,
) -> Result<Response> {
    let method = request.method().clone();
    match (method, path) {
        (Method::GET, []) => inspect(context).await,
        (Method::POST, ["init"]) => init(context, request).await,
        (Method::POST, ["leave"]) => leave(context, &request).await,
        (Method::POST, ["update"]) => update(context, request).await,
        (Method::GET, ["unlockkey"]) => unlock_key(context).await,
        (Method::POST, ["join"]) => join(context, request).await,
        (Method::POST, ["unlock"]) => unlock(context, request).await,
        _ => Err(page_not_found()),
    }
}

async fn inspect(context: &Context) -> Result<Response> {
    let view = lookup::view(context).await?;
    let cluster = view
        .cluster()
        .ok_or_else(|| ApiError::unavailable("This node is not part of a swarm"))?;
    response::json(&convert::swarm(&cluster, &view.tls_info()))
}

async fn init(context: &Context, mut request: Request) -> Result<Response> {
    let mut body: InitRequest = request.json().await?;
    if !request.version.at_least(39) {
        body.default_addr_pool.clear();
        body.subnet_size = 0;
    }
    if !request.version.at_least(40) {
        body.data_path_port = 0;
    }
    let status = context.backends.cluster.status();
    if status.state != LocalNodeState::Inactive && !body.force_new_cluster {
        return Err(ApiError::unavailable(ALREADY_IN_SWARM));
    }
    let node = context
        .backends
        .cluster
        .init(convert::init_request(body)?)
        .await?;
    response::json(node.as_str())
}

async fn join(context: &Context, mut request: Request) -> Result<Response> {
    let body: JoinRequest = request.json().await?;
    if context.backends.cluster.status().state != LocalNodeState::Inactive {
        return Err(ApiError::unavailable(ALREADY_IN_SWARM));
    }
    let request = convert::join_request(body)?;
    context.backends.cluster.join(request).await?;
    Ok(response::empty(StatusCode::OK))
}

async fn leave(context: &Context, request: &Request) -> Result<Response> {
    if context.backends.cluster.status().state == LocalNodeState::Inactive {
        return Err(ApiError::unavailable("This node is not part of a swarm"));
    }
    context
        .backends
        .cluster
        .leave(request.query.flag("force"))
        .await?;
    Ok(response::empty(StatusCode::OK))
}

async fn update(context: &Context, mut request: Request) -> Result<Response> {
    let spec: Spec = request.json().await?;
    let version = request.query.version("swarm")?;
    let rotate = RotateFlags {
        worker_token: request.query.strict_flag("rotateWorkerToken")?,
        manager_token: request.query.strict_flag("rotateManagerToken")?,
        manager_unlock_key: request.query.strict_flag("rotateManagerUnlockKey")?,
    };
    let view = lookup::view(context).await?;
    let cluster = view
        .cluster()
        .ok_or_else(|| ApiError::unavailable("This node is not part of a swarm"))?;
    let spec = convert::merge_cluster_spec(spec, convert::update_base(&cluster.spec))?;
    context
        .backends
        .cluster
        .update_cluster(version, spec, rotate)
        .await?;
    Ok(response::empty(StatusCode::OK))
}

async fn unlock_key(context: &Context) -> Result<Response> {
    lookup::check_manager(context)?;
    let unlock_key = context.backends.cluster.unlock_key().await?;
    response::json(&UnlockKey { unlock_key })
}

async fn unlock(context: &Context, mut request: Request) -> Result<Response> {
    let body: UnlockKey = request.json().await?;
    let status = context.backends.cluster.status();
    match (status.state, lookup::no_manager(&status)) {
        (LocalNodeState::Locked, _) => {}
        (_, None) => return Err(ApiError::conflict("swarm is not locked")),
        (_, Some(reason)) => return Err(reason),
    }
    context.backends.cluster.unlock(&body.unlock_key).await?;
    Ok(response::empty(StatusCode::OK))
}
