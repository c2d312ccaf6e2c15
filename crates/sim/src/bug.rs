//! Bugs put in on purpose, to prove that the simulator would find them.
//!
//! They live in the simulated edges (disk driver, worker database, messages), never in the cores. What a
//! leader would decide wrongly is put into the entry as the invariants read it.

mod decisions;

use std::{fmt, sync::Arc};

use clap::ValueEnum;
use skep_model::{Rng, dispatch::AssignmentChange};
use skep_store::{Change, Store};

pub(crate) use self::decisions::mislead;

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
