//! A node is sent a secret or config only while a task on it uses it, and with every complete set all
//! that its tasks use.

use std::collections::BTreeSet;

use skep_manager::event::ToAgent;
use skep_model::{
    ConfigId, NodeId, SecretId, Task,
    dispatch::{AssignmentChange, AssignmentsKind, AssignmentsMessage},
};
use skep_store::Store;

use crate::{
    facts::{Facts, Observation},
    invariants::Invariant,
};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Supplies;

#[derive(Debug, Default)]
struct Used {
    secrets: BTreeSet<SecretId>,
    configs: BTreeSet<ConfigId>,
}

impl Invariant for Supplies {
    fn name(&self) -> &'static str {
        "supplies"
    }

    fn observe(&mut self, facts: &Facts, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Sent {
            node,
            message: ToAgent::Assignments(message),
            index,
            next,
        } = observation
        else {
            return Ok(());
        };
        // As of the store published last, or of the one published next.
        let check = |index| {
            let store = facts.store_at(index);
            store.map_or(Ok(()), |store| check(store, *node, message))
        };
        check(*index).or_else(|_| check(*next))
    }
}

fn check(store: &Store, node: NodeId, message: &AssignmentsMessage) -> Result<(), String> {
    let mut used = Used::default();
    for task in store.tasks_on_node(node) {
        used.add(store, task);
    }
    let (mut sent, mut wanted) = (Used::default(), Used::default());
    for change in &message.changes {
        match change {
            AssignmentChange::UpdateSecret(secret) => {
                if !used.secrets.contains(&secret.id) {
                    return Err(format!(
                        "secret {} is sent to {node}, no task there uses it",
                        secret.id
                    ));
                }
                sent.secrets.insert(secret.id);
            }
            AssignmentChange::UpdateConfig(config) => {
                if !used.configs.contains(&config.id) {
                    return Err(format!(
                        "config {} is sent to {node}, no task there uses it",
                        config.id
                    ));
                }
                sent.configs.insert(config.id);
            }
            AssignmentChange::UpdateTask(task) => wanted.add(store, task),
            AssignmentChange::RemoveTask(_)
            | AssignmentChange::RemoveSecret(_)
            | AssignmentChange::RemoveConfig(_) => {}
        }
    }
    let has_all =
        wanted.secrets.is_subset(&sent.secrets) && wanted.configs.is_subset(&sent.configs);
    if message.kind == AssignmentsKind::Complete && !has_all {
        return Err(format!(
            "{node} is sent tasks without what they use: {wanted:?}, sent {sent:?}"
        ));
    }
    Ok(())
}

impl Used {
    /// Adds what `task` may read and there is.
    fn add(&mut self, store: &Store, task: &Task) {
        if task.status.state.is_terminal() {
            return;
        }
        let secrets = task.spec.container.secrets.iter();
        let ids = secrets.filter_map(|secret| secret.secret_id.parse().ok());
        self.secrets
            .extend(ids.filter(|id| store.secrets().get(*id).is_some()));
        let configs = task.spec.container.configs.iter();
        let ids = configs.filter_map(|config| config.config_id.parse().ok());
        self.configs
            .extend(ids.filter(|id| store.configs().get(*id).is_some()));
    }
}
