//! `POST /networks/{id}/connect` and `disconnect`: always refused, with the reason that applies.
//!
//! The networks of a task are those of its service. Containers outside of services there are none yet.

use super::catalog::Catalog;
use crate::{
    convert::SWARM_SCOPE,
    dto::network::{ConnectNetwork, Network},
    error::{ApiError, ErrorKind, Result},
    http::{request::Request, server::Context},
};

/// Why the container cannot be put on the network.
pub(super) async fn connect(context: &Context, term: &str, request: Request) -> ApiError {
    let (network, container) = match found(context, term, request).await {
        Ok(found) => found,
        Err(error) => return error,
    };
    if network.scope == SWARM_SCOPE && !network.attachable {
        let message = format!(
            "Could not attach to network {term}: rpc error: code = PermissionDenied desc = network \
             {term} not manually attachable"
        );
        return ApiError::new(ErrorKind::Forbidden, message);
    }
    refuse_task(&container, "add")
}

/// Why the container cannot be taken off the network.
pub(super) async fn disconnect(context: &Context, term: &str, request: Request) -> ApiError {
    let (network, container) = match found(context, term, request).await {
        Ok(found) => found,
        Err(error) => return error,
    };
    if !container.networks.contains(&network.id) {
        let message = format!(
            "container {} is not connected to network {}",
            container.id, network.name
        );
        return ApiError::new(ErrorKind::Forbidden, message);
    }
    refuse_task(&container, "rm")
}

fn refuse_task(container: &Found, verb: &str) -> ApiError {
    let Some(service) = &container.service else {
        let message = "not supported yet: networks of containers outside of services";
        return ApiError::not_implemented(message);
    };
    let message = format!(
        "container {} belongs to service {service}, whose networks it has; use \"docker service \
         update --network-{verb}\"",
        container.id
    );
    ApiError::new(ErrorKind::Forbidden, message)
}

/// A container, by what matters here.
struct Found {
    id: String,
    service: Option<String>,
    /// Ids.
    networks: Vec<String>,
}

async fn found(context: &Context, term: &str, mut request: Request) -> Result<(Network, Found)> {
    let body: ConnectNetwork = request.json().await?;
    let containers = &context.backends.containers;
    let container = containers.container(&body.container, false).await?.summary;
    let network = Catalog::of(context).await?.find(term, |_| true)?;
    let found = Found {
        service: container
            .labels
            .get("com.docker.swarm.service.name")
            .cloned(),
        networks: container
            .networks
            .into_values()
            .map(|place| place.network_id)
            .collect(),
        id: container.id,
    };
    Ok((network, found))
}
