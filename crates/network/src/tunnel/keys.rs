//! A node's own two keys, and when they change.
//!
//! ```text
//! Renewed ── ROTATION/2 - PREPARATION ──► Preparing ── PREPARATION ──► Swapped ── ROTATION/2 ──► Renewed
//! force: a                                 force: a                     force: b                  force: b
//! other: b (new)                           other: b                     other: a                  other: c (new)
//! ```
//!
//! Both are told to the others, and packets to either are accepted, in every phase. So a new key has long been known when it comes into
//! force, and an old one has long been out of use when it is replaced. While preparing the node greets the others with the new key, so that
//! sessions exist when it swaps.
//!
//! The file lies in the run directory, which is memory: keys die with the node's uptime and are never on a disk.

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::key::{PrivateKey, PublicKey, Slot};

/// How long a key is in force, as Swarm's are.
const ROTATION: Duration = Duration::from_hours(12);

/// How long a node greets others with a new key before it uses it. They know it for hours by then; a minute would do for the greeting.
const PREPARATION: Duration = Duration::from_mins(5);

/// The directory of everything about tunnels, below the run directory.
pub(crate) const DIR: &str = "tunnel";

/// The keys, below that.
const FILE: &str = "keys.json";

/// The version this code writes. Readers refuse newer ones.
const VERSION: u32 = 1;

/// Why a node's keys cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// A file operation failed.
    #[error("failed to {operation} `{}`", .path.display())]
    File {
        /// What was done.
        operation: &'static str,
        /// To which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The kernel has no random numbers.
    #[error("failed to make a key")]
    Random(#[source] getrandom::Error),
}

/// A node's keys.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    path: PathBuf,
    /// The one others send to.
    force: PrivateKey,
    /// The next or the last one: of the other slot.
    other: PrivateKey,
    phase: Phase,
    /// When the phase began.
    since: SystemTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    Renewed,
    Preparing,
    Swapped,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    force: Zeroizing<String>,
    other: Zeroizing<String>,
    phase: Phase,
    /// Seconds since 1970.
    since: u64,
}

// === impl Keys ===

