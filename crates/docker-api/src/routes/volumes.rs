//! `/volumes` of this node.

use std::sync::Arc;

use hyper::{Method, StatusCode};

use crate::{
    backend::{VolumeDetail, VolumeListing},
    dto::volume::{CreateVolume, Volume, VolumeList, VolumesPruned},
    error::{ApiError, Result},
    http::{
        filter::Filters,
        request::Request,
        response::{self, Response},
        server::Context,
    },
    routes::page_not_found,
};

/// Routes of volumes.
pub(crate) async fn dispatch(
    context: &Arc<Context>,
    path: &[&str],
    request: Request,
) -> Result<Response> {
    let method = request.method().clone();
    match (method, path) {
        (Method::GET, ["volumes"]) => list(context, &request).await,
        (Method::POST, ["volumes", "create"]) => create(context, request).await,
        (Method::POST, ["volumes", "prune"]) => prune(context, &request).await,
        (Method::GET, ["volumes", name]) => {
            response::json(&Volume::new(context.backends.volumes.volume(name).await?))
        }
        (Method::DELETE, ["volumes", name]) => {
            context
                .backends
                .volumes
                .remove(name, request.query.flag("force"))
                .await?;
            Ok(response::empty(StatusCode::NO_CONTENT))
        }
        (Method::PUT, ["volumes", _]) => Err(ApiError::not_implemented(
            "not supported yet: cluster volumes",
        )),
        _ => Err(page_not_found()),
    }
}

async fn list(context: &Context, request: &Request) -> Result<Response> {
    let filters = Filters::from_query(&request.query, &["dangling", "driver", "label", "name"])?;
    let dangling = match filters.has("dangling") {
        true => Some(filters.flag("dangling", false)?),
        false => None,
    };
    let VolumeListing { volumes, warnings } = context.backends.volumes.volumes().await?;
    let volumes = volumes.into_iter().filter(|volume| {
        filters.matches_names("name", &[&volume.name])
            && filters.equals("driver", &volume.driver)
            && filters.labels("label", &volume.labels)
            && dangling.is_none_or(|dangling| dangling == volume.users.is_empty())
    });
    response::json(&VolumeList {
        volumes: volumes.map(Volume::new).collect(),
        warnings: (!warnings.is_empty()).then_some(warnings),
    })
}

async fn create(context: &Context, mut request: Request) -> Result<Response> {
    let body: CreateVolume = request.json().await?;
    if body.cluster_volume_spec.is_some() {
        return Err(ApiError::not_implemented(
            "not supported yet: ClusterVolumeSpec",
        ));
    }
    let volume = context.backends.volumes.create(body.into()).await?;
    response::json_with(StatusCode::CREATED, &Volume::new(volume))
}

async fn prune(context: &Context, request: &Request) -> Result<Response> {
    let filters = Filters::from_query(&request.query, &["all", "label", "label!"])?;
    // Since 1.42 only anonymous volumes go unless all are asked for.
    let all = filters.flag("all", !request.version.at_least(42))?;
    let wanted = |volume: &VolumeDetail| {
        (all || volume.is_anonymous)
            // What a plugin keeps others may use from elsewhere: it goes by name only, as in Docker.
            && volume.driver == "local"
            // Nor do those with options: what they mount is somewhere else.
            && volume.options.is_empty()
            && volume.users.is_empty()
            && filters.labels("label", &volume.labels)
            && filters.labels_absent("label!", &volume.labels)
    };
    let mut deleted = Vec::new();
    let mut space_reclaimed = 0;
    let backend = &context.backends.volumes;
    let listing = backend.volumes().await?;
    for volume in listing.volumes.into_iter().filter(wanted) {
        let size_bytes = backend.size_bytes(&volume.name).await.unwrap_or_default();
        // One that came into use meanwhile stays.
        if backend.remove(&volume.name, false).await.is_ok() {
            space_reclaimed += size_bytes.unwrap_or(0);
            deleted.push(volume.name);
        }
    }
    let volumes_deleted = (!deleted.is_empty()).then_some(deleted);
    response::json(&VolumesPruned {
        volumes_deleted,
        space_reclaimed,
    })
}
