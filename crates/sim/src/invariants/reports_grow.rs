//! An agent never takes back the end of a task it reported, not even across its own crashes.

use std::collections::BTreeMap;

use skep_model::{TaskId, TaskState};

use crate::{
    facts::{Facts, Observation},
    invariants::Invariant,
};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct ReportsGrow {
    ended: BTreeMap<TaskId, TaskState>,
}

impl Invariant for ReportsGrow {
    fn name(&self) -> &'static str {
        "reports-grow"
    }

    fn observe(&mut self, _: &Facts, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Reported {
            agent,
            task,
            status,
        } = observation
        else {
            return Ok(());
        };
        if let Some(ended) = self.ended.get(task)
            && status.state < *ended
        {
            let state = status.state;
            return Err(format!(
                "agent {agent} reports {task} {state} after {ended}"
            ));
        }
        if status.state.is_terminal() {
            self.ended.insert(*task, status.state);
        }
        Ok(())
    }
}
