//! Pulling: from a reference to a registered image, a few layers at a time, told as Docker tells it.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use oci_spec::image::{Descriptor, ImageManifest};
use tokio::sync::{OwnedMutexGuard, mpsc};

use super::{
    Digest, Error, ImageDocument, ImageId, ImageStore, Platform, PullEvent, Reference,
    RegistryAuth, UnpackError, archive,
    config::CONFIG_BYTES_MAX,
    error::Result,
    manifest::{Manifest, digest_of, platform_of, select},
    pins::Pinned,
    progress::{LayerProgress, Progress, Throttle},
    registry::{RawManifest, Registry},
    store::stored_form,
};

mod download;
mod tries;

use tries::Tries;

/// Indexes within indexes.
const INDEX_DEPTH_MAX: usize = 2;

/// What a pull brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image.
    pub id: ImageId,
    /// Digest of the manifest or index the reference led to.
    pub digest: Digest,
    /// Whether the reference means another image than before.
    pub is_new: bool,
}

/// What a registry has under a reference, for `/distribution/{name}/json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteImage {
    /// Of the manifest or index.
    pub digest: Digest,
    /// Of the manifest or index.
    pub media_type: String,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// What it runs on.
    pub platforms: Vec<Platform>,
}

/// One lock for each blob being downloaded: two pulls of one layer download it once.
#[derive(Default)]
pub(crate) struct Downloads {
    locks: Mutex<BTreeMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
}

/// A layer to pull.
struct Layer {
    blob: Digest,
    bytes: u64,
    diff_id: Digest,
    progress: LayerProgress,
}

// === impl ImageStore ===

impl ImageStore {
    /// Pulls an image. Dropping the future stops it; what is complete on disk stays for the next try until something is collected.
    /// Tells `events` as it goes; a slow listener misses figures, never changes of state, and a gone one stops nothing.
    ///
    /// # Errors
    /// [`Error::Registry`] in Docker's words, [`Error::NoPlatform`], [`Error::WrongPlatform`], [`Error::DigestMismatch`],
    /// [`Error::MediaType`], [`Error::Unpack`], [`Error::NoSpace`].
    pub async fn pull(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        auth: Option<&RegistryAuth>,
        events: mpsc::Sender<PullEvent>,
    ) -> Result<Pulled> {
        let reference = stored_form(reference);
        let result = Box::pin(self.pull_reference(&reference, platform, auth, &events)).await;
        if matches!(
            result,
            Err(Error::NoSpace { .. } | Error::Unpack(UnpackError::NoSpace { .. }))
        ) {
            let store = self.clone();
            blocking(move || store.collect()).await?;
        }
        result
    }

    /// Asks a registry what it has under a reference.
    ///
    /// # Errors
    /// [`Error::Registry`], [`Error::Document`], [`Error::MediaType`].
    pub async fn resolve_remote(
        &self,
        reference: &Reference,
        auth: Option<&RegistryAuth>,
    ) -> Result<RemoteImage> {
        let reference = stored_form(reference);
        let registry = Registry::connect(&reference, auth, &self.inner.config).await?;
        let raw = self
            .fetch_manifest(&registry, &name_in_registry(&reference))
            .await?;
        let (platforms, default_type) =
            match Manifest::parse(&raw.bytes, raw.media_type.as_deref())? {
                Manifest::Index(index) => (
                    index.manifests().iter().filter_map(platform_of).collect(),
                    super::manifest::OCI_INDEX,
                ),
                Manifest::Image(image) => {
                    let config = self.fetch_config(&registry, image.config()).await?;
                    let document = ImageDocument::parse(&config)?;
                    (vec![document.platform()], super::manifest::OCI_MANIFEST)
                }
            };
        Ok(RemoteImage {
            digest: raw.digest,
            media_type: raw.media_type.unwrap_or_else(|| default_type.to_owned()),
            size_bytes: raw.bytes.len() as u64,
            platforms,
        })
    }

