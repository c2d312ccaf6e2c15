//! A disk in memory that fails at a chosen operation and forgets or tears what was not synced.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use redb::StorageBackend;
use skep_model::Rng;

/// Unsynced writes are torn at this granularity.
const SECTOR_BYTES: usize = 512;

/// A handle; clones share the disk.
#[derive(Clone, Debug)]
pub(super) struct Platter(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    image: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Write>,
    operations_left: Option<u64>,
    has_failed: bool,
}

#[derive(Debug)]
enum Write {
    Length(usize),
    Bytes(usize, Vec<u8>),
}

impl Platter {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The operation after `count` further ones, and all after it, fail.
    pub(super) fn fail_after(&self, count: u64) {
        self.state().operations_left = Some(count);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.state().has_failed
    }

    /// The disk after a power cut: each unsynced write is lost, kept or torn.
    pub(super) fn crash(&self, seed: u64) -> Self {
        let mut rng = Rng::from_seed(seed);
        let state = self.state();
        let mut image = state.synced.clone();
        for write in &state.unsynced {
            match write {
                Write::Length(length) => image.resize(*length, 0),
                Write::Bytes(offset, bytes) => {
                    for (index, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                        let at = offset + index * SECTOR_BYTES;
                        if rng.percent(50) && at + sector.len() <= image.len() {
                            image[at..at + sector.len()].copy_from_slice(sector);
                        }
                    }
                }
            }
        }
        let state = State {
            image: image.clone(),
            synced: image,
            ..State::default()
        };
        Self(Arc::new(Mutex::new(state)))
    }
}

impl State {
    fn count(&mut self) -> io::Result<()> {
        match &mut self.operations_left {
            Some(0) => {
                self.has_failed = true;
                Err(io::Error::other("the power is cut"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl StorageBackend for Platter {
    fn len(&self) -> io::Result<u64> {
        Ok(u64::try_from(self.state().image.len()).unwrap())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.state().image[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.state();
        state.count()?;
        let length = usize::try_from(length).unwrap();
        state.image.resize(length, 0);
        state.unsynced.push(Write::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        state.count()?;
        let state = &mut *state;
        for write in state.unsynced.drain(..) {
            match write {
                Write::Length(length) => state.synced.resize(length, 0),
                Write::Bytes(offset, bytes) => {
                    state.synced[offset..offset + bytes.len()].copy_from_slice(&bytes);
                }
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.count()?;
        let offset = usize::try_from(offset).unwrap();
        state.image[offset..offset + data.len()].copy_from_slice(data);
        state.unsynced.push(Write::Bytes(offset, data.to_vec()));
        Ok(())
    }
}
