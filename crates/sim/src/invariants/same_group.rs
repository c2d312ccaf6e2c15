//! Every member knows the group as the log says, as of what it has applied.

use crate::{
    facts::{Facts, Observation},
    invariants::Invariant,
};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct SameGroup;

impl Invariant for SameGroup {
    fn name(&self) -> &'static str {
        "same-group"
    }

    fn observe(&mut self, facts: &Facts, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Group {
            raft_id,
            index,
            group,
        } = observation
        else {
            return Ok(());
        };
        let Some(fact) = facts.group_at(*index) else {
            return Ok(());
        };
        let members = group.members.values().map(|status| &status.member);
        if !members.eq(fact.members.values()) {
            return Err(format!(
                "as of entry {index} {raft_id:x} knows {:?}, members are {:?}",
                group.members.keys(),
                fact.members.keys()
            ));
        }
        if group.removed != fact.removed {
            return Err(format!(
                "as of entry {index} {raft_id:x} knows {:?} to be removed, it is {:?}",
                group.removed, fact.removed
            ));
        }
        Ok(())
    }
}