impl Keys {
    /// Reads the node's keys, or makes them. `run_dir` is the plane's.
    ///
    /// A file that cannot be understood is replaced: others learn the new keys as they learnt the old.
    pub fn open(run_dir: &Path, now: SystemTime) -> Result<Keys, KeysError> {
        let dir = run_dir.join(DIR);
        let make = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        make.map_err(|source| file("make", &dir, source))?;
        let path = dir.join(FILE);
        match fs::read(&path).map(Zeroizing::new) {
            Ok(bytes) => {
                if let Some(keys) = Keys::parse(&path, &bytes) {
                    return Ok(keys);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(file("read", &path, source)),
        }
        let keys = Keys {
            path,
            force: generate(Slot::Even)?,
            other: generate(Slot::Odd)?,
            phase: Phase::Renewed,
            since: now,
        };
        keys.save()?;
        Ok(keys)
    }

    /// What others must be told, in this order.
    pub fn public(&self) -> Vec<[u8; 32]> {
        [&self.force, &self.other]
            .map(|key| *key.public().as_bytes())
            .into()
    }

    /// When [`Keys::turn`] will have something to do.
    pub fn next_turn(&self) -> SystemTime {
        let duration = match self.phase {
            Phase::Renewed => ROTATION / 2 - PREPARATION,
            Phase::Preparing => PREPARATION,
            Phase::Swapped => ROTATION / 2,
        };
        self.since + duration
    }

    /// Enters the next phase if it is time, and says whether it did: the plane wants the new value then, and others what is now public.
    ///
    /// One phase at a time, however much time has passed: others need it to follow. Not to be called while others cannot be told.
    pub fn turn(&mut self, now: SystemTime) -> Result<bool, KeysError> {
        if now < self.since {
            // The clock was set back. Without this the next turn could be years away.
            self.since = now;
        }
        if now < self.next_turn() {
            return Ok(false);
        }
        self.advance(now)?;
        Ok(true)
    }

    /// Enters the next phase, due or not. Three times is a whole rotation; between two, others must have been told.
    pub fn advance(&mut self, now: SystemTime) -> Result<(), KeysError> {
        let mut next = self.clone();
        next.since = now;
        match self.phase {
            Phase::Renewed => next.phase = Phase::Preparing,
            Phase::Preparing => {
                next.phase = Phase::Swapped;
                std::mem::swap(&mut next.force, &mut next.other);
            }
            Phase::Swapped => {
                next.phase = Phase::Renewed;
                next.other = generate(self.other.public().slot())?;
            }
        }
        next.save()?;
        *self = next;
        Ok(())
    }

    /// The slot of the key in force.
    pub(crate) fn slot(&self) -> Slot {
        self.force.public().slot()
    }

    pub(crate) fn of(&self, slot: Slot) -> &PrivateKey {
        if self.slot() == slot {
            &self.force
        } else {
            &self.other
        }
    }

    /// Whether the other key is about to come into force.
    pub(crate) fn is_preparing(&self) -> bool {
        self.phase == Phase::Preparing
    }

    pub(crate) fn is_own(&self, key: PublicKey) -> bool {
        self.force.public() == key || self.other.public() == key
    }

    fn parse(path: &Path, bytes: &[u8]) -> Option<Keys> {
        let stored: Stored = serde_json::from_slice(bytes).ok()?;
        let keys = Keys {
            path: path.to_owned(),
            force: PrivateKey::from_text(&stored.force)?,
            other: PrivateKey::from_text(&stored.other)?,
            phase: stored.phase,
            since: UNIX_EPOCH.checked_add(Duration::from_secs(stored.since))?,
        };
        let is_pair = keys.force.public().slot() != keys.other.public().slot();
        (stored.version <= VERSION && is_pair).then_some(keys)
    }

    fn save(&self) -> Result<(), KeysError> {
        let since = self.since.duration_since(UNIX_EPOCH).unwrap_or_default();
        let stored = Stored {
            version: VERSION,
            force: self.force.to_text(),
            other: self.other.to_text(),
            phase: self.phase,
            since: since.as_secs(),
        };
        let bytes = serde_json::to_vec(&stored).expect("keys are strings and numbers");
        let bytes = Zeroizing::new(bytes);
        let new = self.path.with_extension("new");
        let write = || {
            // What a crash left behind may have another mode.
            let _ = fs::remove_file(&new);
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(&bytes)?;
            file.sync_data()
        };
        write().map_err(|source| file("write", &new, source))?;
        fs::rename(&new, &self.path).map_err(|source| file("replace", &self.path, source))
    }
}

/// Only what others may know.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("force", &self.force.public())
            .field("other", &self.other.public())
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

fn generate(slot: Slot) -> Result<PrivateKey, KeysError> {
    PrivateKey::generate(slot).map_err(KeysError::Random)
}

fn file(operation: &'static str, path: &Path, source: io::Error) -> KeysError {
    KeysError::File {
        operation,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn at(hours: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_hours(hours)
    }

    #[test]
    fn a_rotation_tells_the_next_key_before_it_is_used_and_keeps_the_last_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut keys = Keys::open(dir.path(), at(100)).unwrap();
        let [a, b] = keys.public()[..] else { panic!() };
        assert!(!keys.turn(at(105)).unwrap());
        assert!(keys.turn(at(106)).unwrap());
        assert!(keys.is_preparing());
        assert_eq!(keys.public(), [a, b]);
        assert!(keys.turn(at(107)).unwrap());
        assert_eq!(keys.public(), [b, a]);
        assert!(!keys.turn(at(112)).unwrap());
        assert!(keys.turn(at(113)).unwrap());
        let [force, c] = keys.public()[..] else {
            panic!()
        };
        assert_eq!(force, b);
        assert!(![a, b].contains(&c));
        assert_ne!(force[0] & 1, c[0] & 1);
        // Long asleep: one phase at a time.
        assert!(keys.turn(at(1000)).unwrap());
        assert!(!keys.turn(at(1000)).unwrap());
        // The clock was years ahead.
        assert!(!keys.turn(at(1)).unwrap());
        assert!(keys.turn(at(2)).unwrap());
    }

    #[test]
    fn keys_survive_the_daemon_and_only_root_can_read_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut keys = Keys::open(dir.path(), at(100)).unwrap();
        keys.advance(at(101)).unwrap();
        assert_eq!(Keys::open(dir.path(), at(102)).unwrap(), keys);
        let path = dir.path().join(DIR).join(FILE);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        fs::write(&path, "damaged").unwrap();
        assert_ne!(Keys::open(dir.path(), at(103)).unwrap(), keys);
    }

    #[test]
    fn what_is_shown_is_public() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(dir.path(), at(100)).unwrap();
        let shown = format!("{keys:?}");
        for key in [&keys.force, &keys.other] {
            assert!(!shown.contains(key.to_text().as_str()));
            assert!(shown.contains(&key.public().to_text()));
        }
    }
}
