//! Lists, details and history of images, as Docker's API shows them. Plain values; JSON is `docker-api`'s.

use std::{collections::BTreeMap, path::PathBuf};

use jiff::Timestamp;

use super::{
    Digest, ImageConfig, ImageDocument, ImageId, ImageStore, Reference, error::Result,
    metadata::Snapshot, store::resolve,
};

/// Which images a list or prune is about. All conditions must hold; within a list one is enough, except for labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    /// Only images without (`true`) or with (`false`) a tag.
    pub dangling: Option<bool>,
    /// Glob patterns for names.
    pub reference: Vec<String>,
    /// `key` or `key=value`, all of which the image must have.
    pub label: Vec<String>,
    /// `key` or `key=value`, none of which the image may have.
    pub label_not: Vec<String>,
    /// Made before this image.
    pub before: Option<String>,
    /// Made after this image.
    pub since: Option<String>,
    /// Made before this time.
    pub until: Option<Timestamp>,
}

/// An image in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// Its id.
    pub id: ImageId,
    /// Familiar names with tag, sorted.
    pub repo_tags: Vec<String>,
    /// Familiar names with digest, sorted.
    pub repo_digests: Vec<String>,
    /// When it was made; `None` is shown as the year 1.
    pub created: Option<Timestamp>,
    /// Sum of file sizes.
    pub size_bytes: u64,
    /// User's data.
    pub labels: BTreeMap<String, String>,
    /// How many leases it has.
    pub container_count: usize,
}

/// All about an image.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageDetails {
    /// Its id.
    pub id: ImageId,
    /// Familiar names with tag, sorted.
    pub repo_tags: Vec<String>,
    /// Familiar names with digest, sorted.
    pub repo_digests: Vec<String>,
    /// The config document: platform, `Created`, `Author`, `Comment`, `DockerVersion`, `Config`, `RootFS`.
    pub document: ImageDocument,
    /// Sum of file sizes.
    pub size_bytes: u64,
    /// Where the layers are.
    pub graph_driver: GraphDriver,
    /// When it was last tagged here.
    pub last_tag_time: Option<Timestamp>,
}

/// `GraphDriver` of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphDriver {
    /// `overlay2`.
    pub name: &'static str,
    /// `LowerDir` (absent with one layer) and `UpperDir`, the top layer.
    pub data: BTreeMap<&'static str, String>,
}

/// A line of `docker history`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The image's id on the newest line, else `None`: `<missing>`.
    pub id: Option<ImageId>,
    /// When.
    pub created: Option<Timestamp>,
    /// The instruction.
    pub created_by: String,
    /// Names, on the newest line.
    pub tags: Vec<String>,
    /// Of this step's layer.
    pub size_bytes: u64,
    /// Message.
    pub comment: String,
}

// === impl ImageStore ===

impl ImageStore {
    /// Images, newest first. Blocks shortly.
    ///
    /// # Errors
    /// [`super::Error::NoSuchImage`] for `before` and `since`; a damaged store.
    pub fn list(&self, filters: &Filters) -> Result<Vec<ImageSummary>> {
        let snapshot = self.inner.metadata.snapshot()?;
        let before = self.created_of(&snapshot, filters.before.as_deref())?;
        let since = self.created_of(&snapshot, filters.since.as_deref())?;
        let mut summaries = Vec::new();
        for (id, record) in &snapshot.images {
            let document = self.document(*id)?;
            let mut references = snapshot.references_of(*id);
            let created = document.created_at();
            if !filters.accept_image(&references, &document)
                || before.is_some_and(|limit| created >= limit)
                || since.is_some_and(|limit| created <= limit)
            {
                continue;
            }
            if !filters.reference.is_empty() {
                references.retain(|r| filters.reference.iter().any(|p| r.matches_glob(p)));
                if references.is_empty() {
                    continue;
                }
            }
            summaries.push(ImageSummary {
                id: *id,
                repo_tags: familiar(&references, false),
                repo_digests: familiar(&references, true),
                created,
                size_bytes: record.size_bytes,
                labels: document.config.labels,
                container_count: snapshot.owners_of(*id).count(),
            });
        }
        summaries.sort_by(|a, b| b.created.cmp(&a.created).then(a.id.cmp(&b.id)));
        Ok(summaries)
    }

