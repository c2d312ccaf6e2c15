//! Deadlines of reconcilers: the earliest moment a key must be looked at again.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::Timestamp;

use crate::key::Key;

/// At most one deadline per key. Not state: a new leader rebuilds it by reconciling every key.
#[derive(Debug, Clone, Default)]
pub struct Wakes {
    by_key: BTreeMap<Key, Timestamp>,
    by_time: BTreeSet<(Timestamp, Key)>,
}

impl Wakes {
    /// Sets the deadline of `key`, or forgets it.
    pub fn set(&mut self, key: Key, at: Option<Timestamp>) {
        let old = match at {
            Some(at) => self.by_key.insert(key, at),
            None => self.by_key.remove(&key),
        };
        if let Some(old) = old {
            self.by_time.remove(&(old, key));
        }
        if let Some(at) = at {
            self.by_time.insert((at, key));
        }
    }

    /// The earliest deadline.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes one key whose deadline is `now` or earlier.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<Key> {
        let (at, key) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.set(key, None);
        Some(key)
    }

    /// Number of deadlines; bounded by the number of keys.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_deadline() {
        let mut wakes = Wakes::default();
        wakes.set(Key::Scheduler, Some(Timestamp(5)));
        wakes.set(Key::Scheduler, Some(Timestamp(9)));
        assert_eq!(wakes.next_deadline(), Some(Timestamp(9)));
        assert_eq!(wakes.pop_due(Timestamp(8)), None);
        assert_eq!(wakes.pop_due(Timestamp(9)), Some(Key::Scheduler));
        assert!(wakes.is_empty());
    }
}
