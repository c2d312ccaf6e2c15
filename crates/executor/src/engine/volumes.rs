//! Local volumes: directories with a record, filled from the image when new.
//!
//! Only the `local` driver without options. Layout: `<root>/<name>/_data` and
//! `<root>/<name>/volume.json`; a directory without record is debris of a crash and is swept.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::record::replace_file;

/// Name of the record in a volume's directory.
const FILE: &str = "volume.json";
/// Name of the directory that is mounted.
const DATA: &str = "_data";
/// Longest volume name: a file name.
const NAME_BYTES_MAX: usize = 255;

/// A local volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Unique on the node.
    pub name: String,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// Nanoseconds since the epoch.
    pub created_at_ns: i64,
    /// Made for one container and removed with it.
    pub is_anonymous: bool,
}

/// Why a volume operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name cannot be a file name. The text is Docker's.
    #[error(
        "create {0}: volume name is too short, names should be at least two alphanumeric \
         characters or contains invalid characters: only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed"
    )]
    Name(String),
    /// No such volume. The text is Docker's.
    #[error("get {0}: no such volume")]
    NotFound(String),
    /// A container uses it. The text is Docker's.
    #[error("remove {0}: volume is in use - [{1}]")]
    InUse(String, String),
    /// The file system failed.
    #[error("volume `{0}`: {1}")]
    Io(String, #[source] io::Error),
}

/// All volumes of the node.
#[derive(Debug)]
pub struct Volumes {
    root: PathBuf,
    /// Held while a volume comes or goes, so that two containers do not both fill a new one.
    gate: Mutex<()>,
}

impl Volumes {
    /// Opens the volumes below `root`.
    pub fn open(root: &Path) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(root)?;
        for entry in fs::read_dir(root)? {
            let dir = entry?.path();
            if !dir.join(FILE).exists() {
                fs::remove_dir_all(&dir)?;
            }
        }
        Ok(Self {
            root: root.to_owned(),
            gate: Mutex::default(),
        })
    }

    /// The directory that is mounted.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name).join(DATA)
    }

    /// The volume called `name`.
    pub fn get(&self, name: &str) -> Result<Volume, Error> {
        check_name(name).map_err(|_| Error::NotFound(name.to_owned()))?;
        let bytes = match fs::read(self.root.join(name).join(FILE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotFound(name.to_owned()));
            }
            Err(error) => return Err(Error::Io(name.to_owned(), error)),
        };
        serde_json::from_slice(&bytes).map_err(|error| Error::Io(name.to_owned(), error.into()))
    }

    /// All volumes, by name. Unreadable ones are left out.
    pub fn list(&self) -> io::Result<Vec<Volume>> {
        let mut volumes = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let name = entry?.file_name();
            volumes.extend(name.to_str().and_then(|name| self.get(name).ok()));
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    /// Makes a volume unless it exists; true when it was made. `fill` gets the new directory
    /// before anybody can see the volume.
    pub fn ensure(
        &self,
        volume: &Volume,
        fill: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<bool, Error> {
        check_name(&volume.name)?;
        let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = self.root.join(&volume.name);
        if dir.join(FILE).exists() {
            return Ok(false);
        }
        let io_error = |error| Error::Io(volume.name.clone(), error);
        let made = make(&dir, volume, fill);
        if made.is_err() {
            let _ = fs::remove_dir_all(&dir);
        }
        made.map_err(io_error)?;
        Ok(true)
    }

    /// Removes a volume that no container of `users` (volume name → container id) uses.
    pub fn remove(&self, name: &str, users: &BTreeMap<String, String>) -> Result<(), Error> {
        let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.get(name)?;
        if let Some(container) = users.get(name) {
            return Err(Error::InUse(name.to_owned(), container.clone()));
        }
        let dir = self.root.join(name);
        // Without its record the rest is debris, whatever happens next.
        fs::remove_file(dir.join(FILE))
            .and_then(|()| fs::remove_dir_all(&dir))
            .map_err(|error| Error::Io(name.to_owned(), error))
    }

    /// Bytes of all files of a volume; unreadable ones count nothing.
    pub fn size_bytes(&self, name: &str) -> u64 {
        directory_bytes(&self.path(name))
    }
}

fn make(dir: &Path, volume: &Volume, fill: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let data = dir.join(DATA);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(dir)?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&data)?;
    fill(&data)?;
    replace_file(&dir.join(FILE), &serde_json::to_vec(volume)?)
}

/// Copies owner and mode of `from` to `to`, as Docker does for a volume's root.
pub(super) fn copy_owner(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::metadata(from)?;
    chown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777))
}

fn check_name(name: &str) -> Result<(), Error> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let is_fitting = (2..=NAME_BYTES_MAX).contains(&name.len());
    if starts_well && is_fitting && name.chars().all(is_allowed) {
        Ok(())
    } else {
        Err(Error::Name(name.chars().take(NAME_BYTES_MAX).collect()))
    }
}

pub(super) fn directory_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    let mut bytes = 0;
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        bytes += if metadata.is_dir() {
            directory_bytes(&entry.path())
        } else {
            metadata.len()
        };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(name: &str) -> Volume {
        Volume {
            name: name.to_owned(),
            labels: BTreeMap::new(),
            created_at_ns: 0,
            is_anonymous: false,
        }
    }

    #[test]
    fn a_volume_is_made_once_and_filled_once() {
        let root = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(root.path()).unwrap();
        let fill = |dir: &Path| fs::write(dir.join("a"), "1");
        assert!(volumes.ensure(&volume("data"), fill).unwrap());
        assert!(
            !volumes
                .ensure(&volume("data"), |_| panic!("filled twice"))
                .unwrap()
        );
        assert_eq!(fs::read(volumes.path("data").join("a")).unwrap(), b"1");
        assert_eq!(volumes.list().unwrap(), [volume("data")]);
    }

    #[test]
    fn a_volume_whose_filling_failed_does_not_exist() {
        let root = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(root.path()).unwrap();
        let fail = |_: &Path| Err(io::Error::other("full"));
        assert!(volumes.ensure(&volume("data"), fail).is_err());
        assert!(matches!(volumes.get("data"), Err(Error::NotFound(_))));
    }

    #[test]
    fn a_used_volume_stays() {
        let root = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(root.path()).unwrap();
        volumes.ensure(&volume("data"), |_| Ok(())).unwrap();
        let users = BTreeMap::from([("data".to_owned(), "c1".to_owned())]);
        assert!(matches!(
            volumes.remove("data", &users),
            Err(Error::InUse(..))
        ));
        volumes.remove("data", &BTreeMap::new()).unwrap();
        assert!(matches!(
            volumes.remove("data", &users),
            Err(Error::NotFound(_))
        ));
    }

    #[test]
    fn debris_is_swept_and_bad_names_are_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("half/_data")).unwrap();
        let volumes = Volumes::open(root.path()).unwrap();
        assert!(!root.path().join("half").exists());
        for name in ["", "a", "../x", "a/b", ".hidden", "é1"] {
            assert!(matches!(
                volumes.ensure(&volume(name), |_| Ok(())),
                Err(Error::Name(_))
            ));
        }
    }
}
