//! Task states and the only order they may move in.

use std::fmt;

/// The life of a task, with Swarm's numbers. A task's observed state only ever grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum TaskState {
    /// Created by an orchestrator; resources not yet allocated.
    #[default]
    New = 0,
    /// Resources allocated; waits for the scheduler.
    Pending = 64,
    /// Placed on a node; the node has not taken it yet.
    Assigned = 192,
    /// The agent has taken it.
    Accepted = 256,
    /// The agent pulls the image and creates the container.
    Preparing = 320,
    /// Prepared; starts when the desired state allows it.
    Ready = 384,
    /// The container is being started (and, with a health check, waits for health).
    Starting = 448,
    /// Running (and healthy).
    Running = 512,
    /// Ended by itself with exit code 0.
    Complete = 576,
    /// Ended because it was asked to.
    Shutdown = 640,
    /// Ended with an error after it had started.
    Failed = 704,
    /// Could not be started, or was evicted.
    Rejected = 768,
    /// Only as desired state: forget the task once it has stopped.
    Remove = 800,
    /// The node has been gone too long to know.
    Orphaned = 832,
}

impl TaskState {
    /// Every state, in order.
    pub const ALL: [Self; 14] = [
        Self::New,
        Self::Pending,
        Self::Assigned,
        Self::Accepted,
        Self::Preparing,
        Self::Ready,
        Self::Starting,
        Self::Running,
        Self::Complete,
        Self::Shutdown,
        Self::Failed,
        Self::Rejected,
        Self::Remove,
        Self::Orphaned,
    ];

    /// Swarm's number for this state.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The state with Swarm's number `number`.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.number() == number)
    }

    /// The lower-case name Docker's API shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Remove => "remove",
            Self::Orphaned => "orphaned",
        }
    }

    /// True once the task has ended and nothing of it runs (states above `Running`).
    pub fn is_terminal(self) -> bool {
        self > Self::Running
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_ordered_as_declared() {
        assert!(
            TaskState::ALL
                .windows(2)
                .all(|pair| pair[0].number() < pair[1].number())
        );
        for state in TaskState::ALL {
            assert_eq!(TaskState::from_number(state.number()), Some(state));
        }
        assert_eq!(TaskState::from_number(1), None);
    }
}
