//! Stored records: prost messages, sealed, each bound to its table and key. The version is that of all of them together.

use prost::Message;

use crate::{entry::Entry, key::Dek, seal::Sealer, snapshot::Snapshot, storage::DiskError};

/// Version of everything a [`Disk`](super::Disk) stores. Golden files of each version are in `tests/golden`.
pub(super) const FORMAT_VERSION: u32 = 1;

const SNAPSHOT_MAGIC: &[u8; 8] = b"SKEPSNAP";
const PROBE: &[u8] = b"skep";

/// Keys of the table `meta`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meta {
    /// The format's version, not sealed.
    Format,
    /// A constant, sealed: shows a wrong key.
    Probe,
    /// Term, vote, commit index.
    HardState,
    /// Where the snapshot the log builds on stands.
    Snapshot,
}

/// Seals and opens records.
#[derive(Debug)]
pub(super) struct Records(Sealer);

// === impl Meta ===

impl Meta {
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Probe => "probe",
            Self::HardState => "hard_state",
            Self::Snapshot => "snapshot",
        }
    }

    fn place(self) -> Vec<u8> {
        place("meta", self.key().as_bytes())
    }
}

// === impl Records ===

impl Records {
    pub(super) fn new(dek: &Dek) -> Self {
        Self(Sealer::new(dek.expose()))
    }

    pub(super) fn seal_probe(&self) -> Vec<u8> {
        self.0.seal(&Meta::Probe.place(), PROBE)
    }

    pub(super) fn opens_probe(&self, sealed: &[u8]) -> bool {
        self.0
            .open(&Meta::Probe.place(), sealed)
            .is_some_and(|plain| *plain == PROBE)
    }

    pub(super) fn seal_meta(&self, meta: Meta, record: &impl Message) -> Vec<u8> {
        self.0.seal(&meta.place(), &record.encode_to_vec())
    }

    pub(super) fn open_meta<M: Message + Default>(
        &self,
        meta: Meta,
        sealed: &[u8],
    ) -> Result<M, DiskError> {
        self.open(&meta.place(), sealed, || format!("meta/{}", meta.key()))
    }

    pub(super) fn seal_entry(&self, entry: &Entry) -> Vec<u8> {
        let plain = zeroize::Zeroizing::new(entry.encode_to_vec());
        self.0
            .seal(&place("log", &entry.index.to_be_bytes()), &plain)
    }

    pub(super) fn open_entry(&self, index: u64, sealed: &[u8]) -> Result<Entry, DiskError> {
        let name = || format!("log/{index}");
        let entry: Entry = self.open(&place("log", &index.to_be_bytes()), sealed, name)?;
        if entry.index == index {
            Ok(entry)
        } else {
            Err(DiskError::Corrupt(name()))
        }
    }

    pub(super) fn seal_snapshot(&self, file: &str, snapshot: &Snapshot) -> Vec<u8> {
        let mut content = SNAPSHOT_MAGIC.to_vec();
        content.extend(FORMAT_VERSION.to_be_bytes());
        let plain = zeroize::Zeroizing::new(snapshot.encode_to_vec());
        content.extend(self.0.seal(&place("snapshot", file.as_bytes()), &plain));
        content
    }

    pub(super) fn open_snapshot(&self, file: &str, content: &[u8]) -> Result<Snapshot, DiskError> {
        let corrupt = || DiskError::Corrupt(file.to_owned());
        let rest = content.strip_prefix(SNAPSHOT_MAGIC).ok_or_else(corrupt)?;
        let (version, sealed) = rest.split_first_chunk::<4>().ok_or_else(corrupt)?;
        check_format(u32::from_be_bytes(*version))?;
        self.open(&place("snapshot", file.as_bytes()), sealed, || {
            file.to_owned()
        })
    }

    fn open<M: Message + Default>(
        &self,
        place: &[u8],
        sealed: &[u8],
        name: impl Fn() -> String,
    ) -> Result<M, DiskError> {
        let plain = self
            .0
            .open(place, sealed)
            .ok_or_else(|| DiskError::Corrupt(name()))?;
        M::decode(&plain[..]).map_err(|_| DiskError::Corrupt(name()))
    }
}

pub(super) fn check_format(found: u32) -> Result<(), DiskError> {
    if found == FORMAT_VERSION {
        return Ok(());
    }
    Err(DiskError::Format {
        found,
        supported: FORMAT_VERSION,
    })
}

/// Additional data of a record: table, zero, key.
fn place(table: &str, key: &[u8]) -> Vec<u8> {
    [table.as_bytes(), &[0], key].concat()
}
