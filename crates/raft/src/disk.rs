//! A member's state on a real disk: log and hard state in redb, snapshots in files, all sealed under the DEK. The layout and
//! the order of steps are drawn in `docs/design/raft.md`.

mod engine;
mod records;
#[cfg(test)]
mod tests;

use std::{fs, os::unix::fs::DirBuilderExt as _, path::Path};

use redb::StorageBackend;

use self::{
    engine::{Engine, ReadTables},
    records::{Meta, Records},
};
use crate::{
    entry::{Entry, HardState},
    key::Dek,
    ready::Ready,
    restored::Restored,
    snapshot::{Snapshot, SnapshotMetadata},
    snapshot_files::{SnapshotDir, SnapshotFiles},
    storage::{DiskError, Storage},
};

/// Name of the log in a member's directory.
const LOG_FILE: &str = "log.redb";
/// A snapshot is written here before it gets its name.
const TEMPORARY_FILE: &str = "snapshot.tmp";
const SNAPSHOT_SUFFIX: &str = ".snap";

/// The durable, encrypted [`Storage`].
#[derive(Debug)]
pub struct Disk {
    engine: Engine,
    files: Box<dyn SnapshotFiles>,
    records: Records,
    keep_old_snapshots: usize,
    /// `None` after a failed write: it may have taken effect.
    at: Option<Position>,
}

/// What is known of the stored state without reading it.
#[derive(Clone, Copy, Debug, Default)]
struct Position {
    last_index: u64,
    snapshot_index: u64,
}

// === impl Disk ===

impl Disk {
    /// Opens or creates a member's directory (mode 0700).
    ///
    /// # Errors
    /// It is in use, of another format, damaged, or sealed with another key.
    pub fn open(directory: &Path, dek: &Dek) -> Result<Self, DiskError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(engine::io_error)?;
        let files = SnapshotDir::new(directory.to_owned());
        let log = directory.join(LOG_FILE);
        let has_snapshot = files
            .list()
            .map_err(engine::io_error)?
            .iter()
            .any(|name| name.ends_with(SNAPSHOT_SUFFIX));
        if has_snapshot && !log.try_exists().map_err(engine::io_error)? {
            return Err(DiskError::LogMissing);
        }
        Self::with_engine(Engine::file(log), Box::new(files), dek)
    }

    /// The same on a disk of the caller's making.
    ///
    /// # Errors
    /// As [`Disk::open`].
    pub fn with_backend(
        backend: impl StorageBackend,
        files: Box<dyn SnapshotFiles>,
        dek: &Dek,
    ) -> Result<Self, DiskError> {
        Self::with_engine(Engine::backend(backend), files, dek)
    }

    fn with_engine(
        mut engine: Engine,
        files: Box<dyn SnapshotFiles>,
        dek: &Dek,
    ) -> Result<Self, DiskError> {
        let records = Records::new(dek);
        engine.prepare(&records)?;
        let mut disk = Self {
            engine,
            files,
            records,
            keep_old_snapshots: 0,
            at: None,
        };
        disk.position()?;
        Ok(disk)
    }

    /// How many snapshots before the newest one are kept; 0 at first, as in `SwarmKit`.
    pub fn set_keep_old_snapshots(&mut self, count: usize) {
        self.keep_old_snapshots = count;
    }

    fn position(&mut self) -> Result<Position, DiskError> {
        if let Some(at) = self.at {
            return Ok(at);
        }
        let records = &self.records;
        let at = self.engine.read(|tables| {
            let metadata = read_metadata(records, tables)?;
            let snapshot_index = metadata.map_or(0, |metadata| metadata.index);
            let last_index = tables.last_index()?.unwrap_or(0).max(snapshot_index);
            Ok(Position {
                last_index,
                snapshot_index,
            })
        })?;
        self.at = Some(at);
        Ok(at)
    }

    /// Stores what a ready or a new group holds, in one transaction.
    fn commit(
        &mut self,
        entries: &[Entry],
        hard_state: Option<HardState>,
        snapshot: Option<&SnapshotMetadata>,
    ) -> Result<(), DiskError> {
        let mut at = self.position()?;
        self.at = None;
        let records = &self.records;
        let sealed: Vec<_> = entries
            .iter()
            .map(|entry| (entry.index, records.seal_entry(entry)))
            .collect();
        self.engine.write(|tables| {
            if let Some(metadata) = snapshot {
                tables.remove_entries(0..=u64::MAX)?;
                tables.put_meta(Meta::Snapshot, &records.seal_meta(Meta::Snapshot, metadata))?;
                (at.snapshot_index, at.last_index) = (metadata.index, metadata.index);
            }
            if let (Some((first, _)), Some((last, _))) = (sealed.first(), sealed.last()) {
                if *first <= at.last_index {
                    tables.remove_entries(*first..=u64::MAX)?;
                }
                for (index, entry) in &sealed {
                    tables.put_entry(*index, entry)?;
                }
                at.last_index = *last;
            }
            if let Some(state) = hard_state {
                tables.put_meta(Meta::HardState, &records.seal_meta(Meta::HardState, &state))?;
            }
            Ok(())
        })?;
        self.at = Some(at);
        Ok(())
    }

    /// Writes the file of a snapshot; durable on return, but nothing refers to it yet.
    fn write_snapshot_file(&mut self, snapshot: &Snapshot) -> Result<(), DiskError> {
        let name = file_name(&snapshot.metadata);
        let content = self.records.seal_snapshot(&name, snapshot);
        let files = &mut self.files;
        files
            .write(TEMPORARY_FILE, &content)
            .and_then(|()| files.sync(TEMPORARY_FILE))
            .and_then(|()| files.rename(TEMPORARY_FILE, &name))
            .and_then(|()| files.sync_dir())
            .map_err(engine::io_error)
    }

    /// Removes files that nothing refers to. Failing is harmless: the next snapshot tries again.
    fn remove_old_snapshots(&mut self, current: &SnapshotMetadata) {
        let current = file_name(current);
        let Ok(mut names) = self.files.list() else {
            return;
        };
        names.retain(|name| name.ends_with(SNAPSHOT_SUFFIX));
        // Names sort by term, then index. One newer than the current was saved and never referred to.
        let (older, newer): (Vec<_>, Vec<_>) = names
            .into_iter()
            .filter(|name| *name != current)
            .partition(|name| *name < current);
        let surplus = older.len().saturating_sub(self.keep_old_snapshots);
        for name in older.iter().take(surplus).chain(&newer) {
            if let Err(error) = self.files.remove(name) {
                tracing::warn!(file = %name, %error, "Old snapshot could not be removed");
            }
        }
    }

    fn load_snapshot(&self, metadata: &SnapshotMetadata) -> Result<Snapshot, DiskError> {
        let name = file_name(metadata);
        match self.files.read(&name) {
            Ok(content) => self.records.open_snapshot(&name, &content),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(DiskError::SnapshotMissing(name))
            }
            Err(error) => Err(engine::io_error(error)),
        }
    }
}

