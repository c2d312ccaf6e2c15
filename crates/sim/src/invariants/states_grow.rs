//! Observed and desired states of stored tasks only grow, and a task that is gone stays gone.

use std::collections::BTreeSet;

use skep_model::TaskId;
use skep_store::Object;

use crate::{
    facts::{Applied, Facts, Observation},
    invariants::Invariant,
};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct StatesGrow {
    gone: BTreeSet<TaskId>,
}

impl Invariant for StatesGrow {
    fn name(&self) -> &'static str {
        "states-grow"
    }

    fn observe(&mut self, _: &Facts, observation: &Observation<'_>) -> Result<(), String> {
        let Some(Applied { changes, .. }) = observation.committed() else {
            return Ok(());
        };
        for change in changes {
            match (&change.old, &change.new) {
                (Some(Object::Task(old)), Some(Object::Task(new))) => {
                    if new.status.state < old.status.state {
                        let (from, to) = (old.status.state, new.status.state);
                        return Err(format!("task {} went from {from} to {to}", new.id));
                    }
                    if new.desired_state < old.desired_state {
                        let (from, to) = (old.desired_state, new.desired_state);
                        let id = new.id;
                        return Err(format!("desired state of {id} went from {from} to {to}"));
                    }
                    if old.node_id.is_some() && new.node_id != old.node_id {
                        return Err(format!("task {} moved to another node", new.id));
                    }
                }
                (None, Some(Object::Task(new))) if self.gone.contains(&new.id) => {
                    return Err(format!("task {} came back", new.id));
                }
                (Some(Object::Task(old)), None) => {
                    self.gone.insert(old.id);
                }
                _ => {}
            }
        }
        Ok(())
    }
}