    async fn pull_reference(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        auth: Option<&RegistryAuth>,
        events: &mpsc::Sender<PullEvent>,
    ) -> Result<Pulled> {
        let name = name_in_registry(reference);
        let registry = Registry::connect(reference, auth, &self.inner.config).await?;
        let top = self.fetch_manifest(&registry, &name).await?;
        let _ = events
            .send(PullEvent::of(
                &name,
                format!("Pulling from {}", reference.path()),
            ))
            .await;
        let manifest = self.select_image(&registry, &top, platform).await?;
        let config = self.fetch_config(&registry, manifest.config()).await?;
        let document = ImageDocument::parse(&config)?;
        check_platform(reference, &document, platform)?;

        let pinned = Arc::new(self.inner.pins.hold());
        let layers = plan_layers(&manifest, &document, events)?;
        self.pull_layers(&registry, &layers, &pinned).await?;

        let mut references = vec![reference.clone()];
        if reference.digest().is_none() {
            references.push(reference.with_digest(top.digest));
        }
        let store = self.clone();
        let (id, before) =
            blocking(move || store.register(&config, &document, &references, &pinned)).await?;
        let is_new = before.first() != Some(&Some(id));
        let outcome = if is_new {
            "Downloaded newer image for"
        } else {
            "Image is up to date for"
        };
        let _ = events
            .send(PullEvent::status(format!("Digest: {}", top.digest)))
            .await;
        let status = format!("Status: {outcome} {}", reference.familiar());
        let _ = events.send(PullEvent::status(status)).await;
        Ok(Pulled {
            id,
            digest: top.digest,
            is_new,
        })
    }

    /// Follows indexes to the image for the platform.
    async fn select_image(
        &self,
        registry: &Registry,
        top: &RawManifest,
        platform: Option<&Platform>,
    ) -> Result<ImageManifest> {
        let wanted = platform.cloned().unwrap_or_else(Platform::host);
        let mut parsed = Manifest::parse(&top.bytes, top.media_type.as_deref())?;
        for _ in 0..INDEX_DEPTH_MAX {
            let index = match parsed {
                Manifest::Image(image) => return Ok(*image),
                Manifest::Index(index) => index,
            };
            let entry = select(&index, &wanted)?;
            let raw = self
                .fetch_manifest(registry, &digest_of(entry)?.to_string())
                .await?;
            parsed = Manifest::parse(&raw.bytes, Some(entry.media_type().as_ref()))?;
        }
        match parsed {
            Manifest::Image(image) => Ok(*image),
            Manifest::Index(_) => Err(Error::TooLarge {
                what: "nesting of indexes",
                limit: INDEX_DEPTH_MAX as u64,
            }),
        }
    }

    async fn pull_layers(
        &self,
        registry: &Registry,
        layers: &[Layer],
        pinned: &Arc<Pinned>,
    ) -> Result<()> {
        for (index, layer) in layers.iter().enumerate() {
            pinned.add(layer.diff_id);
            if self.inner.disk.has_layer(layer.diff_id) {
                continue;
            }
            layer.progress.tell("Pulling fs layer").await;
            if index >= self.inner.config.pull_concurrency {
                layer.progress.tell("Waiting").await;
            }
        }
        // A closure held over the await would keep callers from spawning the pull.
        let mut pulls = Vec::with_capacity(layers.len());
        for layer in layers {
            pulls.push(self.pull_layer(registry, layer, pinned).boxed());
        }
        stream::iter(pulls)
            .buffer_unordered(self.inner.config.pull_concurrency.max(1))
            .try_collect::<()>()
            .await
    }

