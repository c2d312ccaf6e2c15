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

use rcgen::{KeyPair, PublicKeyData as _};
use zeroize::Zeroizing;

use crate::certificate::{CertificateError, NodeCertificate, parse, read_pem};

const ROOT_FILE: &str = "swarm-root-ca.crt";
const CERTIFICATE_FILE: &str = "swarm-node.crt";
const KEY_FILE: &str = "swarm-node.key";
/// Of a file that is complete and not in force yet.
const STAGED_SUFFIX: &str = ".tmp";
/// Largest file read.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// A directory with a node's root, certificate and key.
#[derive(Clone, Debug)]
pub struct CertificateDir(PathBuf);

/// A node's certificate with its key.
#[derive(Clone)]
pub struct Identity {
    /// The certificate and intermediates, PEM.
    pub chain_pem: String,
    /// The private key, PEM.
    pub key_pem: Zeroizing<String>,
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
        Ok(Self(path.to_owned()))
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

    /// The node's certificate and key; `None` if there are none.
    ///
    /// # Errors
    /// They cannot be read, or do not belong together.
    pub fn load_identity(&self) -> Result<Option<Identity>, FileError> {
        let Some(key_pem) = self.read(KEY_FILE)?.map(Zeroizing::new) else {
            return Ok(None);
        };
        let key_path = self.0.join(KEY_FILE);
        let key = KeyPair::from_pem(&key_pem).map_err(|_| FileError::Key(key_path.clone()))?;
        let staged = format!("{CERTIFICATE_FILE}{STAGED_SUFFIX}");
        for name in [CERTIFICATE_FILE, &staged] {
            let Some(chain_pem) = self.read(name)? else {
                continue;
            };
            let is_staged = name == staged;
            match read_leaf(&chain_pem) {
                Ok((certificate, spki)) if spki == key.subject_public_key_info() => {
                    if is_staged {
                        self.enforce(CERTIFICATE_FILE)?;
                    }
                    return Ok(Some(Identity {
                        chain_pem,
                        key_pem,
                        certificate,
                    }));
                }
                // A staged certificate that was not completed is as good as none.
                Ok(_) => {}
                Err(_) if is_staged => {}
                Err(source) => {
                    return Err(FileError::Certificate {
                        path: self.0.join(name),
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

    /// Replaces certificate and key together; after a crash both are the old or both the new ones.
    ///
    /// # Errors
    /// They do not belong together (nothing is changed), or a file cannot be written.
    pub fn save_identity(&self, chain_pem: &str, key_pem: &str) -> Result<(), FileError> {
        let key_path = self.0.join(KEY_FILE);
        let key = KeyPair::from_pem(key_pem).map_err(|_| FileError::Key(key_path.clone()))?;
        let (_, spki) = read_leaf(chain_pem).map_err(|source| FileError::Certificate {
            path: self.0.join(CERTIFICATE_FILE),
            source,
        })?;
        if spki != key.subject_public_key_info() {
            return Err(FileError::Key(key_path));
        }
        self.stage(CERTIFICATE_FILE, chain_pem, 0o644)?;
        self.stage(KEY_FILE, key_pem, 0o600)?;
        self.enforce(KEY_FILE)?;
        self.enforce(CERTIFICATE_FILE)
    }

    fn read(&self, name: &str) -> Result<Option<String>, FileError> {
        let path = self.0.join(name);
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
        let path = self.0.join(format!("{name}{STAGED_SUFFIX}"));
        let write = || {
            // Removed first: an existing file would keep its mode.
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let mut options = fs::OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::File::open(&self.0)?.sync_all()
        };
        write().map_err(|source| FileError::Io {
            path: path.clone(),
            source,
        })
    }

    /// Puts a staged file in force, durably.
    fn enforce(&self, name: &str) -> Result<(), FileError> {
        let path = self.0.join(name);
        fs::rename(self.0.join(format!("{name}{STAGED_SUFFIX}")), &path)
            .and_then(|()| fs::File::open(&self.0)?.sync_all())
            .map_err(|source| FileError::Io { path, source })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
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
