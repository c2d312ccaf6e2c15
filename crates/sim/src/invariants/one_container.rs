//! A container runs only on the node its task was placed on, and a task has one at most.

use std::collections::BTreeMap;

use skep_model::{NodeId, TaskId, TaskState};
use skep_store::Object;

use crate::{
    facts::{Facts, Observation},
    invariants::Invariant,
};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct OneContainer {
    placed: BTreeMap<TaskId, NodeId>,
}

impl Invariant for OneContainer {
    fn name(&self) -> &'static str {
        "one-container"
    }

    fn observe(&mut self, _: &Facts, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Committed(applied) => {
                for change in &applied.changes {
                    if let Some(Object::Task(task)) = &change.new
                        && task.status.state >= TaskState::Assigned
                        && let Some(node) = task.node_id
                    {
                        self.placed.insert(task.id, node);
                    }
                }
                Ok(())
            }
            Observation::Container { node, task, state } => match self.placed.get(&task.id) {
                None => Err(format!(
                    "{state:?} container of task {} placed nowhere",
                    task.id
                )),
                Some(placed) if placed != node => Err(format!(
                    "{state:?} container of task {} on {node}, placed on {placed}",
                    task.id
                )),
                Some(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }
}
