//! `/networks`: those of this node and, on a manager, those of the cluster.

mod catalog;
mod connect;
mod create;
mod members;
mod remove;

use std::{collections::BTreeMap, sync::Arc};

use hyper::Method;

use self::catalog::Catalog;
pub(crate) use self::create::cluster_spec;
use crate::{
    convert::SWARM_SCOPE,
    dto::network::Network,
    error::{ApiError, Result},
    http::{
        filter::Filters,
        request::Request,
        response::{self, Response},
        server::Context,
    },
    routes::page_not_found,
};

/// Networks every engine has, which nobody makes or removes.
const PREDEFINED: [&str; 4] = ["bridge", "default", "host", "none"];
const FILTERS: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];

/// Routes of networks.
pub(crate) async fn dispatch(
    context: &Arc<Context>,
    path: &[&str],
    request: Request,
) -> Result<Response> {
    match (request.method().clone(), path) {
        (Method::GET, ["networks"]) => list(context, &request).await,
        (Method::GET, ["networks", term]) => inspect(context, term, &request).await,
        (Method::POST, ["networks", "create"]) => create::create(context, request).await,
        (Method::POST, ["networks", "prune"]) => remove::prune(context, &request).await,
        (Method::POST, ["networks", term, "connect"]) => {
            Err(connect::connect(context, term, request).await)
        }
        (Method::POST, ["networks", term, "disconnect"]) => {
            Err(connect::disconnect(context, term, request).await)
        }
        (Method::DELETE, ["networks", term]) => remove::remove(context, term).await,
        _ => Err(page_not_found()),
    }
}

async fn list(context: &Context, request: &Request) -> Result<Response> {
    let filters = Filters::from_query(&request.query, &FILTERS)?;
    let dangling = match filters.has("dangling") {
        true => Some(filters.flag("dangling", false)?),
        false => None,
    };
    if let Some(kind) = filters
        .values("type")
        .find(|kind| !["builtin", "custom"].contains(kind))
    {
        return Err(ApiError::invalid(format!(
            "invalid filter: 'type'='{kind}'"
        )));
    }
    let catalog = Catalog::of(context).await?;
    let used = dangling.map(|dangling| (dangling, catalog.used()));
    let is_wanted_use = |network: &Network| match &used {
        Some((dangling, used)) => *dangling != used.contains(&network.id),
        None => true,
    };
    let wanted = catalog.networks.iter();
    let wanted = wanted.filter(|network| matches(&filters, network) && is_wanted_use(network));
    response::json(&wanted.collect::<Vec<_>>())
}

fn matches(filters: &Filters, network: &Network) -> bool {
    let no_labels = BTreeMap::new();
    let labels = network.labels.as_ref().unwrap_or(&no_labels);
    let kind = match PREDEFINED.contains(&network.name.as_str()) {
        true => "builtin",
        false => "custom",
    };
    filters.matches_names("name", &[&network.name])
        && filters.starts("id", &network.id)
        && filters.equals("driver", &network.driver)
        && filters.equals("scope", &network.scope)
        && filters.equals("type", kind)
        && filters.labels("label", labels)
}

async fn inspect(context: &Context, term: &str, request: &Request) -> Result<Response> {
    let is_verbose = request.query.strict_flag("verbose")?;
    let scope = request.query.text("scope");
    let catalog = Catalog::of(context).await?;
    let network = match catalog.of_cluster(term) {
        // Found by name or id: `term` is not empty.
        Some(network) if scope == SWARM_SCOPE || network.id.starts_with(term) => network,
        _ => catalog.find(term, |network| scope.is_empty() || network.scope == scope)?,
    };
    let network = members::show(context, &catalog, network, is_verbose).await?;
    response::json(&network)
}
