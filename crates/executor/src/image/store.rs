//! The store itself: opening, resolving, images for containers, leases, tags, garbage collection.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;

use super::{
    AnyReference, Digest, Error, ImageConfig, ImageDocument, ImageId, Reference, StoreConfig,
    disk::{Disk, LayerRecord},
    error::Result,
    metadata::{ImageRecord, Metadata, Snapshot},
    pins::{Pinned, Pins},
    pull::Downloads,
};

/// The images of a node. Clones share the store; one process has it open at a time.
#[derive(Debug, Clone)]
pub struct ImageStore {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: StoreConfig,
    pub(crate) disk: Disk,
    pub(crate) metadata: Metadata,
    pub(crate) pins: Pins,
    pub(crate) downloads: Downloads,
    /// Held from looking at tags and leases until the change that relies on them.
    decisions: Mutex<()>,
}

/// An image ready to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Its id.
    pub id: ImageId,
    /// Its config document.
    pub document: ImageDocument,
    layer_dirs: Vec<PathBuf>,
}

// === impl ImageStore ===

impl ImageStore {
    /// Opens or creates the store under `root` with default limits. Blocks. What an interrupted operation left is swept.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process has it open, [`Error::Format`] if a newer version wrote it, disk errors.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_with(root, StoreConfig::default())
    }

    /// As [`Self::open`], with other limits and settings.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(root: &Path, config: StoreConfig) -> Result<Self> {
        let disk = Disk::open(root)?;
        let metadata = Metadata::open(&root.join("metadata.redb"))?;
        disk.sync_root()?;
        let inner = Inner {
            config,
            disk,
            metadata,
            pins: Pins::default(),
            downloads: Downloads::default(),
            decisions: Mutex::default(),
        };
        let store = Self {
            inner: Arc::new(inner),
        };
        store.collect()?;
        Ok(store)
    }

    /// Where the store is.
    pub fn root(&self) -> &Path {
        self.inner.disk.root()
    }

    /// The image a user means: by name (with `latest` if there is no tag), by id, or by a unique beginning of an id.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::AmbiguousId`], [`Error::Reference`].
    pub fn resolve(&self, text: &str) -> Result<ImageId> {
        resolve(&self.inner.metadata.snapshot()?, text)
    }

    /// What a container of the image needs.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; a damaged store.
    pub fn image(&self, id: ImageId) -> Result<Image> {
        let snapshot = self.inner.metadata.snapshot()?;
        let record = snapshot
            .images
            .get(&id)
            .ok_or_else(|| Error::NoSuchImage(id.to_string()))?;
        let layer_dirs = record
            .diff_ids
            .iter()
            .map(|diff_id| self.inner.disk.layer_fs(*diff_id));
        Ok(Image {
            id,
            document: self.document(id)?,
            layer_dirs: layer_dirs.collect(),
        })
    }

    /// Records that `owner`, a container id, uses the image: its layers stay until [`Self::release`], even if the image is removed by
    /// force. Survives restarts. An owner has one lease; a second call replaces the first.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; disk errors.
    pub fn lease(&self, id: ImageId, owner: &str) -> Result<()> {
        let _guard = self.decide();
        self.inner.metadata.lease(owner, id)
    }

    /// Ends the lease of `owner`, if there is one, and frees what nothing else uses. Blocks on deletion.
    ///
    /// # Errors
    /// Disk errors.
    pub fn release(&self, owner: &str) -> Result<()> {
        let image = self
            .inner
            .metadata
            .snapshot()?
            .leases
            .get(owner)
            .map(|lease| lease.image);
        self.inner.metadata.release(owner)?;
        let Some(image) = image else { return Ok(()) };
        // As long as the image exists its layers do.
        if !self.inner.metadata.snapshot()?.images.contains_key(&image) {
            self.collect()?;
        }
        Ok(())
    }

    /// All leases: owner and image, by owner.
    ///
    /// # Errors
    /// A damaged store.
    pub fn leases(&self) -> Result<Vec<(String, ImageId)>> {
        let leases = self.inner.metadata.snapshot()?.leases;
        Ok(leases
            .into_iter()
            .map(|(owner, lease)| (owner, lease.image))
            .collect())
    }

    /// Names the image `source` (as [`Self::resolve`]) `target`, taking the name from any other image. Returns the image.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::TagWithDigest`], [`Error::TagLikeDigest`].
    pub fn tag(&self, source: &str, target: &Reference) -> Result<ImageId> {
        check_tag(target)?;
        let _guard = self.decide();
        let id = self.resolve(source)?;
        self.inner
            .metadata
            .tag(id, &target.clone().or_latest(), now_ns())?;
        Ok(id)
    }

    /// Deletes what nothing names, pins or leases. Returns the bytes freed, by size of files.
    pub(crate) fn collect(&self) -> Result<u64> {
        let disk = &self.inner.disk;
        let scratch = disk.scratch()?;
        let pins = self.inner.pins.freeze();
        let live = self.inner.metadata.snapshot()?.live();
        let mut freed = 0;
        let mut live_blobs: BTreeSet<Digest> = live.configs;
        for diff_id in disk.layers()? {
            if live.layers.contains(&diff_id) || pins.contains_key(&diff_id) {
                match disk.layer_record(diff_id) {
                    Ok(record) => {
                        live_blobs.insert(record.blob);
                    }
                    // Its files still serve containers; a node must not refuse to start for it.
                    Err(error) => {
                        tracing::warn!(layer = %diff_id, %error, "Layer record is damaged");
                    }
                }
            } else {
                freed += disk
                    .layer_record(diff_id)
                    .map_or(0, |record| record.content_bytes);
                disk.retire_layer(diff_id, &scratch)?;
            }
        }
        for digest in disk.blobs()? {
            if !live_blobs.contains(&digest) && !pins.contains_key(&digest) {
                freed += disk
                    .blob_path(digest)
                    .metadata()
                    .map_or(0, |metadata| metadata.len());
                disk.retire_blob(digest, &scratch)?;
            }
        }
        drop(pins);
        // Deleting a million files takes its time; nobody waits for it but the caller.
        drop(scratch);
        Ok(freed)
    }

    /// Makes an image of a stored config and stored layers exist under `references`. Returns who had each name before.
    pub(crate) fn register(
        &self,
        config: &[u8],
        document: &ImageDocument,
        references: &[Reference],
        pinned: &Pinned,
    ) -> Result<(ImageId, Vec<Option<ImageId>>)> {
        let disk = &self.inner.disk;
        let id = ImageId(Digest::of(config));
        pinned.add(id.0);
        disk.put_bytes(config)?;
        let mut size_bytes = 0;
        for diff_id in &document.rootfs.diff_ids {
            size_bytes += disk.layer_record(*diff_id)?.content_bytes;
        }
        let record = ImageRecord {
            diff_ids: document.rootfs.diff_ids.clone(),
            size_bytes,
            last_tagged_ns: None,
        };
        disk.step("register image")?;
        let _guard = self.decide();
        let before = self
            .inner
            .metadata
            .register(id, &record, references, now_ns())?;
        Ok((id, before))
    }

    /// Unpacks a stored blob as the layer `diff_id`, unless that is there.
    pub(crate) fn ensure_layer(
        &self,
        blob: Digest,
        diff_id: Digest,
        pinned: &Pinned,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<LayerRecord> {
        pinned.add(diff_id);
        if self.inner.disk.has_layer(diff_id) {
            return self.inner.disk.layer_record(diff_id);
        }
        self.inner
            .disk
            .unpack_layer((blob, Some(diff_id)), &self.inner.config, pinned, progress)
    }

    pub(crate) fn document(&self, id: ImageId) -> Result<ImageDocument> {
        ImageDocument::parse(&self.inner.disk.read_blob(id.0)?)
    }

    pub(crate) fn decide(&self) -> MutexGuard<'_, ()> {
        self.inner
            .decisions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Image ===

impl Image {
    /// What a container gets by default.
    pub fn config(&self) -> &ImageConfig {
        &self.document.config
    }

    /// Directories for overlayfs, **bottom first** (`lowerdir=` wants them the other way round). Keep a lease while they are mounted.
    /// mount(2) takes one page of options: with dozens of layers open them `O_PATH` and give `/proc/self/fd/<n>`.
    pub fn layer_dirs(&self) -> &[PathBuf] {
        &self.layer_dirs
    }
}

pub(crate) fn resolve(snapshot: &Snapshot, text: &str) -> Result<ImageId> {
    let parsed: AnyReference = text.parse()?;
    match &parsed {
        AnyReference::Id(id) if snapshot.images.contains_key(id) => return Ok(*id),
        AnyReference::Id(_) => {}
        AnyReference::Name(reference) => {
            if let Some(id) = snapshot.references.get(&stored_form(reference).to_string()) {
                return Ok(*id);
            }
            if let Some(id) = resolve_prefix(snapshot, text)? {
                return Ok(id);
            }
        }
    }
    Err(Error::NoSuchImage(parsed.shown()))
}

/// How a reference is stored: a digest says all, whatever tag stands beside it.
pub(crate) fn stored_form(reference: &Reference) -> Reference {
    match reference.digest() {
        Some(digest) => reference.with_digest(digest),
        None => reference.clone().or_latest(),
    }
}

fn resolve_prefix(snapshot: &Snapshot, text: &str) -> Result<Option<ImageId>> {
    let prefix = text.strip_prefix("sha256:").unwrap_or(text);
    if prefix.is_empty()
        || !prefix
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    {
        return Ok(None);
    }
    let mut found = snapshot
        .images
        .keys()
        .filter(|id| id.0.hex().starts_with(prefix));
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => Err(Error::AmbiguousId(prefix.to_owned())),
        (first, _) => Ok(first.copied()),
    }
}

pub(crate) fn check_tag(target: &Reference) -> Result<()> {
    if target.digest().is_some() {
        return Err(Error::TagWithDigest);
    }
    if target.familiar_name() == "sha256" {
        return Err(Error::TagLikeDigest);
    }
    Ok(())
}

fn now_ns() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
