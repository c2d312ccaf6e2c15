//! What a manager serves is what its log says, and a restart forgets nothing that was committed.

use skep_store::{Object, Store};

use crate::{
    facts::{Facts, Observation},
    invariants::Invariant,
};

/// Every how many entries the whole store is compared; a comparison costs as much as the store is
/// large.
const COMPARE_EVERY: u64 = 8;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct SameStore;

impl Invariant for SameStore {
    fn name(&self) -> &'static str {
        "same-store"
    }

    fn observe(&mut self, facts: &Facts, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Published { index, store, .. } if index % COMPARE_EVERY == 0 => {
                compare(facts, *index, store)
            }
            Observation::Restored { store, index, .. } if *index > 0 => {
                compare(facts, *index, store)
            }
            Observation::Converged { managers } => {
                for (index, store) in managers.values() {
                    if *index != facts.index() {
                        let committed = facts.index();
                        return Err(format!("a manager is at {index}, committed is {committed}"));
                    }
                    compare(facts, *index, store)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn compare(facts: &Facts, index: u64, store: &Store) -> Result<(), String> {
    let Some(expected) = facts.store_at(index) else {
        return Err(format!(
            "a store as of entry {index}, which nobody committed"
        ));
    };
    let mut theirs = store.objects();
    for ours in expected.objects() {
        let their = theirs.next();
        if their.as_ref() != Some(&ours) {
            let what = describe(&ours, their.as_ref());
            return Err(format!("as of entry {index}: {what}"));
        }
    }
    match theirs.next() {
        None => Ok(()),
        Some(extra) => Err(format!("as of entry {index}: also has {:?}", extra.id())),
    }
}

fn describe(ours: &Object, theirs: Option<&Object>) -> String {
    match theirs {
        Some(theirs) if theirs.id() == ours.id() => {
            format!("{:?} differs: {theirs:?} instead of {ours:?}", ours.id())
        }
        _ => format!("lacks {:?}", ours.id()),
    }
}
