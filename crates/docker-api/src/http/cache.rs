//! Encoded answers of hot lists, kept as long as nothing they show has changed.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;

use crate::{backend::Revision, error::Result, http::version::ApiVersion};

/// Answers kept. Dashboards and CLIs ask few different questions; a miss costs one encoding.
const ENTRY_COUNT_MAX: usize = 16;
/// Bytes of one answer that is kept; together at most 64 MiB.
const ENTRY_BYTES_MAX: usize = 4 << 20;

/// What an answer depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// What was asked.
    pub(crate) path: &'static str,
    /// How.
    pub(crate) query: String,
    /// In which version.
    pub(crate) version: ApiVersion,
}

/// Encoded answers with the revision they show, the latest used first.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<VecDeque<(Key, Revision, Bytes)>>);

impl Cache {
    /// The answer for `key` at `revision`, encoded by `make` when it is not there.
    pub(crate) fn get(
        &self,
        key: Key,
        revision: Revision,
        make: impl FnOnce() -> Result<Bytes>,
    ) -> Result<Bytes> {
        if let Some(bytes) = self.find(&key, revision) {
            return Ok(bytes);
        }
        let bytes = make()?;
        if bytes.len() <= ENTRY_BYTES_MAX {
            let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            entries.retain(|entry| entry.0 != key);
            entries.truncate(ENTRY_COUNT_MAX - 1);
            entries.push_front((key, revision, bytes.clone()));
        }
        Ok(bytes)
    }

    fn find(&self, key: &Key, revision: Revision) -> Option<Bytes> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = entries
            .iter()
            .position(|entry| entry.0 == *key && entry.1 == revision)?;
        entries.swap(0, index);
        entries.front().map(|entry| entry.2.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(query: &str) -> Key {
        Key {
            path: "services",
            query: query.to_owned(),
            version: ApiVersion(1, 41),
        }
    }

    fn answer(cache: &Cache, query: &str, services: u64, text: &'static str) -> Bytes {
        let revision = Revision {
            services,
            ..Revision::default()
        };
        cache
            .get(key(query), revision, || {
                Ok(Bytes::from_static(text.as_bytes()))
            })
            .expect("made")
    }

    #[test]
    fn an_answer_is_made_once_per_revision() {
        let cache = Cache::default();
        assert_eq!(answer(&cache, "", 1, "first"), "first");
        assert_eq!(answer(&cache, "", 1, "again"), "first");
        assert_eq!(answer(&cache, "", 2, "new"), "new");
        assert_eq!(answer(&cache, "a=1", 2, "other"), "other");
    }

    #[test]
    fn the_cache_is_bounded() {
        let cache = Cache::default();
        for number in 0..100 {
            answer(&cache, &number.to_string(), 1, "x");
        }
        assert_eq!(cache.0.lock().expect("lock").len(), ENTRY_COUNT_MAX);
    }
}
