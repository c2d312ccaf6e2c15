//! The directory as a function of the store: what a node is told, complete or as changes.
//!
//! Any manager answers from its committed store. [`Feed`] is one node's: it holds which networks
//! the node has tasks on and nothing else, so its cost is the node's, not the cluster's. What an
//! entry says: `skep_model::directory`. Design: `docs/design/directory.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::IpNet;
use skep_model::{
    NetworkAttachment, NetworkId, Node, NodeId, NodeState, PublishMode, Service, Task, TaskState,
    directory::{
        Change, Entry, Key, NodeEntry, ServiceEntry, ServicePlace, Standing, TaskEntry, TaskPlace,
    },
    reserved::{engine::DataPlane, service::ServicePolicy},
};
use skep_store::{Change as StoreChange, Holder, Object, Store};

#[cfg(test)]
mod tests;

/// What one node is told, as it goes on.
#[derive(Debug, Clone)]
pub struct Feed {
    node: NodeId,
    /// Networks the node has tasks on.
    networks: BTreeSet<NetworkId>,
}

// === impl Feed ===

impl Feed {
    /// A feed for `node`, which knows nothing yet, and all it has to know.
    pub fn open(store: &Store, node: NodeId) -> (Self, Vec<Change>) {
        let networks = networks_of(store, node);
        let entries = complete(store, &networks);
        let changes = entries.into_values().map(Change::Set).collect();
        (Self { node, networks }, changes)
    }

    /// What `changes`, which led to `store`, mean for the node.
    pub fn follow(&mut self, store: &Store, changes: &[StoreChange]) -> Vec<Change> {
        // What the node was told of each object touched, and what it should know now.
        let mut touched: BTreeMap<Key, (Option<Entry>, Option<Entry>)> = BTreeMap::new();
        let mut has_moved = false;
        for change in changes {
            has_moved |= self.concerns_own_tasks(change);
            let Some(key) = key_of(change.subject()) else {
                continue;
            };
            touched.entry(key).or_insert_with(|| {
                let old = change.old.as_ref().and_then(entry_of);
                let old = old.filter(|entry| is_told(entry, &self.networks));
                (old, None)
            });
        }
        let before = if has_moved {
            let after = networks_of(store, self.node);
            std::mem::replace(&mut self.networks, after)
        } else {
            self.networks.clone()
        };
        for (key, (_, new)) in &mut touched {
            *new = current(store, *key).filter(|entry| is_told(entry, &self.networks));
        }
        self.note_moves(store, &before, &mut touched);
        let changes = touched.into_iter().filter_map(|(key, pair)| match pair {
            (old, Some(new)) => (old.as_ref() != Some(&new)).then_some(Change::Set(new)),
            (Some(_), None) => Some(Change::Remove(key)),
            (None, None) => None,
        });
        changes.collect()
    }

    fn concerns_own_tasks(&self, change: &StoreChange) -> bool {
        let is_own = |object: &Option<Object>| match object {
            Some(Object::Task(task)) => task.node_id == Some(self.node),
            Some(
                Object::Node(_)
                | Object::Service(_)
                | Object::Network(_)
                | Object::Cluster(_)
                | Object::Extension(_)
                | Object::Resource(_)
                | Object::Secret(_)
                | Object::Config(_),
            )
            | None => false,
        };
        is_own(&change.old) || is_own(&change.new)
    }

    /// Adds what networks that the node came to or left bring or take.
    fn note_moves(
        &self,
        store: &Store,
        before: &BTreeSet<NetworkId>,
        touched: &mut BTreeMap<Key, (Option<Entry>, Option<Entry>)>,
    ) {
        for network in before.symmetric_difference(&self.networks) {
            for (key, entry) in entries_on(store, *network) {
                touched.entry(key).or_insert_with(|| {
                    let told = |networks| is_told(&entry, networks).then(|| entry.clone());
                    (told(before), told(&self.networks))
                });
            }
        }
    }
}

/// All a node with tasks on `networks` has to know.
fn complete(store: &Store, networks: &BTreeSet<NetworkId>) -> BTreeMap<Key, Entry> {
    let mut entries = BTreeMap::new();
    for node in store.nodes() {
        entries.extend(node_entry(node).map(|entry| (Key::Node(node.id), entry)));
    }
    for network in networks {
        entries.extend(entries_on(store, *network));
    }
    if let Some(network) = store.networks().node_network() {
        entries.extend(entries_on(store, network.id));
    }
    let services = store.services().map(|service| service_entry(service));
    entries.extend(services.map(|entry| (entry.key(), entry)));
    entries.retain(|_, entry| is_told(entry, networks));
    entries
}

/// Whether a node with tasks on `networks` is told of it: nodes and what is published, always.
fn is_told(entry: &Entry, networks: &BTreeSet<NetworkId>) -> bool {
    match entry {
        Entry::Node(_) => true,
        Entry::Network(network) => networks.contains(&network.id),
        Entry::Service(service) => {
            let mut places = service.networks.iter();
            is_published(service) || places.any(|place| networks.contains(&place.network))
        }
        Entry::Task(task) => {
            let mut places = task.places.iter();
            !task.node_addresses.is_empty() || places.any(|place| networks.contains(&place.network))
        }
    }
}

fn is_published(service: &ServiceEntry) -> bool {
    let mut ports = service.ports.iter();
    ports.any(|port| port.publish_mode == PublishMode::Ingress)
}

