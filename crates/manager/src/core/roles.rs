//! Makes roles follow wishes: promotion, and demotion that never loses the quorum.
//!
//! A promoted node gets its role at once; its agent sees it, fetches a certificate of a manager and
//! joins the raft group. A demoted one first leaves the raft group, so that no worker ever votes: if
//! it leads, it hands leadership over, and the next leader removes it.

use std::time::Duration;

use skep_model::{Node, Reachability, Role, Timestamp};
use skep_store::Transaction;

use crate::{event::Effect, group::Group};

/// Pause before a removal or a transfer that had no effect is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What the leader remembers of roles it is changing; all of it can be found out again.
#[derive(Debug, Default)]
pub(super) struct Roles {
    /// Something about roles or members may have changed.
    pub(super) is_dirty: bool,
    /// When an unfinished change is looked at again.
    pub(super) retry_at: Option<Timestamp>,
}

impl Roles {
    /// Whether there may be something to do at `now`.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.is_dirty || self.retry_at.is_some_and(|at| at <= now)
    }

    /// Brings each node's role nearer to its wish.
    pub(super) fn reconcile(&mut self, tx: &mut Transaction, group: &Group, out: &mut Vec<Effect>) {
        self.is_dirty = false;
        self.retry_at = None;
        let differing: Vec<Node> = tx
            .view()
            .nodes()
            .filter(|node| node.spec.desired_role != node.role)
            .map(|node| Node::clone(node))
            .collect();
        // One member leaves at a time: each removal changes what the next one may do.
        let mut is_member_leaving = false;
        for mut node in differing {
            let member = group.by_node(node.id).map(|status| status.member.raft_id);
            match (node.spec.desired_role, member) {
                (Role::Worker, Some(raft_id)) => {
                    if !std::mem::replace(&mut is_member_leaving, true) {
                        out.extend(leave(group, raft_id));
                    }
                    self.retry_at = Some(tx.now() + RETRY);
                }
                (wanted, _) => {
                    node.role = wanted;
                    tx.update_node(node)
                        .expect("a node just read can be written");
                }
            }
        }
    }
}

/// The next step towards a group without `raft_id`; none while it would lose the quorum.
fn leave(group: &Group, raft_id: u64) -> Option<Effect> {
    if !group.is_quorate_without(raft_id) {
        return None;
    }
    if raft_id != group.own {
        return Some(Effect::RemoveMember { raft_id });
    }
    let successor = group
        .members
        .iter()
        .find(|(id, status)| **id != raft_id && status.reachability == Reachability::Reachable);
    successor.map(|(&raft_id, _)| Effect::Transfer { raft_id })
}
