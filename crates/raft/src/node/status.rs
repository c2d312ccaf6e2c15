//! What can be asked of a node.

use raft::{StateRole, Storage as _};

use super::Node;
use crate::snapshot::ConfState;

/// What a member is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether an election would succeed.
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
}

/// What a leader knows of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerProgress {
    /// Its raft id.
    pub id: u64,
    /// Last entry it is known to have stored.
    pub matched_index: u64,
    /// Whether it answered within the last election timeout.
    pub is_active: bool,
    /// Whether it is being sent a snapshot.
    pub is_in_snapshot: bool,
}

// === impl Node ===

impl Node {
    /// This member's raft id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What this member is.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.raft.raft.state {
            StateRole::Leader if !self.is_stopped => Role::Leader,
            StateRole::Candidate => Role::Candidate,
            StateRole::PreCandidate => Role::PreCandidate,
            StateRole::Leader | StateRole::Follower => Role::Follower,
        }
    }

    /// Whether this member leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.role() == Role::Leader
    }

    /// Whether this leader has applied an entry of its own term: from then on its state holds everything committed before.
    #[must_use]
    pub fn is_leader_ready(&self) -> bool {
        self.is_leader()
            && self
                .raft
                .store()
                .term(self.applied)
                .is_ok_and(|term| term == self.term())
    }

    /// The leader's id, as far as known.
    #[must_use]
    pub fn leader(&self) -> Option<u64> {
        let leader = self.raft.raft.leader_id;
        (leader != 0 && !self.is_stopped).then_some(leader)
    }

    /// To whom leadership is being handed.
    #[must_use]
    pub fn transferring(&self) -> Option<u64> {
        self.raft.raft.lead_transferee
    }

    /// Current term.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.raft.raft.term
    }

    /// Last index known to be committed.
    #[must_use]
    pub fn commit_index(&self) -> u64 {
        self.raft.raft.raft_log.committed
    }

    /// Last index handed out by `ready`.
    #[must_use]
    pub fn applied_index(&self) -> u64 {
        self.applied
    }

    /// Last index in the log, on disk or not.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.raft.raft.raft_log.last_index()
    }

    /// Index of the newest snapshot; 0 is none.
    #[must_use]
    pub fn snapshot_index(&self) -> u64 {
        self.raft.store().snapshot_metadata().index
    }

    /// Bytes of data in the log held in memory: a reason to snapshot before the usual number of entries.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.raft.store().data_bytes()
    }

    /// The members, as of the last entry handed out.
    #[must_use]
    pub fn members(&self) -> &ConfState {
        &self.conf_state
    }

    /// Whether this member applied its own removal. It will do nothing more.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// What a leader knows of each member, itself included, by id; empty at others.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerProgress> {
        if !self.is_leader() {
            return Vec::new();
        }
        let progress = |(&id, peer): (&u64, &raft::Progress)| PeerProgress {
            id,
            matched_index: peer.matched,
            is_active: peer.recent_active || id == self.id,
            is_in_snapshot: peer.state == raft::ProgressState::Snapshot,
        };
        let mut peers: Vec<_> = self.raft.raft.prs().iter().map(progress).collect();
        peers.sort_unstable_by_key(|peer| peer.id);
        peers
    }
}
