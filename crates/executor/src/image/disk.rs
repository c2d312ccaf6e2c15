//! The store's files: names, durable publication, removal. Layout: `docs/design/images.md`.
//!
//! Nothing here decides what lives; `store` does, from the metadata.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::{
    Digest, Error, StoreConfig,
    compression::decompress,
    digest::HashingReader,
    error::Result,
    pins::Pinned,
    tar_stream::TarStream,
    unpack::{self, unpack},
};

/// How long an interrupted download is worth keeping.
const PARTIAL_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The files of a store.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    scratch_count: AtomicU64,
    /// Held for its lock.
    _lock: File,
    #[cfg(test)]
    pub(crate) faults: super::faults::Faults,
}

/// A directory under `tmp/`, removed when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    #[cfg(test)]
    faults: super::faults::Faults,
}

/// `layer.json`: what an unpacked layer was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    /// Of this format: 1.
    pub(crate) version: u32,
    pub(crate) diff_id: Digest,
    /// The archive in `blobs/`, perhaps compressed.
    pub(crate) blob: Digest,
    /// Length of the uncompressed archive.
    pub(crate) tar_bytes: u64,
    /// Sum of file sizes.
    pub(crate) content_bytes: u64,
    pub(crate) entry_count: u64,
}

const LAYER_RECORD_VERSION: u32 = 1;

// === impl Disk ===

impl Disk {
    /// Creates what is missing, takes the lock, removes leftovers.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        for directory in ["blobs/sha256", "layers", "partial", "tmp"] {
            let path = root.join(directory);
            fs::create_dir_all(&path).map_err(Error::io("create", path))?;
        }
        let path = root.join("lock");
        let lock = File::create(&path).map_err(Error::io("create", path))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::Locked(root.to_owned())),
            Err(error) => return Err(Error::io("lock", root.join("lock"))(error.into())),
        }
        let disk = Self {
            root: root.to_owned(),
            scratch_count: AtomicU64::new(0),
            _lock: lock,
            #[cfg(test)]
            faults: super::faults::Faults::default(),
        };
        disk.sweep()?;
        Ok(disk)
    }

    /// Makes the names of a new store durable.
    pub(crate) fn sync_root(&self) -> Result<()> {
        sync_directory(&self.root)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn blob_path(&self, digest: Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    pub(crate) fn has_blob(&self, digest: Digest) -> bool {
        self.blob_path(digest).exists()
    }

    /// Where an interrupted download of a blob waits.
    pub(crate) fn partial_path(&self, digest: Digest) -> PathBuf {
        self.root.join("partial").join(digest.hex())
    }

    fn layer_path(&self, diff_id: Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }

    /// The lower directory of a layer.
    pub(crate) fn layer_fs(&self, diff_id: Digest) -> PathBuf {
        self.layer_path(diff_id).join("fs")
    }

    pub(crate) fn has_layer(&self, diff_id: Digest) -> bool {
        self.layer_path(diff_id).exists()
    }

    pub(crate) fn layer_record(&self, diff_id: Digest) -> Result<LayerRecord> {
        let path = self.layer_path(diff_id).join("layer.json");
        let bytes = fs::read(&path).map_err(Error::io("read", path))?;
        serde_json::from_slice(&bytes).map_err(Error::document("layer record"))
    }

    /// A document among the blobs. `limit` was checked when it came in; here it guards memory against a damaged disk.
    pub(crate) fn read_blob(&self, digest: Digest) -> Result<Vec<u8>> {
        let path = self.blob_path(digest);
        let bytes = fs::read(&path).map_err(Error::io("read", path))?;
        let actual = Digest::of(&bytes);
        if actual != digest {
            return Err(Error::DigestMismatch {
                expected: digest,
                actual,
            });
        }
        Ok(bytes)
    }

    /// A new empty directory that vanishes with its guard.
    pub(crate) fn scratch(&self) -> Result<Scratch> {
        let number = self.scratch_count.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join("tmp").join(number.to_string());
        fs::create_dir(&path).map_err(Error::io("create", &path))?;
        Ok(Scratch {
            path,
            #[cfg(test)]
            faults: self.faults.clone(),
        })
    }

    /// Stores a document.
    pub(crate) fn put_bytes(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if !self.has_blob(digest) {
            let scratch = self.scratch()?;
            let path = scratch.path().join("blob");
            fs::write(&path, bytes).map_err(Error::io("write", &path))?;
            self.publish_blob(&path, digest)?;
        }
        Ok(digest)
    }

    /// Makes the verified file at `path` the blob `digest`, durably.
    pub(crate) fn publish_blob(&self, path: &Path, digest: Digest) -> Result<()> {
        self.step("sync blob")?;
        let file = File::open(path).map_err(Error::io("open", path))?;
        file.sync_all().map_err(Error::io("sync", path))?;
        self.step("publish blob")?;
        let target = self.blob_path(digest);
        fs::rename(path, &target).map_err(Error::io("publish", target))?;
        self.step("sync blobs")?;
        sync_directory(&self.root.join("blobs/sha256"))
    }

    /// Unpacks the blob `blob` and pins its layer. With `expected` the diff id is checked. `progress` is told the bytes read.
    pub(crate) fn unpack_layer(
        &self,
        (blob, expected): (Digest, Option<Digest>),
        config: &StoreConfig,
        pinned: &Pinned,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<LayerRecord> {
        let path = self.blob_path(blob);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let scratch = self.scratch()?;
        let fs_path = scratch.path().join("fs");
        fs::create_dir(&fs_path).map_err(Error::io("create", &fs_path))?;
        set_root_mode(&fs_path)?;
        self.step("unpack layer")?;
        let plain = decompress(
            Observed {
                source: file,
                byte_count: 0,
                progress,
            },
            config.layer_bytes_max,
        )
        .map_err(unpack::Error::from)?;
        let mut stream = TarStream::new(HashingReader::new(plain), config.entries_max);
        let unpacked = unpack(&mut stream, &fs_path)?;
        let (diff_id, tar_bytes) = stream.drain().map_err(unpack::Error::from)?.finish();
        if let Some(expected) = expected.filter(|expected| *expected != diff_id) {
            return Err(Error::DigestMismatch {
                expected,
                actual: diff_id,
            });
        }
        let record = LayerRecord {
            version: LAYER_RECORD_VERSION,
            diff_id,
            blob,
            tar_bytes,
            content_bytes: unpacked.content_bytes,
            entry_count: unpacked.entry_count,
        };
        pinned.add(diff_id);
        self.publish_layer(&scratch, &record)?;
        self.layer_record(diff_id)
    }

    fn publish_layer(&self, scratch: &Scratch, record: &LayerRecord) -> Result<()> {
        let path = scratch.path().join("layer.json");
        let bytes = serde_json::to_vec(record).map_err(Error::document("layer record"))?;
        fs::write(&path, bytes).map_err(Error::io("write", &path))?;
        self.step("sync layer")?;
        let directory = File::open(scratch.path()).map_err(Error::io("open", scratch.path()))?;
        // One flush of the file system instead of one for each of perhaps a million files.
        rustix::fs::syncfs(&directory).map_err(|e| Error::io("sync", scratch.path())(e.into()))?;
        self.step("publish layer")?;
        let target = self.layer_path(record.diff_id);
        match fs::rename(scratch.path(), &target) {
            // Another operation was faster; the content is the same by its digest.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return Ok(()),
            other => other.map_err(Error::io("publish", target))?,
        }
        self.step("sync layers")?;
        sync_directory(&self.root.join("layers"))
    }

    /// Digests of all blobs, or all layers.
    pub(crate) fn blobs(&self) -> Result<Vec<Digest>> {
        list_digests(&self.root.join("blobs/sha256"))
    }

    pub(crate) fn layers(&self) -> Result<Vec<Digest>> {
        list_digests(&self.root.join("layers"))
    }

    /// Takes a blob out of sight, into `into`.
    pub(crate) fn retire_blob(&self, digest: Digest, into: &Scratch) -> Result<()> {
        self.step("retire blob")?;
        let (from, to) = (
            self.blob_path(digest),
            into.path().join(format!("b{}", digest.hex())),
        );
        ignore_missing(fs::rename(&from, to)).map_err(Error::io("remove", from))
    }

    /// Takes a layer out of sight, into `into`.
    pub(crate) fn retire_layer(&self, diff_id: Digest, into: &Scratch) -> Result<()> {
        self.step("retire layer")?;
        let (from, to) = (
            self.layer_path(diff_id),
            into.path().join(format!("l{}", diff_id.hex())),
        );
        ignore_missing(fs::rename(&from, to)).map_err(Error::io("remove", from))
    }

    /// Removes everything under construction and old partial downloads.
    fn sweep(&self) -> Result<()> {
        for entry in read_dir(&self.root.join("tmp"))? {
            let path = entry.path();
            let removed = match entry.file_type() {
                Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
                _ => fs::remove_file(&path),
            };
            ignore_missing(removed).map_err(Error::io("sweep", path))?;
        }
        let now = SystemTime::now();
        for entry in read_dir(&self.root.join("partial"))? {
            let age = entry
                .metadata()
                .and_then(|m| m.modified())
                .map(|m| now.duration_since(m));
            if !matches!(age, Ok(Ok(age)) if age > PARTIAL_AGE_MAX) {
                continue;
            }
            ignore_missing(fs::remove_file(entry.path()))
                .map_err(Error::io("sweep", entry.path()))?;
        }
        Ok(())
    }

    /// Between any two of these a crash must be harmless; tests crash here.
    #[cfg_attr(
        not(test),
        expect(
            clippy::unused_self,
            clippy::unnecessary_wraps,
            reason = "tests fail here"
        )
    )]
    pub(crate) fn step(&self, what: &'static str) -> Result<()> {
        #[cfg(test)]
        self.faults.step(what)?;
        let _ = what;
        Ok(())
    }
}

