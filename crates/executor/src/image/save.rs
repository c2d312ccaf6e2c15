//! `docker save`: images as an archive that Docker, skopeo and this store read: `manifest.json` beside an OCI layout.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read, Write},
};

use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use super::{
    AnyReference, Digest, Error, ImageId, ImageStore, Reference, UnpackError,
    compression::decompress,
    digest::HashingReader,
    error::Result,
    manifest::{OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST},
    metadata::Snapshot,
    store::{resolve, stored_form},
};

// === impl ImageStore ===

impl ImageStore {
    /// Writes the images named by `names` to `target`. A name without a tag means all tags of the repository; an id gives an image
    /// without names. Blocks. Layers are checked against their digest on the way: if that fails the archive is cut short.
    ///
    /// # Errors
    /// As [`Self::resolve`], before anything is written; errors of `target`; a damaged store.
    pub fn save(&self, names: &[&str], target: impl Write) -> Result<()> {
        let snapshot = self.inner.metadata.snapshot()?;
        let selected = select(&snapshot, names)?;
        let pinned = self.inner.pins.hold();
        for id in selected.keys() {
            pinned.add(id.0);
            snapshot.images[id]
                .diff_ids
                .iter()
                .for_each(|diff_id| pinned.add(*diff_id));
        }
        let mut archive = Archive {
            builder: Builder::new(target),
            written: BTreeSet::new(),
        };
        archive.directory("blobs/")?;
        archive.directory("blobs/sha256/")?;
        let mut documents = Documents::default();
        for (id, references) in &selected {
            let config = self.inner.disk.read_blob(id.0)?;
            archive.blob(id.0, &config)?;
            let mut layers = Vec::new();
            for diff_id in &snapshot.images[id].diff_ids {
                layers.push((*diff_id, self.save_layer(&mut archive, *diff_id)?));
            }
            let manifest = oci_manifest(*id, config.len(), &layers);
            archive.blob(Digest::of(&manifest), &manifest)?;
            documents.add(*id, references, &layers, &manifest);
        }
        archive.file("index.json", documents.index().as_bytes())?;
        archive.file(
            "manifest.json",
            Value::Array(documents.images).to_string().as_bytes(),
        )?;
        archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        archive.file(
            "repositories",
            json!(documents.repositories).to_string().as_bytes(),
        )?;
        archive.builder.finish().map_err(write_error)
    }

    /// Writes a layer uncompressed; returns its length.
    fn save_layer<W: Write>(&self, archive: &mut Archive<W>, diff_id: Digest) -> Result<u64> {
        let record = self.inner.disk.layer_record(diff_id)?;
        if !archive.written.insert(diff_id) {
            return Ok(record.tar_bytes);
        }
        let path = self.inner.disk.blob_path(record.blob);
        let file = File::open(&path).map_err(Error::io("open", path))?;
        let plain = decompress(file, record.tar_bytes).map_err(UnpackError::from)?;
        let mut hashing = HashingReader::new(plain);
        archive.append(&blob_name(diff_id), record.tar_bytes, &mut hashing)?;
        let (actual, _) = hashing.finish();
        if actual != diff_id {
            return Err(Error::DigestMismatch {
                expected: diff_id,
                actual,
            });
        }
        Ok(record.tar_bytes)
    }
}

