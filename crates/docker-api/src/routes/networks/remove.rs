//! `DELETE /networks/{id}` and `POST /networks/prune`.

use std::collections::BTreeMap;

use hyper::StatusCode;
use skep_model::Network;

use super::catalog::{Catalog, cluster_id};
use crate::{
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
        let message = format!("{name} is a pre-defined network and cannot be removed");
        return Err(ApiError::new(ErrorKind::Forbidden, message));
    };
    lookup::check_manager(context)?;
    context.backends.cluster.remove_network(id).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

/// Removes the cluster's networks nobody uses. The one for published ports stays, as in Docker.
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