// === impl Scratch ===

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        #[cfg(test)]
        if self.faults.is_crashed() {
            return;
        }
        if let Err(error) = ignore_missing(fs::remove_dir_all(&self.path)) {
            tracing::warn!(path = %self.path.display(), %error, "Temporary directory left behind");
        }
    }
}

/// Reports how much was read.
struct Observed<'a> {
    source: File,
    byte_count: u64,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl io::Read for Observed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.byte_count += count as u64;
        (self.progress)(self.byte_count);
        Ok(count)
    }
}

/// The mode of a layer's root when the archive does not name it.
fn set_root_mode(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .map_err(Error::io("set mode of", path))
}

fn sync_directory(path: &Path) -> Result<()> {
    let directory = File::open(path).map_err(Error::io("open", path))?;
    directory.sync_all().map_err(Error::io("sync", path))
}

fn read_dir(path: &Path) -> Result<Vec<fs::DirEntry>> {
    fs::read_dir(path)
        .and_then(|entries| entries.collect())
        .map_err(Error::io("list", path))
}

/// Names that are not digests are not ours and stay.
fn list_digests(path: &Path) -> Result<Vec<Digest>> {
    let names = read_dir(path)?.into_iter().map(|entry| entry.file_name());
    Ok(names
        .filter_map(|name| Digest::from_hex(name.to_str()?).ok())
        .collect())
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
