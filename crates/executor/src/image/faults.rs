//! Pulls the plug between two steps of the store, for tests.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use super::{Error, error::Result};

/// Shared by a store and its guards. Without [`Self::crash_after`] nothing happens.
#[derive(Debug, Clone)]
pub(crate) struct Faults {
    steps_left: Arc<AtomicI64>,
    is_crashed: Arc<AtomicBool>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            steps_left: Arc::new(AtomicI64::new(i64::MAX)),
            is_crashed: Arc::default(),
        }
    }
}

impl Faults {
    /// Lets `count` more steps pass; from then on every step fails and nothing is cleaned up.
    pub(crate) fn crash_after(&self, count: i64) {
        self.steps_left.store(count, Ordering::SeqCst);
    }

    pub(crate) fn is_crashed(&self) -> bool {
        self.is_crashed.load(Ordering::SeqCst)
    }

    pub(crate) fn step(&self, what: &'static str) -> Result<()> {
        if self.steps_left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Ok(());
        }
        self.is_crashed.store(true, Ordering::SeqCst);
        Err(Error::Crash(what))
    }
}