    async fn pull_layer(
        &self,
        registry: &Registry,
        layer: &Layer,
        pinned: &Arc<Pinned>,
    ) -> Result<()> {
        pinned.add(layer.blob);
        let _lock = self.inner.downloads.lock(layer.blob).await;
        if self.inner.disk.has_layer(layer.diff_id) {
            layer.progress.tell("Already exists").await;
            return Ok(());
        }
        if !self.inner.disk.has_blob(layer.blob) {
            self.download(registry, layer).await?;
        }
        layer.progress.tell("Download complete").await;
        let (store, pinned, progress) = (self.clone(), Arc::clone(pinned), layer.progress.clone());
        let (blob, diff_id, total) = (layer.blob, layer.diff_id, layer.bytes);
        blocking(move || {
            let throttle = Throttle::new(total);
            let tell = |current| {
                if throttle.pass(current) {
                    progress.figure("Extracting", Progress { current, total });
                }
            };
            store.ensure_layer(blob, diff_id, &pinned, &tell)
        })
        .await?;
        layer.progress.tell("Pull complete").await;
        Ok(())
    }

    async fn fetch_manifest(&self, registry: &Registry, name: &str) -> Result<RawManifest> {
        let mut tries = Tries::new(self.inner.config.pull_tries);
        loop {
            match registry.manifest(name).await {
                Ok(manifest) => return Ok(manifest),
                Err(error) => tries.pause(error.into()).await?,
            };
        }
    }

    /// A config document, checked, in memory.
    async fn fetch_config(&self, registry: &Registry, config: &Descriptor) -> Result<Vec<u8>> {
        let expected = digest_of(config)?;
        if config.size() > CONFIG_BYTES_MAX {
            return Err(Error::TooLarge {
                what: "image config",
                limit: CONFIG_BYTES_MAX,
            });
        }
        let mut tries = Tries::new(self.inner.config.pull_tries);
        let bytes = loop {
            match registry.blob_bytes(expected, CONFIG_BYTES_MAX).await {
                Ok(bytes) => break bytes,
                Err(error) => tries.pause(error.into()).await?,
            };
        };
        let actual = Digest::of(&bytes);
        if actual != expected {
            return Err(Error::DigestMismatch { expected, actual });
        }
        Ok(bytes)
    }
}

fn plan_layers(
    manifest: &ImageManifest,
    document: &ImageDocument,
    events: &mpsc::Sender<PullEvent>,
) -> Result<Vec<Layer>> {
    let diff_ids = &document.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers().len() {
        let (expected, actual) = (diff_ids.len(), manifest.layers().len());
        return Err(archive::Error::LayerCount { expected, actual }.into());
    }
    let layer = |(descriptor, diff_id): (&Descriptor, &Digest)| {
        let blob = digest_of(descriptor)?;
        let progress = LayerProgress::new(blob.short(), events.clone());
        Ok(Layer {
            blob,
            bytes: descriptor.size(),
            diff_id: *diff_id,
            progress,
        })
    };
    manifest.layers().iter().zip(diff_ids).map(layer).collect()
}

/// A single image has no index to choose from; asking for a platform it is not for is an error.
fn check_platform(
    reference: &Reference,
    document: &ImageDocument,
    wanted: Option<&Platform>,
) -> Result<()> {
    let actual = document.platform();
    match wanted {
        Some(wanted) if wanted.rank(&actual).is_none() => Err(Error::WrongPlatform {
            reference: reference.familiar(),
            actual: actual.to_string(),
            wanted: wanted.to_string(),
        }),
        _ => Ok(()),
    }
}

fn name_in_registry(reference: &Reference) -> String {
    match reference.digest() {
        Some(digest) => digest.to_string(),
        None => reference.tag().unwrap_or(super::DEFAULT_TAG).to_owned(),
    }
}

/// Runs what blocks where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Error::Interrupted)?
}

// === impl Downloads ===

impl Downloads {
    async fn lock(&self, digest: Digest) -> OwnedMutexGuard<()> {
        let lock = Arc::clone(self.table().entry(digest).or_default());
        let guard = lock.lock_owned().await;
        // Forget locks that only this table knows.
        self.table().retain(|_, lock| Arc::strong_count(lock) > 1);
        guard
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<Digest, Arc<tokio::sync::Mutex<()>>>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Downloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Downloads")
            .field("count", &self.table().len())
            .finish()
    }
}
