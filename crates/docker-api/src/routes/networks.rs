//! `/networks`: those of this node and, on a manager, those of the cluster.

use std::{collections::BTreeMap, sync::Arc};

use hyper::{Method, StatusCode};
use skep_model::{NetworkSpec, OVERLAY_DRIVER};

use crate::{
    backend::ClusterView,
    convert::{self, SWARM_SCOPE},
    dto::network::{CreateNetwork, Network, NetworkCreated, NetworksPruned},
    error::{ApiError, ErrorKind, Result},
    http::{
        filter::Filters,
        request::Request,
        response::{self, Response},
        server::Context,
        timestamp,
    },
    routes::{lookup, page_not_found},
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
        (Method::POST, ["networks", "create"]) => create(context, request).await,
        (Method::POST, ["networks", "prune"]) => prune(context, &request).await,
        (Method::POST, ["networks", _, verb @ ("connect" | "disconnect")]) => Err(
            ApiError::not_implemented(format!("not supported yet: network {verb}")),
        ),
        (Method::DELETE, ["networks", term]) => remove(context, term).await,
        _ => Err(page_not_found()),
    }
}

async fn list(context: &Context, request: &Request) -> Result<Response> {
    let filters = Filters::from_query(&request.query, &FILTERS)?;
    let dangling = match filters.has("dangling") {
        true => Some(filters.flag("dangling", false)?),
        false => None,
    };
    let (view, networks) = all(context).await?;
    let is_used = |network: &Network| {
        let view = view.as_deref();
        PREDEFINED.contains(&network.name.as_str())
            || view.is_some_and(|view| is_used(view, &network.id))
    };
    let wanted = networks.into_iter().filter(|network| {
        let no_labels = BTreeMap::new();
        let labels = network.labels.as_ref().unwrap_or(&no_labels);
        let kind = match PREDEFINED.contains(&network.name.as_str()) {
            true => "builtin",
            false => "custom",
        };
        filters.contained("name", &network.name)
            && filters.starts("id", &network.id)
            && filters.equals("driver", &network.driver)
            && filters.equals("scope", &network.scope)
            && filters.equals("type", kind)
            && filters.labels("label", labels)
            && dangling.is_none_or(|dangling| dangling != is_used(network))
    });
    response::json(&wanted.collect::<Vec<_>>())
}

async fn inspect(context: &Context, term: &str, request: &Request) -> Result<Response> {
    let (_, networks) = all(context).await?;
    let scope = request.query.text("scope");
    let network = find(networks, term, |network| {
        scope.is_empty() || network.scope == scope
    })?;
    response::json(&network)
}

async fn create(context: &Context, mut request: Request) -> Result<Response> {
    let mut body: CreateNetwork = request.json().await?;
    if !request.version.at_least(48) {
        body.has_ipv4 = None;
    }
    if PREDEFINED.contains(&body.name.as_str()) {
        let message = format!(
            "operation is not permitted on predefined {} network",
            body.name
        );
        return Err(ApiError::new(ErrorKind::Forbidden, message));
    }
    let is_clusters = body.scope == SWARM_SCOPE || body.driver == OVERLAY_DRIVER || body.ingress;
    if is_clusters {
        lookup::check_manager(context)?;
    }
    convert::check_network(&body, is_clusters, context.backends.cluster.has_networks())?;
    let (_, networks) = all(context).await?;
    if networks.iter().any(|network| network.name == body.name) {
        let message = format!("network with name {} already exists", body.name);
        return Err(ApiError::conflict(message));
    }
    let spec = NetworkSpec::try_from(body)?;
    let id = context.backends.cluster.create_network(spec).await?;
    let answer = NetworkCreated {
        id: id.to_string(),
        warning: "",
    };
    response::json_with(StatusCode::CREATED, &answer)
}

