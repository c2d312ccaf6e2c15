//! Digests that running operations are about to name, so that garbage collection leaves them alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::Digest;

/// How often each digest is pinned. Blobs and layers share it: digests do not collide.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pins {
    counts: Arc<Mutex<BTreeMap<Digest, usize>>>,
}

/// Keeps digests alive until dropped.
#[derive(Debug)]
pub(crate) struct Pinned {
    pins: Pins,
    digests: Mutex<BTreeSet<Digest>>,
}

impl Pins {
    pub(crate) fn hold(&self) -> Pinned {
        Pinned {
            pins: self.clone(),
            digests: Mutex::default(),
        }
    }

    /// Stops all pinning while the guard lives; for the collector.
    pub(crate) fn freeze(&self) -> MutexGuard<'_, BTreeMap<Digest, usize>> {
        lock(&self.counts)
    }
}

impl Pinned {
    /// From now on the digest stays if it is there. Look whether it is only after this.
    pub(crate) fn add(&self, digest: Digest) {
        if lock(&self.digests).insert(digest) {
            *lock(&self.pins.counts).entry(digest).or_default() += 1;
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut counts = lock(&self.pins.counts);
        for digest in lock(&self.digests).iter() {
            if let Some(count) = counts.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(digest);
                }
            }
        }
    }
}

/// A panic elsewhere cannot leave a count half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
