//! What Docker has and Skep has not (yet): refused by name, never a false success.

use hyper::Method;

use crate::{
    error::{ApiError, Result},
    http::response::{self, Response},
    routes::page_not_found,
};

/// Answers paths that no handler takes.
pub(crate) fn answer(method: &Method, path: &[&str]) -> Result<Response> {
    let what = match (method, path) {
        (&Method::GET, ["plugins"]) => return response::json::<[(); 0]>(&[]),
        // There is no build cache; `docker system prune` empties it all the same.
        (&Method::POST, ["build", "prune"]) => {
            return response::json(
                &serde_json::json!({ "CachesDeleted": null, "SpaceReclaimed": 0 }),
            );
        }
        (_, ["plugins", ..]) => "plugins",
        (&Method::POST, ["build", ..]) => {
            "building images; build elsewhere, then `docker load` or a registry"
        }
        (&Method::POST, ["commit"]) => "committing containers",
        (&Method::POST, ["session" | "grpc"]) => "BuildKit sessions",
        _ => return Err(page_not_found()),
    };
    Err(ApiError::not_implemented(format!(
        "not supported yet: {what}"
    )))
}

/// What a known route below `/containers` that no handler takes would do.
pub(crate) fn containers(method: &Method, path: &[&str]) -> Option<&'static str> {
    match (method, path) {
        (&Method::POST, ["create"]) => {
            Some("creating containers outside of services; use `docker service create`")
        }
        (&Method::POST, [_, "start"]) => Some("starting containers outside of services"),
        (&Method::POST, [_, "restart"]) => Some("restarting containers"),
        (&Method::POST, [_, "pause" | "unpause"]) => Some("pausing containers"),
        (&Method::POST, [_, "rename"]) => Some("renaming containers"),
        (&Method::POST, [_, "update"]) => Some("updating containers"),
        (&Method::GET, [_, "changes"]) => Some("container changes"),
        (&Method::GET, [_, "export"]) => Some("exporting containers"),
        (&Method::GET, [_, "attach", "ws"]) => Some("attaching over WebSocket"),
        (&Method::GET | &Method::HEAD | &Method::PUT, [_, "archive"]) => {
            Some("copying files to or from containers")
        }
        (_, [_, "checkpoints", ..]) => Some("checkpoints"),
        _ => None,
    }
}
