//! Bugs put in on purpose, to prove that the simulator would find them.
//!
//! They live in the simulated edges (disk driver, worker database, messages), never in the cores.

use std::{fmt, sync::Arc};

use clap::ValueEnum;
use skep_model::{Rng, dispatch::AssignmentChange};
use skep_store::Change;

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

/// Takes a task's address in its node's slice away.
pub(crate) fn drop_node_address(change: &mut AssignmentChange) {
    if let AssignmentChange::UpdateTask(task) = change {
        let places = &mut Arc::make_mut(task).networks;
        places.retain(|place| !place.network.spec.is_node_network());
    }
}
