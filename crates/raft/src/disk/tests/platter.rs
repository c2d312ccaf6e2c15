//! A disk for tests: one file for redb and a directory for snapshots, in memory. Every changing operation is counted and can
//! be the last one, after which what was not synced is lost, kept, or torn.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use redb::StorageBackend;

use crate::snapshot_files::SnapshotFiles;

/// Unsynced writes are torn at this granularity.
const SECTOR_BYTES: usize = 512;

/// A handle; clones share the disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Platter(Arc<Mutex<State>>);

/// What a crash does to unsynced changes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Lost,
    Kept,
    /// Each change, and each sector of a write, by a coin.
    Torn(u64),
}

#[derive(Default)]
struct State {
    /// The redb file as seen, and as of the last sync.
    image: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Change>,
    /// Snapshot files by inode: content as seen, and as of its last sync.
    inodes: BTreeMap<u64, (Vec<u8>, Option<Vec<u8>>)>,
    names: BTreeMap<String, u64>,
    synced_names: BTreeMap<String, u64>,
    operations: u64,
    fail: Option<Failure>,
}

#[derive(Debug)]
enum Change {
    Length(usize),
    Write(usize, Vec<u8>),
}

#[derive(Clone, Copy)]
struct Failure {
    at: u64,
    kind: io::ErrorKind,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "State({} operations)", self.operations)
    }
}

impl Platter {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The operation after the next `count` ones, and all after it, fail.
    pub(super) fn fail_after(&self, count: u64, kind: io::ErrorKind) {
        let mut state = self.state();
        let at = state.operations + count;
        state.fail = Some(Failure { at, kind });
    }

    pub(super) fn works_again(&self) {
        self.state().fail = None;
    }

    pub(super) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Power is lost and comes back.
    pub(super) fn crash(&self, fate: Fate) {
        let mut state = self.state();
        let mut coin = match fate {
            Fate::Torn(seed) => seed | 1,
            Fate::Lost | Fate::Kept => 1,
        };
        let mut keeps = || match fate {
            Fate::Lost => false,
            Fate::Kept => true,
            Fate::Torn(_) => {
                coin ^= coin << 13;
                coin ^= coin >> 7;
                coin ^= coin << 17;
                coin >> 63 == 1
            }
        };
        let mut image = std::mem::take(&mut state.synced);
        for change in std::mem::take(&mut state.unsynced) {
            match change {
                // A write beyond the end needs the length it was made with.
                Change::Length(length) => {
                    if length > image.len() || keeps() {
                        image.resize(length, 0);
                    }
                }
                Change::Write(offset, data) => {
                    for (number, sector) in data.chunks(SECTOR_BYTES).enumerate() {
                        let at = offset + number * SECTOR_BYTES;
                        if keeps() && at + sector.len() <= image.len() {
                            image[at..at + sector.len()].copy_from_slice(sector);
                        }
                    }
                }
            }
        }
        if !keeps() {
            state.names = state.synced_names.clone();
        }
        for (content, synced) in state.inodes.values_mut() {
            if !keeps() {
                *content = synced
                    .take()
                    .unwrap_or_else(|| content[..content.len() / 2].to_vec());
            }
            *synced = Some(content.clone());
        }
        state.synced_names = state.names.clone();
        (state.image, state.synced) = (image.clone(), image);
        state.fail = None;
    }

    pub(super) fn file_names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    /// Whether the bytes are anywhere on the disk.
    pub(super) fn contains(&self, bytes: &[u8]) -> bool {
        let state = self.state();
        let files = state.inodes.values().map(|(content, _)| content);
        files
            .chain([&state.image])
            .any(|content| content.windows(bytes.len()).any(|window| window == bytes))
    }

    /// Changes a file behind the disk's back; `log` is redb's.
    pub(super) fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        if name == "log" {
            change(&mut state.image);
            return;
        }
        let inode = state.names[name];
        change(&mut state.inodes.get_mut(&inode).unwrap().0);
    }
}

impl State {
    fn step(&mut self) -> io::Result<()> {
        self.operations += 1;
        match self.fail {
            Some(failure) if self.operations > failure.at => Err(failure.kind.into()),
            Some(_) | None => Ok(()),
        }
    }

    fn inode(&self, name: &str) -> io::Result<u64> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

impl StorageBackend for Platter {
    fn len(&self) -> io::Result<u64> {
        Ok(u64::try_from(self.state().image.len()).unwrap())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let end = place(offset) + out.len();
        let bytes = state
            .image
            .get(place(offset)..end)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state.image.resize(place(len), 0);
        state.unsynced.push(Change::Length(place(len)));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let state = &mut *state;
        for change in state.unsynced.drain(..) {
            match change {
                Change::Length(length) => state.synced.resize(length, 0),
                Change::Write(at, data) => {
                    state.synced[at..at + data.len()].copy_from_slice(&data);
                }
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let end = place(offset) + data.len();
        if end > state.image.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let stepped = state.step();
        // The operation that fails may have done its work in part.
        state
            .unsynced
            .push(Change::Write(place(offset), data.to_vec()));
        stepped?;
        state.image[place(offset)..end].copy_from_slice(data);
        Ok(())
    }
}

impl SnapshotFiles for Platter {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.file_names())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let state = self.state();
        let inode = state.inode(name)?;
        Ok(state.inodes[&inode].0.clone())
    }

    fn write(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let number = u64::try_from(state.inodes.len()).unwrap();
        let inode = state.inode(name).unwrap_or(number);
        state.names.insert(name.to_owned(), inode);
        state.inodes.entry(inode).or_default().0 = content.to_vec();
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let inode = state.inode(name)?;
        let (content, synced) = state.inodes.get_mut(&inode).unwrap();
        *synced = Some(content.clone());
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let inode = state.inode(from)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state.synced_names = state.names.clone();
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state
            .names
            .remove(name)
            .map(drop)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}
