//! `skep_control::check` finds nothing wrong with any committed state.

use skep_control::check;

use crate::{
    facts::{Applied, Facts, Observation},
    invariants::Invariant,
};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct StoredState;

impl Invariant for StoredState {
    fn name(&self) -> &'static str {
        "stored-state"
    }

    fn observe(&mut self, _: &Facts, observation: &Observation<'_>) -> Result<(), String> {
        let Some(Applied { index, after, .. }) = observation.committed() else {
            return Ok(());
        };
        match check(after).first() {
            None => Ok(()),
            Some(violation) => Err(format!("after entry {index}: {violation}")),
        }
    }
}
