//! Who is on a network: nodes, services with their tasks, containers of this node.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use skep_model::{PortConfig, PublishMode};

use crate::{
    backend::{ContainerState, ContainerSummary},
    dto::network as dto,
};

/// Docker's text where a service has no virtual address.
const NO_ADDRESS: &str = "<nil>";
/// Characters of a node's id that name it as a peer; Docker's are as long.
const PEER_NAME_LENGTH: usize = 12;

/// One task of a service on a network.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// Name of the service.
    pub(crate) service: String,
    /// The service's virtual address on the network.
    pub(crate) vip: Option<IpAddr>,
    /// Its ports.
    pub(crate) ports: Vec<PortConfig>,
    /// Name of the task.
    pub(crate) name: String,
    /// Id of its container, or its own before there is one.
    pub(crate) endpoint_id: String,
    /// Its address on the network.
    pub(crate) ip: Option<IpAddr>,
    /// Its node.
    pub(crate) node: String,
    /// The node's address, empty while unknown.
    pub(crate) node_ip: String,
}

/// The nodes with a member.
pub(crate) fn peers(members: &[Member]) -> Vec<dto::PeerInfo> {
    let peer = |member: &Member| dto::PeerInfo {
        name: member.node.chars().take(PEER_NAME_LENGTH).collect(),
        ip: member.node_ip.clone(),
    };
    let peers: BTreeSet<_> = members.iter().map(peer).collect();
    peers.into_iter().collect()
}

/// The services of the members, by name. Ports are shown on the network that carries them.
pub(crate) fn services(
    members: Vec<Member>,
    is_ingress: bool,
) -> BTreeMap<String, dto::ServiceInfo> {
    let mut services = BTreeMap::<String, dto::ServiceInfo>::new();
    for member in members {
        let service = services.entry(member.service).or_insert_with(|| {
            let carried =
                |port: &&PortConfig| is_ingress && port.publish_mode == PublishMode::Ingress;
            let ports = member.ports.iter().filter(carried);
            let text = |port: &PortConfig| {
                format!(
                    "Target: {}, Publish: {}",
                    port.target_port, port.published_port
                )
            };
            dto::ServiceInfo {
                vip: address(member.vip),
                ports: ports.map(text).collect(),
                // Docker's number of the service in IPVS; there is none here.
                local_lb_index: 0,
                tasks: Vec::new(),
            }
        });
        service.tasks.push(dto::TaskInfo {
            name: member.name,
            endpoint_id: member.endpoint_id,
            endpoint_ip: address(member.ip),
            info: BTreeMap::from([("Host IP".to_owned(), member.node_ip)]),
        });
    }
    services
}

fn address(ip: Option<IpAddr>) -> String {
    ip.map_or_else(|| NO_ADDRESS.to_owned(), |ip| ip.to_string())
}

/// The containers of this node on a network, by id.
pub(crate) fn containers(
    all: &[ContainerSummary],
    network_id: &str,
) -> BTreeMap<String, dto::EndpointResource> {
    let running = all.iter().filter(|container| {
        [ContainerState::Running, ContainerState::Paused].contains(&container.state.state)
    });
    let places = running.flat_map(|container| {
        let networks = container.networks.values();
        networks.map(move |network| (container, network))
    });
    let on = places.filter(|(_, network)| network.network_id == network_id);
    let with_prefix = |ip: Option<IpAddr>, prefix_length: u8| {
        ip.map(|ip| format!("{ip}/{prefix_length}"))
            .unwrap_or_default()
    };
    on.map(|(container, network)| {
        let endpoint = dto::EndpointResource {
            name: container.name.clone(),
            endpoint_id: network.endpoint_id.clone(),
            mac_address: network.mac.clone(),
            ipv4_address: with_prefix(network.ip, network.prefix_length),
            ipv6_address: with_prefix(network.ip6, network.prefix_length6),
        };
        (container.id.clone(), endpoint)
    })
    .collect()
}
