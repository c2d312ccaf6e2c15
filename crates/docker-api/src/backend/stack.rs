//! Stacks as the API needs them beyond what `skep_model::stack` says.

use std::{collections::BTreeMap, sync::Arc};

use skep_model::{NodeId, stack::StackOutcome};

use super::ClusterView;

/// What a deploy would do.
#[expect(missing_debug_implementations, reason = "holds a trait object")]
pub struct PlannedStack {
    /// The changes.
    pub outcome: StackOutcome,
    /// Where the tasks of its services would be.
    pub placements: Vec<PlannedPlacement>,
    /// The state after it.
    pub after: Arc<dyn ClusterView>,
}

/// Where a service's tasks would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedPlacement {
    /// The service's name.
    pub service: String,
    /// Tasks on each node.
    pub nodes: BTreeMap<NodeId, u64>,
    /// Tasks that no node would take now.
    pub pending: u64,
    /// Why.
    pub reason: String,
}
