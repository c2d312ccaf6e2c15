//! The worker's database with the guarantees of `skep_agent::db`: assignments, removals and ends of
//! tasks are durable when stored; other statuses are not until the next durable write.

use std::collections::BTreeMap;

use skep_agent::core::{Change, StoredTask};
use skep_model::TaskId;

use crate::bug::Bug;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct WorkerDb {
    durable: BTreeMap<TaskId, StoredTask>,
    /// Stored, and lost in a crash.
    volatile: Vec<Change>,
}

impl WorkerDb {
    /// Stores the changes of one call as one.
    pub(crate) fn store(&mut self, changes: Vec<Change>, bug: Option<Bug>) {
        let must_be_durable = changes.iter().any(must_be_durable);
        let is_kept = |change: &Change| match (bug, change) {
            (Some(Bug::ForgetStatus), Change::Status(_, status)) => !status.state.is_terminal(),
            _ => true,
        };
        self.volatile.extend(changes.into_iter().filter(is_kept));
        if must_be_durable {
            for change in std::mem::take(&mut self.volatile) {
                self.apply(change);
            }
        }
    }

    /// The process dies.
    pub(crate) fn crash(&mut self) {
        self.volatile.clear();
    }

    /// What the next process finds.
    pub(crate) fn load(&self) -> Vec<StoredTask> {
        self.durable.values().cloned().collect()
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Task(task) => match self.durable.get_mut(&task.id) {
                Some(stored) => stored.task = task,
                None => {
                    let stored = StoredTask {
                        status: task.status.clone(),
                        is_assigned: true,
                        task,
                    };
                    self.durable.insert(stored.task.id, stored);
                }
            },
            Change::Status(id, status) => {
                if let Some(stored) = self.durable.get_mut(&id) {
                    stored.status = status;
                }
            }
            Change::Unassign(id) => {
                if let Some(stored) = self.durable.get_mut(&id) {
                    stored.is_assigned = false;
                }
            }
            Change::Forget(id) => {
                self.durable.remove(&id);
            }
        }
    }
}

fn must_be_durable(change: &Change) -> bool {
    match change {
        Change::Task(_) | Change::Unassign(_) | Change::Forget(_) => true,
        Change::Status(_, status) => status.state.is_terminal(),
    }
}
