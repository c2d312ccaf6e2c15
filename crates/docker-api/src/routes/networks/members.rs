//! What `docker network inspect` shows besides the network: containers, nodes, services.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use skep_model::{
    NetworkId, Node, Service, Task, TaskState,
    directory::{Entry, NodeEntry, ServiceEntry, Standing, TaskEntry},
    reserved::engine::DataPlane,
};

use super::catalog::{Catalog, cluster_id};
use crate::{
    backend::ClusterView,
    convert::{Member, containers, peers, services},
    dto::network::Network,
    error::Result,
    http::server::Context,
};

/// `network` with what is on it, as far as this node knows.
pub(super) async fn show(
    context: &Context,
    catalog: &Catalog,
    mut network: Network,
    is_verbose: bool,
) -> Result<Network> {
    let all = context.backends.containers.containers(false).await?;
    let on = containers(&all, &network.id);
    let is_own = network.containers.is_some();
    if is_own || !on.is_empty() {
        network.containers = Some(on);
    }
    let Some(id) = cluster_id(&network) else {
        return Ok(network);
    };
    let members = match &catalog.view {
        Some(view) => of_view(&**view, id),
        None => of_entries(&catalog.entries, id),
    };
    network.peers = peers(&members);
    if is_verbose {
        network.services = services(members, network.ingress);
    }
    Ok(network)
}

/// From the cluster's state.
fn of_view(view: &dyn ClusterView, id: NetworkId) -> Vec<Member> {
    let mut members = Vec::new();
    for service in view.services() {
        for task in view.tasks_of_service(service.id) {
            let is_live = task.status.state <= TaskState::Running
                && task.desired_state <= TaskState::Complete;
            let node = task
                .node_id
                .filter(|_| is_live)
                .and_then(|id| view.node(id));
            if let Some(node) = node {
                members.extend(member(&service, &task, &node, id));
            }
        }
    }
    members
}

fn member(service: &Service, task: &Task, node: &Node, id: NetworkId) -> Option<Member> {
    let place = task.networks.iter().find(|place| place.network.id == id)?;
    let vips = service
        .endpoint
        .iter()
        .flat_map(|endpoint| &endpoint.virtual_ips);
    let mut vips = vips.filter(|vip| vip.network_id == id.as_str());
    let container = task.status.container.as_ref();
    let ports = service.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    Some(Member {
        service: service.name().to_owned(),
        vip: vips.find_map(|vip| Some(vip.addr.parse::<IpNet>().ok()?.addr())),
        ports: ports.cloned().collect(),
        name: task.name(),
        endpoint_id: container.map_or_else(
            || task.id.to_string(),
            |container| container.container_id.clone(),
        ),
        ip: place.addresses.first().map(IpNet::addr),
        node: node.id.to_string(),
        node_ip: node_ip(node),
    })
}

fn node_ip(node: &Node) -> String {
    let data_plane = node.description.as_ref().map(DataPlane::of);
    let told = data_plane.and_then(|data_plane| data_plane.data_path);
    told.map_or_else(|| node.status.addr.clone(), |ip| ip.to_string())
}

/// From what this node's data plane was told.
fn of_entries(entries: &[Entry], id: NetworkId) -> Vec<Member> {
    let services: Vec<&Arc<ServiceEntry>> = entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Service(service) => Some(service),
            Entry::Network(_) | Entry::Task(_) | Entry::Node(_) => None,
        })
        .collect();
    let nodes: Vec<&Arc<NodeEntry>> = entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Node(node) => Some(node),
            Entry::Network(_) | Entry::Service(_) | Entry::Task(_) => None,
        })
        .collect();
    let tasks = entries.iter().filter_map(|entry| match entry {
        Entry::Task(task) if task.standing != Standing::Leaving => Some(task),
        Entry::Network(_) | Entry::Service(_) | Entry::Task(_) | Entry::Node(_) => None,
    });
    let member = |task: &Arc<TaskEntry>| {
        let place = task.places.iter().find(|place| place.network == id)?;
        let service = services
            .iter()
            .find(|service| Some(service.id) == task.service_id)?;
        let node = nodes.iter().find(|node| node.id == task.node_id);
        let node_ip: Option<IpAddr> = node.and_then(|node| node.data_path);
        let on = service.networks.iter().find(|on| on.network == id);
        Some(Member {
            service: service.name.clone(),
            vip: on.and_then(|on| on.vips.first().copied()),
            ports: service.ports.clone(),
            name: task.name.clone(),
            endpoint_id: match task.container_id.as_str() {
                "" => task.id.to_string(),
                id => id.to_owned(),
            },
            ip: place.addresses.first().copied(),
            node: task.node_id.to_string(),
            node_ip: node_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        })
    };
    tasks.filter_map(member).collect()
}