async fn remove(context: &Context, term: &str) -> Result<Response> {
    let (_, networks) = all(context).await?;
    let network = find(networks, term, |_| true)?;
    match network.id.parse() {
        Ok(id) if network.scope == SWARM_SCOPE => {
            context.backends.cluster.remove_network(id).await?;
            Ok(response::empty(StatusCode::NO_CONTENT))
        }
        Ok(_) | Err(_) => Err(ApiError::new(
            ErrorKind::Forbidden,
            format!(
                "{} is a pre-defined network and cannot be removed",
                network.name
            ),
        )),
    }
}

/// Removes the cluster's networks nobody uses. The one for published ports stays, as in Docker.
async fn prune(context: &Context, request: &Request) -> Result<Response> {
    let filters = Filters::from_query(&request.query, &["label", "label!", "until"])?;
    let until = match filters.values("until").next() {
        Some(text) => timestamp::parse(text, timestamp::now())
            .map_err(|error| ApiError::invalid(error.to_string()))?,
        None => None,
    };
    let mut deleted = Vec::new();
    let view = match lookup::check_manager(context) {
        Ok(()) => Some(lookup::view(context).await?),
        Err(_) => None,
    };
    for network in view.iter().flat_map(|view| view.networks()) {
        let labels = &network.spec.annotations.labels;
        let is_wanted = !network.spec.is_ingress
            && !network.spec.is_predefined()
            && filters.labels("label", labels)
            && filters.labels_absent("label!", labels)
            && until.is_none_or(|limit| network.meta.created_at <= limit);
        // One that is in use stays.
        if is_wanted
            && context
                .backends
                .cluster
                .remove_network(network.id)
                .await
                .is_ok()
        {
            deleted.push(network.name().to_owned());
        }
    }
    response::json(&NetworksPruned {
        networks_deleted: (!deleted.is_empty()).then_some(deleted),
    })
}

/// All networks this node can tell of: the cluster's first, then its own.
async fn all(context: &Context) -> Result<(Option<Arc<dyn ClusterView>>, Vec<Network>)> {
    let view = match lookup::check_manager(context) {
        // A manager without leader still knows its own networks.
        Ok(()) => context.backends.cluster.view().await.ok(),
        Err(_) => None,
    };
    let mut networks = Vec::new();
    for network in view.iter().flat_map(|view| view.networks()) {
        if !network.spec.is_predefined() {
            networks.push(Network::from(&*network));
        }
    }
    let own = context.backends.system.networks().await?;
    networks.extend(own.into_iter().map(Network::from));
    Ok((view, networks))
}

/// Whether a service wants to be on the network of the cluster.
fn is_used(view: &dyn ClusterView, id: &str) -> bool {
    let services = view.services();
    let mut targets = services.iter().flat_map(|service| {
        service
            .spec
            .task
            .networks
            .iter()
            .chain(&service.spec.networks)
    });
    targets.any(|network| network.target == id)
}

/// By whole id, then by name, then by the start of the id.
fn find(
    networks: Vec<Network>,
    term: &str,
    is_wanted: impl Fn(&Network) -> bool,
) -> Result<Network> {
    let networks: Vec<Network> = networks.into_iter().filter(is_wanted).collect();
    if let Some(found) = networks.iter().find(|network| network.id == term) {
        return Ok(found.clone());
    }
    let named = |network: &&Network| network.name == term;
    let starting = |network: &&Network| !term.is_empty() && network.id.starts_with(term);
    let found: [(&str, Vec<&Network>); 2] = [
        ("name", networks.iter().filter(named).collect()),
        ("ID prefix", networks.iter().filter(starting).collect()),
    ];
    for (by, found) in found {
        match found.as_slice() {
            [] => {}
            [one] => return Ok((*one).clone()),
            many => {
                return Err(ApiError::invalid(format!(
                    "network {term} is ambiguous ({} matches found based on {by})",
                    many.len()
                )));
            }
        }
    }
    Err(ApiError::not_found(format!("network {term} not found")))
}
