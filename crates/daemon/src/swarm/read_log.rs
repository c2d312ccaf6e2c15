//! A log that was read already: whether it is empty decides how a manager starts, and reading it
//! twice would take its time twice.

use skep_raft::{Disk, DiskError, Ready, Restored, Snapshot, Storage};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct ReadLog {
    disk: Disk,
    restored: Option<Restored>,
}

impl ReadLog {
    /// Reads the log on `disk`.
    pub(super) fn read(mut disk: Disk) -> Result<Self, DiskError> {
        let restored = Some(disk.restored()?);
        Ok(Self { disk, restored })
    }

    /// Whether nothing was ever stored.
    pub(super) fn is_empty(&self) -> bool {
        self.restored.as_ref().is_some_and(Restored::is_empty)
    }
}

impl Storage for ReadLog {
    fn restored(&mut self) -> Result<Restored, DiskError> {
        match self.restored.take() {
            Some(restored) => Ok(restored),
            None => self.disk.restored(),
        }
    }

    fn bootstrap(&mut self, group: &Restored) -> Result<(), DiskError> {
        self.restored = None;
        self.disk.bootstrap(group)
    }

    fn write(&mut self, ready: &Ready) -> Result<(), DiskError> {
        self.restored = None;
        self.disk.write(ready)
    }

    fn save_snapshot(&mut self, snapshot: &Snapshot) -> Result<(), DiskError> {
        self.disk.save_snapshot(snapshot)
    }

    fn compact(&mut self, index: u64) -> Result<(), DiskError> {
        self.disk.compact(index)
    }

    fn snapshot(&mut self) -> Result<Option<Snapshot>, DiskError> {
        self.disk.snapshot()
    }
}
