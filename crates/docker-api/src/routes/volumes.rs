//! `/volumes` and `/networks` of this node.

use std::sync::Arc;

use hyper::{Method, StatusCode};

use crate::{
    backend::{NetworkDetail, VolumeDetail},
    dto::volume::{CreateVolume, Network, Volume, VolumeList, VolumesPruned},
    error::{ApiError, Result},
    http::{
        filter::Filters,
        request::Request,
        response::{self, Response},
        server::Context,
    },
    routes::page_not_found,
};

/// Routes of volumes and networks.
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
        (Method::GET, ["networks"]) => networks(context, &request).await,
        (Method::GET, ["networks", name]) => network(context, name).await,
        (Method::POST, ["networks", "create"]) => Err(ApiError::not_implemented(
            "not supported yet: creating networks",
        )),
        (Method::POST, ["networks", "prune"]) => {
            response::json(&serde_json::json!({ "NetworksDeleted": null }))
        }
        (Method::POST, ["networks", _, verb @ ("connect" | "disconnect")]) => Err(
            ApiError::not_implemented(format!("not supported yet: network {verb}")),
        ),
        (Method::DELETE, ["networks", name]) => {
            let network = find_network(context, name).await?;
            let name = network.name;
            Err(ApiError::new(
                crate::error::ErrorKind::Forbidden,
                format!("{name} is a pre-defined network and cannot be removed"),
            ))
        }
        _ => Err(page_not_found()),
    }
}

async fn list(context: &Context, request: &Request) -> Result<Response> {
    let filters = Filters::from_query(&request.query, &["dangling", "driver", "label", "name"])?;
    let dangling = match filters.has("dangling") {
        true => Some(filters.flag("dangling", false)?),
        false => None,
    };
    let volumes = context
        .backends
        .volumes
        .volumes()
        .await?
        .into_iter()
        .filter(|volume| {
            filters.contained("name", &volume.name)
                && filters.equals("driver", &volume.driver)
                && filters.labels("label", &volume.labels)
                && dangling.is_none_or(|dangling| dangling == volume.users.is_empty())
        });
    response::json(&VolumeList {
        volumes: volumes.map(Volume::new).collect(),
        warnings: None,
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
            && volume.users.is_empty()
            && filters.labels("label", &volume.labels)
            && filters.labels_absent("label!", &volume.labels)
    };
    let mut deleted = Vec::new();
    let mut space_reclaimed = 0;
    for volume in context
        .backends
        .volumes
        .volumes()
        .await?
        .into_iter()
        .filter(wanted)
    {
        // One that came into use meanwhile stays.
        if context
            .backends
            .volumes
            .remove(&volume.name, false)
            .await
            .is_ok()
        {
            space_reclaimed += volume.size_bytes.unwrap_or(0);
            deleted.push(volume.name);
        }
    }
    let volumes_deleted = (!deleted.is_empty()).then_some(deleted);
    response::json(&VolumesPruned {
        volumes_deleted,
        space_reclaimed,
    })
}

async fn networks(context: &Context, request: &Request) -> Result<Response> {
    let known = ["dangling", "driver", "id", "label", "name", "scope", "type"];
    let filters = Filters::from_query(&request.query, &known)?;
    let wanted = context
        .backends
        .system
        .networks()
        .await?
        .into_iter()
        .filter(|network| {
            filters.contained("name", &network.name)
                && filters.starts("id", &network.id)
                && filters.equals("driver", &network.driver)
                && filters.equals("scope", &network.scope)
                && filters.equals("type", "builtin")
                && filters.labels("label", &network.labels)
        });
    response::json(&wanted.map(Network::from).collect::<Vec<_>>())
}

async fn network(context: &Context, name: &str) -> Result<Response> {
    response::json(&Network::from(find_network(context, name).await?))
}

async fn find_network(context: &Context, name: &str) -> Result<NetworkDetail> {
    let networks = context.backends.system.networks().await?;
    let exact = networks
        .iter()
        .find(|network| network.id == name || network.name == name);
    let found = exact.or_else(|| {
        let mut starting = networks
            .iter()
            .filter(|it| !name.is_empty() && it.id.starts_with(name));
        starting.next().filter(|_| starting.next().is_none())
    });
    found
        .cloned()
        .ok_or_else(|| ApiError::not_found(format!("network {name} not found")))
}
