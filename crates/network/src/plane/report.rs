//! What an update or a reconciliation did.

use std::fmt;
use std::sync::Arc;

use super::client;
use super::encryption;
use super::hands::ActionError;
use super::mesh;
use super::sandbox::Action;
use super::tunnels;

/// What was done, and what could not be.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Generation of the value that was followed.
    pub generation: u64,
    /// Steps performed; empty when all was well.
    pub steps: Vec<Step>,
    /// What failed; the next update or reconciliation tries again.
    pub failures: Vec<Failure>,
    /// What works less well than it should.
    pub warnings: Vec<String>,
}

/// Something that could not be done.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What it was for.
    pub scope: Scope,
    /// Why.
    pub error: Arc<ActionError>,
}

/// What a failure concerns. Everything else goes on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The node as a whole.
    Node,
    /// The routing mesh.
    Mesh,
    /// Encryption between nodes.
    Encryption,
    /// A network and all containers on it.
    Network(String),
    /// One container.
    Container(String),
}

/// One change of the kernel's state.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Of the node.
    Node(tunnels::Action),
    /// Of the routing mesh.
    Mesh(mesh::Action),
    /// Of the tunnels that encrypt.
    Encryption(encryption::Action),
    /// Of the network with this id.
    Network(String, Action),
    /// Of the rules inside the container with this id.
    Container(String, client::Action),
}

// === impl Report ===

impl Report {
    pub(crate) fn fail(&mut self, scope: Scope, error: ActionError) {
        self.failures.push(Failure {
            scope,
            error: Arc::new(error),
        });
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Node => write!(f, "node"),
            Scope::Mesh => write!(f, "mesh"),
            Scope::Encryption => write!(f, "encryption"),
            Scope::Network(id) => write!(f, "network {id}"),
            Scope::Container(id) => write!(f, "container {id}"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Node(action) => write!(f, "node: {action}"),
            Step::Mesh(action) => write!(f, "node: {action}"),
            Step::Encryption(action) => write!(f, "encryption: {action}"),
            Step::Network(id, action) => write!(f, "network {id}: {action}"),
            Step::Container(id, action) => write!(f, "container {id}: {action}"),
        }
    }
}
