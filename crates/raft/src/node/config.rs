//! How a member runs: its id, timing in ticks, and limits.

use crate::restored::RestoreError;

/// Bytes of entries in one append message, unless a single entry is larger: as `SwarmKit`.
const MESSAGE_BYTES_MAX: u64 = 65_535;
/// Append messages to one follower that may be unacknowledged: as `SwarmKit`.
const MESSAGES_INFLIGHT_MAX: usize = 256;
/// Proposed but uncommitted data a leader holds; beyond, `ProposeError::Backlog`. Too small stalls bulk creation, too
/// large lets a leader without quorum eat the memory.
const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
/// Committed data handed out in one `Ready`; the rest follows in the next. Bounds the memory of a replay.
const COMMITTED_BYTES_PER_READY_MAX: u64 = 16 << 20;

/// Configuration of a [`Node`](super::Node).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// This member's raft id; not 0, never reused in a group.
    pub id: u64,
    /// Ticks without a leader before an election, at least; at most twice that.
    pub election_tick: u32,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_tick: u32,
    /// Ask before raising the term, so that a returning member does not disturb. Off with Docker members.
    pub pre_vote: bool,
    /// A leader without contact to a quorum for an election timeout steps down.
    pub check_quorum: bool,
    /// Decides the election timeouts. Must differ between members, or differ in `id`.
    pub seed: u64,
}

// === impl Config ===

impl Config {
    /// Skep's defaults: 10 ticks of the caller's length, heartbeat every tick, pre-vote and check-quorum.
    #[must_use]
    pub fn new(id: u64, seed: u64) -> Self {
        Self {
            id,
            election_tick: 10,
            heartbeat_tick: 1,
            pre_vote: true,
            check_quorum: true,
            seed,
        }
    }

    pub(super) fn to_raft(self, applied: u64) -> Result<raft::Config, RestoreError> {
        let ticks = |count: u32| usize::try_from(count).map_err(|_| RestoreError::Config);
        let config = raft::Config {
            id: self.id,
            election_tick: ticks(self.election_tick)?,
            heartbeat_tick: ticks(self.heartbeat_tick)?,
            applied,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: MESSAGES_INFLIGHT_MAX,
            check_quorum: self.check_quorum,
            pre_vote: self.pre_vote,
            // It would join messages without limit while the disk is busy; a receiver refuses what is too large.
            batch_append: false,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            max_committed_size_per_ready: COMMITTED_BYTES_PER_READY_MAX,
            ..raft::Config::default()
        };
        config.validate().map_err(|_| RestoreError::Config)?;
        Ok(config)
    }
}
