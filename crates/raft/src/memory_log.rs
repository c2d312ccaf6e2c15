//! The log as raft-rs reads it: the tail since the last compaction, in memory. `Disk` holds the same, durably.

use std::collections::VecDeque;

use raft::{
    GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata},
};

/// Entries after the compaction point, and where the newest snapshot stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryLog {
    initial: RaftState,
    /// Index and term of the entry before the first one held.
    compacted: (u64, u64),
    /// Contiguous from `compacted.0 + 1`.
    entries: VecDeque<Entry>,
    snapshot: SnapshotMetadata,
    /// Sum of the data of `entries`.
    data_bytes: u64,
}

// === impl MemoryLog ===

impl MemoryLog {
    pub(crate) fn new(hard_state: HardState, conf_state: ConfState) -> Self {
        Self {
            initial: RaftState::new(hard_state, conf_state),
            ..Self::default()
        }
    }

    /// Forgets everything; the log continues after `metadata.index`.
    pub(crate) fn reset(&mut self, metadata: &SnapshotMetadata) {
        self.entries.clear();
        self.data_bytes = 0;
        self.compacted = (metadata.index, metadata.term);
        self.snapshot = metadata.clone();
    }

    pub(crate) fn set_compacted(&mut self, index: u64, term: u64) {
        assert!(
            self.entries.is_empty(),
            "the compaction point is set before entries are added"
        );
        self.compacted = (index, term);
    }

    pub(crate) fn set_snapshot(&mut self, metadata: SnapshotMetadata) {
        self.snapshot = metadata;
    }

    pub(crate) fn snapshot_metadata(&self) -> &SnapshotMetadata {
        &self.snapshot
    }

    /// Appends, dropping what is stored at or after the first new index.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.compacted.0,
            "raft rewrites a compacted entry"
        );
        assert!(
            first.index <= self.last() + 1,
            "raft leaves a gap in the log"
        );
        while self.last() >= first.index {
            let dropped = self
                .entries
                .pop_back()
                .expect("last is beyond the compaction point");
            self.data_bytes -= data_bytes(&dropped);
        }
        self.data_bytes += entries.iter().map(data_bytes).sum::<u64>();
        self.entries.extend(entries.iter().cloned());
    }

    /// Drops the entries up to and including `index`.
    pub(crate) fn compact(&mut self, index: u64) {
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.index <= index)
        {
            let dropped = self.entries.pop_front().expect("the front was just seen");
            self.data_bytes -= data_bytes(&dropped);
            self.compacted = (dropped.index, dropped.term);
        }
    }

    pub(crate) fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    pub(crate) fn last(&self) -> u64 {
        self.entries
            .back()
            .map_or(self.compacted.0, |entry| entry.index)
    }

    fn position(&self, index: u64) -> Option<usize> {
        index
            .checked_sub(self.compacted.0 + 1)
            .and_then(|offset| usize::try_from(offset).ok())
    }
}

fn data_bytes(entry: &Entry) -> u64 {
    u64::try_from(entry.data.len()).unwrap_or(u64::MAX)
}

impl Storage for MemoryLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let start = self.position(low).ok_or(StorageError::Compacted)?;
        let end = self.position(high).ok_or(StorageError::Compacted)?;
        if end > self.entries.len() || start > end {
            return Err(StorageError::Unavailable.into());
        }
        let mut left = max_size.into().unwrap_or(u64::MAX);
        let mut out = Vec::new();
        for entry in self.entries.range(start..end) {
            let size = data_bytes(entry) + ENTRY_OVERHEAD_BYTES;
            if size > left && !out.is_empty() {
                break;
            }
            left = left.saturating_sub(size);
            out.push(entry.clone());
        }
        Ok(out)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.compacted.0 {
            return Ok(self.compacted.1);
        }
        let position = self.position(index).ok_or(StorageError::Compacted)?;
        let entry = self
            .entries
            .get(position)
            .ok_or(StorageError::Unavailable)?;
        Ok(entry.term)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.compacted.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// The newest snapshot, without its data: the sender's shell attaches that.
    fn snapshot(&self, request_index: u64, _: u64) -> raft::Result<Snapshot> {
        if self.snapshot.index == 0 || self.snapshot.index < request_index {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        let mut out = Snapshot::default();
        out.set_metadata(self.snapshot.clone());
        Ok(out)
    }
}

/// What an entry costs on the wire beside its data, roughly; bounds messages full of tiny entries.
const ENTRY_OVERHEAD_BYTES: u64 = 16;
