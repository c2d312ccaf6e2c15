//! Commands on nodes.

use skep_model::{Node, NodeId, NodeSpec, NodeState, Role, Version, validate};
use skep_store::Transaction;

use super::{cluster, refuse_problems, refuse_store_error};
use crate::{
    command::{Answer, Code, CommandError},
    group::Group,
};

/// Replaces a node's spec.
pub(super) fn update(
    tx: &mut Transaction,
    group: &Group,
    id: NodeId,
    version: Version,
    spec: NodeSpec,
) -> Result<Answer, CommandError> {
    let Some(stored) = tx.view().node(id) else {
        return Err(not_found(id));
    };
    refuse_problems(&validate::node_spec(&spec))?;
    if stored.spec.desired_role == Role::Manager && spec.desired_role == Role::Worker {
        check_demotion(tx, group, id)?;
    }
    let mut node = Node::clone(stored);
    node.meta.version = version;
    node.spec = spec;
    tx.update_node(node)
        .map_err(|error| refuse_store_error(&error))?;
    Ok(Answer::Done)
}

/// Forgets a node that is no manager and, unless forced, is down.
pub(super) fn remove(
    tx: &mut Transaction,
    group: &Group,
    id: NodeId,
    is_forced: bool,
) -> Result<Answer, CommandError> {
    let Some(node) = tx.view().node(id) else {
        return Err(not_found(id));
    };
    // One that was promoted and never came to join is no loss.
    let is_joining = node.role == Role::Manager && node.status.state == NodeState::Ready;
    let refusal = if group.by_node(id).is_some() || is_joining {
        Some(format!(
            "node {id} is a cluster manager and is a member of the raft cluster. \
             It must be demoted to worker before removal"
        ))
    } else if !is_forced && node.status.state == NodeState::Ready {
        Some(format!("node {id} is not down and can't be removed"))
    } else {
        None
    };
    if let Some(message) = refusal {
        return Err(CommandError::new(Code::FailedPrecondition, message));
    }
    let node = Node::clone(node);
    cluster::blacklist(tx, &node);
    tx.remove_node(id);
    Ok(Answer::Done)
}

/// Makes a manager a worker because it says that it leaves.
pub(super) fn leave_group(
    tx: &mut Transaction,
    group: &Group,
    id: NodeId,
) -> Result<Answer, CommandError> {
    let Some(stored) = tx.view().node(id) else {
        return Err(not_found(id));
    };
    if stored.spec.desired_role == Role::Worker {
        return Ok(Answer::Done);
    }
    check_demotion(tx, group, id)?;
    let mut node = Node::clone(stored);
    node.spec.desired_role = Role::Worker;
    tx.update_node(node)
        .map_err(|error| refuse_store_error(&error))?;
    Ok(Answer::Done)
}

/// Refuses to demote the last manager, or one without which the rest is no quorum.
fn check_demotion(tx: &Transaction, group: &Group, id: NodeId) -> Result<(), CommandError> {
    let refused = |message| Err(CommandError::new(Code::FailedPrecondition, message));
    let managers = tx
        .view()
        .nodes()
        .filter(|node| node.spec.desired_role == Role::Manager);
    if managers.count() <= 1 {
        return refused("attempting to demote the last manager of the swarm");
    }
    // One that never finished joining the group is no loss to it.
    let member = group.by_node(id).map(|status| status.member.raft_id);
    if member.is_some_and(|raft_id| !group.is_quorate_without(raft_id)) {
        return refused("can't remove member from the raft: this would result in a loss of quorum");
    }
    Ok(())
}

fn not_found(id: NodeId) -> CommandError {
    CommandError::new(Code::NotFound, format!("node {id} not found"))
}
