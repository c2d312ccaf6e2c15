//! Bugs put in on purpose, to prove that the simulator would find them.
//!
//! They live in the simulated edges (disk driver, worker database, messages, what a manager is asked), and in
//! who decides for the leader's core (`reconcilers`), never in the cores. What no reconciler could be led to do
//! is put into the entry as the invariants read it (`decisions`).

mod decisions;
mod reconcilers;

use std::{fmt, sync::Arc};

use clap::ValueEnum;
use skep_manager::command::Command;
use skep_model::{Redacted, Rng, dispatch::AssignmentChange};
use skep_store::{Change, Store};

pub(crate) use self::{decisions::mislead, reconcilers::reconcile_of};

/// A deliberate bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Bug {
    /// The manager tells raft that an entry is on disk before it is.
    AckBeforeDurable,
    /// The worker database does not store the end of tasks.
    ForgetStatus,
    /// One in a few changes is left out of what the dispatcher sends.
    SkipAssignment,
    /// Nodes tell the manager of twice the capacity they have.
    OverstateCapacity,
    /// Snapshots lack one task.
    LossySnapshot,
    /// Snapshots lack the members of the raft group.
    SnapshotWithoutGroup,
    /// The disk does not store whom a manager voted for.
    ForgetVote,
    /// A follower's acknowledgement also counts as another's: entries are committed without a
    /// majority.
    CountTwice,
    /// A certificate is given out when it is made, before its entry is committed.
    EarlyCertificate,
    /// One in a few changes is left out of what readers of a manager's feed are told.
    SkipFeed,
    /// Tasks are sent without their address in the node's slice.
    DropNodeAddress,
    /// Nodes are sent a secret that no task there uses.
    LeakSecret,
    /// An update is complete as soon as it begins.
    CompleteEarly,
    /// A place of a job gets another task when it is complete.
    RunAgain,
    /// An update stops all tasks at once.
    StopAll,
    /// A node that is drained stops its tasks at once.
    DrainAtOnce,
    /// The leader updates all slots of a service at once.
    IgnoreParallelism,
    /// The leader makes tasks for all places of a job at once.
    IgnoreConcurrency,
    /// The leader counts each completion of a job for two places.
    CountJobTwice,
    /// The leader starts services that wait for others.
    IgnoreDependencies,
    /// A deploy leaves the secrets of a stack that is there as they are.
    KeepSecret,
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_possible_value() {
            Some(value) => f.write_str(value.get_name()),
            None => fmt::Debug::fmt(self, f),
        }
    }
}

/// What readers of a manager's feed are told of `all` changes.
pub(crate) fn told_changes(
    bug: Option<Bug>,
    rng: &mut Rng,
    all: Arc<Vec<Change>>,
) -> Arc<Vec<Change>> {
    if bug == Some(Bug::SkipFeed) && rng.percent(30) {
        let count = all.len().saturating_sub(1);
        return Arc::new(all[..count].to_vec());
    }
    all
}

/// What a manager is asked instead of `command`.
pub(crate) fn asked(bug: Option<Bug>, store: Option<&Store>, command: &mut Command) {
    if let (Some(Bug::KeepSecret), Command::ApplyStack { spec, .. }) = (bug, command)
        && store.is_some_and(|store| skep_manager::stack(store, &spec.name).is_some())
    {
        for secret in &mut spec.secrets {
            secret.data = Redacted::default();
        }
    }
}

/// What a node is sent instead of `changes`, by a manager whose committed state is `store`.
pub(crate) fn sent_changes(
    bug: Option<Bug>,
    store: Option<&Store>,
    rng: &mut Rng,
    changes: &mut Vec<AssignmentChange>,
) {
    match bug {
        Some(Bug::DropNodeAddress) => changes.iter_mut().for_each(drop_node_address),
        Some(Bug::LeakSecret) => {
            let secret = store.and_then(|store| store.secrets().all().next().cloned());
            changes.extend(secret.map(AssignmentChange::UpdateSecret));
        }
        Some(Bug::SkipAssignment) if !changes.is_empty() && rng.percent(30) => {
            changes.pop();
        }
        Some(_) | None => {}
    }
}

/// Takes a task's address in its node's slice away.
fn drop_node_address(change: &mut AssignmentChange) {
    if let AssignmentChange::UpdateTask(task) = change {
        let places = &mut Arc::make_mut(task).networks;
        places.retain(|place| !place.network.spec.is_node_network());
    }
}
