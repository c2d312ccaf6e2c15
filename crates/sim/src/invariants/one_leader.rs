//! A term has one leader, and whoever leads has every committed entry.

use std::collections::BTreeMap;

use crate::{
    facts::{Facts, Observation},
    invariants::Invariant,
};

/// Committed entries looked for in a new leader's log; those before them were when the leader before
/// was elected.
const ENTRIES_CHECKED_MAX: u64 = 200;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct OneLeader {
    leaders: BTreeMap<u64, u64>,
}

impl Invariant for OneLeader {
    fn name(&self) -> &'static str {
        "one-leader"
    }

    fn observe(&mut self, facts: &Facts, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Leads { raft_id, term } = observation else {
            return Ok(());
        };
        let leader = *self.leaders.entry(*term).or_insert(*raft_id);
        if leader != *raft_id {
            return Err(format!("{leader:x} and {raft_id:x} lead term {term}"));
        }
        let last = facts.index();
        for index in last.saturating_sub(ENTRIES_CHECKED_MAX) + 1..=last {
            let term_of_entry = facts.term_at(index).unwrap_or(0);
            // Entries of later terms are not the business of a leader that does not know yet that
            // it was replaced.
            if term_of_entry < *term && !facts.logs.has(*raft_id, index, term_of_entry) {
                return Err(format!(
                    "{raft_id:x} leads term {term} without entry {index} of term {term_of_entry}"
                ));
            }
        }
        Ok(())
    }
}
