//! One member of a raft group, without IO: raft-rs behind our own types. The loop around it is drawn in
//! `docs/design/raft.md`.

mod config;
mod error;
mod propose;
mod status;
#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;
use raft::{RawNode, SnapshotStatus, Storage as _, eraftpb};

pub use self::{
    config::Config,
    error::{LeadershipError, ProposeError, SnapshotError, StepError},
    propose::Proposed,
    status::{PeerProgress, Role},
};
use crate::{
    admission::{Receiver, admit},
    conf_change::{ConfChange, ConfChangeKind},
    convert,
    election_timer::ElectionTimer,
    entry::{Entry, HardState},
    log_bridge,
    memory_log::MemoryLog,
    message::{Message, MessageKind},
    ready::Ready,
    restored::{RestoreError, Restored},
    snapshot::{ConfState, Snapshot, SnapshotMetadata},
};

/// One member of a raft group.
pub struct Node {
    id: u64,
    raft: RawNode<MemoryLog>,
    timer: ElectionTimer,
    /// The ready that `persisted` is waited for.
    outstanding: Option<Outstanding>,
    /// Term and vote last handed out for writing.
    written_vote: (u64, u64),
    conf_state: ConfState,
    /// Last index handed out (or in the snapshot started from).
    applied: u64,
    /// Commit index that this member would find after a crash.
    durable_commit: u64,
    /// Committed entries from a removal on that may not be handed out yet.
    deferred: Vec<Entry>,
    is_stopped: bool,
}

#[derive(Debug)]
struct Outstanding {
    number: u64,
    messages: Vec<Message>,
    /// Commit index in it, if it has one.
    commit: Option<u64>,
    has_snapshot: bool,
}

// === impl Node ===

impl Node {
    /// A member continuing from what its disk holds (nothing, for one that will join).
    ///
    /// # Errors
    /// The stored state is inconsistent or the configuration impossible.
    pub fn new(config: Config, restored: &Restored) -> Result<Self, RestoreError> {
        restored.check()?;
        if config.id == 0 || config.election_tick == 0 {
            return Err(RestoreError::Config);
        }
        let metadata = restored
            .snapshot
            .as_ref()
            .map(|at| at.metadata.clone())
            .unwrap_or_default();
        let mut hard_state = restored.hard_state;
        hard_state.commit = hard_state.commit.max(metadata.index);
        hard_state.term = hard_state.term.max(metadata.term);
        let log = restored_log(restored, hard_state, &metadata);
        let raft_config = config.to_raft(metadata.index)?;
        let raft = RawNode::new(&raft_config, log, &log_bridge::logger())
            .map_err(|_| RestoreError::Config)?;
        let mut node = Self {
            id: config.id,
            raft,
            timer: ElectionTimer::new(config.seed, config.id, config.election_tick),
            outstanding: None,
            written_vote: (hard_state.term, hard_state.vote),
            conf_state: metadata.conf_state,
            applied: metadata.index,
            durable_commit: hard_state.commit,
            deferred: Vec::new(),
            is_stopped: false,
        };
        node.timer.settle(&mut node.raft);
        Ok(node)
    }

    /// One tick of the clock.
    pub fn tick(&mut self) {
        if !self.is_stopped && (self.is_leader() || !self.must_not_win()) {
            self.raft.tick();
            self.timer.settle(&mut self.raft);
        }
        self.resign();
    }

    /// A leader whose own removal is committed hands leadership over before it takes it in and stops: of two members the other
    /// does not know of the commit yet, and would wait for this one's vote for ever.
    fn resign(&mut self) {
        let own = self.id;
        let is_own = self.deferred.first().and_then(removed_member) == Some(own);
        if !is_own || !self.is_leader() || self.transferring().is_some() {
            return;
        }
        let mut peers = self.peers();
        peers.retain(|peer| peer.id != own);
        if let Some(best) = peers.iter().max_by_key(|peer| peer.matched_index) {
            // Tried again at the next tick.
            let _ = self.transfer(best.id);
        }
    }

