//! Members that come and go: changes of membership, one at a time.

use skep_model::{NodeId, Role};
use skep_raft::{ConfChange, ConfChangeKind, ProposeError};
use skep_wire::member::{Member, encode_member};

use super::{Output, Replica};
use crate::{
    command::{Code, CommandError},
    core::lost_leadership,
    event::ReplyTo,
};

/// Joins that may wait for each other; a cluster has a handful of managers.
const WAITING_MAX: usize = 64;

/// The answer to a manager that joins. A machine that ever was a member under `raft_id` and has lost
/// its log must not take it: it has forgotten its vote and what it acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Its raft id.
    pub raft_id: u64,
    /// All members, itself included.
    pub members: Vec<Member>,
    /// Raft ids of former members.
    pub removed: Vec<u64>,
}

/// Joins under way.
#[derive(Debug, Default)]
pub(super) struct Joins {
    waiting: Vec<Join>,
}

#[derive(Debug)]
struct Join {
    reply_to: ReplyTo,
    member: Member,
    kind: ConfChangeKind,
    is_proposed: bool,
}

impl Replica {
    pub(super) fn request_join(
        &mut self,
        to: ReplyTo,
        node_id: NodeId,
        addr: String,
        out: &mut Vec<Output>,
    ) {
        if let Some(raft_id) = self.stranded_member(node_id, &addr) {
            let result = Ok(self.joined(raft_id));
            return out.push(Output::Joined { to, result });
        }
        if let Err(error) = self.check_join(node_id) {
            let result = self.explain(Err(error));
            return out.push(Output::Joined { to, result });
        }
        let known = self
            .group
            .by_node(node_id)
            .map(|status| status.member.clone());
        let (member, kind) = match known {
            // Also with its old address: only a commit proves that this manager still leads. A leader
            // deposed without noticing could else hand an id to a machine that was removed under
            // that id and has forgotten its vote.
            Some(member) => (Member { addr, ..member }, ConfChangeKind::UpdateNode),
            None => {
                let raft_id = self.free_raft_id();
                let member = Member {
                    raft_id,
                    node_id,
                    addr,
                };
                (member, ConfChangeKind::AddNode)
            }
        };
        self.joins.waiting.push(Join {
            reply_to: to,
            member,
            kind,
            is_proposed: false,
        });
    }

    /// A member that never learnt that it is one, while nobody leads: it may be missing for the
    /// quorum, so that no leader could ever tell it (the second member of a group, whose answer was
    /// lost with the first). What is applied is committed; but this manager may have missed the
    /// member's removal, so whoever was a member under this id before must not take it again.
    fn stranded_member(&self, node_id: NodeId, addr: &str) -> Option<u64> {
        let member = &self.group.by_node(node_id)?.member;
        let has_leader = self.group.leader.is_some() || self.core.is_leading();
        (!has_leader && member.addr == addr).then_some(member.raft_id)
    }

    /// Only a node that is a manager, and is to stay one, becomes a member.
    fn check_join(&self, node_id: NodeId) -> Result<(), CommandError> {
        if !self.core.is_leading() {
            return Err(lost_leadership());
        }
        if self.joins.waiting.len() >= WAITING_MAX {
            let message = "too many managers are joining";
            return Err(CommandError::new(Code::ResourceExhausted, message));
        }
        match self.core.store().node(node_id) {
            None => Err(CommandError::new(
                Code::NotFound,
                format!("node {node_id} not found"),
            )),
            Some(node) if node.role != Role::Manager || node.spec.desired_role != Role::Manager => {
                let message = format!("node {node_id} is not a manager");
                Err(CommandError::new(Code::FailedPrecondition, message))
            }
            Some(_) => Ok(()),
        }
    }

    /// Proposes joins that wait: raft takes one change of membership at a time.
    pub(super) fn retry_joins(&mut self, out: &mut Vec<Output>) {
        if self.joins.waiting.iter().all(|join| join.is_proposed)
            || self.node.transferring().is_some()
        {
            return;
        }
        // A node that asked twice must not become two members.
        let mut waiting = std::mem::take(&mut self.joins.waiting);
        for index in 0..waiting.len() {
            if waiting[index].is_proposed {
                continue;
            }
            let node_id = waiting[index].member.node_id;
            let is_twin = waiting[..index]
                .iter()
                .any(|other| other.member.node_id == node_id && other.is_proposed);
            if is_twin {
                continue;
            }
            let known = self.group.by_node(node_id);
            if let Some(known) = known {
                waiting[index].member.raft_id = known.member.raft_id;
                waiting[index].kind = ConfChangeKind::UpdateNode;
            }
            let join = &waiting[index];
            let context = encode_member(&join.member);
            let change = ConfChange::new(join.kind, join.member.raft_id, context);
            match self.node.propose_conf_change(&change) {
                Ok(_) => waiting[index].is_proposed = true,
                Err(ProposeError::ConfChangePending | ProposeError::Backlog) => break,
                Err(error) => {
                    let join = waiting.remove(index);
                    let result = Err(CommandError::new(Code::Unavailable, error.to_string()));
                    let to = join.reply_to;
                    out.push(Output::Joined { to, result });
                    break;
                }
            }
        }
        self.joins.waiting = waiting;
    }

    /// A change of membership is committed.
    pub(super) fn answer_joins(&mut self, raft_id: u64, is_addition: bool, out: &mut Vec<Output>) {
        let (done, waiting) = std::mem::take(&mut self.joins.waiting)
            .into_iter()
            .partition(|join| join.is_proposed && join.member.raft_id == raft_id);
        self.joins.waiting = waiting;
        let done: Vec<Join> = done;
        for join in done {
            let result = if is_addition {
                Ok(self.joined(raft_id))
            } else {
                Err(lost_leadership())
            };
            let to = join.reply_to;
            out.push(Output::Joined { to, result });
        }
    }

    /// Whoever waits asks the next leader.
    pub(super) fn fail_joins(&mut self, out: &mut Vec<Output>) {
        for join in std::mem::take(&mut self.joins.waiting) {
            let to = join.reply_to;
            let result = Err(lost_leadership());
            out.push(Output::Joined { to, result });
        }
    }

    /// Proposes to remove a member; the core repeats the wish until it is fulfilled.
    pub(super) fn remove_member(&mut self, raft_id: u64) {
        let Some(status) = self.group.members.get(&raft_id) else {
            return;
        };
        let context = encode_member(&status.member);
        let change = ConfChange::new(ConfChangeKind::RemoveNode, raft_id, context);
        match self.node.propose_conf_change(&change) {
            Ok(_) | Err(ProposeError::ConfChangePending) => {}
            Err(error) => tracing::warn!(error = %error, "Failed to remove a member"),
        }
    }

    fn joined(&self, raft_id: u64) -> Joined {
        Joined {
            raft_id,
            members: self.group.list(),
            removed: self.group.removed.iter().copied().collect(),
        }
    }

    /// 63 random bits, not zero, never used before.
    fn free_raft_id(&mut self) -> u64 {
        loop {
            let id = (self.rng.next_u64() >> 1) + 1;
            if !self.group.members.contains_key(&id) && !self.group.removed.contains(&id) {
                return id;
            }
        }
    }
}
