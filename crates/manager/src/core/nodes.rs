//! Commands on nodes and on the cluster object.

use skep_model::{
    Cluster, ClusterSpec, Node, NodeId, NodeSpec, NodeState, Redacted, Role, Version, validate,
};
use skep_store::Transaction;

use super::{refuse_problems, refuse_store_error};
use crate::command::{Answer, Code, CommandError};

/// Replaces a node's spec.
pub(super) fn update(
    tx: &mut Transaction,
    id: NodeId,
    version: Version,
    spec: NodeSpec,
) -> Result<Answer, CommandError> {
    let Some(stored) = tx.view().node(id) else {
        return Err(not_found(id));
    };
    refuse_problems(&validate::node_spec(&spec))?;
    if stored.spec.desired_role == Role::Manager && spec.desired_role == Role::Worker {
        check_not_last_manager(tx)?;
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
    id: NodeId,
    is_forced: bool,
) -> Result<Answer, CommandError> {
    let Some(node) = tx.view().node(id) else {
        return Err(not_found(id));
    };
    let refusal = if node.spec.desired_role == Role::Manager || node.role == Role::Manager {
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
    tx.remove_node(id);
    Ok(Answer::Done)
}

/// Tokens that replace those in force; `None` keeps one.
#[derive(Debug, Clone, Default)]
pub(super) struct NewTokens {
    pub(super) worker: Option<Redacted<String>>,
    pub(super) manager: Option<Redacted<String>>,
}

/// Replaces the cluster's spec and, where asked, its join tokens.
pub(super) fn update_cluster(
    tx: &mut Transaction,
    version: Version,
    spec: ClusterSpec,
    tokens: NewTokens,
) -> Result<Answer, CommandError> {
    let Some(stored) = tx.view().cluster() else {
        return Err(CommandError::new(Code::NotFound, "cluster not found"));
    };
    refuse_problems(&validate::cluster_spec(&spec))?;
    let mut cluster = Cluster::clone(stored);
    cluster.meta.version = version;
    cluster.spec = spec;
    if let Some(token) = tokens.worker {
        cluster.root_ca.join_tokens.worker = token;
    }
    if let Some(token) = tokens.manager {
        cluster.root_ca.join_tokens.manager = token;
    }
    tx.update_cluster(cluster)
        .map_err(|error| refuse_store_error(&error))?;
    Ok(Answer::Done)
}

fn check_not_last_manager(tx: &Transaction) -> Result<(), CommandError> {
    let managers = tx
        .view()
        .nodes()
        .filter(|node| node.spec.desired_role == Role::Manager);
    if managers.count() > 1 {
        return Ok(());
    }
    let message = "attempting to demote the last manager of the swarm";
    Err(CommandError::new(Code::FailedPrecondition, message))
}

fn not_found(id: NodeId) -> CommandError {
    CommandError::new(Code::NotFound, format!("node {id} not found"))
}