    /// A message of a peer.
    ///
    /// # Errors
    /// The message was refused; the node is unchanged.
    pub fn step(&mut self, mut message: Message) -> Result<(), StepError> {
        if self.is_stopped {
            return Err(StepError::Stopped);
        }
        let receiver = Receiver {
            id: self.id,
            term: self.term(),
            last_index: self.last_index(),
        };
        let kind = admit(&message, receiver)?;
        if let Some(snapshot) = &mut message.snapshot {
            add_receiver(&mut snapshot.metadata.conf_state, self.id);
        }
        if kind == MessageKind::TimeoutNow && self.must_not_win() {
            return Ok(());
        }
        let from = message.from;
        let stepped = self.raft.step(convert::message_to_raft(message, kind));
        self.timer.settle(&mut self.raft);
        stepped.map_err(|_| StepError::UnknownPeer(from))
    }

    /// Whether an election now would abort in raft-rs: when it is won at once, being the only voter, with entries not on disk;
    /// and while the leader's snapshot is being written, since entries between it and what was applied before are looked for.
    /// Time stands still until they are. Winning others' votes takes messages that are sent after the write.
    fn must_not_win(&self) -> bool {
        if self
            .outstanding
            .as_ref()
            .is_some_and(|write| write.has_snapshot)
        {
            return true;
        }
        let raft = &self.raft.raft;
        let log = &raft.raft_log;
        let is_written = log.persisted == log.last_index();
        !is_written && raft.prs().is_singleton()
    }

    /// Starts an election now. A group of one is led after the next `ready`s; a new one must have had its first before.
    ///
    /// # Errors
    /// This member cannot lead.
    pub fn campaign(&mut self) -> Result<(), LeadershipError> {
        if self.is_stopped {
            return Err(LeadershipError::Stopped);
        }
        if !self.conf_state.voters.contains(&self.id) {
            return Err(LeadershipError::NotVoter(self.id));
        }
        if !self.is_leader() && self.must_not_win() {
            return Err(LeadershipError::NotPersisted);
        }
        // The only error is of a leader that campaigns, which has nothing to do.
        let _ = self.raft.campaign();
        self.timer.settle(&mut self.raft);
        Ok(())
    }

    /// Starts handing leadership to `to`; given up after an election timeout. Proposals are refused meanwhile.
    ///
    /// # Errors
    /// This member does not lead, or `to` cannot.
    pub fn transfer(&mut self, to: u64) -> Result<(), LeadershipError> {
        if self.is_stopped {
            return Err(LeadershipError::Stopped);
        }
        if !self.is_leader() {
            return Err(LeadershipError::NotLeader);
        }
        if to == self.id || !self.conf_state.voters.contains(&to) {
            return Err(LeadershipError::NotVoter(to));
        }
        self.raft.transfer_leader(to);
        self.timer.settle(&mut self.raft);
        Ok(())
    }

    /// A message to `id` could not be delivered.
    pub fn report_unreachable(&mut self, id: u64) {
        if !self.is_stopped {
            self.raft.report_unreachable(id);
        }
    }

    /// How sending a snapshot to `id` ended. Without it the leader sends that member nothing more.
    pub fn report_snapshot(&mut self, id: u64, is_delivered: bool) {
        if !self.is_stopped {
            let status = if is_delivered {
                SnapshotStatus::Finish
            } else {
                SnapshotStatus::Failure
            };
            self.raft.report_snapshot(id, status);
        }
    }

    // --- What to do next ---

