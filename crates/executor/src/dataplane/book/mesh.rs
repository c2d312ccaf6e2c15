//! Published ports of the whole cluster, and the other nodes' parts of the node network. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use skep_model::{
    NodeId, PublishMode, ServiceId,
    directory::{NodeEntry, Slice},
};
use skep_network::plane::{Mesh, Peer, Published, PublishedPort};

use super::{
    Whereabouts,
    directory::{Directory, Owner},
    network::protocol,
};

type Ports = BTreeMap<PublishedPort, Published>;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct MeshState {
    mesh: Option<Arc<Mesh>>,
    /// What each service publishes.
    of_service: BTreeMap<ServiceId, Ports>,
    /// Who publishes a port. One service does; two may where a leader erred, and then the first wins.
    claims: BTreeSet<(PublishedPort, ServiceId)>,
    stale_services: BTreeSet<ServiceId>,
    is_stale: bool,
}

// === impl MeshState ===

impl MeshState {
    /// Everything is to be made anew, with another bridge or slice perhaps.
    pub(super) fn reset(&mut self, directory: &Directory) {
        *self = Self {
            stale_services: directory.services.keys().copied().collect(),
            is_stale: true,
            ..Self::default()
        };
    }

    /// A service, one of its tasks or a task's node changed.
    pub(super) fn note_service(&mut self, id: ServiceId) {
        self.stale_services.insert(id);
    }

    /// A node changed.
    pub(super) fn note_nodes(&mut self) {
        self.is_stale = true;
    }

    /// The service that has a port.
    pub(super) fn publisher(&self, port: PublishedPort) -> Option<ServiceId> {
        let mut claims = self.claims.range((port, LOWEST)..=(port, HIGHEST));
        claims.next().map(|(_, id)| *id)
    }

    /// The mesh, after what is out of date was made anew. None without a slice of the node network.
    pub(super) fn mesh(
        &mut self,
        directory: &Directory,
        at: Whereabouts<'_>,
        (bridge, slice): (&str, Option<Slice>),
    ) -> Option<Arc<Mesh>> {
        let Some(slice) = slice else {
            if self.mesh.is_some() {
                self.reset(directory);
            }
            return None;
        };
        let services = std::mem::take(&mut self.stale_services);
        let is_stale = std::mem::take(&mut self.is_stale) || self.mesh.is_none();
        let mut changed = BTreeSet::new();
        for id in services {
            let new = published(id, directory, at, slice);
            let old = self.of_service.remove(&id).unwrap_or_default();
            for port in old.keys() {
                self.claims.remove(&(*port, id));
            }
            self.claims.extend(new.keys().map(|port| (*port, id)));
            let differs = |port: &&PublishedPort| old.get(*port) != new.get(*port);
            changed.extend(old.keys().chain(new.keys()).filter(differs).copied());
            if !new.is_empty() {
                self.of_service.insert(id, new);
            }
        }
        if !is_stale && changed.is_empty() {
            return self.mesh.clone();
        }
        let mesh = self
            .mesh
            .get_or_insert_with(|| Arc::new(empty(bridge, slice)));
        let mesh = Arc::make_mut(mesh);
        if is_stale {
            mesh.peers = peers(directory, at.own, slice);
        }
        for port in changed {
            let mut claims = self.claims.range((port, LOWEST)..=(port, HIGHEST));
            let winner = claims.next().and_then(|(_, id)| self.of_service.get(id));
            match winner.and_then(|ports| ports.get(&port)) {
                Some(published) => mesh.ports.insert(port, published.clone()),
                None => mesh.ports.remove(&port),
            };
        }
        self.mesh.clone()
    }
}

const LOWEST: ServiceId = ServiceId(skep_model::Id::LOWEST);
const HIGHEST: ServiceId = ServiceId(skep_model::Id::HIGHEST);

fn empty(bridge: &str, slice: Slice) -> Mesh {
    Mesh {
        bridge: bridge.to_owned(),
        number: slice.number,
        slice: slice.v4,
        slice6: slice.v6,
        peers: BTreeMap::new(),
        ports: BTreeMap::new(),
    }
}

/// The other nodes that have a slice and said where tunnels to them end. A node that is down stays:
/// it may still be there, and what it brought is answered the way it came.
fn peers(directory: &Directory, own: NodeId, slice: Slice) -> BTreeMap<u16, Peer> {
    let others = directory.nodes.values().filter(|node| node.id != own);
    let peers = others.filter_map(|node| {
        let its = node.slice.filter(|its| its.number != slice.number)?;
        let peer = Peer {
            node: node.data_path?,
            slice: its.v4,
            slice6: its.v6,
            addresses: node.addresses.iter().copied().collect(),
        };
        Some((its.number, peer))
    });
    peers.collect()
}

/// What a service publishes on every node, and where it leads.
fn published(id: ServiceId, directory: &Directory, at: Whereabouts<'_>, slice: Slice) -> Ports {
    let Some(service) = directory.services.get(&id) else {
        return Ports::new();
    };
    let ports = service.ports.iter();
    let ports = ports.filter(|port| port.publish_mode == PublishMode::Ingress);
    let mut published = Ports::new();
    for port in ports.filter(|port| port.published_port != 0) {
        let key = PublishedPort {
            protocol: protocol(port.protocol),
            port: port.published_port,
            address: service.publish_address,
        };
        let entry = published.entry(key).or_default();
        entry.is_local_first = service.is_local_first;
        let backends = &mut entry.backends;
        let tasks = directory.tasks_of(Owner::Service(id));
        for task in tasks {
            let Some(health) = at.health(task) else {
                continue;
            };
            let node = directory.nodes.get(&task.node_id);
            let its = match node {
                _ if task.node_id == at.own => Some(slice),
                Some(node) => node.slice,
                None => None,
            };
            let Some(its) = its.filter(|its| task.node_id == at.own || is_peer(node, its, &slice))
            else {
                continue;
            };
            for ip in task.node_addresses.iter().filter(|ip| is_in(&its, ip)) {
                let known = backends
                    .entry(SocketAddr::new(*ip, port.target_port))
                    .or_insert(health);
                *known = (*known).max(health);
            }
        }
    }
    published
}

/// Whether a node is one of [`peers`].
fn is_peer(node: Option<&Arc<NodeEntry>>, its: &Slice, own: &Slice) -> bool {
    its.number != own.number && node.is_some_and(|node| node.data_path.is_some())
}

fn is_in(slice: &Slice, ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => slice.v4.contains(ip),
        IpAddr::V6(ip) => slice.v6.is_some_and(|v6| v6.contains(ip)),
    }
}
