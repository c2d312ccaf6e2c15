//! `docker import`: an image from a root file system's tar.

use std::io::Read;

use jiff::Timestamp;

use super::{
    Digest, Error, HistoryStep, ImageConfig, ImageDocument, ImageId, ImageStore, Platform,
    Reference, RootFs, UnpackError, archive,
    archive::{CopyError, copy_hashed},
    change,
    error::Result,
    store::check_tag,
};

/// What the image will say about itself.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Name to give it; `latest` if it has no tag.
    pub reference: Option<Reference>,
    /// Dockerfile instructions that make its config.
    pub changes: Vec<String>,
    /// Message.
    pub message: String,
    /// This machine's if not given.
    pub platform: Option<Platform>,
}

// === impl ImageStore ===

impl ImageStore {
    /// Makes an image of one layer from a tar, optionally compressed. Blocks.
    ///
    /// # Errors
    /// [`Error::Change`] before anything is read; [`Error::Unpack`], [`Error::TooLarge`], [`Error::NoSpace`].
    pub fn import(&self, source: impl Read + Send, options: &ImportOptions) -> Result<ImageId> {
        let mut config = ImageConfig::default();
        for change in &options.changes {
            change::apply(&mut config, change)?;
        }
        let reference = options.reference.clone().map(Reference::or_latest);
        reference.as_ref().map_or(Ok(()), check_tag)?;
        let pinned = self.inner.pins.hold();
        let blob = self.import_blob(source, &pinned)?;
        let layer =
            self.inner
                .disk
                .unpack_layer((blob, None), &self.inner.config, &pinned, &|_| {})?;
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let created = Some(Timestamp::now().to_string());
        let document = ImageDocument {
            architecture: platform.architecture,
            variant: platform.variant,
            os: platform.os,
            created: created.clone(),
            comment: options.message.clone(),
            config,
            rootfs: RootFs {
                kind: "layers".to_owned(),
                diff_ids: vec![layer.diff_id],
            },
            history: vec![HistoryStep {
                created,
                comment: options.message.clone(),
                ..HistoryStep::default()
            }],
            ..ImageDocument::default()
        };
        let bytes = serde_json::to_vec(&document).map_err(Error::document("image config"))?;
        let references: Vec<Reference> = reference.into_iter().collect();
        self.register(&bytes, &document, &references, &pinned)
            .map(|(id, _)| id)
    }

    fn import_blob(
        &self,
        source: impl Read + Send,
        pinned: &super::pins::Pinned,
    ) -> Result<Digest> {
        let limit = self.inner.config.blob_bytes_max;
        let scratch = self.inner.disk.scratch()?;
        let path = scratch.path().join("blob");
        let (digest, size) =
            copy_hashed(&mut source.take(limit + 1), &path).map_err(|e| match e {
                CopyError::Read(error) => archive::Error::Read(error).into(),
                CopyError::Write(error) => Error::io("write", &path)(error),
            })?;
        if size > limit {
            return Err(UnpackError::TooLarge {
                limit,
                unit: "bytes",
            }
            .into());
        }
        pinned.add(digest);
        self.inner.disk.publish_blob(&path, digest)?;
        Ok(digest)
    }
}