    /// Whether `ready` would give work.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        let is_released = self
            .deferred
            .first()
            .is_some_and(|first| !self.is_held(first));
        !self.is_stopped && self.outstanding.is_none() && (self.raft.has_ready() || is_released)
    }

    /// The next round of work; `None` if there is none, or the previous one is not `persisted`.
    pub fn ready(&mut self) -> Option<Ready> {
        if !self.has_ready() {
            return None;
        }
        let mut ready = self.raft.ready();
        let mut out = Ready {
            number: ready.number(),
            ..Ready::default()
        };
        out.messages = ready
            .take_messages()
            .iter()
            .map(convert::message_from_raft)
            .collect();
        let mut held: Vec<Message> = ready
            .take_persisted_messages()
            .iter()
            .map(convert::message_from_raft)
            .collect();
        if !ready.snapshot().is_empty() {
            out.snapshot = Some(self.accept_snapshot(ready.snapshot()));
        }
        self.raft.mut_store().append(ready.entries());
        out.entries = ready
            .entries()
            .iter()
            .map(convert::entry_from_raft)
            .collect();
        let hard_state = convert::hard_state_from_raft(&self.raft.raft.hard_state());
        let vote = (hard_state.term, hard_state.vote);
        let committed = ready.take_committed_entries();
        out.committed = std::mem::take(&mut self.deferred);
        out.committed
            .extend(committed.iter().map(convert::entry_from_raft));
        if let Some(at) = out.committed.iter().position(|entry| self.is_held(entry)) {
            self.deferred = out.committed.split_off(at);
        }
        // Committed entries beyond those given at once may be removals, too.
        let given = self.deferred.last().or(out.committed.last());
        let given = given.map_or(self.applied, |entry| entry.index);
        let first_held = self.deferred.first();
        let is_removal = first_held.is_some_and(|first| first.index > self.durable_commit)
            || self.is_leader() && hard_state.commit > given;
        if is_removal {
            // What is said of the commit waits for the write, too.
            held.splice(..0, std::mem::take(&mut out.messages));
        }
        let has_log = !out.entries.is_empty() || out.snapshot.is_some();
        if vote != self.written_vote || has_log || is_removal {
            self.written_vote = vote;
            out.hard_state = Some(hard_state);
        }
        self.raft.advance_append_async(ready);
        self.outstanding = Some(Outstanding {
            number: out.number,
            messages: held,
            commit: out.hard_state.map(|hard_state| hard_state.commit),
            has_snapshot: out.snapshot.is_some(),
        });
        self.hand_out(&out.committed);
        Some(out)
    }

    /// Whether a committed entry must wait. Whoever is removed stops when it hears of that, and every member that takes the
    /// removal in tells it so. This member must then know of it, too, after a crash or a failed write: of two it would wait for the
    /// vote of the other for ever. And a leader hands over before it takes in its own removal.
    fn is_held(&self, entry: &Entry) -> bool {
        removed_member(entry).is_some_and(|removed| {
            let is_own = removed == self.id && self.is_leader() && self.conf_state.voters.len() > 1;
            is_own || entry.index > self.durable_commit
        })
    }

    fn accept_snapshot(&mut self, snapshot: &eraftpb::Snapshot) -> Snapshot {
        self.raft.mut_store().reset(snapshot.get_metadata());
        // What it holds need not be handed out.
        self.deferred.clear();
        let snapshot = convert::snapshot_from_raft(snapshot);
        assert!(
            snapshot.index() >= self.applied,
            "a snapshot does not go back"
        );
        self.applied = snapshot.index();
        self.conf_state = snapshot.metadata.conf_state.clone();
        snapshot
    }

    /// Counts entries as applied and lets membership changes take effect.
    fn hand_out(&mut self, committed: &[Entry]) {
        for entry in committed {
            assert_eq!(
                entry.index,
                self.applied + 1,
                "committed entries are handed out in order"
            );
            self.applied = entry.index;
            if let Some(change) = entry.conf_change() {
                self.apply_conf_change(&change);
            }
            if self.is_stopped {
                return;
            }
        }
        if !committed.is_empty() {
            self.raft.advance_apply_to(self.applied);
            self.timer.settle(&mut self.raft);
        }
    }

    fn apply_conf_change(&mut self, change: &ConfChange) {
        if change.kind() == ConfChangeKind::RemoveNode && change.node_id == self.id {
            // raft-rs would panic, or lead for ever, if it saw this.
            self.is_stopped = true;
            self.conf_state.voters.retain(|&id| id != self.id);
            self.conf_state.learners.retain(|&id| id != self.id);
            return;
        }
        let Some(change) = convert::conf_change_to_raft(change) else {
            return;
        };
        match self.raft.apply_conf_change(&change) {
            Ok(state) => self.conf_state = convert::conf_state_from_raft(&state),
            // The same entry fails the same way on every member, so ignoring it keeps them equal.
            Err(error) => {
                tracing::error!(%error, raft.peer = change.node_id, "Membership change failed")
            }
        }
    }

    /// The ready of that number is on disk (or needed nothing there). Gives the messages that promise so: send them.
    ///
    /// # Panics
    /// If it is not the number of the ready last given.
    pub fn persisted(&mut self, number: u64) -> Vec<Message> {
        let outstanding = self.outstanding.take().expect("a ready was given");
        assert_eq!(
            outstanding.number, number,
            "the ready last given is persisted"
        );
        self.durable_commit = outstanding.commit.unwrap_or(self.durable_commit);
        if !self.is_stopped {
            self.raft.on_persist_ready(number);
            if outstanding.has_snapshot {
                self.raft.advance_apply_to(self.applied);
            }
            self.timer.settle(&mut self.raft);
        }
        outstanding.messages
    }

    // --- Snapshots ---

    /// The record of a snapshot holding `data`, the application's state as of `index`.
    ///
    /// # Errors
    /// `index` is not applied, or already in a snapshot.
    pub fn snapshot_at(&self, index: u64, data: Bytes) -> Result<Snapshot, SnapshotError> {
        if index > self.applied {
            return Err(SnapshotError::NotApplied {
                index,
                applied: self.applied,
            });
        }
        let log = self.raft.store();
        if index <= log.snapshot_metadata().index {
            return Err(SnapshotError::Outdated(index));
        }
        let term = log
            .term(index)
            .map_err(|_| SnapshotError::Outdated(index))?;
        let conf_state = self.conf_state.clone();
        Ok(Snapshot {
            data,
            metadata: SnapshotMetadata {
                conf_state,
                index,
                term,
            },
        })
    }

    /// The snapshot is on disk: it may be announced to followers, and entries up to `compact_to` (inclusive) forgotten.
    ///
    /// # Panics
    /// If entries that are not in the snapshot would be forgotten.
    pub fn snapshot_saved(&mut self, metadata: &SnapshotMetadata, compact_to: u64) {
        assert!(
            compact_to <= metadata.index,
            "only entries in the snapshot are forgotten"
        );
        let mut record = eraftpb::SnapshotMetadata::default();
        (record.index, record.term) = (metadata.index, metadata.term);
        record.set_conf_state(convert::conf_state_to_raft(&metadata.conf_state));
        let log = self.raft.mut_store();
        if record.index > log.snapshot_metadata().index {
            log.set_snapshot(record);
        }
        log.compact(compact_to);
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("id", &self.id)
            .field("role", &self.role())
            .field("term", &self.term())
            .field("commit", &self.commit_index())
            .field("applied", &self.applied)
            .field("last", &self.last_index())
            .field("members", &self.conf_state)
            .field("is_stopped", &self.is_stopped)
            .finish_non_exhaustive()
    }
}

