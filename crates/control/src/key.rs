//! What can be reconciled on its own: the unit of dirtiness.

use std::fmt;

use skep_model::{NetworkId, NodeId, ServiceId, Slot, TaskId};

/// One thing a reconciler recomputes from the store alone.
///
/// The order of the variants is the order of work: facts about nodes first, then single tasks, slots and
/// services: a service whose tasks go by the thousand is looked at once, not for each. The scheduler comes last, when
/// all tasks to place are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A network: what was not handed out when it was made.
    Network(NetworkId),
    /// A node's slice of the node network, or all nodes'.
    Slice(Option<NodeId>),
    /// A node: evict what no longer fits, orphan what is lost, tell global services.
    Node(NodeId),
    /// A task: allocation, and its end once it shall be removed.
    Task(TaskId),
    /// One slot of a service: restart, delayed start.
    Slot(ServiceId, Slot),
    /// A service: number of slots, updates, removal, endpoint.
    Service(ServiceId),
    /// Ended tasks of one slot, or of every slot, beyond what is kept.
    History(ServiceId, Option<Slot>),
    /// Services that wait for others.
    Dependents,
    /// All tasks that wait for a node.
    Scheduler,
    /// All running tasks, as to whether some should move.
    Rebalance,
    /// Whoever waits for an address or a port.
    Waiting,
    /// The load balancers of a node, once its tasks are known.
    Balancers(NodeId),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(id) => write!(f, "network {id}"),
            Self::Slice(Some(id)) => write!(f, "slice of node {id}"),
            Self::Slice(None) => f.write_str("slices of all nodes"),
            Self::Node(id) => write!(f, "node {id}"),
            Self::Slot(id, Slot::Number(number)) => write!(f, "slot {number} of service {id}"),
            Self::Slot(id, Slot::Node(node)) => write!(f, "node {node} of service {id}"),
            Self::Service(id) => write!(f, "service {id}"),
            Self::Task(id) => write!(f, "task {id}"),
            Self::History(id, _) => write!(f, "history of service {id}"),
            Self::Dependents => f.write_str("services that wait for others"),
            Self::Scheduler => f.write_str("scheduler"),
            Self::Rebalance => f.write_str("rebalancing"),
            Self::Waiting => f.write_str("what waits for addresses"),
            Self::Balancers(id) => write!(f, "load balancers of node {id}"),
        }
    }
}
