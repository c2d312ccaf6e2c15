//! Proposals of commands and of membership changes.

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb;

use super::{Node, ProposeError};
use crate::conf_change::{ConfChange, ConfChangeKind};

/// Where a proposal will be in the log. It is committed if an entry with both is handed out; if another term is at the
/// index, it was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Proposed {
    /// The leader's term.
    pub term: u64,
    /// The entry's index.
    pub index: u64,
}

// === impl Node ===

impl Node {
    /// Largest proposal, 1.5 MiB as in `SwarmKit`: it must fit a gRPC message of 4 MiB with room to spare.
    pub const ENTRY_BYTES_MAX: usize = 3 << 19;

    /// Appends a command. Many may be proposed before one `ready`.
    ///
    /// # Errors
    /// Nothing was appended.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<Proposed, ProposeError> {
        if data.is_empty() {
            return Err(ProposeError::Empty);
        }
        self.propose_entry(eraftpb::EntryType::EntryNormal, data.into())
    }

    /// Appends a membership change; one at a time.
    ///
    /// # Errors
    /// Nothing was appended.
    pub fn propose_conf_change(&mut self, change: &ConfChange) -> Result<Proposed, ProposeError> {
        let id = change.node_id;
        let data = Bytes::from(change.encode_to_vec());
        let kind = ConfChange::parse(&data)
            .ok_or(ProposeError::UnknownMember(id))?
            .kind();
        if self.is_leader() && self.raft.raft.has_pending_conf() {
            return Err(ProposeError::ConfChangePending);
        }
        match kind {
            ConfChangeKind::AddNode | ConfChangeKind::AddLearnerNode => {}
            ConfChangeKind::RemoveNode if self.is_leader() && id == self.id => {
                return Err(ProposeError::RemovesLeader);
            }
            ConfChangeKind::RemoveNode | ConfChangeKind::UpdateNode => {
                if !self.conf_state.contains(id) {
                    return Err(ProposeError::UnknownMember(id));
                }
            }
        }
        self.propose_entry(eraftpb::EntryType::EntryConfChange, data)
    }

    fn propose_entry(
        &mut self,
        kind: eraftpb::EntryType,
        data: Bytes,
    ) -> Result<Proposed, ProposeError> {
        if self.is_stopped {
            return Err(ProposeError::Stopped);
        }
        if !self.is_leader() {
            return Err(ProposeError::NotLeader {
                leader: self.leader(),
            });
        }
        if data.len() > Self::ENTRY_BYTES_MAX {
            return Err(ProposeError::TooLarge {
                bytes: data.len(),
                max: Self::ENTRY_BYTES_MAX,
            });
        }
        if self.transferring().is_some() {
            return Err(ProposeError::Transferring);
        }
        let mut entry = eraftpb::Entry::default();
        entry.set_entry_type(kind);
        entry.data = data;
        // Not through raft-rs's own proposal: that parses membership changes, and does not know etcd's AddLearner.
        let raft = &mut self.raft.raft;
        if !raft.append_entry(&mut [entry]) {
            return Err(ProposeError::Backlog);
        }
        if kind == eraftpb::EntryType::EntryConfChange {
            raft.pending_conf_index = raft.raft_log.last_index();
        }
        raft.bcast_append();
        Ok(Proposed {
            term: self.term(),
            index: self.last_index(),
        })
    }
}
