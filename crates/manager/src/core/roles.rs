//! Makes roles follow wishes: promotion, and demotion that never loses the quorum.
//!
//! A promoted node gets its role at once; its agent sees it, fetches a certificate of a manager and
//! joins the raft group. A demoted one first leaves the raft group, so that no worker ever votes: if
//! it leads, it hands leadership over, and the next leader removes it.

use std::time::Duration;

use skep_model::{Node, NodeId, Reachability, Role, Timestamp};
use skep_store::{Store, Transaction};

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
    /// Until when leadership is not tried to be handed over again.
    pub(super) abdicate_after: Timestamp,
}

impl Roles {
    /// Whether there may be something to do at `now`.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.is_dirty || self.retry_at.is_some_and(|at| at <= now)
    }

    /// Hands leadership over when this manager itself is to become a worker. Looked at before
    /// anything else is taken in: what is proposed while leadership moves would be lost. The wish is
    /// read from the committed store, so whoever expressed it has been answered.
    pub(super) fn abdicate(
        &mut self,
        store: &Store,
        own_node: NodeId,
        group: &Group,
        now: Timestamp,
    ) -> Option<Effect> {
        // Whoever else is to leave goes first: two that hand leadership to each other never would.
        let is_last = || !leaving(store, group).any(|raft_id| leave(group, raft_id).is_some());
        let is_wanted = !is_manager(store, own_node) && is_last();
        if !is_wanted || now < self.abdicate_after || !group.is_quorate_without(group.own) {
            return None;
        }
        let successor = group.members.iter().find(|(id, status)| {
            **id != group.own && status.reachability == Reachability::Reachable
        });
        let (&raft_id, _) = successor?;
        self.abdicate_after = now + RETRY;
        Some(Effect::Transfer { raft_id })
    }

    /// Brings each node's role nearer to its wish.
    pub(super) fn reconcile(&mut self, tx: &mut Transaction, group: &Group, out: &mut Vec<Effect>) {
        self.is_dirty = false;
        self.retry_at = None;
        // One member leaves at a time: each removal changes what the next one may do.
        let leaving: Vec<u64> = leaving(tx.view(), group).collect();
        if !leaving.is_empty() {
            out.extend(leaving.iter().find_map(|raft_id| leave(group, *raft_id)));
            self.retry_at = Some(tx.now() + RETRY);
        }
        let has_left = |node: &Node| {
            node.spec.desired_role == Role::Manager || group.by_node(node.id).is_none()
        };
        let differing: Vec<Node> = tx
            .view()
            .nodes()
            .filter(|node| node.spec.desired_role != node.role && has_left(node))
            .map(|node| Node::clone(node))
            .collect();
        for mut node in differing {
            node.role = node.spec.desired_role;
            tx.update_node(node)
                .expect("a node just read can be written");
        }
    }
}

/// Members whose nodes shall not be managers; also those that were demoted, or removed, while they
/// joined.
fn leaving(store: &Store, group: &Group) -> impl Iterator<Item = u64> {
    let members = group.members.values().map(|status| &status.member);
    members
        .filter(|member| !is_manager(store, member.node_id))
        .map(|member| member.raft_id)
}

/// Whether a node shall be a manager. Before there is a cluster the first manager is no node yet.
fn is_manager(store: &Store, node_id: NodeId) -> bool {
    match store.node(node_id) {
        Some(node) => node.spec.desired_role == Role::Manager,
        None => store.cluster().is_none(),
    }
}

/// The removal of `raft_id`, unless it is this leader's own or would lose the quorum.
fn leave(group: &Group, raft_id: u64) -> Option<Effect> {
    let may_leave = raft_id != group.own && group.is_quorate_without(raft_id);
    may_leave.then_some(Effect::RemoveMember { raft_id })
}
