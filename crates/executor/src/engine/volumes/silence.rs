//! Which plugins did not answer a moment ago: they are not asked again at once by those who ask all.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long a plugin that did not answer is left alone, unless it answers something else first. Longer
/// than the time between two probes, so that one that hangs is waited for by nobody but these.
const SILENCE: Duration = Duration::from_secs(45);

/// When plugins last failed to answer, by name.
#[derive(Debug, Default)]
pub(super) struct Silence(Mutex<BTreeMap<String, Instant>>);

// === impl Silence ===

impl Silence {
    /// How long ago the plugin did not answer, if that was a moment ago.
    pub(super) fn of(&self, plugin: &str) -> Option<Duration> {
        let since = self.lock().get(plugin)?.elapsed();
        (since < SILENCE).then_some(since)
    }

    /// It did not answer.
    pub(super) fn note(&self, plugin: &str) {
        let mut known = self.lock();
        known.retain(|_, at| at.elapsed() < SILENCE);
        known.insert(plugin.to_owned(), Instant::now());
    }

    /// It did.
    pub(super) fn lift(&self, plugin: &str) {
        self.lock().remove(plugin);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
