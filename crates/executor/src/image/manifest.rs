//! Manifests and indexes of images, OCI's and Docker's, as `oci-spec` types, checked.

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use serde::{Deserialize, de::IgnoredAny};

use super::{
    Digest, Error, Platform,
    config::{IMAGES_PER_ARCHIVE_MAX, LAYERS_MAX},
    error::Result,
};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// What we ask registries for, best first.
pub(crate) const ACCEPTED: [&str; 4] = [OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST];

const LAYERS: [&str; 5] = [
    OCI_LAYER,
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
];

/// A manifest document.
#[derive(Debug)]
pub(crate) enum Manifest {
    Image(Box<ImageManifest>),
    Index(Box<ImageIndex>),
}

/// The fields that tell the kinds apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    schema_version: Option<u32>,
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
}

// === impl Manifest ===

impl Manifest {
    /// Parses a stranger's document. `content_type` is what the registry or the descriptor called it.
    pub(crate) fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self> {
        let refuse = |reason: &str| Error::Document {
            what: "manifest",
            reason: reason.to_owned(),
        };
        let probe: Probe = serde_json::from_slice(bytes).map_err(Error::document("manifest"))?;
        if probe.schema_version != Some(2) {
            return Err(refuse("schema version is not 2"));
        }
        // One document must not be two things to two readers (CVE-2021-41190).
        if probe.manifests.is_some() && (probe.config.is_some() || probe.layers.is_some()) {
            return Err(refuse("it is both an image and an index"));
        }
        let content_type = content_type.filter(|kind| ACCEPTED.contains(kind));
        if let (Some(inner), Some(outer)) = (probe.media_type.as_deref(), content_type)
            && inner != outer
        {
            return Err(refuse("its media type is not what it was sent as"));
        }
        let kind = probe.media_type.as_deref().or(content_type);
        match kind {
            Some(OCI_MANIFEST | DOCKER_MANIFEST) => parse_image(bytes),
            Some(OCI_INDEX | DOCKER_INDEX) => parse_index(bytes),
            None if probe.manifests.is_some() => parse_index(bytes),
            None => parse_image(bytes),
            Some(other) => Err(Error::MediaType(other.to_owned())),
        }
    }
}

fn parse_image(bytes: &[u8]) -> Result<Manifest> {
    let manifest: ImageManifest =
        serde_json::from_slice(bytes).map_err(Error::document("manifest"))?;
    let config = manifest.config().media_type().to_string();
    if config != OCI_CONFIG && config != DOCKER_CONFIG {
        return Err(Error::MediaType(config));
    }
    if manifest.layers().len() > LAYERS_MAX {
        return Err(Error::TooLarge {
            what: "number of layers",
            limit: LAYERS_MAX as u64,
        });
    }
    let layers = manifest
        .layers()
        .iter()
        .map(|layer| layer.media_type().to_string());
    if let Some(unknown) = layers
        .into_iter()
        .find(|kind| !LAYERS.contains(&kind.as_str()))
    {
        return Err(Error::MediaType(unknown));
    }
    Ok(Manifest::Image(Box::new(manifest)))
}

fn parse_index(bytes: &[u8]) -> Result<Manifest> {
    let index: ImageIndex = serde_json::from_slice(bytes).map_err(Error::document("index"))?;
    if index.manifests().len() > IMAGES_PER_ARCHIVE_MAX {
        let limit = IMAGES_PER_ARCHIVE_MAX as u64;
        return Err(Error::TooLarge {
            what: "number of manifests in an index",
            limit,
        });
    }
    Ok(Manifest::Index(Box::new(index)))
}

/// The digest of a descriptor.
pub(crate) fn digest_of(descriptor: &Descriptor) -> Result<Digest> {
    Ok(descriptor.digest().to_string().parse()?)
}

/// The platform a descriptor of an index claims.
pub(crate) fn platform_of(descriptor: &Descriptor) -> Option<Platform> {
    let platform = descriptor.platform().as_ref()?;
    let variant = platform.variant().as_deref().unwrap_or_default();
    Some(Platform::new(
        &platform.os().to_string(),
        &platform.architecture().to_string(),
        variant,
    ))
}

/// The best entry of an index for `platform`.
pub(crate) fn select<'a>(index: &'a ImageIndex, platform: &Platform) -> Result<&'a Descriptor> {
    let mut best: Option<(u32, &Descriptor)> = None;
    for entry in index.manifests() {
        let rank = platform_of(entry).and_then(|offer| platform.rank(&offer));
        // The first of equals, as Docker.
        if let Some(rank) = rank.filter(|rank| best.is_none_or(|(best, _)| *rank > best)) {
            best = Some((rank, entry));
        }
    }
    match (best, index.manifests().as_slice()) {
        (Some((_, entry)), _) => Ok(entry),
        (None, [only]) if only.platform().is_none() => Ok(only),
        _ => Err(Error::NoPlatform(platform.to_string())),
    }
}