    /// All about one image, named as for [`Self::resolve`].
    ///
    /// # Errors
    /// As [`Self::resolve`]; a damaged store.
    pub fn inspect(&self, text: &str) -> Result<ImageDetails> {
        let snapshot = self.inner.metadata.snapshot()?;
        let id = resolve(&snapshot, text)?;
        let references = snapshot.references_of(id);
        let record = &snapshot.images[&id];
        let nanoseconds = record.last_tagged_ns.map(i128::from);
        Ok(ImageDetails {
            id,
            repo_tags: familiar(&references, false),
            repo_digests: familiar(&references, true),
            document: self.document(id)?,
            size_bytes: record.size_bytes,
            graph_driver: self.graph_driver(&record.diff_ids),
            last_tag_time: nanoseconds.and_then(|ns| Timestamp::from_nanosecond(ns).ok()),
        })
    }

    /// How the image was made, newest step first.
    ///
    /// # Errors
    /// As [`Self::resolve`]; a damaged store.
    pub fn history(&self, text: &str) -> Result<Vec<HistoryEntry>> {
        let snapshot = self.inner.metadata.snapshot()?;
        let id = resolve(&snapshot, text)?;
        let document = self.document(id)?;
        let mut diff_ids = document.rootfs.diff_ids.iter();
        let mut entries = Vec::new();
        for step in document.history {
            let layer = if step.empty_layer {
                None
            } else {
                diff_ids.next()
            };
            let size_bytes = match layer {
                Some(diff_id) => self.inner.disk.layer_record(*diff_id)?.content_bytes,
                None => 0,
            };
            entries.push(HistoryEntry {
                id: None,
                created: step.created.and_then(|time| time.parse().ok()),
                created_by: step.created_by,
                tags: Vec::new(),
                size_bytes,
                comment: step.comment,
            });
        }
        entries.reverse();
        if let Some(newest) = entries.first_mut() {
            newest.id = Some(id);
            newest.tags = familiar(&snapshot.references_of(id), false);
        }
        Ok(entries)
    }

    fn created_of(
        &self,
        snapshot: &Snapshot,
        text: Option<&str>,
    ) -> Result<Option<Option<Timestamp>>> {
        let Some(text) = text else { return Ok(None) };
        Ok(Some(self.document(resolve(snapshot, text)?)?.created_at()))
    }

    fn graph_driver(&self, diff_ids: &[Digest]) -> GraphDriver {
        let show = |path: PathBuf| path.display().to_string();
        let mut directories = diff_ids
            .iter()
            .rev()
            .map(|id| show(self.inner.disk.layer_fs(*id)));
        let mut data = BTreeMap::new();
        if let Some(top) = directories.next() {
            data.insert("UpperDir", top);
        }
        let lower: Vec<String> = directories.collect();
        if !lower.is_empty() {
            data.insert("LowerDir", lower.join(":"));
        }
        GraphDriver {
            name: "overlay2",
            data,
        }
    }
}

// === impl Filters ===

impl Filters {
    /// The conditions that need only the image itself.
    pub(crate) fn accept_image(&self, references: &[Reference], document: &ImageDocument) -> bool {
        let has_tag = references.iter().any(|reference| reference.tag().is_some());
        let has = |label: &String| has_label(&document.config, label);
        self.dangling.is_none_or(|dangling| dangling != has_tag)
            && self.label.iter().all(has)
            && !self.label_not.iter().any(has)
            && self
                .until
                .is_none_or(|until| document.created_at().is_none_or(|at| at < until))
    }
}

fn has_label(config: &ImageConfig, label: &str) -> bool {
    match label.split_once('=') {
        Some((key, value)) => config.labels.get(key).is_some_and(|found| found == value),
        None => config.labels.contains_key(label),
    }
}

/// The familiar forms of those with a digest, or of the others.
fn familiar(references: &[Reference], with_digest: bool) -> Vec<String> {
    let wanted = references
        .iter()
        .filter(|r| r.digest().is_some() == with_digest);
    wanted.map(Reference::familiar).collect()
}
