//! Why a job waits.

use std::fmt;

use skep_model::{TaskId, Timestamp};

/// One thing a job waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobWait {
    /// The next run is not due yet.
    NextRun {
        /// When it is.
        until: Timestamp,
    },
    /// The next run waits for the end of the one under way.
    RunUnderWay,
    /// The run may take so long.
    Deadline {
        /// When it is stopped.
        until: Timestamp,
    },
    /// The run took too long.
    Expired {
        /// When its time was over.
        at: Timestamp,
    },
    /// A replacement starts when the task before it has stopped, however long that takes.
    Predecessor {
        /// The replacement.
        task: TaskId,
        /// The task before it.
        old: TaskId,
    },
    /// The schedule is suspended.
    Suspended,
}

impl fmt::Display for JobWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NextRun { until } => write!(f, "next run at {until:?}"),
            Self::RunUnderWay => f.write_str("next run waits for the end of the present one"),
            Self::Deadline { until } => write!(f, "run is stopped at {until:?}"),
            Self::Expired { at } => write!(f, "run took longer than until {at:?}"),
            Self::Predecessor { task, old } => {
                write!(f, "task {task} starts when task {old} has stopped")
            }
            Self::Suspended => f.write_str("schedule is suspended"),
        }
    }
}
