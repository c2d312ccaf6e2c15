//! Bugs put in on purpose, to prove that the simulator would find them.
//!
//! They live in the simulated edges (disk driver, worker database, messages), never in the cores.

use std::fmt;

use clap::ValueEnum;

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
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_possible_value() {
            Some(value) => f.write_str(value.get_name()),
            None => fmt::Debug::fmt(self, f),
        }
    }
}
