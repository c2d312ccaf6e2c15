//! A certificate is given out only when the log has it, and only to a node the log knows. A node is
//! a member of the raft group only while it is a manager.

use std::collections::BTreeSet;

use skep_model::{NodeId, Role};
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

    fn observe(&mut self, facts: &Facts, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Committed {
                index,
                changes,
                after,
                ..
            } => {
                for change in *changes {
                    if let Some(Object::Node(node)) = &change.new {
                        let chain = node.certificate.certificate.clone();
                        self.committed.insert((node.id, chain));
                    }
                }
                let group = facts.group_at(*index);
                for member in group.iter().flat_map(|group| group.members.values()) {
                    let node = after.node(member.node_id);
                    // Before the first entry of the cluster there is no node.
                    let is_manager = node.is_none_or(|node| node.role == Role::Manager);
                    if !is_manager {
                        return Err(format!(
                            "{} is a worker and member {:x}",
                            member.node_id, member.raft_id
                        ));
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