/// Whom the entry removes.
fn removed_member(entry: &Entry) -> Option<u64> {
    let change = entry.conf_change()?;
    (change.kind() == ConfChangeKind::RemoveNode).then_some(change.node_id)
}

fn restored_log(restored: &Restored, hard_state: HardState, at: &SnapshotMetadata) -> MemoryLog {
    let snapshot = convert::snapshot_to_raft(Snapshot {
        data: Bytes::new(),
        metadata: at.clone(),
    });
    let mut log = MemoryLog::new(
        convert::hard_state_to_raft(hard_state),
        convert::conf_state_to_raft(&at.conf_state),
    );
    let (index, term, skipped) = restored.compaction_point();
    log.set_compacted(index, term);
    log.set_snapshot(snapshot.get_metadata().clone());
    let entries: Vec<_> = restored.entries[skipped..]
        .iter()
        .cloned()
        .map(convert::entry_to_raft)
        .collect();
    log.append(&entries);
    log
}

/// Leaders of Docker before 23 send a snapshot's membership as of its index, which may lack the receiver; raft-rs would
/// ignore it for ever. A leader sends snapshots to members only, so the receiver is one.
fn add_receiver(state: &mut ConfState, id: u64) {
    if !state.contains(id) {
        state.voters.push(id);
    }
}
