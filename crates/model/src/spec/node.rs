//! What an operator decides about a node.

use crate::spec::Annotations;

/// The operator's wish for a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeSpec {
    /// Optional name, and the `node.labels`.
    pub annotations: Annotations,
    /// Role the node shall have.
    pub desired_role: Role,
    /// Whether the node is admitted.
    pub membership: Membership,
    /// Whether it takes tasks.
    pub availability: Availability,
}

/// Role of a node, with Swarm's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Runs tasks.
    #[default]
    Worker,
    /// Takes part in the control plane too.
    Manager,
}

/// Admission of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Membership {
    /// Waits to be accepted.
    #[default]
    Pending,
    /// Accepted.
    Accepted,
}

/// Whether a node takes tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Availability {
    /// Takes tasks.
    #[default]
    Active,
    /// Keeps its tasks, takes no new ones.
    Pause,
    /// Gives its tasks away.
    Drain,
}
