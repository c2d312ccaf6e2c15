//! The data encryption key of a manager's state, and the file it is kept in: plain, or sealed by the key encryption key
//! when autolock is on.
//!
//! File, version 1: `SKEPKEY`, version byte, mode byte (0 plain, 1 sealed by the KEK), KEK version (u64, big endian), then the
//! DEK sealed with the 17 bytes before it as place. In mode 0 the sealing key is all zeros: that only detects damage.

use std::{
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use zeroize::Zeroize as _;

use crate::seal::Sealer;

pub(crate) const KEY_BYTES: usize = 32;
const MAGIC: &[u8; 7] = b"SKEPKEY";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 17;
/// A key file is 89 bytes; more is not read.
const FILE_BYTES_MAX: u64 = 4096;

macro_rules! key_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq)]
        pub struct $name([u8; KEY_BYTES]);

        impl $name {
            /// A new key from the kernel's random numbers.
            #[must_use]
            pub fn generate() -> Self {
                let mut bytes = [0; KEY_BYTES];
                getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
                Self(bytes)
            }

            /// A key known already.
            #[must_use]
            pub fn from_bytes(mut bytes: [u8; KEY_BYTES]) -> Self {
                let key = Self(bytes);
                bytes.zeroize();
                key
            }

            /// The key itself; for sealing and for handing to the user only.
            #[must_use]
            pub fn expose(&self) -> &[u8; KEY_BYTES] {
                &self.0
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                self.0.zeroize();
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

key_type! {
    /// Data encryption key: seals log and snapshots.
    Dek
}
key_type! {
    /// Key encryption key: the unlock key of autolock; seals the [`Dek`].
    Kek
}

/// What a key file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// The data encryption key.
    pub dek: Dek,
    /// Version of the cluster object the KEK came from; 0 without autolock.
    pub kek_version: u64,
}

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read or written.
    #[error("failed to access key file `{path}`")]
    Io {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is something else, or cut off.
    #[error("file is not a key file")]
    NotAKeyFile,
    /// Written by another version.
    #[error("key file has version `{0}`, this version reads `1`")]
    Version(u8),
    /// Autolock is on and no unlock key was given.
    #[error("key file is locked")]
    Locked,
    /// The unlock key is wrong, or the file damaged.
    #[error("key file does not open with this unlock key")]
    WrongKek,
    /// The file is damaged.
    #[error("key file is damaged")]
    Damaged,
}

// === impl KeyFile ===

impl KeyFile {
    /// The file's bytes, sealed by `kek` if there is one.
    #[must_use]
    pub fn encode(&self, kek: Option<&Kek>) -> Vec<u8> {
        let mut file = MAGIC.to_vec();
        file.extend([VERSION, u8::from(kek.is_some())]);
        file.extend(self.kek_version.to_be_bytes());
        let sealed = sealer(kek).seal(&file, self.dek.expose());
        file.extend(sealed);
        file
    }

    /// Reads the file's bytes. A KEK given for a plain file is ignored.
    ///
    /// # Errors
    /// The bytes are not a key file, or do not open.
    pub fn decode(file: &[u8], kek: Option<&Kek>) -> Result<Self, KeyFileError> {
        let (header, sealed) = file
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(KeyFileError::NotAKeyFile)?;
        let [magic @ .., _, _, _, _, _, _, _, _, _, _] = header;
        if magic != MAGIC {
            return Err(KeyFileError::NotAKeyFile);
        }
        if header[7] != VERSION {
            return Err(KeyFileError::Version(header[7]));
        }
        let (kek, failure) = match header[8] {
            0 => (None, KeyFileError::Damaged),
            1 => (
                Some(kek.ok_or(KeyFileError::Locked)?),
                KeyFileError::WrongKek,
            ),
            _ => return Err(KeyFileError::Damaged),
        };
        let plain = sealer(kek).open(header, sealed);
        let dek = plain.and_then(|plain| <[u8; KEY_BYTES]>::try_from(&plain[..]).ok());
        let dek = Dek::from_bytes(dek.ok_or(failure)?);
        let version = header
            .last_chunk::<8>()
            .expect("the header ends with eight bytes");
        Ok(Self {
            dek,
            kek_version: u64::from_be_bytes(*version),
        })
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// It cannot be read, or does not open.
    pub fn load(path: &Path, kek: Option<&Kek>) -> Result<Self, KeyFileError> {
        let io = |source| KeyFileError::Io {
            path: path.to_owned(),
            source,
        };
        if fs::metadata(path).map_err(io)?.len() > FILE_BYTES_MAX {
            return Err(KeyFileError::NotAKeyFile);
        }
        let mut file = fs::read(path).map_err(io)?;
        let key = Self::decode(&file, kek);
        file.zeroize();
        key
    }

    /// Whether a key file is sealed by a KEK. Of a manager this decides whether a start needs the unlock key.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub fn is_locked(path: &Path) -> Result<bool, KeyFileError> {
        match Self::load(path, None) {
            Ok(_) => Ok(false),
            Err(KeyFileError::Locked) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Writes or replaces a key file, mode 0600; after a crash it is the old or the new one.
    ///
    /// # Errors
    /// The old file is unchanged.
    pub fn save(&self, path: &Path, kek: Option<&Kek>) -> Result<(), KeyFileError> {
        let mut bytes = self.encode(kek);
        let written = replace(path, &bytes);
        bytes.zeroize();
        written.map_err(|source| KeyFileError::Io {
            path: path.to_owned(),
            source,
        })
    }
}

fn sealer(kek: Option<&Kek>) -> Sealer {
    kek.map_or_else(
        || Sealer::new(&[0; KEY_BYTES]),
        |kek| Sealer::new(kek.expose()),
    )
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    // Removed first: an existing file would keep its mode.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => fs::File::open(parent)?.sync_all(),
        Some(_) | None => fs::File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests;
