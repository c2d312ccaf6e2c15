//! A disk in memory for the simulator: the contract of [`Storage`], with writes that take time, crashes and a full disk.

use std::{collections::BTreeMap, io};

use crate::{
    entry::{Entry, HardState},
    ready::Ready,
    restored::Restored,
    snapshot::Snapshot,
    storage::{DiskError, Storage},
};

/// What a crash does to a write that was begun and not finished. There is nothing between: writes are transactions, and
/// `Disk` is tested to keep that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Crash {
    /// It never reached the disk.
    Lost,
    /// It did, though nobody was told.
    Kept,
}

/// A disk in memory. A clone is a copy.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    hard_state: HardState,
    snapshot: Option<Snapshot>,
    entries: BTreeMap<u64, Entry>,
    begun: Option<Ready>,
    is_full: bool,
}

// === impl MemoryDisk ===

impl MemoryDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a write that takes until [`MemoryDisk::finish`].
    ///
    /// # Errors
    /// The disk is full.
    ///
    /// # Panics
    /// If another one is not finished.
    pub fn begin(&mut self, ready: &Ready) -> Result<(), DiskError> {
        self.check_space()?;
        assert!(self.begun.is_none(), "one write at a time");
        self.begun = Some(ready.clone());
        Ok(())
    }

    /// Makes the write begun durable.
    pub fn finish(&mut self) {
        let Some(ready) = self.begun.take() else {
            return;
        };
        if let Some(snapshot) = ready.snapshot {
            self.entries.clear();
            self.snapshot = Some(snapshot);
        }
        self.append(ready.entries);
        if let Some(hard_state) = ready.hard_state {
            self.hard_state = hard_state;
        }
    }

    /// The machine fails: a write begun and not finished meets its fate.
    pub fn crash(&mut self, outcome: Crash) {
        match outcome {
            Crash::Lost => self.begun = None,
            Crash::Kept => self.finish(),
        }
    }

    /// Fills the disk, or makes room.
    pub fn set_full(&mut self, is_full: bool) {
        self.is_full = is_full;
    }

    fn append(&mut self, entries: Vec<Entry>) {
        if let Some(first) = entries.first() {
            drop(self.entries.split_off(&first.index));
            self.entries
                .extend(entries.into_iter().map(|entry| (entry.index, entry)));
        }
    }

    fn check_space(&self) -> Result<(), DiskError> {
        if self.is_full {
            return Err(DiskError::Full(io::ErrorKind::StorageFull.into()));
        }
        Ok(())
    }
}

impl Storage for MemoryDisk {
    fn restored(&mut self) -> Result<Restored, DiskError> {
        Ok(Restored {
            hard_state: self.hard_state,
            snapshot: self.snapshot.clone(),
            entries: self.entries.values().cloned().collect(),
        })
    }

    fn bootstrap(&mut self, group: &Restored) -> Result<(), DiskError> {
        self.check_space()?;
        if !self.restored()?.is_empty() {
            return Err(DiskError::NotEmpty);
        }
        self.hard_state = group.hard_state;
        self.snapshot.clone_from(&group.snapshot);
        self.append(group.entries.clone());
        Ok(())
    }

    fn write(&mut self, ready: &Ready) -> Result<(), DiskError> {
        if ready.must_write() {
            self.begin(ready)?;
            self.finish();
        }
        Ok(())
    }

    fn save_snapshot(&mut self, snapshot: &Snapshot) -> Result<(), DiskError> {
        self.check_space()?;
        let stored = self.snapshot.as_ref().map_or(0, Snapshot::index);
        let last = self
            .entries
            .keys()
            .next_back()
            .copied()
            .unwrap_or(0)
            .max(stored);
        if !(stored..=last).contains(&snapshot.index()) {
            return Err(DiskError::Misplaced(snapshot.index()));
        }
        self.snapshot = Some(snapshot.clone());
        Ok(())
    }

    fn compact(&mut self, index: u64) -> Result<(), DiskError> {
        self.check_space()?;
        if index > self.snapshot.as_ref().map_or(0, Snapshot::index) {
            return Err(DiskError::Misplaced(index));
        }
        self.entries = self.entries.split_off(&index);
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Option<Snapshot>, DiskError> {
        Ok(self.snapshot.clone())
    }
}
