//! Real processor time of the managers' steps, for the scale rigs. No run depends on it.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Off unless switched on: the clock is a system call.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    is_on: bool,
    begun: Duration,
    /// All steps together.
    pub(crate) spent: Duration,
    /// The longest step.
    pub(crate) longest: Duration,
}

impl Meter {
    /// Measures from now on.
    pub(crate) fn switch_on(&mut self) {
        *self = Self {
            is_on: true,
            ..Self::default()
        };
    }

    /// A step begins.
    pub(crate) fn begin(&mut self) {
        if self.is_on {
            self.begun = thread_time();
        }
    }

    /// The step ends.
    pub(crate) fn end(&mut self) {
        if self.is_on {
            let step = thread_time().saturating_sub(self.begun);
            self.spent += step;
            self.longest = self.longest.max(step);
        }
    }
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}
