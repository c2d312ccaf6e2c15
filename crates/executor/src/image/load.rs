//! `docker load`: images from an archive in Docker's format or an OCI layout, optionally compressed.

use std::{collections::BTreeSet, io::Read};

use oci_spec::image::{Descriptor, ImageIndex};
use serde::Deserialize;

use super::{
    Digest, Error, ImageDocument, ImageId, ImageStore, Platform, Reference, archive,
    archive::{Staged, StagedFile},
    config::{CONFIG_BYTES_MAX, IMAGES_PER_ARCHIVE_MAX, MANIFEST_BYTES_MAX},
    error::Result,
    manifest::{self, Manifest, digest_of},
    pins::Pinned,
};

/// Indexes within indexes; builders make two levels.
const INDEX_DEPTH_MAX: usize = 3;
const NAME_ANNOTATION: &str = "io.containerd.image.name";
const REF_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// What an archive brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// What Docker prints, without line ends.
    pub lines: Vec<String>,
    /// In the order of the archive.
    pub images: Vec<LoadedImage>,
}

/// One image of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedImage {
    /// Its id.
    pub id: ImageId,
    /// Names it got, familiar.
    pub tags: Vec<String>,
}

/// An entry of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// A found image: names of its files, and its references.
struct Candidate {
    config: String,
    layers: Vec<String>,
    references: Vec<Reference>,
}

// === impl ImageStore ===

impl ImageStore {
    /// Loads all images of an archive. Blocks. An image appears when all of it is on disk; one that fails stops the load, those before stay.
    ///
    /// # Errors
    /// [`Error::Archive`], [`Error::Unpack`], [`Error::DigestMismatch`], [`Error::Document`], [`Error::MediaType`], [`Error::NoSpace`].
    pub fn load(&self, source: impl Read + Send) -> Result<Loaded> {
        let result = self.load_archive(source);
        if matches!(
            result,
            Err(Error::NoSpace { .. } | Error::Unpack(super::UnpackError::NoSpace { .. }))
        ) {
            self.collect()?;
        }
        result
    }

    fn load_archive(&self, source: impl Read + Send) -> Result<Loaded> {
        let staged = Staged::read(&self.inner.disk, &self.inner.config, source)?;
        let candidates = if staged.has("manifest.json") {
            docker_images(&staged)?
        } else if staged.has("index.json") {
            oci_images(&staged)?
        } else {
            return Err(archive::Error::NoImages.into());
        };
        let mut loaded = Loaded::default();
        for candidate in candidates {
            self.load_image(&staged, candidate, &mut loaded)?;
        }
        Ok(loaded)
    }

    fn load_image(&self, staged: &Staged, candidate: Candidate, loaded: &mut Loaded) -> Result<()> {
        let config = staged.document(&candidate.config, CONFIG_BYTES_MAX)?;
        let document = ImageDocument::parse(&config)?;
        let diff_ids = &document.rootfs.diff_ids;
        if diff_ids.len() != candidate.layers.len() {
            let (expected, actual) = (diff_ids.len(), candidate.layers.len());
            return Err(archive::Error::LayerCount { expected, actual }.into());
        }
        let pinned = self.inner.pins.hold();
        for (diff_id, name) in diff_ids.iter().zip(&candidate.layers) {
            self.load_layer(staged, name, *diff_id, &pinned)?;
        }
        let (id, before) = self.register(&config, &document, &candidate.references, &pinned)?;
        let tags: Vec<String> = candidate
            .references
            .iter()
            .map(Reference::familiar)
            .collect();
        for (tag, before) in tags.iter().zip(before) {
            if let Some(before) = before.filter(|before| *before != id) {
                loaded.lines.push(format!(
                    "The image {tag} already exists, renaming the old one with ID {before} to empty string"
                ));
            }
        }
        loaded
            .lines
            .extend(tags.iter().map(|tag| format!("Loaded image: {tag}")));
        if tags.is_empty() {
            loaded.lines.push(format!("Loaded image ID: {id}"));
        }
        loaded.images.push(LoadedImage { id, tags });
        Ok(())
    }

    fn load_layer(
        &self,
        staged: &Staged,
        name: &str,
        diff_id: Digest,
        pinned: &Pinned,
    ) -> Result<()> {
        pinned.add(diff_id);
        if self.inner.disk.has_layer(diff_id) {
            return Ok(());
        }
        let StagedFile { path, digest, .. } = staged.file(name)?;
        pinned.add(*digest);
        // An earlier failed layer of this archive may have published the same file.
        if !self.inner.disk.has_blob(*digest) {
            self.inner.disk.publish_blob(path, *digest)?;
        }
        self.ensure_layer(*digest, diff_id, pinned, &|_| {})?;
        Ok(())
    }
}