/// Which images, and under which names each.
fn select(snapshot: &Snapshot, names: &[&str]) -> Result<BTreeMap<ImageId, BTreeSet<Reference>>> {
    let mut selected: BTreeMap<ImageId, BTreeSet<Reference>> = BTreeMap::new();
    for name in names {
        let bare = match name.parse()? {
            AnyReference::Name(reference) => Some(reference),
            AnyReference::Id(_) => None,
        };
        let is_bare = |r: &&Reference| r.tag().is_none() && r.digest().is_none();
        if let Some(bare) = bare.as_ref().filter(is_bare) {
            let mut is_repository = false;
            for (text, id) in &snapshot.references {
                let Ok(reference) = text.parse::<Reference>() else {
                    continue;
                };
                if reference.name() == bare.name() && reference.tag().is_some() {
                    selected.entry(*id).or_default().insert(reference);
                    is_repository = true;
                }
            }
            if is_repository {
                continue;
            }
        }
        let references = selected.entry(resolve(snapshot, name)?).or_default();
        let named = bare.map(|reference| stored_form(&reference));
        let is_tag =
            |r: &Reference| r.tag().is_some() && snapshot.references.contains_key(&r.to_string());
        references.extend(named.filter(is_tag));
    }
    Ok(selected)
}

/// What the archive says about itself.
#[derive(Default)]
struct Documents {
    /// `manifest.json`.
    images: Vec<Value>,
    /// `index.json`.
    manifests: Vec<Value>,
    /// Repository → tag → top layer.
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

// === impl Documents ===

impl Documents {
    fn add(
        &mut self,
        id: ImageId,
        references: &BTreeSet<Reference>,
        layers: &[(Digest, u64)],
        manifest: &[u8],
    ) {
        let tags: Vec<String> = references.iter().map(Reference::familiar).collect();
        self.images.push(json!({
            "Config": blob_name(id.0),
            "RepoTags": if tags.is_empty() { Value::Null } else { json!(tags) },
            "Layers": layers.iter().map(|(diff_id, _)| blob_name(*diff_id)).collect::<Vec<_>>(),
        }));
        let descriptor = json!({
            "mediaType": OCI_MANIFEST,
            "digest": Digest::of(manifest).to_string(),
            "size": manifest.len(),
        });
        if references.is_empty() {
            self.manifests.push(descriptor.clone());
        }
        for reference in references {
            let tag = reference.tag().unwrap_or_default();
            let mut named = descriptor.clone();
            named["annotations"] = json!({
                "io.containerd.image.name": reference.to_string(),
                "org.opencontainers.image.ref.name": tag,
            });
            self.manifests.push(named);
            let top = layers
                .last()
                .map_or_else(|| id.0.hex(), |(diff_id, _)| diff_id.hex());
            let tags = self
                .repositories
                .entry(reference.familiar_name())
                .or_default();
            tags.insert(tag.to_owned(), top);
        }
    }

    fn index(&self) -> String {
        json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": self.manifests })
            .to_string()
    }
}

fn oci_manifest(id: ImageId, config_bytes: usize, layers: &[(Digest, u64)]) -> Vec<u8> {
    let layer = |(diff_id, size): &(Digest, u64)| json!({ "mediaType": OCI_LAYER, "digest": diff_id.to_string(), "size": size });
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": OCI_CONFIG, "digest": id.to_string(), "size": config_bytes },
        "layers": layers.iter().map(layer).collect::<Vec<_>>(),
    })
    .to_string()
    .into_bytes()
}

fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The archive being written; every blob once.
struct Archive<W: Write> {
    builder: Builder<W>,
    written: BTreeSet<Digest>,
}

// === impl Archive ===

impl<W: Write> Archive<W> {
    fn directory(&mut self, name: &str) -> Result<()> {
        let mut header = header(EntryType::Directory, 0o755, 0);
        self.builder
            .append_data(&mut header, name, io::empty())
            .map_err(write_error)
    }

    fn blob(&mut self, digest: Digest, bytes: &[u8]) -> Result<()> {
        if self.written.insert(digest) {
            self.file(&blob_name(digest), bytes)?;
        }
        Ok(())
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.append(name, bytes.len() as u64, &mut { bytes })
    }

    fn append(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<()> {
        let mut header = header(EntryType::Regular, 0o644, size);
        self.builder
            .append_data(&mut header, name, content)
            .map_err(write_error)
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header
}

fn write_error(source: io::Error) -> Error {
    Error::io("write", "archive")(source)
}
