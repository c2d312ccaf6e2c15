//! The directory of a node's certificates, with dockerd's file names. How key and certificate change together is told in
//! `docs/design/ca.md`.

#[cfg(test)]
mod tests;

use std::{
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rcgen::PublicKeyData as _;
use zeroize::Zeroizing;

use crate::{
    certificate::{CertificateError, NodeCertificate, parse, read_pem},
    sealed_key::{NotOpened, Opened, StoredKey, seal},
    unlock_key::UnlockKey,
};

const ROOT_FILE: &str = "swarm-root-ca.crt";
const CERTIFICATE_FILE: &str = "swarm-node.crt";
const KEY_FILE: &str = "swarm-node.key";
/// The key under another lock, until it is known whether that lock is in force.
const RESEALED_FILE: &str = "swarm-node.key.reseal";
/// Of a file that is complete and not in force yet.
const STAGED_SUFFIX: &str = ".tmp";
/// Largest file read.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// A directory with a node's root, certificate and key. The key is read and written under a [`Lock`].
#[derive(Clone, Debug)]
pub struct CertificateDir {
    path: PathBuf,
    lock: Lock,
}

/// How a node's key is kept: sealed by the cluster's unlock key or plain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    /// The unlock key; none without autolock.
    pub key: Option<UnlockKey>,
    /// Version of the cluster object that says so; 0 if none ever did. Of a manager, what raft's key file says: this is how
    /// an interrupted change is told from one that was never decided.
    pub version: u64,
}

/// A node's certificate with its key.
#[derive(Clone)]
pub struct Identity {
    /// The certificate and intermediates, PEM.
    pub chain_pem: String,
    /// The private key, PEM, opened.
    pub key_pem: Zeroizing<String>,
    /// [`Lock::version`] the key was saved under.
    pub lock_version: u64,
    /// What the certificate says.
    pub certificate: NodeCertificate,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read or written.
    #[error("failed to access `{path}`")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificate is malformed.
    #[error("certificate in `{path}` is unusable")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: CertificateError,
    },
    /// The key is malformed, or not the certificate's.
    #[error("key in `{0}` does not belong to the certificate")]
    Key(PathBuf),
    /// The key is sealed, and there is no unlock key.
    #[error("key in `{0}` is locked")]
    Locked(PathBuf),
    /// The key is sealed with another unlock key, or damaged.
    #[error("key in `{0}` does not open with this unlock key")]
    WrongKek(PathBuf),
}

