//! One layer's blob: streamed to `partial/`, hashed on the way, continued after an interruption, published when its digest is right.

use std::{
    io::{self, Read as _},
    path::PathBuf,
};

use sha2::{Digest as _, Sha256};
use tokio::{
    fs::{File, OpenOptions},
    io::AsyncWriteExt as _,
};

use super::{Layer, Tries, blocking};
use crate::image::{
    Digest, Error, ImageStore, Progress,
    error::Result,
    progress::Throttle,
    registry::{self, Registry},
};

/// How much of a partial file is hashed at a time.
const REHASH_BYTES: usize = 1 << 20;

/// A blob arriving.
struct Partial {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    /// Bytes in the file, all of them hashed.
    byte_count: u64,
}

// === impl ImageStore ===

impl ImageStore {
    pub(super) async fn download(&self, registry: &Registry, layer: &Layer) -> Result<()> {
        let limit = self.inner.config.blob_bytes_max;
        if layer.bytes > limit {
            return Err(Error::TooLarge {
                what: "layer blob",
                limit,
            });
        }
        let mut partial = Partial::open(self.inner.disk.partial_path(layer.blob)).await?;
        // An earlier process may have left a damaged beginning; then the whole is worth one more try.
        let mut is_continued = partial.byte_count > 0;
        loop {
            self.receive_all(registry, layer, &mut partial).await?;
            layer.progress.tell("Verifying Checksum").await;
            let actual = Digest::finish(partial.hasher.clone());
            if actual == layer.blob {
                break;
            }
            partial.restart().await?;
            if !is_continued {
                return Err(Error::DigestMismatch {
                    expected: layer.blob,
                    actual,
                });
            }
            is_continued = false;
        }
        let Partial { path, file, .. } = partial;
        drop(file);
        let (store, blob) = (self.clone(), layer.blob);
        blocking(move || store.inner.disk.publish_blob(&path, blob)).await
    }

    async fn receive_all(
        &self,
        registry: &Registry,
        layer: &Layer,
        partial: &mut Partial,
    ) -> Result<()> {
        let mut tries = Tries::new(self.inner.config.pull_tries);
        while partial.byte_count != layer.bytes {
            match partial.receive(registry, layer).await {
                Ok(()) => {}
                Err(error @ Error::NoSpace { .. }) => {
                    // Kept, it would keep the disk full.
                    let _ = tokio::fs::remove_file(&partial.path).await;
                    return Err(error);
                }
                Err(error) => tries.pause(error).await?,
            }
        }
        Ok(())
    }
}

// === impl Partial ===

impl Partial {
    /// Opens or creates the file and hashes what an earlier download left in it.
    async fn open(path: PathBuf) -> Result<Self> {
        let (hasher, byte_count) = blocking({
            let path = path.clone();
            move || rehash(&path)
        })
        .await?;
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .await;
        let file = file.map_err(Error::io("open", &path))?;
        Ok(Self {
            path,
            file,
            hasher,
            byte_count,
        })
    }

    /// One request. Success means the answer ended as it should; its bytes are then all there.
    async fn receive(&mut self, registry: &Registry, layer: &Layer) -> Result<()> {
        if self.byte_count > layer.bytes {
            self.restart().await?;
        }
        let mut answer = registry.blob(layer.blob, self.byte_count).await?;
        if !answer.is_partial {
            self.restart().await?;
        }
        let throttle = Throttle::new(layer.bytes);
        let url = answer.response.url().to_string();
        let transfer = |source| registry::Error::Transfer {
            url: url.clone(),
            source: Box::new(source),
        };
        while let Some(chunk) = answer.response.chunk().await.map_err(transfer)? {
            if self.byte_count + chunk.len() as u64 > layer.bytes {
                self.restart().await?;
                let reason = format!("layer {} is longer than its manifest says", layer.blob);
                return Err(registry::Error::Protocol(reason).into());
            }
            self.file
                .write_all(&chunk)
                .await
                .map_err(Error::io("write", &self.path))?;
            self.hasher.update(&chunk);
            self.byte_count += chunk.len() as u64;
            if throttle.pass(self.byte_count) {
                let figure = Progress {
                    current: self.byte_count,
                    total: layer.bytes,
                };
                layer.progress.figure("Downloading", figure);
            }
        }
        self.file
            .flush()
            .await
            .map_err(Error::io("write", &self.path))?;
        if self.byte_count < layer.bytes {
            let reason = format!("layer {} is shorter than its manifest says", layer.blob);
            return Err(registry::Error::Protocol(reason).into());
        }
        Ok(())
    }

    async fn restart(&mut self) -> Result<()> {
        self.file
            .set_len(0)
            .await
            .map_err(Error::io("truncate", &self.path))?;
        self.hasher = Sha256::new();
        self.byte_count = 0;
        Ok(())
    }
}

fn rehash(path: &std::path::Path) -> Result<(Sha256, u64)> {
    let mut hasher = Sha256::new();
    let mut file = match std::fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((hasher, 0)),
        other => other.map_err(Error::io("open", path))?,
    };
    let mut buffer = vec![0; REHASH_BYTES];
    let mut byte_count = 0;
    loop {
        let count = file.read(&mut buffer).map_err(Error::io("read", path))?;
        if count == 0 {
            return Ok((hasher, byte_count));
        }
        hasher.update(&buffer[..count]);
        byte_count += count as u64;
    }
}
