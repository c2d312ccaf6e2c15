//! Finding cluster objects by what people type: id, name, or the start of an id.

use std::{str::FromStr, sync::Arc};

use skep_model::{
    Config, ConfigId, Network, NetworkId, Node, NodeId, Secret, SecretId, Service, ServiceId,
    ServiceSpec, Task, TaskId,
};

use crate::{
    backend::{ClusterStatus, ClusterView, LocalNodeState, ManagerState},
    error::{ApiError, ErrorKind, Result},
    http::server::Context,
};

const NOT_IN_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker \
                            swarm join\" to connect this node to swarm and try again.";
const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \
                      \"docker swarm unlock\" to unlock it.";
const NOT_READY: &str = "This node is not a swarm manager. Manager is being prepared or has trouble \
                         connecting to the cluster.";
/// What a node's error says when its certificate ran out; cluster routes repeat it.
const EXPIRED: &str = "Swarm certificates have expired. To replace them, leave the swarm and join \
                       again.";
const WORKER: &str = "This node is not a swarm manager. Worker nodes can't be used to view or \
                      modify cluster state. Please run this command on a manager node or promote \
                      the current node to a manager.";

/// Why `status` cannot answer for the cluster; `None` when it can.
pub(crate) fn no_manager(status: &ClusterStatus) -> Option<ApiError> {
    let text = match (status.state, status.manager) {
        (LocalNodeState::Active, ManagerState::Active) => return None,
        (LocalNodeState::Active | LocalNodeState::Pending, ManagerState::Absent) => WORKER,
        (LocalNodeState::Active | LocalNodeState::Pending, _) => NOT_READY,
        (LocalNodeState::Locked, _) => LOCKED,
        (LocalNodeState::Error, _) if status.error == EXPIRED => EXPIRED,
        (LocalNodeState::Inactive | LocalNodeState::Error, _) => NOT_IN_SWARM,
    };
    Some(ApiError::unavailable(text))
}

/// Refuses unless this node is an active manager.
pub(crate) fn check_manager(context: &Context) -> Result<()> {
    no_manager(&context.backends.cluster.status()).map_or(Ok(()), Err)
}

/// The cluster's state, on an active manager.
pub(crate) async fn view(context: &Context) -> Result<Arc<dyn ClusterView>> {
    check_manager(context)?;
    context.backends.cluster.view().await
}

/// Picks by whole id, then by name, then by the start of the id; Docker's order and texts. Nothing
/// names nothing.
fn find<T, Id: FromStr + Copy>(
    noun: &str,
    wanted: &str,
    by_id: impl FnOnce(Id) -> Option<Arc<T>>,
    by_name: impl FnOnce() -> Vec<Arc<T>>,
    by_prefix: impl FnOnce() -> Vec<Arc<T>>,
) -> Result<Arc<T>> {
    check_named(noun, wanted)?;
    if let Some(found) = wanted.parse().ok().and_then(by_id) {
        return Ok(found);
    }
    let mut found = by_name();
    if found.is_empty() {
        found = by_prefix();
    }
    match found.len() {
        0 => Err(ApiError::not_found(format!("{noun} {wanted} not found"))),
        1 => Ok(found.swap_remove(0)),
        count => {
            let message = format!("{noun} {wanted} is ambiguous ({count} matches found)");
            Err(ApiError::invalid(message))
        }
    }
}

/// Refuses an empty name: every id starts with nothing.
pub(crate) fn check_named(noun: &str, wanted: &str) -> Result<()> {
    if !wanted.is_empty() {
        return Ok(());
    }
    let message = format!("no {noun} was named: a name or an id is needed");
    Err(ApiError::invalid(message))
}

fn starting<T>(all: Vec<Arc<T>>, wanted: &str, id: impl Fn(&T) -> &str) -> Vec<Arc<T>> {
    all.into_iter()
        .filter(|object| id(object).starts_with(wanted))
        .collect()
}

/// The service called `wanted`.
pub(crate) fn service(view: &dyn ClusterView, wanted: &str) -> Result<Arc<Service>> {
    find(
        "service",
        wanted,
        |id: ServiceId| view.service(id),
        || view.service_by_name(wanted).into_iter().collect(),
        || starting(view.services(), wanted, |service| service.id.as_str()),
    )
}

