//! The managers a node knows, and how they did: which to call next.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use skep_model::{Rng, dispatch::WeightedPeer};
use tokio::{sync::watch, time::Instant};

/// A manager that failed is left alone for this long, doubled with every failure in a row.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest time a manager is left alone; a returning one is found again within it.
const BACKOFF_MAX: Duration = Duration::from_secs(8);

/// See the module's documentation.
#[derive(Debug)]
pub struct Remotes {
    state: Mutex<State>,
    list: watch::Sender<Vec<WeightedPeer>>,
}

#[derive(Debug)]
struct State {
    /// By address; of managers in the list only.
    records: BTreeMap<String, Record>,
    rng: Rng,
}

/// How a manager did.
#[derive(Debug, Default, Clone, Copy)]
struct Record {
    failures: u32,
    not_before: Option<Instant>,
    has_worked: bool,
}

// === impl Remotes ===

impl Remotes {
    /// Knows `managers`.
    pub fn new(managers: Vec<WeightedPeer>) -> Arc<Self> {
        // Nodes must not all choose the same manager.
        let seed = RandomState::new().hash_one(());
        let state = State {
            records: BTreeMap::new(),
            rng: Rng::from_seed(seed),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            list: watch::Sender::new(managers),
        })
    }

    /// Replaces the list. An empty one is ignored: it would leave the node homeless.
    pub fn replace(&self, managers: Vec<WeightedPeer>) {
        if managers.is_empty() {
            return;
        }
        let mut state = self.lock();
        state
            .records
            .retain(|addr, _| managers.iter().any(|peer| peer.addr == *addr));
        drop(state);
        self.list.send_if_modified(|list| {
            let is_new = *list != managers;
            *list = managers;
            is_new
        });
    }

    /// All managers known.
    pub fn list(&self) -> Vec<WeightedPeer> {
        self.list.borrow().clone()
    }

    /// Follows the list, e.g. to write it to disk.
    pub fn changed(&self) -> watch::Receiver<Vec<WeightedPeer>> {
        self.list.subscribe()
    }

    /// The manager to call now: the one that worked last, else any that is not left alone, else the one whose time comes first.
    pub fn pick(&self) -> Option<String> {
        let now = Instant::now();
        let list = self.list.borrow();
        let mut state = self.lock();
        let State { records, rng } = &mut *state;
        let record = |peer: &WeightedPeer| records.get(&peer.addr).copied().unwrap_or_default();
        let is_free = |peer: &&WeightedPeer| record(peer).not_before.is_none_or(|at| at <= now);
        let mut free: Vec<&WeightedPeer> = list.iter().filter(is_free).collect();
        if free.is_empty() {
            let soonest = list.iter().min_by_key(|peer| record(peer).not_before);
            return soonest.map(|peer| peer.addr.clone());
        }
        if free.iter().any(|peer| record(peer).has_worked) {
            free.retain(|peer| record(peer).has_worked);
        }
        let count = u64::try_from(free.len()).unwrap_or(u64::MAX);
        let index = usize::try_from(rng.below(count)).unwrap_or_default();
        free.get(index).map(|peer| peer.addr.clone())
    }

    /// How a call to `addr` went, as far as the manager is to blame.
    pub fn observe(&self, addr: &str, is_ok: bool) {
        if !self.list.borrow().iter().any(|peer| peer.addr == addr) {
            return;
        }
        let mut state = self.lock();
        if is_ok {
            for record in state.records.values_mut() {
                record.has_worked = false;
            }
            let record = Record {
                has_worked: true,
                ..Record::default()
            };
            state.records.insert(addr.to_owned(), record);
            return;
        }
        let half = state.rng.below(50);
        let record = state.records.entry(addr.to_owned()).or_default();
        record.has_worked = false;
        let doubled = BACKOFF_MIN.saturating_mul(1 << record.failures.min(10));
        record.failures = record.failures.saturating_add(1);
        // Between 50 and 100 %, so that nodes do not return all at once.
        let share = u32::try_from(50 + half).unwrap_or(100);
        let wait = doubled.min(BACKOFF_MAX) * share / 100;
        record.not_before = Some(Instant::now() + wait);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use skep_model::NodeId;

    use super::*;

    fn peer(number: u64) -> WeightedPeer {
        WeightedPeer {
            node_id: NodeId::random(&mut Rng::from_seed(number)),
            addr: format!("192.0.2.{number}:2377"),
            weight: 10,
        }
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_failed_manager_is_left_alone_until_its_time() {
        let remotes = Remotes::new(vec![peer(1), peer(2)]);
        remotes.observe(&peer(1).addr, false);
        for _ in 0..20 {
            assert_eq!(remotes.pick(), Some(peer(2).addr));
        }
        remotes.observe(&peer(2).addr, false);
        remotes.observe(&peer(2).addr, false);
        assert_eq!(remotes.pick(), Some(peer(1).addr), "its time comes first");
        tokio::time::advance(BACKOFF_MAX).await;
        remotes.observe(&peer(2).addr, true);
        for _ in 0..20 {
            assert_eq!(remotes.pick(), Some(peer(2).addr), "it worked");
        }
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn nobody_prefers_one_manager_from_the_start() {
        let remotes = Remotes::new(vec![peer(1), peer(2), peer(3)]);
        let picked: std::collections::BTreeSet<_> = (0..200).map(|_| remotes.pick()).collect();
        assert_eq!(picked.len(), 3);
    }

    #[test]
    fn an_empty_list_is_ignored_and_changes_are_told_once() {
        let remotes = Remotes::new(vec![peer(1)]);
        let mut changed = remotes.changed();
        remotes.replace(Vec::new());
        remotes.replace(vec![peer(1)]);
        assert!(!changed.has_changed().unwrap());
        remotes.replace(vec![peer(2)]);
        assert!(changed.has_changed().unwrap());
        assert_eq!(*changed.borrow_and_update(), [peer(2)]);
        assert_eq!(remotes.pick(), Some(peer(2).addr));
    }
}
