//! From what the node was told and the containers it has to the value its data plane follows. Pure.
//!
//! Incremental: a change costs what it touches, not what there is. Every piece (an Ethernet
//! address's remote, a service's share of load and names, a published port) is made by one function
//! of all that is known; changes only say which pieces to make anew. So the value does not depend on
//! the way it came about. Design: `docs/design/directory.md`.

mod directory;
mod inside;
mod local;
mod mesh;
mod network;
mod tunnel;
mod whereabouts;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use skep_model::{
    NetworkId, NodeId,
    directory::{Change, Key, Message, NodeEntry, Slice, TaskEntry},
};
use skep_network::{
    plane::{Container, DataPath, Desired, Health, PublishedPort},
    tunnel::{Keys, Launch},
};

use self::{
    directory::{Directory, Owner, Touch},
    local::LocalZones,
    mesh::MeshState,
    network::NetworkState,
    tunnel::TunnelState,
    whereabouts::{Ended, Whereabouts},
};
use super::container::{LocalContainer, NetworkFacts};

/// See the module's documentation.
#[derive(Debug)]
pub struct Book {
    own: NodeId,
    bridge: String,
    data_path: DataPath,
    slice: Option<Slice>,
    directory: Directory,
    /// Index of the raft entry after which the directory was so; `None` before the first whole set.
    index: Option<u64>,
    /// Parts of a message whose last part is still to come, and whether it is a complete set.
    parts: (bool, Vec<Change>),
    containers: BTreeMap<String, LocalContainer>,
    values: BTreeMap<String, Arc<Container>>,
    /// Names on networks that this node has for itself.
    local: LocalZones,
    /// Networks with a container of this node.
    networks: BTreeMap<NetworkId, NetworkState>,
    mesh: MeshState,
    tunnel: TunnelState,
    /// Other nodes that are down, and those of them whose tasks count as gone.
    down: BTreeSet<NodeId>,
    buried: BTreeSet<NodeId>,
    ended: Ended,
    generation: u64,
    is_stale: bool,
}

// === impl Book ===

impl Book {
    /// A book about nothing, of the node `own` with the node network's `bridge`.
    pub fn new(own: NodeId, bridge: &str, data_path: DataPath) -> Self {
        Self {
            own,
            bridge: bridge.to_owned(),
            data_path,
            slice: None,
            directory: Directory::default(),
            index: None,
            parts: (false, Vec::new()),
            containers: BTreeMap::new(),
            values: BTreeMap::new(),
            local: LocalZones::default(),
            networks: BTreeMap::new(),
            mesh: MeshState::default(),
            tunnel: TunnelState::default(),
            down: BTreeSet::new(),
            buried: BTreeSet::new(),
            ended: Ended::default(),
            generation: 0,
            is_stale: true,
        }
    }

    /// Where tunnels of this node start.
    pub fn set_data_path(&mut self, data_path: DataPath) {
        self.is_stale |= self.data_path != data_path;
        self.data_path = data_path;
    }

    /// This node's part of the node network, as its bridge has it.
    pub fn set_slice(&mut self, slice: Option<Slice>) {
        if self.slice != slice {
            self.slice = slice;
            self.mesh.reset(&self.directory);
            self.is_stale = true;
        }
    }

    /// This node's keys for encrypted networks, and how their process is started.
    pub fn set_tunnel(&mut self, keys: Keys, launch: Launch) {
        self.tunnel.set_own(keys, launch);
        self.is_stale = true;
    }

    /// What others are told of this node's keys.
    pub fn own_tunnel_keys(&self) -> &[[u8; 32]] {
        let own = self.directory.nodes.get(&self.own);
        own.map_or(&[], |node| &node.tunnel_keys)
    }

