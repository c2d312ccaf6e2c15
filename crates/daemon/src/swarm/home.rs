//! The files of a membership, below `<data>/swarm`. Layout and crash safety: `docs/design/node.md`.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use skep_ca::{CertificateDir, FileError, Lock, ResealError};
use skep_manager::StartError;
use skep_model::dispatch::WeightedPeer;
use skep_raft::{Dek, Disk, DiskError, Kek, KeyFile, KeyFileError};
use skep_rpc::Credentials;
use tracing::warn;

use super::identity::{Identity, IdentityError};

const IDENTITY: &str = "identity.json";
const MANAGERS: &str = "managers.json";
const KEY: &str = "raft-key";
/// Where version 1 kept the log.
const OLD_LOG: &str = "raft";
/// Preference of remembered managers; Swarm's value for all.
const WEIGHT: i64 = 10;
/// Managers remembered; a group has far fewer.
const MANAGERS_MAX: usize = 256;

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(super) struct Home(PathBuf);

/// Why files cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum HomeError {
    #[error("failed to access `{path}`")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Certificate(#[from] FileError),
    #[error("certificate or root is missing")]
    NoCertificate,
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error(transparent)]
    Reseal(#[from] ResealError<KeyFileError>),
    #[error("managers are malformed")]
    Managers(#[source] serde_json::Error),
}

/// `managers.json`.
#[derive(Serialize, Deserialize)]
struct Managers {
    version: u32,
    managers: Vec<Peer>,
}

#[derive(Serialize, Deserialize)]
struct Peer {
    node_id: String,
    addr: String,
}

// === impl Home ===

impl Home {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self(dir)
    }

    /// Creates the directory, empty.
    pub(super) fn prepare(&self) -> Result<(), HomeError> {
        self.clear()?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .map_err(|source| self.failed("", source))
    }

    /// Removes everything; the identity first, so that a crash leaves no half membership.
    pub(super) fn clear(&self) -> Result<(), HomeError> {
        remove_file(&self.0.join(IDENTITY)).map_err(|source| self.failed(IDENTITY, source))?;
        remove_dir(&self.0).map_err(|source| self.failed("", source))
    }

    /// Moves a directory without identity beside: it is what an unfinished `init` or `join` left, or
    /// a membership whose identity was lost.
    pub(super) fn set_aside(&self) -> Result<(), HomeError> {
        if !self.0.exists() {
            return Ok(());
        }
        let aside = self.0.with_extension("incomplete");
        warn!(path = %aside.display(), "Cluster state without identity is set aside");
        remove_dir(&aside)
            .and_then(|()| fs::rename(&self.0, aside))
            .map_err(|source| self.failed("", source))
    }

    /// The stored identity; `None` when there is none.
    pub(super) fn identity(&self) -> Result<Option<Identity>, HomeError> {
        match self.read(IDENTITY)? {
            Some(bytes) => Ok(Some(Identity::decode(&bytes)?)),
            None => Ok(None),
        }
    }

    /// Stores the identity durably. Until then the membership does not exist.
    pub(super) fn store_identity(&self, identity: &Identity) -> Result<(), HomeError> {
        self.replace(IDENTITY, &identity.encode())
    }

    /// The managers remembered; none when there are none to be read.
    pub(super) fn managers(&self) -> Vec<WeightedPeer> {
        let read = || -> Result<Vec<WeightedPeer>, HomeError> {
            let Some(bytes) = self.read(MANAGERS)? else {
                return Ok(Vec::new());
            };
            let stored: Managers = serde_json::from_slice(&bytes).map_err(HomeError::Managers)?;
            let peers = stored.managers.into_iter().filter_map(|peer| {
                Some(WeightedPeer {
                    node_id: peer.node_id.parse().ok()?,
                    addr: peer.addr,
                    weight: WEIGHT,
                })
            });
            Ok(peers.take(MANAGERS_MAX).collect())
        };
        read().unwrap_or_else(|error| {
            warn!(error = %error, "Failed to read the managers remembered");
            Vec::new()
        })
    }

    /// Remembers managers for the next start.
    pub(super) fn store_managers(&self, managers: &[WeightedPeer]) -> Result<(), HomeError> {
        let peers = managers.iter().map(|peer| Peer {
            node_id: peer.node_id.to_string(),
            addr: peer.addr.clone(),
        });
        let stored = Managers {
            version: 1,
            managers: peers.collect(),
        };
        let bytes = serde_json::to_vec_pretty(&stored).expect("plain values are JSON");
        self.replace(MANAGERS, &bytes)
    }

    /// Where the agent keeps its tasks.
    pub(super) fn worker(&self) -> PathBuf {
        self.0.join("worker")
    }

    /// Certificate, key and roots of this node.
    pub(super) fn credentials(&self, lock: &Lock) -> Result<Credentials, HomeError> {
        let files = self.certificates(lock)?;
        let roots_pem = files.load_root()?.ok_or(HomeError::NoCertificate)?;
        let identity = files.load_identity()?;
        let identity = identity.ok_or(HomeError::NoCertificate)?;
        Ok(Credentials {
            chain_pem: identity.chain_pem,
            key_pem: identity.key_pem,
            roots_pem,
        })
    }

    /// Stores certificate and key together, the key sealed with `lock`.
    pub(super) fn store_certificate(
        &self,
        chain_pem: &str,
        key_pem: &str,
        lock: &Lock,
    ) -> Result<(), HomeError> {
        let files = self.certificates(lock)?;
        Ok(files.save_identity(chain_pem, key_pem)?)
    }

    /// Stores the roots trusted.
    pub(super) fn store_roots(&self, roots_pem: &str) -> Result<(), HomeError> {
        let files = self.certificates(&Lock::default())?;
        Ok(files.save_root(roots_pem)?)
    }

    /// Whether the node's keys wait for an unlock key.
    pub(super) fn is_locked(&self) -> Result<bool, HomeError> {
        match self.log_key(&Lock::default()) {
            Err(HomeError::Key(KeyFileError::Locked)) => Ok(true),
            Ok(Some(_)) => Ok(false),
            Ok(None) => Ok(self.certificates(&Lock::default())?.is_locked()?),
            Err(error) => Err(error),
        }
    }

    /// Whether `lock` opens everything that is sealed.
    pub(super) fn opens(&self, lock: &Lock) -> Result<bool, HomeError> {
        match self.log_key(lock).and_then(|_| self.credentials(lock)) {
            Ok(_) => Ok(true),
            Err(
                HomeError::Key(KeyFileError::Locked)
                | HomeError::Certificate(FileError::Locked(_))
                | HomeError::Key(KeyFileError::WrongKek)
                | HomeError::Certificate(FileError::WrongKek(_)),
            ) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn certificates(&self, lock: &Lock) -> Result<CertificateDir, HomeError> {
        let files = CertificateDir::open(&self.0.join("certificates"))?;
        Ok(files.with_lock(self.versioned(lock)))
    }

    /// `lock` as the log's key has it: that file decides whether there is a lock at all, and by its
    /// version whether an interrupted change of the node's key is finished. A key for a plain file
    /// opens it too, but must not be what the next certificate is sealed with.
    fn versioned(&self, lock: &Lock) -> Lock {
        let path = self.0.join(KEY);
        let Ok(Some(key)) = self.log_key(lock) else {
            return lock.clone();
        };
        let is_sealed = KeyFile::is_locked(&path).unwrap_or(true);
        Lock {
            key: lock.key.clone().filter(|_| is_sealed),
            version: key.kek_version,
        }
    }

    /// Which of `locks` the keys are sealed with now.
    pub(super) fn lock_in_force(&self, locks: [&Lock; 2]) -> Result<Lock, HomeError> {
        for lock in locks {
            if self.opens(lock)? {
                return Ok(self.versioned(lock));
            }
        }
        Err(HomeError::NoCertificate)
    }

    /// The key of the manager's log; `None` when there is none.
    fn log_key(&self, lock: &Lock) -> Result<Option<KeyFile>, HomeError> {
        let path = self.0.join(KEY);
        if !path.exists() {
            return Ok(None);
        }
        Ok(Some(KeyFile::load(&path, kek(lock).as_ref())?))
    }

    /// Opens the log of the member `raft_id`, and makes one with a new key where there is none.
    pub(super) fn open_log(&self, raft_id: u64, lock: &Lock) -> Result<Disk, StartError> {
        let engine = |error: HomeError| DiskError::Engine(Box::new(error));
        let key = match self.log_key(lock).map_err(engine)? {
            Some(key) => key,
            None => self.new_log_key(lock).map_err(engine)?,
        };
        Ok(Disk::open(&self.log_dir(raft_id), &key.dek)?)
    }

    fn new_log_key(&self, lock: &Lock) -> Result<KeyFile, HomeError> {
        let key = KeyFile {
            dek: Dek::generate(),
            kek_version: lock.version,
        };
        key.save(&self.0.join(KEY), kek(lock).as_ref())?;
        Ok(key)
    }

    fn log_dir(&self, raft_id: u64) -> PathBuf {
        let own = self.0.join(format!("{OLD_LOG}-{raft_id:016x}"));
        let old = self.0.join(OLD_LOG);
        if !own.exists() && old.exists() {
            old
        } else {
            own
        }
    }

    /// Removes logs that are not of the member `raft_id`: debris of a switch from one to another.
    pub(super) fn remove_stale_logs(&self, raft_id: u64) {
        let own = self.log_dir(raft_id);
        for path in self.logs().into_iter().filter(|path| *path != own) {
            if let Err(error) = remove_dir(&path) {
                warn!(path = %path.display(), error = %error, "Failed to remove an old log");
            }
        }
    }

    /// Removes log and key of a manager that is none any more.
    pub(super) fn remove_logs(&self) -> Result<(), HomeError> {
        for path in self.logs() {
            remove_dir(&path).map_err(|source| HomeError::Io { path, source })?;
        }
        remove_file(&self.0.join(KEY)).map_err(|source| self.failed(KEY, source))
    }

    fn logs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let names = entries.filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name == OLD_LOG || name.starts_with("raft-") && name != KEY
        });
        names.map(|entry| entry.path()).collect()
    }

    /// Seals the manager's keys, open under `old`, with `new`; after a crash one of the two opens
    /// all of them.
    pub(super) fn reseal(&self, old: &Lock, new: &Lock) -> Result<(), HomeError> {
        let log_key = self.log_key(old)?;
        let files = self.certificates(old)?;
        let commit = || match &log_key {
            None => Ok(()),
            Some(key) => {
                let key = KeyFile {
                    dek: key.dek.clone(),
                    kek_version: new.version,
                };
                key.save(&self.0.join(KEY), kek(new).as_ref())
            }
        };
        files.reseal(new.clone(), commit)?;
        Ok(())
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, HomeError> {
        match fs::read(self.0.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.failed(name, source)),
        }
    }

    /// Replaces a file durably; after a crash it is the old or the new one.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), HomeError> {
        let write = || {
            let (path, temporary) = (self.0.join(name), self.0.join(format!("{name}.new")));
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(temporary, path)?;
            fs::File::open(&self.0)?.sync_all()
        };
        write().map_err(|source| self.failed(name, source))
    }

    fn failed(&self, name: &str, source: io::Error) -> HomeError {
        HomeError::Io {
            path: self.0.join(name),
            source,
        }
    }
}

fn kek(lock: &Lock) -> Option<Kek> {
    let key = lock.key.as_ref();
    key.map(|key| Kek::from_bytes(*key.expose()))
}

fn remove_file(path: &Path) -> io::Result<()> {
    ignore_missing(fs::remove_file(path))
}

fn remove_dir(dir: &Path) -> io::Result<()> {
    ignore_missing(fs::remove_dir_all(dir))
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
