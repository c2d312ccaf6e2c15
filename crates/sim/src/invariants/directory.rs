//! A node that follows the directory knows what a node is told that asks for everything, whichever
//! managers it asks, when it loses them and how many entries it takes at once.
//!
//! Each node is a reader. It opens a feed at some manager, which sends a complete set, and follows
//! it; it goes over to another at any time, though never to one that is behind what it knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use skep_control::directory::Feed;
use skep_model::{
    NodeId, Rng,
    directory::{Change, Entry, Key},
};
use skep_store::{Change as StoreChange, Store};

use crate::{
    event::ManagerIndex,
    facts::{Facts, Observation},
    invariants::Invariant,
};

/// Readers that a manager serves in a hundred occasions to open a feed, to switch to another
/// manager, to lose one, and to take up what is there.
const OPEN: u64 = 60;
const SWITCH: u64 = 4;
const LOSE: u64 = 3;
const CATCH_UP: u64 = 50;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Directory {
    rng: Rng,
    readers: BTreeMap<NodeId, Reader>,
    /// Index of what each node knows, also while it has no manager.
    known_index: BTreeMap<NodeId, u64>,
}

#[derive(Debug)]
struct Reader {
    manager: ManagerIndex,
    feed: Feed,
    known: BTreeMap<Key, Entry>,
    /// Entries the manager has published since, with the store after each.
    waiting: Vec<(Arc<Vec<StoreChange>>, Store)>,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            rng: Rng::from_seed(1),
            readers: BTreeMap::new(),
            known_index: BTreeMap::new(),
        }
    }
}

impl Invariant for Directory {
    fn name(&self) -> &'static str {
        "directory"
    }

    fn observe(&mut self, _: &Facts, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Published {
                manager,
                index,
                store,
                changes,
            } => self.published(*manager, *index, store, *changes),
            Observation::Restored { manager, .. } => {
                // Its process is another one: who was served by the one before has lost it.
                self.readers.retain(|_, reader| reader.manager != *manager);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Directory {
    fn published(
        &mut self,
        manager: ManagerIndex,
        index: u64,
        store: &Store,
        changes: Option<&Arc<Vec<StoreChange>>>,
    ) -> Result<(), String> {
        let nodes: BTreeSet<NodeId> = store.nodes().map(|node| node.id).collect();
        let served: Vec<NodeId> = self
            .readers
            .iter()
            .filter(|(_, reader)| reader.manager == manager)
            .map(|(node, _)| *node)
            .collect();
        for node in served {
            let changes = changes.filter(|_| nodes.contains(&node));
            let Some(changes) = changes.filter(|_| !self.rng.percent(LOSE)) else {
                self.readers.remove(&node);
                continue;
            };
            let is_caught_up = self.rng.percent(CATCH_UP);
            let is_at_once = self.rng.percent(50);
            if let Some(reader) = self.readers.get_mut(&node) {
                reader.waiting.push((Arc::clone(changes), store.clone()));
                if is_caught_up {
                    reader.catch_up(is_at_once);
                    self.known_index.insert(node, index);
                    reader.compare(store, node)?;
                }
            }
        }
        for node in nodes {
            let is_behind = self
                .known_index
                .get(&node)
                .is_some_and(|known| index < *known);
            let chance = match self.readers.get(&node) {
                None => OPEN,
                Some(reader) if reader.manager == manager => 0,
                Some(_) => SWITCH,
            };
            if !is_behind && self.rng.percent(chance) {
                self.readers
                    .insert(node, Reader::open(manager, store, node));
                self.known_index.insert(node, index);
            }
        }
        Ok(())
    }
}

impl Reader {
    fn open(manager: ManagerIndex, store: &Store, node: NodeId) -> Self {
        let (feed, changes) = Feed::open(store, node);
        let mut reader = Self {
            manager,
            feed,
            known: BTreeMap::new(),
            waiting: Vec::new(),
        };
        reader.take_up(changes);
        reader
    }

    /// Takes all entries at once, or one after the other.
    fn catch_up(&mut self, is_at_once: bool) {
        let mut waiting = std::mem::take(&mut self.waiting);
        if is_at_once && let Some((_, last)) = waiting.last() {
            let last = last.clone();
            let changes = waiting.iter().flat_map(|(changes, _)| changes.iter());
            waiting = vec![(Arc::new(changes.cloned().collect()), last)];
        }
        for (changes, store) in waiting {
            let changes = self.feed.follow(&store, &changes);
            self.take_up(changes);
        }
    }

    fn take_up(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Set(entry) => self.known.insert(entry.key(), entry),
                Change::Remove(key) => self.known.remove(&key),
            };
        }
    }

    fn compare(&self, store: &Store, node: NodeId) -> Result<(), String> {
        let (_, told) = Feed::open(store, node);
        let mut told_keys = BTreeSet::new();
        for change in told {
            let Change::Set(entry) = change else {
                return Err("a complete set takes something away".to_owned());
            };
            let key = entry.key();
            if self.known.get(&key) != Some(&entry) {
                let known = self.known.get(&key);
                return Err(format!("node {node} knows {known:?}, which is {entry:?}"));
            }
            told_keys.insert(key);
        }
        match self.known.keys().find(|key| !told_keys.contains(key)) {
            None => Ok(()),
            Some(key) => Err(format!(
                "node {node} knows {key:?}, which it would not be told"
            )),
        }
    }
}