    /// Takes a message in. Nothing of it counts before its last part came, and a complete set
    /// changes only what is otherwise than before.
    pub fn take(&mut self, message: Message) {
        if message.is_complete {
            self.parts = (true, Vec::new());
        }
        self.parts.1.extend(message.changes);
        if !message.is_last {
            return;
        }
        let (is_complete, changes) = std::mem::take(&mut self.parts);
        if is_complete {
            let mut gone: BTreeSet<Key> = self.directory.keys().collect();
            for change in &changes {
                gone.remove(&change.key());
            }
            gone.into_iter()
                .for_each(|key| self.apply(Change::Remove(key)));
        }
        changes.into_iter().for_each(|change| self.apply(change));
        if is_complete || self.index.is_some() {
            self.index = Some(message.index);
        }
    }

    /// Index of the raft entry the directory is of; `None` while none was told in full.
    pub fn index(&self) -> Option<u64> {
        self.index
    }

    /// All the node was told, as one complete set.
    pub fn directory(&self) -> Option<Message> {
        let index = self.index?;
        Some(self.directory.complete(index))
    }

    /// Whether the directory tells of a network.
    pub fn knows(&self, network: &NetworkFacts) -> bool {
        let id = network.network_id();
        id.is_some_and(|id| self.directory.networks.contains_key(&id))
    }

    /// Other nodes that are down and not buried.
    pub fn down(&self) -> impl Iterator<Item = NodeId> {
        self.down.difference(&self.buried).copied()
    }

    /// A node has been down for so long that its tasks count as gone, until it is up again.
    pub fn bury(&mut self, node: NodeId) {
        if self.down.contains(&node) && self.buried.insert(node) {
            self.is_stale = true;
            self.note_tasks_on(node);
        }
    }

    /// A name for a network's id, for people.
    pub fn name_of(&self, network: &str) -> Option<&str> {
        let network = self.networks.get(&network.parse().ok()?)?;
        Some(network.name())
    }

    /// The name of a service's id.
    pub fn service_name(&self, service: &str) -> Option<&str> {
        let service = self.directory.services.get(&service.parse().ok()?)?;
        Some(&service.name)
    }

    /// The name of the service that has a published port.
    pub fn publisher(&self, port: &PublishedPort) -> Option<&str> {
        let service = self.directory.services.get(&self.mesh.publisher(*port)?)?;
        Some(&service.name)
    }

    /// Where this node's tunnels start.
    pub fn data_path(&self) -> IpAddr {
        self.data_path.address
    }

    /// Where tunnels to other nodes end that are not down.
    pub fn node_addresses(&self) -> BTreeSet<IpAddr> {
        let others = self.directory.nodes.values();
        let others = others.filter(|node| node.id != self.own && !node.is_down);
        others.filter_map(|node| node.data_path).collect()
    }

    /// The MTU that users wished networks of this node to have, by name.
    pub fn mtu_wishes(&self) -> BTreeMap<String, u32> {
        let wishes = self.networks.values();
        let wishes = wishes.filter_map(|network| Some((network.name().to_owned(), network.mtu()?)));
        wishes.collect()
    }

    /// A container of this node, new or otherwise than before.
    pub fn set_container(&mut self, id: &str, container: LocalContainer) {
        let touched = self.local.put(id, &container);
        let old = self.containers.insert(id.to_owned(), container.clone());
        self.note_value(id);
        self.note_values_on(&touched);
        let places = old.into_iter().flat_map(|old| old.places);
        let places = places.chain(container.places);
        let networks: Vec<_> = places.map(|place| place.network).collect();
        networks
            .iter()
            .for_each(|network| self.follow_containers(network));
        self.is_stale = true;
    }

    /// A container of this node is gone.
    pub fn remove_container(&mut self, id: &str) {
        self.values.remove(id);
        let Some(old) = self.containers.remove(id) else {
            return;
        };
        let touched = self.local.remove(id);
        self.note_values_on(&touched);
        for place in &old.places {
            self.follow_containers(&place.network);
        }
        self.is_stale = true;
    }

    /// A container of this node, with or without places, has ended: its task gets nothing any more,
    /// whatever the directory says. Whether that changes anything.
    pub fn end_container(&mut self, id: &str) -> bool {
        self.ended.insert(id);
        let of_it = |task: &&Arc<TaskEntry>| task.container_id == id;
        let task = self.directory.tasks_on(self.own).find(of_it).cloned();
        let Some(task) = task else {
            return false;
        };
        self.is_stale = true;
        self.note_task(&task);
        true
    }

