//! A certificate is given out only when the log has it.

use std::collections::BTreeSet;

use skep_model::NodeId;
use skep_store::Object;

use crate::{
    facts::{Facts, Observation},
    invariants::Invariant,
};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    committed: BTreeSet<(NodeId, Vec<u8>)>,
}

impl Invariant for Certificates {
    fn name(&self) -> &'static str {
        "certificates"
    }

    fn observe(&mut self, _: &Facts, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Committed(applied) => {
                for change in &applied.changes {
                    if let Some(Object::Node(node)) = &change.new {
                        let chain = node.certificate.certificate.clone();
                        self.committed.insert((node.id, chain));
                    }
                }
                Ok(())
            }
            Observation::Certificate { node, chain } => {
                if self.committed.contains(&(*node, chain.to_vec())) {
                    return Ok(());
                }
                Err(format!("{node} has a certificate that no entry knows"))
            }
            _ => Ok(()),
        }
    }
}
