//! Which secrets and configs an agent is given: those its tasks use, for as long as one may read them.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::{ConfigId, SecretId, Task, TaskId, dispatch::AssignmentChange};
use skep_store::Store;

/// What one agent holds, and the tasks it holds it for.
#[derive(Debug, Default)]
pub(super) struct Supplies {
    secrets: BTreeMap<SecretId, BTreeSet<TaskId>>,
    configs: BTreeMap<ConfigId, BTreeSet<TaskId>>,
}

// === impl Supplies ===

impl Supplies {
    /// The agent is about to hear of `task`, or has: adds what it lacks for it, to be sent first.
    /// What a task names that is not there is left to its node, which then fails the task.
    pub(super) fn note(&mut self, store: &Store, task: &Task, out: &mut Vec<AssignmentChange>) {
        if task.status.state.is_terminal() {
            return;
        }
        for id in secrets_of(task) {
            let Some(secret) = store.secrets().get(id) else {
                continue;
            };
            let users = self.secrets.entry(id).or_default();
            if users.is_empty() {
                out.push(AssignmentChange::UpdateSecret(secret.clone()));
            }
            users.insert(task.id);
        }
        for id in configs_of(task) {
            let Some(config) = store.configs().get(id) else {
                continue;
            };
            let users = self.configs.entry(id).or_default();
            if users.is_empty() {
                out.push(AssignmentChange::UpdateConfig(config.clone()));
            }
            users.insert(task.id);
        }
    }

    /// `task` has ended or is gone: adds what no other task of the agent uses, to be taken away.
    pub(super) fn release(&mut self, task: &Task, out: &mut Vec<AssignmentChange>) {
        for id in secrets_of(task) {
            if release(&mut self.secrets, id, task.id) {
                out.push(AssignmentChange::RemoveSecret(id));
            }
        }
        for id in configs_of(task) {
            if release(&mut self.configs, id, task.id) {
                out.push(AssignmentChange::RemoveConfig(id));
            }
        }
    }
}

/// Whether `task` was the last user of `id`.
fn release<I: Copy + Ord>(held: &mut BTreeMap<I, BTreeSet<TaskId>>, id: I, task: TaskId) -> bool {
    let Some(users) = held.get_mut(&id) else {
        return false;
    };
    users.remove(&task);
    let is_last = users.is_empty();
    if is_last {
        held.remove(&id);
    }
    is_last
}

fn secrets_of(task: &Task) -> impl Iterator<Item = SecretId> {
    let secrets = task.spec.container.secrets.iter();
    secrets.filter_map(|secret| secret.secret_id.parse().ok())
}

fn configs_of(task: &Task) -> impl Iterator<Item = ConfigId> {
    let configs = task.spec.container.configs.iter();
    configs.filter_map(|config| config.config_id.parse().ok())
}