/// The network of the cluster called `wanted`.
pub(crate) fn network(view: &dyn ClusterView, wanted: &str) -> Result<Arc<Network>> {
    find(
        "network",
        wanted,
        |id: NetworkId| view.network(id),
        || view.network_by_name(wanted).into_iter().collect(),
        || starting(view.networks(), wanted, |network| network.id.as_str()),
    )
}

/// The secret called `wanted`.
pub(crate) fn secret(view: &dyn ClusterView, wanted: &str) -> Result<Arc<Secret>> {
    let secrets = || view.secrets().into_iter();
    find(
        "secret",
        wanted,
        |id: SecretId| secrets().find(|secret| secret.id == id),
        || secrets().filter(|secret| secret.name() == wanted).collect(),
        || starting(view.secrets(), wanted, |secret| secret.id.as_str()),
    )
}

/// The config called `wanted`.
pub(crate) fn config(view: &dyn ClusterView, wanted: &str) -> Result<Arc<Config>> {
    let configs = || view.configs().into_iter();
    find(
        "config",
        wanted,
        |id: ConfigId| configs().find(|config| config.id == id),
        || configs().filter(|config| config.name() == wanted).collect(),
        || starting(view.configs(), wanted, |config| config.id.as_str()),
    )
}

/// Puts ids in place of what people called the networks of `spec`.
pub(crate) async fn resolve_networks(context: &Context, spec: &mut ServiceSpec) -> Result<()> {
    if spec.task.networks.is_empty() && spec.networks.is_empty() {
        return Ok(());
    }
    let view = view(context).await?;
    let task = Arc::make_mut(&mut spec.task);
    for wanted in task.networks.iter_mut().chain(&mut spec.networks) {
        let found = match network(&*view, &wanted.target) {
            Err(error) if error.kind == ErrorKind::NotFound => {
                own_network(context, &*view, &wanted.target)
                    .await?
                    .ok_or(error)?
            }
            found => found?,
        };
        if found.spec.is_node_network() {
            return Err(not_for_services(found.name()));
        }
        wanted.target = found.id.to_string();
    }
    Ok(())
}

/// The network of the cluster that stands for this node's own network `wanted`; `None` if this node
/// has none called so.
async fn own_network(
    context: &Context,
    view: &dyn ClusterView,
    wanted: &str,
) -> Result<Option<Arc<Network>>> {
    let own = context.backends.system.networks().await?;
    let is_meant = |id: &str, name: &str| {
        id == wanted || name == wanted || !wanted.is_empty() && id.starts_with(wanted)
    };
    let Some(own) = own
        .into_iter()
        .find(|network| is_meant(&network.id, &network.name))
    else {
        return Ok(None);
    };
    // This node's part of a network of the cluster has its id.
    let predefined = view
        .network_by_name(&own.name)
        .filter(|n| n.spec.is_predefined());
    predefined
        .ok_or_else(|| not_for_services(&own.name))
        .map(Some)
}

fn not_for_services(name: &str) -> ApiError {
    let message = format!(
        "The network {name} cannot be used with services. Only networks scoped to the swarm can be \
         used, such as those created with the overlay driver."
    );
    ApiError::new(ErrorKind::Forbidden, message)
}

/// The task called `wanted`.
pub(crate) fn task(view: &dyn ClusterView, wanted: &str) -> Result<Arc<Task>> {
    let named = |task: &Arc<Task>| task.name() == wanted;
    find(
        "task",
        wanted,
        |id: TaskId| view.task(id),
        || view.tasks().into_iter().filter(named).collect(),
        || starting(view.tasks(), wanted, |task| task.id.as_str()),
    )
}

/// The node called `wanted`; a node's name is its host name. `self` is this node.
pub(crate) fn node(context: &Context, view: &dyn ClusterView, wanted: &str) -> Result<Arc<Node>> {
    let own = context
        .backends
        .cluster
        .status()
        .node_id
        .filter(|_| wanted == "self");
    let named = |node: &Arc<Node>| {
        node.hostname().eq_ignore_ascii_case(wanted)
            || (!wanted.is_empty() && node.spec.annotations.name.eq_ignore_ascii_case(wanted))
    };
    let text = own.map(|id| id.to_string());
    find(
        "node",
        text.as_deref().unwrap_or(wanted),
        |id: NodeId| view.node(id),
        || view.nodes().into_iter().filter(named).collect(),
        || starting(view.nodes(), wanted, |node| node.id.as_str()),
    )
}