/// Why a lock was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ResealError<E: std::error::Error + 'static> {
    /// There is no key, or it cannot be read or written.
    #[error("failed to seal the node's key anew")]
    File(#[source] FileError),
    /// There is no certificate yet.
    #[error("node has no certificate")]
    NoIdentity,
    /// What decides did not change, or nobody knows.
    #[error("failed to change the lock of the manager's state")]
    Commit(#[source] E),
}

// === impl CertificateDir ===

impl CertificateDir {
    /// Opens or creates (mode 0700) the directory.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let created = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path);
        created.map_err(|source| FileError::Io {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            lock: Lock::default(),
        })
    }

    /// The same directory with the key under `lock`.
    #[must_use]
    pub fn with_lock(self, lock: Lock) -> Self {
        Self { lock, ..self }
    }

    /// The lock the key is read and written under.
    #[must_use]
    pub fn lock(&self) -> &Lock {
        &self.lock
    }

    /// Whether the key needs an unlock key. Of a manager, raft's key file decides instead: it changes first.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn is_locked(&self) -> Result<bool, FileError> {
        let text = self.read(KEY_FILE)?.map(Zeroizing::new);
        let key = text.and_then(|text| StoredKey::read(&text));
        Ok(key.is_some_and(|key| key.is_sealed()))
    }

    /// The root certificates trusted, PEM; `None` if none were saved.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn load_root(&self) -> Result<Option<String>, FileError> {
        self.read(ROOT_FILE)
    }

    /// Replaces the root certificates.
    ///
    /// # Errors
    /// The old ones are in force.
    pub fn save_root(&self, certificates_pem: &str) -> Result<(), FileError> {
        self.stage(ROOT_FILE, certificates_pem, 0o644)?;
        self.enforce(ROOT_FILE)
    }

    /// The node's certificate and key; `None` if there are none. Finishes what [`Self::save_identity`] or [`Self::reseal`]
    /// were interrupted in.
    ///
    /// # Errors
    /// They cannot be read, do not belong together, or the key does not open under the lock.
    pub fn load_identity(&self) -> Result<Option<Identity>, FileError> {
        if self.is_resealed()?
            && let Ok(Some(identity)) = self.load_with_key(RESEALED_FILE)
        {
            self.rename(RESEALED_FILE, KEY_FILE)?;
            return Ok(Some(identity));
        }
        self.load_with_key(KEY_FILE)
    }

    /// Whether there is a key under the lock in force that is not in force itself yet.
    fn is_resealed(&self) -> Result<bool, FileError> {
        let text = self.read(RESEALED_FILE)?.map(Zeroizing::new);
        let key = text.and_then(|text| StoredKey::read(&text));
        Ok(key.is_some_and(|key| key.version == self.lock.version))
    }

    fn load_with_key(&self, key_file: &str) -> Result<Option<Identity>, FileError> {
        let Some(text) = self.read(key_file)?.map(Zeroizing::new) else {
            return Ok(None);
        };
        let key_path = self.path.join(key_file);
        let Some(stored) = StoredKey::read(&text) else {
            return Err(FileError::Key(key_path));
        };
        let opened = stored.open(self.lock.key.as_ref());
        let key = opened.map_err(|error| not_opened(error, key_path.clone()))?;
        let staged = format!("{CERTIFICATE_FILE}{STAGED_SUFFIX}");
        for name in [CERTIFICATE_FILE, &staged] {
            let Some(chain_pem) = self.read(name)? else {
                continue;
            };
            let is_staged = name == staged;
            match read_leaf(&chain_pem) {
                Ok((certificate, spki)) if spki == key.pair.subject_public_key_info() => {
                    if is_staged {
                        self.enforce(CERTIFICATE_FILE)?;
                    }
                    return Ok(Some(Identity {
                        chain_pem,
                        key_pem: key.pem,
                        lock_version: stored.version,
                        certificate,
                    }));
                }
                // A staged certificate that was not completed is as good as none.
                Ok(_) => {}
                Err(_) if is_staged => {}
                Err(source) => {
                    return Err(FileError::Certificate {
                        path: self.path.join(name),
                        source,
                    });
                }
            }
        }
        if self.read(CERTIFICATE_FILE)?.is_none() {
            return Ok(None);
        }
        Err(FileError::Key(key_path))
    }

    /// Replaces certificate and key together, the key under the lock; after a crash both are the old or both the new ones.
    ///
    /// # Errors
    /// They do not belong together (nothing is changed), or a file cannot be written.
    pub fn save_identity(&self, chain_pem: &str, key_pem: &str) -> Result<(), FileError> {
        let key_path = self.path.join(KEY_FILE);
        let key = open_plain(key_pem).ok_or_else(|| FileError::Key(key_path.clone()))?;
        let (_, spki) = read_leaf(chain_pem).map_err(|source| FileError::Certificate {
            path: self.path.join(CERTIFICATE_FILE),
            source,
        })?;
        if spki != key.pair.subject_public_key_info() {
            return Err(FileError::Key(key_path));
        }
        let sealed = seal(&key.pem, &self.lock).ok_or(FileError::Key(key_path))?;
        self.discard(RESEALED_FILE)?;
        self.stage(CERTIFICATE_FILE, chain_pem, 0o644)?;
        self.stage(KEY_FILE, &sealed, 0o600)?;
        self.enforce(KEY_FILE)?;
        self.enforce(CERTIFICATE_FILE)
    }

    /// Puts the key under another lock, together with the rest of a manager's secrets: `commit` changes those, and with
    /// them which unlock key a restart needs. Whenever a crash comes, the key that opens those opens this one too, see
    /// `docs/design/ca.md`. For a node without such secrets `commit` does nothing.
    ///
    /// # Errors
    /// Before `commit` nothing has changed. If `commit` itself fails, either lock may be in force: this directory must not
    /// be used until it was opened anew with the key that opens the secrets.
    pub fn reseal<E: std::error::Error + 'static>(
        self,
        lock: Lock,
        commit: impl FnOnce() -> Result<(), E>,
    ) -> Result<Self, ResealError<E>> {
        let identity = self.load_identity().map_err(ResealError::File)?;
        let identity = identity.ok_or(ResealError::NoIdentity)?;
        let sealed = seal(&identity.key_pem, &lock)
            .ok_or_else(|| ResealError::File(FileError::Key(self.path.join(KEY_FILE))))?;
        self.write(RESEALED_FILE, &sealed, 0o600)
            .map_err(ResealError::File)?;
        commit().map_err(ResealError::Commit)?;
        let resealed = self.with_lock(lock);
        // Puts it in force.
        match resealed.load_identity() {
            Ok(Some(_)) => Ok(resealed),
            Ok(None) => Err(ResealError::NoIdentity),
            Err(error) => Err(ResealError::File(error)),
        }
    }

    fn read(&self, name: &str) -> Result<Option<String>, FileError> {
        let path = self.path.join(name);
        let read = || {
            if fs::metadata(&path)?.len() > FILE_BYTES_MAX {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            fs::read_to_string(&path)
        };
        match read() {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FileError::Io { path, source }),
        }
    }

    /// Writes a file beside the one in force, durably.
    fn stage(&self, name: &str, text: &str, mode: u32) -> Result<(), FileError> {
        self.write(&format!("{name}{STAGED_SUFFIX}"), text, mode)
    }

    /// Puts a staged file in force, durably.
    fn enforce(&self, name: &str) -> Result<(), FileError> {
        self.rename(&format!("{name}{STAGED_SUFFIX}"), name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> Result<(), FileError> {
        // Removed first: an existing file would keep its mode.
        self.discard(name)?;
        let path = self.path.join(name);
        let write = || {
            let mut options = fs::OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::File::open(&self.path)?.sync_all()
        };
        write().map_err(|source| FileError::Io {
            path: path.clone(),
            source,
        })
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), FileError> {
        let path = self.path.join(to);
        fs::rename(self.path.join(from), &path)
            .and_then(|()| fs::File::open(&self.path)?.sync_all())
            .map_err(|source| FileError::Io { path, source })
    }

    /// Removes a file, if it is there.
    fn discard(&self, name: &str) -> Result<(), FileError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(FileError::Io { path, source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

fn open_plain(key_pem: &str) -> Option<Opened> {
    StoredKey::read(key_pem)?.open(None).ok()
}

fn not_opened(error: NotOpened, path: PathBuf) -> FileError {
    match error {
        NotOpened::Locked => FileError::Locked(path),
        NotOpened::WrongKey => FileError::WrongKek(path),
        NotOpened::Malformed => FileError::Key(path),
    }
}

/// What the leaf of a chain says, and its public key (SPKI).
fn read_leaf(chain_pem: &str) -> Result<(NodeCertificate, Vec<u8>), CertificateError> {
    let ders = read_pem(chain_pem.as_bytes())?;
    let leaf = ders.first().ok_or(CertificateError::Malformed)?;
    Ok((
        NodeCertificate::from_der(leaf)?,
        parse(leaf)?.public_key().raw.to_vec(),
    ))
}
