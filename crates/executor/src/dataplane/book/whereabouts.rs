//! Which tasks can be reached, and what each gets of its service's load. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use skep_model::{
    NodeId,
    directory::{NodeEntry, Standing, TaskEntry},
};
use skep_network::plane::Health;

/// Containers of this node that are remembered as ended. The leader takes their tasks out of the
/// directory within a second; without managers this many may end before an old one is led to again.
const ENDED_COUNT_MAX: usize = 4096;

/// See the module's documentation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whereabouts<'a> {
    pub(super) own: NodeId,
    pub(super) nodes: &'a BTreeMap<NodeId, Arc<NodeEntry>>,
    pub(super) buried: &'a BTreeSet<NodeId>,
    pub(super) ended: &'a Ended,
}

/// Containers of this node that have ended, by id, whatever the directory says of their tasks.
#[derive(Debug, Default)]
pub(super) struct Ended {
    ids: BTreeSet<String>,
    order: VecDeque<String>,
}

// === impl Whereabouts ===

impl Whereabouts<'_> {
    /// Where the tunnel to another node's task ends; `None` for own tasks and those out of reach.
    pub(super) fn tunnel_to(self, task: &TaskEntry) -> Option<IpAddr> {
        let node = self.nodes.get(&task.node_id)?;
        let is_there = node.id != self.own && !self.buried.contains(&node.id);
        node.data_path.filter(|_| is_there)
    }

    /// What a task gets of others; nothing while it starts and when it is out of reach. A node that is
    /// down may be just without its daemon: its tasks keep the connections they have until it is buried.
    ///
    /// A node that takes itself for dead would cut off its own containers for nothing, so what is
    /// said of the own node does not count. But it knows best which of its containers have ended.
    pub(super) fn health(self, task: &TaskEntry) -> Option<Health> {
        let health = match task.standing {
            Standing::Starting => return None,
            Standing::Ready => Health::Ready,
            Standing::Leaving | Standing::Unready => Health::Leaving,
        };
        if task.node_id == self.own {
            return Some(health).filter(|_| !self.ended.contains(&task.container_id));
        }
        self.tunnel_to(task)?;
        let node = self.nodes.get(&task.node_id);
        match node.is_some_and(|node| node.is_down) {
            true => Some(Health::Silent),
            false => Some(health),
        }
    }
}

// === impl Ended ===

impl Ended {
    fn contains(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// A container has ended.
    pub(super) fn insert(&mut self, id: &str) {
        if !self.ids.insert(id.to_owned()) {
            return;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > ENDED_COUNT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }

    /// The directory has no task with this container any more.
    pub(super) fn remove(&mut self, id: &str) {
        if self.ids.remove(id) {
            self.order.retain(|one| one != id);
        }
    }
}
