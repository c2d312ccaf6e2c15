//! The core's time.

use std::time::{Duration, SystemTime};

use skep_model::Timestamp;
use tokio::time::Instant;

/// Longest sleep without a deadline; the loop then finds that nothing is due.
const IDLE_SLEEP: Duration = Duration::from_secs(3600);

/// Wall-clock time that never jumps: the wall clock at start plus what has passed since.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    wall_at_start: Timestamp,
    start: Instant,
}

// === impl Clock ===

impl Clock {
    pub(super) fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            wall_at_start: Timestamp::ZERO + since_epoch.unwrap_or_default(),
            start: Instant::now(),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.wall_at_start + self.start.elapsed()
    }

    /// When to wake. Rounded up to tokio's millisecond, so that what is due is due on waking.
    pub(super) fn instant(&self, deadline: Option<Timestamp>) -> Instant {
        let now = Instant::now();
        deadline.map_or(now + IDLE_SLEEP, |at| {
            now + at.since(self.now()).min(IDLE_SLEEP)
        })
    }
}