    /// Whether the directory has new connections led to a container of this node.
    pub fn is_led_to(&self, id: &str) -> bool {
        let mut own = self.directory.tasks_on(self.own);
        own.any(|task| {
            task.container_id == id && self.whereabouts().health(task) == Some(Health::Ready)
        })
    }

    /// A container's value is to be made anew.
    fn note_value(&mut self, id: &str) {
        let Some(container) = self.containers.get(id) else {
            return;
        };
        let places = container.places.iter();
        let value = Container {
            netns_path: container.netns_path.clone(),
            attachments: places
                .filter_map(|place| Some((place.network.id.clone(), place.to_plane()?)))
                .collect(),
            upstreams: container.upstreams.clone(),
            zones: self.local.of(container),
        };
        self.values.insert(id.to_owned(), Arc::new(value));
    }

    /// Names on this node's own networks changed.
    fn note_values_on(&mut self, networks: &BTreeSet<String>) {
        let on = |container: &LocalContainer| {
            let mut local = container.local.iter();
            local.any(|name| networks.contains(&name.network))
        };
        let stale = self
            .containers
            .iter()
            .filter(|(_, container)| on(container));
        let stale: Vec<String> = stale.map(|(id, _)| id.clone()).collect();
        stale.iter().for_each(|id| self.note_value(id));
    }

    /// A network of `container`, and another network of this node with the same VXLAN id, by name. The
    /// leader gives an id away again as soon as its network is removed, which it may be while
    /// containers are still ending; a value with both would be refused as a whole.
    pub fn rival_of(&self, container: &LocalContainer) -> Option<(String, String)> {
        container.places.iter().find_map(|place| {
            let facts = &place.network;
            let mut others = self.networks.iter().filter(|(id, state)| {
                Some(**id) != facts.network_id() && state.vxlan_id() == facts.vni
            });
            let (_, other) = others.next()?;
            Some((facts.name.clone(), other.name().to_owned()))
        })
    }

    /// The containers of this node.
    pub fn containers(&self) -> impl Iterator<Item = (&String, &LocalContainer)> {
        self.containers.iter()
    }

    /// The value is to be followed again, though it may be the same.
    pub fn renew(&mut self) {
        self.is_stale = true;
    }

    /// Whether there is a newer value than the last that was asked for.
    pub fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// The value to follow now.
    pub fn desired(&mut self) -> Desired {
        if self.is_stale {
            self.generation += 1;
            self.is_stale = false;
        }
        let mut desired = Desired::new(self.generation, self.data_path);
        // Not by a method: networks are changed meanwhile.
        let at = Whereabouts {
            own: self.own,
            nodes: &self.directory.nodes,
            buried: &self.buried,
            ended: &self.ended,
        };
        for (id, state) in &mut self.networks {
            let overlay = state.overlay(&self.directory, at);
            desired.networks.insert(id.to_string(), Arc::clone(overlay));
        }
        desired.containers = self.values.clone();
        let slice = (self.bridge.as_str(), self.slice);
        desired.mesh = self.mesh.mesh(&self.directory, at, slice);
        desired.tunnel = self.tunnel.config(self.slice);
        desired
    }