/// Overlay networks on which the node has tasks.
fn networks_of(store: &Store, node: NodeId) -> BTreeSet<NetworkId> {
    let tasks = store.tasks_on_node(node);
    let tasks = tasks.filter(|task| task.holds_addresses());
    let places = tasks.flat_map(|task| &task.networks);
    let places = places.filter(|place| is_overlay(place));
    places.map(|place| place.network.id).collect()
}

/// Whether containers have an interface there of its own.
fn is_overlay(place: &NetworkAttachment) -> bool {
    place.network.spec.is_overlay() && !place.network.spec.is_ingress
}

/// The network, its services and its tasks.
fn entries_on(store: &Store, network: NetworkId) -> BTreeMap<Key, Entry> {
    let tables = store.networks();
    let stored = tables.get(network).cloned().map(Entry::Network);
    let services = tables.services_on(network);
    let services = services.filter_map(|id| current(store, Key::Service(id)));
    let holders = tables.addresses().of_network(network);
    let tasks = holders.filter_map(|(_, holder)| match holder {
        Holder::Task(id) => current(store, Key::Task(id)),
        Holder::Network(_) | Holder::Service(_) | Holder::Node(_) => None,
    });
    let entries = stored.into_iter().chain(services).chain(tasks);
    entries.map(|entry| (entry.key(), entry)).collect()
}

fn key_of(object: &Object) -> Option<Key> {
    match object {
        Object::Network(network) => Some(Key::Network(network.id)),
        Object::Service(service) => Some(Key::Service(service.id)),
        Object::Task(task) => Some(Key::Task(task.id)),
        Object::Node(node) => Some(Key::Node(node.id)),
        Object::Cluster(_)
        | Object::Extension(_)
        | Object::Resource(_)
        | Object::Secret(_)
        | Object::Config(_) => None,
    }
}

fn current(store: &Store, key: Key) -> Option<Entry> {
    match key {
        Key::Network(id) => store.networks().get(id).cloned().map(Entry::Network),
        Key::Service(id) => store.service(id).map(|service| service_entry(service)),
        Key::Task(id) => store.task(id).and_then(|task| task_entry(task)),
        Key::Node(id) => store.node(id).and_then(|node| node_entry(node)),
    }
}

fn entry_of(object: &Object) -> Option<Entry> {
    match object {
        Object::Network(network) => Some(Entry::Network(Arc::clone(network))),
        Object::Service(service) => Some(service_entry(service)),
        Object::Task(task) => task_entry(task),
        Object::Node(node) => node_entry(node),
        Object::Cluster(_)
        | Object::Extension(_)
        | Object::Resource(_)
        | Object::Secret(_)
        | Object::Config(_) => None,
    }
}

fn service_entry(service: &Service) -> Entry {
    let spec = &service.spec;
    let endpoint = service.endpoint.as_ref();
    let mut places: BTreeMap<NetworkId, ServicePlace> = BTreeMap::new();
    for wanted in spec.networks_of(&spec.task) {
        // Networks are stored by id; what is none was never given a place.
        let Ok(network) = wanted.target.parse() else {
            continue;
        };
        let place = places.entry(network).or_insert_with(|| ServicePlace {
            network,
            vips: Vec::new(),
            aliases: Vec::new(),
        });
        place.aliases.extend(wanted.aliases.iter().cloned());
    }
    for vip in endpoint
        .into_iter()
        .flat_map(|endpoint| &endpoint.virtual_ips)
    {
        let place = vip
            .network_id
            .parse()
            .ok()
            .and_then(|id| places.get_mut(&id));
        let addr = vip.addr.parse::<IpNet>();
        if let (Some(place), Ok(addr)) = (place, addr) {
            place.vips.push(addr.addr());
        }
    }
    let policy = ServicePolicy::of(&spec.annotations);
    Entry::Service(Arc::new(ServiceEntry {
        id: service.id,
        name: service.name().to_owned(),
        networks: places.into_values().collect(),
        ports: endpoint
            .map(|endpoint| endpoint.ports.clone())
            .unwrap_or_default(),
        is_local_first: policy.is_local_first,
        publish_address: policy.publish_address,
    }))
}

/// `None` for a task without a node, and for one that has ended.
fn task_entry(task: &Task) -> Option<Entry> {
    let node_id = task.node_id.filter(|_| task.holds_addresses())?;
    let overlays = task.networks.iter().filter(|place| is_overlay(place));
    let places = overlays.map(|place| TaskPlace {
        network: place.network.id,
        addresses: place.addresses.iter().map(IpNet::addr).collect(),
    });
    let standing = if task.desired_state > TaskState::Complete {
        Standing::Leaving
    } else if task.status.is_ready() {
        Standing::Ready
    } else if task.status.state == TaskState::Running {
        Standing::Unready
    } else {
        Standing::Starting
    };
    let container = task.status.container.as_ref();
    Some(Entry::Task(Arc::new(TaskEntry {
        id: task.id,
        service_id: task.service_id,
        slot: task.slot,
        name: task.name(),
        container_id: container
            .map(|c| c.container_id.clone())
            .unwrap_or_default(),
        node_id,
        places: places.collect(),
        node_addresses: task.node_addresses().map(|net| net.addr()).collect(),
        standing,
    })))
}

/// `None` for a node that is not of Skep.
fn node_entry(node: &Node) -> Option<Entry> {
    let description = node.description.as_ref().filter(|_| node.is_skep())?;
    let plane = DataPlane::of(description);
    Some(Entry::Node(Arc::new(NodeEntry {
        id: node.id,
        data_path: plane.data_path,
        addresses: plane.addresses,
        slice: node.slice(),
        is_down: matches!(node.status.state, NodeState::Down | NodeState::Disconnected),
        tunnel_keys: plane.tunnel_keys,
    })))
}
