//! Volumes on disk: records, data directories, who holds what.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    super::record::replace_file,
    Error,
    mounting::{mounted_below, unmount},
};

/// The driver that needs no plugin.
pub const LOCAL_DRIVER: &str = "local";
/// Name of the record in a volume's directory.
const FILE: &str = "volume.json";
/// Name of the directory that is mounted.
const DATA: &str = "_data";
/// Where a volume is filled before its contents appear.
const STAGING: &str = "_fill";
/// Name of the directory of holders.
const HOLDERS: &str = "holders";
/// Longest volume name: a file name.
const NAME_BYTES_MAX: usize = 255;

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Unique on the node.
    pub name: String,
    /// `local`, or a plugin's name.
    #[serde(default = "local")]
    pub driver: String,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// Options for the driver.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Nanoseconds since the epoch.
    pub created_at_ns: i64,
    /// Made for one container and removed with it.
    pub is_anonymous: bool,
}

fn local() -> String {
    LOCAL_DRIVER.to_owned()
}

// === impl Volume ===

impl Volume {
    /// Of this node, without a plugin.
    pub fn is_local(&self) -> bool {
        self.driver == LOCAL_DRIVER
    }

    /// Just a directory.
    pub(super) fn is_plain(&self) -> bool {
        self.is_local() && self.options.is_empty()
    }
}

pub(super) fn data_dir(root: &Path, name: &str) -> PathBuf {
    root.join(name).join(DATA)
}

/// Makes `root`, removes debris, and finds who holds what.
pub(super) fn sweep(root: &Path) -> io::Result<BTreeMap<String, BTreeSet<String>>> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(root)?;
    let mut held: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in fs::read_dir(root)? {
        let dir = entry?.path();
        if !dir.join(FILE).exists() {
            remove_tree(&dir)?;
            continue;
        }
        let name = dir
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        for holder in fs::read_dir(dir.join(HOLDERS))
            .into_iter()
            .flatten()
            .flatten()
        {
            let owner = holder.file_name().to_string_lossy().into_owned();
            held.entry(name.clone()).or_default().insert(owner);
        }
    }
    Ok(held)
}

pub(super) fn read(root: &Path, name: &str) -> Result<Volume, Error> {
    check_name(name).map_err(|_| Error::NotFound(name.to_owned()))?;
    let bytes = match fs::read(root.join(name).join(FILE)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::NotFound(name.to_owned()));
        }
        Err(error) => return Err(Error::Io(name.to_owned(), error)),
    };
    serde_json::from_slice(&bytes).map_err(|error| Error::Io(name.to_owned(), error.into()))
}

pub(super) fn list(root: &Path) -> io::Result<Vec<Volume>> {
    let mut volumes = Vec::new();
    for entry in fs::read_dir(root)? {
        let name = entry?.file_name();
        volumes.extend(name.to_str().and_then(|name| read(root, name).ok()));
    }
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(volumes)
}

/// The record comes last: what has none is debris.
pub(super) fn write(root: &Path, volume: &Volume) -> io::Result<()> {
    let dir = root.join(&volume.name);
    let make = |dir: &Path, mode| fs::DirBuilder::new().recursive(true).mode(mode).create(dir);
    let made = make(&dir, 0o711).and_then(|()| {
        if volume.is_local() {
            make(&dir.join(DATA), 0o755)?;
        }
        replace_file(&dir.join(FILE), &serde_json::to_vec(volume)?)
    });
    if made.is_err() {
        let _ = remove_tree(&dir);
    }
    made
}

/// Removes a volume. What was mounted on it is another's, and stays.
pub(super) fn remove(root: &Path, volume: &Volume) -> io::Result<()> {
    let dir = root.join(&volume.name);
    // Without its record the rest is debris, whatever happens next.
    match fs::remove_file(dir.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    remove_tree(&dir)
}

/// Removes a directory, and never what is mounted in it.
fn remove_tree(dir: &Path) -> io::Result<()> {
    for point in mounted_below(dir) {
        unmount(&point)?;
    }
    if let Some(left) = mounted_below(dir).first() {
        let text = format!("`{}` is still mounted", left.display());
        return Err(io::Error::other(text));
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Where a container was given a volume; `None`: not yet, or a crash came between.
pub(super) fn held_at(root: &Path, name: &str, owner: &str) -> Option<PathBuf> {
    let text = fs::read_to_string(holder_file(root, name, owner)).ok()?;
    (!text.is_empty()).then(|| PathBuf::from(text))
}

pub(super) fn write_holder(
    root: &Path,
    (name, owner): (&str, &str),
    path: Option<&Path>,
) -> io::Result<()> {
    let file = holder_file(root, name, owner);
    fs::create_dir_all(file.parent().unwrap_or(root))?;
    let text = path.map_or(String::new(), |path| path.display().to_string());
    replace_file(&file, text.as_bytes())
}

pub(super) fn remove_holder(root: &Path, name: &str, owner: &str) {
    let _ = fs::remove_file(holder_file(root, name, owner));
}

fn holder_file(root: &Path, name: &str, owner: &str) -> PathBuf {
    root.join(name).join(HOLDERS).join(owner)
}

/// Lets `fill` fill `data` if nothing is in it. `is_staged`: all of it appears at once, or nothing.
pub(super) fn fill_empty(
    data: &Path,
    is_staged: bool,
    fill: impl FnOnce(&Path) -> io::Result<bool>,
) -> io::Result<()> {
    if fs::read_dir(data)?.next().is_some() {
        return Ok(());
    }
    if !is_staged {
        return fill(data).map(drop);
    }
    let staging = data.with_file_name(STAGING);
    match fs::remove_dir_all(&staging) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    fs::DirBuilder::new().mode(0o755).create(&staging)?;
    let filled = fill(&staging).and_then(|has_filled| match has_filled {
        true => fs::rename(&staging, data),
        false => fs::remove_dir(&staging),
    });
    if filled.is_err() {
        let _ = fs::remove_dir_all(&staging);
    }
    filled
}

/// Copies owner and mode of `from` to `to`, as Docker does for a volume's root.
pub(crate) fn copy_owner(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::metadata(from)?;
    chown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777))
}

pub(super) fn check_name(name: &str) -> Result<(), Error> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let is_fitting = (2..=NAME_BYTES_MAX).contains(&name.len());
    if starts_well && is_fitting && name.chars().all(is_allowed) {
        Ok(())
    } else {
        Err(Error::Name(name.chars().take(NAME_BYTES_MAX).collect()))
    }
}

/// Bytes of all files below `dir`; unreadable ones count nothing.
pub(crate) fn directory_bytes(dir: &Path) -> u64 {
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