    fn whereabouts(&self) -> Whereabouts<'_> {
        Whereabouts {
            own: self.own,
            nodes: &self.directory.nodes,
            buried: &self.buried,
            ended: &self.ended,
        }
    }

    fn apply(&mut self, change: Change) {
        let Some(touch) = self.directory.apply(change) else {
            return;
        };
        self.is_stale = true;
        match touch {
            Touch::Network(id) => self.follow_facts(id),
            Touch::Service(old, new) => {
                let services = [old, new].into_iter().flatten();
                for service in services {
                    let owner = Owner::Service(service.id);
                    for place in &service.networks {
                        if let Some(network) = self.networks.get_mut(&place.network) {
                            network.note_owner(owner);
                        }
                    }
                    self.mesh.note_service(service.id);
                }
            }
            Touch::Task(old, new) => self.follow_task(old.as_deref(), new.as_deref()),
            Touch::Node(old, new) => self.follow_node(old.as_deref(), new.as_deref()),
        }
    }

    fn follow_task(&mut self, old: Option<&TaskEntry>, new: Option<&TaskEntry>) {
        if let (Some(old), None) = (old, new) {
            self.ended.remove(&old.container_id);
        }
        for task in [old, new].into_iter().flatten() {
            if let Some(service) = task.service_id {
                self.mesh.note_service(service);
            }
        }
        let places = [old, new]
            .into_iter()
            .flatten()
            .flat_map(|task| &task.places);
        let ids: BTreeSet<NetworkId> = places.map(|place| place.network).collect();
        for id in ids {
            if let Some(network) = self.networks.get_mut(&id) {
                network.note_task(old, new);
            }
        }
    }

    fn follow_node(&mut self, old: Option<&NodeEntry>, new: Option<&NodeEntry>) {
        self.mesh.note_nodes();
        if old.or(new).is_some_and(|node| node.id != self.own) {
            self.tunnel.note_node(old, new);
        }
        let reach =
            |node: Option<&NodeEntry>| node.map(|node| (node.data_path, node.is_down, node.slice));
        let id = old.or(new).map(|node| node.id);
        let Some(id) = id.filter(|_| reach(old) != reach(new)) else {
            return;
        };
        if new.is_some_and(|node| node.is_down && node.id != self.own) {
            self.down.insert(id);
        } else {
            self.down.remove(&id);
            self.buried.remove(&id);
        }
        self.note_tasks_on(id);
    }

    /// What is known of a node's tasks is out of date.
    fn note_tasks_on(&mut self, id: NodeId) {
        let tasks: Vec<_> = self.directory.tasks_on(id).cloned().collect();
        tasks.iter().for_each(|task| self.note_task(task));
    }

    /// Where a task is, or what it gets, may be otherwise than before.
    fn note_task(&mut self, task: &TaskEntry) {
        if let Some(service) = task.service_id {
            self.mesh.note_service(service);
        }
        for place in &task.places {
            if let Some(network) = self.networks.get_mut(&place.network) {
                network.note_whereabouts(task);
            }
        }
    }

    /// A network was told of, or otherwise than before.
    fn follow_facts(&mut self, id: NetworkId) {
        let of_it = |place: &&super::container::Place| place.network.network_id() == Some(id);
        let mut places = self
            .containers
            .values()
            .flat_map(|container| &container.places);
        if let Some(network) = places.find(of_it).map(|place| place.network.clone()) {
            self.follow_containers(&network);
        }
    }

    /// Containers of this node came to, or went from, a network. What the directory says of a network
    /// goes before what a container brought.
    fn follow_containers(&mut self, network: &NetworkFacts) {
        let Some(id) = network.network_id() else {
            return;
        };
        let places = self
            .containers
            .values()
            .flat_map(|container| &container.places);
        let mut places = places.filter(|place| place.network.id == network.id);
        let own: BTreeSet<_> = places
            .clone()
            .filter_map(super::container::Place::mac)
            .collect();
        // Containers agree on a network; should they not, the answer must not depend on their order of arrival.
        let Some(brought) = places.next_back().map(|place| &place.network) else {
            self.networks.remove(&id);
            return;
        };
        let told = self.directory.networks.get(&id);
        let told = told.and_then(|network| NetworkFacts::of(network));
        let facts = told.unwrap_or_else(|| brought.clone());
        let known = self.networks.get(&id);
        if known.is_none_or(|state| !state.has_facts(&facts)) {
            let state = NetworkState::new(id, facts, &self.directory);
            self.networks.insert(id, state);
        }
        if let Some(state) = self.networks.get_mut(&id) {
            state.set_own(own);
        }
    }
}

#[cfg(test)]
mod tests;
