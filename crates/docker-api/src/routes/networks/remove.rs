//! `DELETE /networks/{id}` and `POST /networks/prune`.

use std::collections::BTreeMap;

use hyper::StatusCode;
use skep_model::{NODE_NETWORK, Network, Timestamp};

use super::{
    PREDEFINED,
    catalog::{Catalog, cluster_id},
};
use crate::{
    convert::SWARM_SCOPE,
    dto::network::NetworksPruned,
    error::{ApiError, ErrorKind, Result},
    event::{Event, EventScope},
    http::{
        filter::Filters,
        request::Request,
        response::{self, Response},
        server::Context,
        timestamp,
    },
    routes::lookup,
};

pub(super) async fn remove(context: &Context, term: &str) -> Result<Response> {
    let network = Catalog::of(context).await?.find(term, |_| true)?;
    let Some(id) = cluster_id(&network) else {
        let name = network.name;
        if !PREDEFINED.contains(&name.as_str()) && name != NODE_NETWORK {
            context.backends.system.remove_network(&network.id).await?;
            return Ok(response::empty(StatusCode::NO_CONTENT));
        }
        let message = format!("{name} is a pre-defined network and cannot be removed");
        return Err(ApiError::new(ErrorKind::Forbidden, message));
    };
    lookup::check_manager(context)?;
    context.backends.cluster.remove_network(id).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

/// Removes networks of this node nobody uses; returns their names. Settings for others stay, as in Docker.
async fn prune_own(
    context: &Context,
    filters: &Filters,
    until: Option<Timestamp>,
) -> Result<Vec<String>> {
    let system = &context.backends.system;
    let mut deleted = Vec::new();
    for network in system.networks().await? {
        let is_wanted = !PREDEFINED.contains(&network.name.as_str())
            && network.scope != SWARM_SCOPE
            && !network.is_config_only
            && filters.labels("label", &network.labels)
            && filters.labels_absent("label!", &network.labels)
            && until.is_none_or(|limit| network.created_at <= limit);
        // One that is in use stays.
        if is_wanted && system.remove_network(&network.id).await.is_ok() {
            deleted.push(network.name);
        }
    }
    Ok(deleted)
}

/// Removes the networks nobody uses. The one for published ports stays, as in Docker.
pub(super) async fn prune(context: &Context, request: &Request) -> Result<Response> {
    let filters = Filters::from_query(&request.query, &["label", "label!", "until"])?;
    let until = match filters.values("until").next() {
        Some(text) => timestamp::parse(text, timestamp::now())
            .map_err(|error| ApiError::invalid(error.to_string()))?,
        None => None,
    };
    let view = match lookup::check_manager(context) {
        Ok(()) => Some(lookup::view(context).await?),
        Err(_) => None,
    };
    let is_wanted = |network: &Network| {
        let spec = &network.spec;
        let labels = &spec.annotations.labels;
        !(spec.is_ingress || spec.is_predefined() || spec.is_node_network())
            && filters.labels("label", labels)
            && filters.labels_absent("label!", labels)
            && until.is_none_or(|limit| network.meta.created_at <= limit)
    };
    let networks = view.iter().flat_map(|view| view.networks());
    let cluster = &context.backends.cluster;
    let mut deleted = Vec::new();
    for network in networks.filter(|network| is_wanted(network)) {
        // One that is in use stays.
        if cluster.remove_network(network.id).await.is_ok() {
            deleted.push(network.name().to_owned());
        }
    }
    deleted.extend(prune_own(context, &filters, until).await?);
    context.backends.events.publish(Event {
        kind: "network",
        action: "prune".to_owned(),
        actor_id: String::new(),
        attributes: BTreeMap::from([("reclaimed".to_owned(), "0".to_owned())]),
        scope: EventScope::Local,
        time: timestamp::now(),
    });
    response::json(&NetworksPruned {
        networks_deleted: (!deleted.is_empty()).then_some(deleted),
    })
}
