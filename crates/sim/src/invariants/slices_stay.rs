//! A node's slice of the node network stays the same as long as the node is in the cluster.
//!
//! That slices are cut as agreed and no two nodes have one is `skep_control::check`'s.

use skep_store::Object;

use crate::{
    facts::{Applied, Facts, Observation},
    invariants::Invariant,
};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct SlicesStay;

impl Invariant for SlicesStay {
    fn name(&self) -> &'static str {
        "slices-stay"
    }

    fn observe(&mut self, _: &Facts, observation: &Observation<'_>) -> Result<(), String> {
        let Some(Applied { changes, .. }) = observation.committed() else {
            return Ok(());
        };
        for change in changes {
            let (Some(Object::Node(old)), Some(Object::Node(new))) = (&change.old, &change.new)
            else {
                continue;
            };
            let (before, after) = (old.slice(), new.slice());
            if before.is_some() && before != after {
                let id = new.id;
                return Err(format!(
                    "slice of node {id} was {before:?} and is {after:?}"
                ));
            }
        }
        Ok(())
    }
}