impl Storage for Disk {
    fn restored(&mut self) -> Result<Restored, DiskError> {
        let records = &self.records;
        let (hard_state, metadata, entries) = self.engine.read(|tables| {
            let hard_state = tables
                .meta(Meta::HardState)?
                .map(|sealed| records.open_meta::<HardState>(Meta::HardState, &sealed))
                .transpose()?;
            let metadata = read_metadata(records, tables)?;
            let mut entries = Vec::new();
            tables.for_each_entry(|index, sealed| {
                entries.push(records.open_entry(index, sealed)?);
                Ok(())
            })?;
            Ok((hard_state.unwrap_or_default(), metadata, entries))
        })?;
        let snapshot = metadata
            .map(|metadata| self.load_snapshot(&metadata))
            .transpose()?;
        Ok(Restored {
            hard_state,
            snapshot,
            entries,
        })
    }

    fn bootstrap(&mut self, group: &Restored) -> Result<(), DiskError> {
        if !self.restored()?.is_empty() {
            return Err(DiskError::NotEmpty);
        }
        if let Some(snapshot) = &group.snapshot {
            self.write_snapshot_file(snapshot)?;
        }
        let metadata = group.snapshot.as_ref().map(|snapshot| &snapshot.metadata);
        self.commit(&group.entries, Some(group.hard_state), metadata)
    }

    fn write(&mut self, ready: &Ready) -> Result<(), DiskError> {
        if !ready.must_write() {
            return Ok(());
        }
        if let Some(snapshot) = &ready.snapshot {
            self.write_snapshot_file(snapshot)?;
        }
        let metadata = ready.snapshot.as_ref().map(|snapshot| &snapshot.metadata);
        self.commit(&ready.entries, ready.hard_state, metadata)?;
        if let Some(metadata) = metadata {
            self.remove_old_snapshots(metadata);
        }
        Ok(())
    }

    fn save_snapshot(&mut self, snapshot: &Snapshot) -> Result<(), DiskError> {
        let (index, at) = (snapshot.index(), self.position()?);
        if index < at.snapshot_index || index > at.last_index {
            return Err(DiskError::Misplaced(index));
        }
        self.write_snapshot_file(snapshot)?;
        let sealed = self.records.seal_meta(Meta::Snapshot, &snapshot.metadata);
        self.at = None;
        self.engine
            .write(|tables| tables.put_meta(Meta::Snapshot, &sealed))?;
        self.at = Some(Position {
            snapshot_index: index,
            ..at
        });
        self.remove_old_snapshots(&snapshot.metadata);
        Ok(())
    }

    fn compact(&mut self, index: u64) -> Result<(), DiskError> {
        if index > self.position()?.snapshot_index {
            return Err(DiskError::Misplaced(index));
        }
        match index.checked_sub(1) {
            Some(last) => self.engine.write(|tables| tables.remove_entries(0..=last)),
            None => Ok(()),
        }
    }

    fn snapshot(&mut self) -> Result<Option<Snapshot>, DiskError> {
        let records = &self.records;
        let metadata = self.engine.read(|tables| read_metadata(records, tables))?;
        metadata
            .map(|metadata| self.load_snapshot(&metadata))
            .transpose()
    }
}

fn read_metadata(
    records: &Records,
    tables: &ReadTables,
) -> Result<Option<SnapshotMetadata>, DiskError> {
    let sealed = tables.meta(Meta::Snapshot)?;
    sealed
        .map(|sealed| records.open_meta(Meta::Snapshot, &sealed))
        .transpose()
}

/// As `SwarmKit` (etcd) names them, so that names sort by age.
fn file_name(metadata: &SnapshotMetadata) -> String {
    format!(
        "{:016x}-{:016x}{SNAPSHOT_SUFFIX}",
        metadata.term, metadata.index
    )
}
