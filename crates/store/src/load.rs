//! What a node offers, and what tasks take of it, counted as they come and go so that nobody has to add it up.

use skep_model::{Availability, Node, NodeId, NodeState, PublishMode, Task, TaskState};

/// Sum over tasks placed on a node and not known to have ended.
///
/// A task preassigned to a node (global services) counts once the scheduler has confirmed it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeLoad {
    /// Tasks that shall run; those told to stop still hold resources but do not count here.
    pub active_count: u32,
    /// Tasks that hold resources.
    pub held_count: u32,
    /// Tasks among them with host-mode ports or generic resources, whose details are not summed.
    pub special_count: u32,
    /// Reserved CPU, in billionths of a core.
    pub nano_cpus: i64,
    /// Reserved memory.
    pub memory_bytes: i64,
}

/// What a node offers to tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeRoom {
    /// It is up and the operator lets it take tasks.
    pub is_ready: bool,
    /// Its CPU, in billionths of a core; 0 until it has described itself.
    pub nano_cpus: i64,
    /// Its memory; 0 until it has described itself.
    pub memory_bytes: i64,
}

impl NodeRoom {
    /// What `node` offers.
    pub fn of(node: &Node) -> Self {
        let resources = node.description.as_ref().map(|d| &d.resources);
        Self {
            is_ready: node.status.state == NodeState::Ready
                && node.spec.availability == Availability::Active,
            nano_cpus: resources.map_or(0, |resources| resources.nano_cpus),
            memory_bytes: resources.map_or(0, |resources| resources.memory_bytes),
        }
    }
}

impl NodeLoad {
    /// The load of one task, and where it is; `None` when it has none.
    pub fn of(task: &Task) -> Option<(NodeId, Self)> {
        let node = task.node_id?;
        let state = task.status.state;
        if state < TaskState::Assigned || state.is_terminal() {
            return None;
        }
        let reserved = &task.spec.resources.reservations;
        let has_host_port = task
            .endpoint
            .iter()
            .flat_map(|e| &e.ports)
            .any(|port| port.publish_mode == PublishMode::Host && port.published_port != 0);
        let is_special = has_host_port || !task.assigned_generic_resources.is_empty();
        let load = Self {
            active_count: u32::from(task.desired_state <= TaskState::Complete),
            held_count: 1,
            special_count: u32::from(is_special),
            nano_cpus: reserved.nano_cpus,
            memory_bytes: reserved.memory_bytes,
        };
        Some((node, load))
    }

    pub(crate) fn is_none(&self) -> bool {
        self.held_count == 0
    }

    /// Adds another load. Wraps: reservations come from users, and a sum must stay undoable.
    pub(crate) fn add(&mut self, other: Self) {
        self.active_count += other.active_count;
        self.held_count += other.held_count;
        self.special_count += other.special_count;
        self.nano_cpus = self.nano_cpus.wrapping_add(other.nano_cpus);
        self.memory_bytes = self.memory_bytes.wrapping_add(other.memory_bytes);
    }

    /// Takes away a load added before; wrapping undoes wrapping exactly.
    pub(crate) fn subtract(&mut self, other: Self) {
        self.active_count -= other.active_count;
        self.held_count -= other.held_count;
        self.special_count -= other.special_count;
        self.nano_cpus = self.nano_cpus.wrapping_sub(other.nano_cpus);
        self.memory_bytes = self.memory_bytes.wrapping_sub(other.memory_bytes);
    }
}
