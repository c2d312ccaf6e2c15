//! What the node was told, with the look-ups the book needs. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use skep_model::{
    Id, Network, NetworkId, NodeId, ServiceId, TaskId,
    directory::{Change, Entry, Key, Message, NodeEntry, ServiceEntry, TaskEntry},
};

/// Whose names and shares of load a task's are: its service's, or its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    Service(ServiceId),
    Task(TaskId),
}

/// All entries.
#[derive(Debug, Clone, Default)]
pub(super) struct Directory {
    pub(super) networks: BTreeMap<NetworkId, Arc<Network>>,
    pub(super) services: BTreeMap<ServiceId, Arc<ServiceEntry>>,
    pub(super) tasks: BTreeMap<TaskId, Arc<TaskEntry>>,
    pub(super) nodes: BTreeMap<NodeId, Arc<NodeEntry>>,
    of_owner: BTreeSet<(Owner, TaskId)>,
    of_node: BTreeSet<(NodeId, TaskId)>,
}

/// What a change changed, with what was there before and what is now.
#[derive(Debug)]
pub(super) enum Touch {
    Network(NetworkId),
    Service(Option<Arc<ServiceEntry>>, Option<Arc<ServiceEntry>>),
    Task(Option<Arc<TaskEntry>>, Option<Arc<TaskEntry>>),
    Node(Option<Arc<NodeEntry>>, Option<Arc<NodeEntry>>),
}

// === impl Owner ===

impl Owner {
    pub(super) fn of(task: &TaskEntry) -> Self {
        task.service_id.map_or(Self::Task(task.id), Self::Service)
    }

    /// What the data plane knows it by.
    pub(super) fn key(self) -> String {
        match self {
            Self::Service(id) => id.to_string(),
            Self::Task(id) => id.to_string(),
        }
    }
}

// === impl Directory ===

impl Directory {
    /// Takes a change; `None` if nothing is otherwise than before.
    pub(super) fn apply(&mut self, change: Change) -> Option<Touch> {
        match change {
            Change::Set(Entry::Network(entry)) => {
                let (id, old) = (entry.id, self.networks.get(&entry.id));
                if old == Some(&entry) {
                    return None;
                }
                self.networks.insert(id, entry);
                Some(Touch::Network(id))
            }
            Change::Set(Entry::Service(entry)) => {
                let old = replace(&mut self.services, entry.id, &entry)?;
                Some(Touch::Service(old, Some(entry)))
            }
            Change::Set(Entry::Task(entry)) => {
                let old = replace(&mut self.tasks, entry.id, &entry)?;
                if let Some(old) = &old {
                    self.unlink(old);
                }
                self.of_owner.insert((Owner::of(&entry), entry.id));
                self.of_node.insert((entry.node_id, entry.id));
                Some(Touch::Task(old, Some(entry)))
            }
            Change::Set(Entry::Node(entry)) => {
                let old = replace(&mut self.nodes, entry.id, &entry)?;
                Some(Touch::Node(old, Some(entry)))
            }
            Change::Remove(Key::Network(id)) => {
                self.networks.remove(&id).map(|_| Touch::Network(id))
            }
            Change::Remove(Key::Service(id)) => {
                let old = self.services.remove(&id)?;
                Some(Touch::Service(Some(old), None))
            }
            Change::Remove(Key::Task(id)) => {
                let old = self.tasks.remove(&id)?;
                self.unlink(&old);
                Some(Touch::Task(Some(old), None))
            }
            Change::Remove(Key::Node(id)) => {
                let old = self.nodes.remove(&id)?;
                Some(Touch::Node(Some(old), None))
            }
        }
    }

    fn unlink(&mut self, task: &TaskEntry) {
        self.of_owner.remove(&(Owner::of(task), task.id));
        self.of_node.remove(&(task.node_id, task.id));
    }

    pub(super) fn tasks_of(&self, owner: Owner) -> impl Iterator<Item = &Arc<TaskEntry>> {
        let bounds = (owner, TaskId(Id::LOWEST))..=(owner, TaskId(Id::HIGHEST));
        let ids = self.of_owner.range(bounds);
        ids.filter_map(|(_, id)| self.tasks.get(id))
    }

    pub(super) fn tasks_on(&self, node: NodeId) -> impl Iterator<Item = &Arc<TaskEntry>> {
        let bounds = (node, TaskId(Id::LOWEST))..=(node, TaskId(Id::HIGHEST));
        let ids = self.of_node.range(bounds);
        ids.filter_map(|(_, id)| self.tasks.get(id))
    }

    /// What all entries are about.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        let networks = self.networks.keys().map(|id| Key::Network(*id));
        let services = self.services.keys().map(|id| Key::Service(*id));
        let tasks = self.tasks.keys().map(|id| Key::Task(*id));
        let nodes = self.nodes.keys().map(|id| Key::Node(*id));
        networks.chain(services).chain(tasks).chain(nodes)
    }

    /// All of it as one complete set.
    pub(super) fn complete(&self, index: u64) -> Message {
        let networks = self.networks.values().cloned().map(Entry::Network);
        let services = self.services.values().cloned().map(Entry::Service);
        let tasks = self.tasks.values().cloned().map(Entry::Task);
        let nodes = self.nodes.values().cloned().map(Entry::Node);
        let entries = networks.chain(services).chain(tasks).chain(nodes);
        Message {
            index,
            is_complete: true,
            is_last: true,
            changes: entries.map(Change::Set).collect(),
        }
    }
}

/// Puts an entry in; the entry before it, or `None` when both are equal.
fn replace<K: Ord, E: PartialEq>(
    map: &mut BTreeMap<K, Arc<E>>,
    key: K,
    entry: &Arc<E>,
) -> Option<Option<Arc<E>>> {
    if map.get(&key) == Some(entry) {
        return None;
    }
    Some(map.insert(key, Arc::clone(entry)))
}