fn docker_images(staged: &Staged) -> Result<Vec<Candidate>> {
    let bytes = staged.document("manifest.json", MANIFEST_BYTES_MAX)?;
    let images: Vec<DockerImage> = parse("manifest.json", &bytes)?;
    check_image_count(images.len())?;
    let candidate = |image: DockerImage| {
        let tags = image.repo_tags.unwrap_or_default();
        let references = tags
            .iter()
            .map(|tag| tag.parse::<Reference>().map(Reference::or_latest));
        Ok(Candidate {
            config: image.config,
            layers: image.layers.unwrap_or_default(),
            references: unique(references.collect::<Result<Vec<_>, _>>()?),
        })
    };
    images.into_iter().map(candidate).collect()
}

fn oci_images(staged: &Staged) -> Result<Vec<Candidate>> {
    let bytes = staged.document("index.json", MANIFEST_BYTES_MAX)?;
    let index = match Manifest::parse(&bytes, Some(manifest::OCI_INDEX))? {
        Manifest::Index(index) => index,
        Manifest::Image(_) => return Err(archive::Error::NoImages.into()),
    };
    let mut candidates: Vec<Candidate> = Vec::new();
    for entry in index.manifests() {
        let reference = annotated_reference(entry);
        let Some(candidate) = oci_image(staged, entry, 0)? else {
            continue;
        };
        // One image under several names has several entries.
        let known = candidates
            .iter_mut()
            .find(|known| known.config == candidate.config);
        match known {
            Some(known) => known.references.extend(reference),
            None => candidates.push(Candidate {
                references: reference.into_iter().collect(),
                ..candidate
            }),
        }
    }
    Ok(candidates)
}

/// The image a descriptor leads to; `None` for what is not an image to run, such as an attestation.
fn oci_image(staged: &Staged, entry: &Descriptor, depth: usize) -> Result<Option<Candidate>> {
    let bytes = staged.document(&blob_name(entry)?, MANIFEST_BYTES_MAX)?;
    match Manifest::parse(&bytes, Some(entry.media_type().as_ref()))? {
        Manifest::Image(image) => {
            let layers = image
                .layers()
                .iter()
                .map(blob_name)
                .collect::<Result<_>>()?;
            Ok(Some(Candidate {
                config: blob_name(image.config())?,
                layers,
                references: Vec::new(),
            }))
        }
        Manifest::Index(_) if depth == INDEX_DEPTH_MAX => Err(Error::TooLarge {
            what: "nesting of indexes",
            limit: INDEX_DEPTH_MAX as u64,
        }),
        Manifest::Index(index) => match select_present(staged, &index)? {
            Some(entry) => oci_image(staged, entry, depth + 1),
            None => Ok(None),
        },
    }
}

/// The entry for this machine, else the first for any: archives of one foreign platform are loaded, too.
fn select_present<'a>(staged: &Staged, index: &'a ImageIndex) -> Result<Option<&'a Descriptor>> {
    let is_present = |entry: &&Descriptor| blob_name(entry).is_ok_and(|name| staged.has(&name));
    let host = manifest::select(index, &Platform::host())
        .ok()
        .filter(is_present);
    let is_image = |entry: &&Descriptor| {
        manifest::platform_of(entry).is_none_or(|platform| platform.os == "linux")
    };
    Ok(host.or_else(|| index.manifests().iter().filter(is_image).find(is_present)))
}

fn annotated_reference(entry: &Descriptor) -> Option<Reference> {
    let annotations = entry.annotations().as_ref()?;
    let full = annotations
        .get(NAME_ANNOTATION)
        .and_then(|name| name.parse::<Reference>().ok());
    // A bare tag names no repository.
    let short = || {
        let name = annotations.get(REF_ANNOTATION)?;
        name.contains([':', '/'])
            .then(|| name.parse::<Reference>().ok())?
    };
    full.or_else(short).map(Reference::or_latest)
}

fn blob_name(descriptor: &Descriptor) -> Result<String> {
    Ok(format!("blobs/sha256/{}", digest_of(descriptor)?.hex()))
}

fn parse<T: for<'de> Deserialize<'de>>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        archive::Error::Document {
            name: name.to_owned(),
            reason: error.to_string(),
        }
        .into()
    })
}

fn check_image_count(count: usize) -> Result<()> {
    if count > IMAGES_PER_ARCHIVE_MAX {
        let limit = IMAGES_PER_ARCHIVE_MAX as u64;
        return Err(archive::Error::TooLarge {
            limit,
            unit: "images",
        }
        .into());
    }
    Ok(())
}

fn unique(references: Vec<Reference>) -> Vec<Reference> {
    let mut seen = BTreeSet::new();
    references
        .into_iter()
        .filter(|reference| seen.insert(reference.clone()))
        .collect()
}
