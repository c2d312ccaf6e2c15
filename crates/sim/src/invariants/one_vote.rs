//! A member votes for one candidate a term, also when it was restarted in between.

use std::collections::BTreeMap;

use crate::{
    facts::{Facts, Observation},
    invariants::Invariant,
};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct OneVote {
    votes: BTreeMap<(u64, u64), u64>,
}

impl Invariant for OneVote {
    fn name(&self) -> &'static str {
        "one-vote"
    }

    fn observe(&mut self, _: &Facts, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Votes {
            raft_id,
            term,
            candidate,
        } = observation
        else {
            return Ok(());
        };
        let first = *self.votes.entry((*raft_id, *term)).or_insert(*candidate);
        if first == *candidate {
            return Ok(());
        }
        Err(format!(
            "{raft_id:x} votes for {first:x} and {candidate:x} in term {term}"
        ))
    }
}
