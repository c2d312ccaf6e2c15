//! What is committed, by entry or by snapshot, goes into core and group.

use skep_raft::{ConfChangeKind, Message, MessageKind};
use skep_wire::{SpecCache, log};

use super::{Output, Replica, StepRefused};
use crate::{
    entry,
    event::{CommittedEntry, Event, RequestId},
    group::Group,
};

/// Snapshots that may wait for raft to take one of them, while the disk is busy.
const INCOMING_MAX: usize = 4;

impl Replica {
    /// Decodes the snapshot in a message before raft takes it: one that cannot be read must not be
    /// acknowledged, or the leader would think this member has it.
    pub(super) fn read_snapshot(&mut self, message: &Message) -> Result<(), StepRefused> {
        if message.kind != MessageKind::Snapshot as i32 {
            return Ok(());
        }
        let Some(snapshot) = &message.snapshot else {
            return Err(StepRefused::Inadmissible);
        };
        let index = snapshot.index();
        if index <= self.core.index() || self.incoming.contains_key(&index) {
            // Raft ignores the former, and the latter is a repetition.
            return Ok(());
        }
        if self.incoming.len() >= INCOMING_MAX {
            return Err(StepRefused::Inadmissible);
        }
        let (decoded, store) = entry::decode_snapshot(&snapshot.data).map_err(|error| {
            tracing::warn!(error = %error, raft.peer = message.from, "Snapshot of the leader is unreadable");
            StepRefused::Inadmissible
        })?;
        self.incoming.insert(index, (decoded, store));
        Ok(())
    }

    /// Replaces the state by the snapshot raft has taken.
    ///
    /// # Panics
    /// When raft takes a snapshot that was not offered: a bug.
    pub(super) fn restore(&mut self, index: u64, out: &mut Vec<Output>) {
        let offered = self.incoming.remove(&index);
        if index <= self.core.index() {
            // Raft was started anew, behind what core and group have taken up.
            return;
        }
        let (snapshot, store) = offered.expect("raft takes a snapshot that was offered");
        tracing::info!(raft.index = index, "Continues from the leader's snapshot");
        let mut group = Group::clone(&self.group);
        group.restore(snapshot.membership);
        self.set_group(group, out);
        let event = Event::Restored { index, store };
        self.core.handle(self.now, event, &mut self.effects);
        self.perform(out);
    }

    /// Takes up a committed entry.
    pub(super) fn committed(&mut self, raft_entry: &skep_raft::Entry, out: &mut Vec<Output>) {
        if raft_entry.index <= self.core.index() {
            // Handed out again because raft was started anew.
            return;
        }
        if let Some(change) = raft_entry.conf_change() {
            let mut group = Group::clone(&self.group);
            if group.apply(&change) {
                self.set_group(group, out);
            }
            let is_addition = change.kind() != ConfChangeKind::RemoveNode;
            self.answer_joins(change.node_id, is_addition, out);
        }
        let entry = raft_entry.is_command().then(|| {
            let request_id = RequestId(entry::request_id(&raft_entry.data));
            let is_own = self.core.awaits(request_id);
            let actions = if is_own {
                Vec::new()
            } else {
                decode(raft_entry)
            };
            CommittedEntry {
                request_id,
                actions,
                bytes: raft_entry.data.len(),
            }
        });
        let event = Event::Committed {
            index: raft_entry.index,
            entry,
        };
        self.core.handle(self.now, event, &mut self.effects);
        self.perform(out);
    }
}

/// # Panics
/// When a committed entry is unreadable: every replica fails alike, and going on would lose an
/// acknowledged write.
fn decode(raft_entry: &skep_raft::Entry) -> Vec<skep_store::Action> {
    match log::decode_actions(&raft_entry.data, &mut SpecCache::new()) {
        Ok((_, actions)) => actions,
        Err(error) => panic!(
            "committed entry {} is unreadable: {error}",
            raft_entry.index
        ),
    }
}
