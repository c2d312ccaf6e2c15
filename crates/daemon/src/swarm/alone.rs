//! A cluster's state made into that of a group of one: the heart of `init --force-new-cluster` and of
//! restoring a backup. Pure, but for reading a log.

use std::{collections::BTreeSet, sync::Arc};

use skep_manager::entry;
use skep_model::{Node, NodeId, Role};
use skep_raft::{
    ConfChange, ConfChangeKind, ConfState, HardState, Restored, Snapshot, SnapshotMetadata,
};
use skep_store::{Object, Store};
use skep_wire::{
    SpecCache, log,
    member::{Member, decode_member},
    snapshot::{Membership, encode_snapshot},
};

/// A state as of a log index.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) store: Store,
    /// The raft group that had it.
    pub(super) membership: Membership,
    pub(super) index: u64,
    pub(super) term: u64,
}

/// Why a log cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReplayError {
    #[error("snapshot is malformed: {0}")]
    Snapshot(String),
    #[error("entry `{index}` is malformed")]
    Entry {
        index: u64,
        #[source]
        source: skep_wire::Error,
    },
    #[error("entry `{index}` does not fit the state before it")]
    Apply {
        index: u64,
        #[source]
        source: skep_store::ApplyError,
    },
    #[error("log holds no cluster")]
    Empty,
}

/// The state a log tells: its snapshot and every committed entry after it.
pub(super) fn replay(restored: &Restored) -> Result<State, ReplayError> {
    let mut state = State {
        store: Store::default(),
        membership: Membership::default(),
        index: 0,
        term: restored.hard_state.term,
    };
    if let Some(snapshot) = &restored.snapshot {
        let (decoded, store) =
            entry::decode_snapshot(&snapshot.data).map_err(ReplayError::Snapshot)?;
        state.store = store;
        state.membership = decoded.membership;
        state.index = snapshot.index();
    }
    let mut cache = SpecCache::new();
    let committed = state.index + 1..=restored.hard_state.commit;
    for entry in &restored.entries {
        let index = entry.index;
        if !committed.contains(&index) {
            continue;
        }
        state.index = index;
        if let Some(change) = entry.conf_change() {
            apply_change(&mut state.membership, &change);
        } else if entry.is_command() {
            let (_, actions) = log::decode_actions(&entry.data, &mut cache)
                .map_err(|source| ReplayError::Entry { index, source })?;
            for action in &actions {
                state
                    .store
                    .apply(action)
                    .map_err(|source| ReplayError::Apply { index, source })?;
            }
        }
    }
    if state.store.cluster().is_none() {
        return Err(ReplayError::Empty);
    }
    Ok(state)
}

/// The log of a new group whose only member is `own`, with everything that `state` holds. Members of
/// the former group count as removed; their nodes become workers.
pub(super) fn alone(state: &State, own: &Member) -> Restored {
    let former: BTreeSet<u64> = state
        .membership
        .members
        .iter()
        .map(|member| member.raft_id)
        .chain(state.membership.removed.iter().copied())
        .filter(|raft_id| *raft_id != own.raft_id)
        .collect();
    let membership = Membership {
        members: vec![own.clone()],
        removed: former.into_iter().collect(),
    };
    let objects: Vec<Object> = state
        .store
        .objects()
        .map(|object| match object {
            Object::Node(node) => Object::Node(as_member_of_one(node, own.node_id)),
            other => other,
        })
        .collect();
    // Higher than anything the former group can have agreed on with this member.
    let (index, term) = (state.index.max(1), state.term + 1);
    let snapshot = Snapshot {
        data: encode_snapshot(&membership, &objects).into(),
        metadata: SnapshotMetadata {
            conf_state: ConfState {
                voters: vec![own.raft_id],
                ..ConfState::default()
            },
            index,
            term,
        },
    };
    Restored {
        hard_state: HardState {
            term,
            vote: 0,
            commit: index,
        },
        snapshot: Some(snapshot),
        entries: Vec::new(),
    }
}

/// Follows a committed change; a malformed member is as unknown as it is to the group itself.
fn apply_change(membership: &mut Membership, change: &ConfChange) {
    membership
        .members
        .retain(|member| member.raft_id != change.node_id);
    if change.kind() == ConfChangeKind::RemoveNode {
        membership.removed.push(change.node_id);
    } else if let Ok(member) = decode_member(&change.context) {
        membership.members.push(member);
    }
}

/// `own` is the manager; all others work.
fn as_member_of_one(node: Arc<Node>, own: NodeId) -> Arc<Node> {
    let role = if node.id == own {
        Role::Manager
    } else {
        Role::Worker
    };
    if node.role == role && node.spec.desired_role == role && node.manager_status.is_none() {
        return node;
    }
    let mut node = Node::clone(&node);
    node.role = role;
    node.spec.desired_role = role;
    node.manager_status = None;
    Arc::new(node)
}

#[cfg(test)]
pub(super) mod tests;
