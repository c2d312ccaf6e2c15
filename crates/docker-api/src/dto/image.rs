//! Images.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    backend::{
        DistributionInfo, HistoryEntry, ImageConfig, ImageDetail, ImageSummary, RemovedImage,
    },
    dto::{
        Map,
        container::{GraphDriver, port_key},
        container_spec::HealthConfig,
        is_default,
    },
    http::{timestamp::rfc3339_nano, version::ApiVersion},
};

/// An image in a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Summary {
    containers: i64,
    created: i64,
    id: String,
    labels: Option<Map>,
    parent_id: &'static str,
    repo_digests: Vec<String>,
    repo_tags: Vec<String>,
    shared_size: i64,
    size: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    virtual_size: Option<i64>,
}

impl Summary {
    /// `image` as `version` shows it.
    pub(crate) fn new(image: ImageSummary, version: ApiVersion) -> Self {
        let has_no_name = image.repo_tags.is_empty() && image.repo_digests.is_empty();
        // Clients before 1.43 expect placeholder names.
        let or_none = |names: Vec<String>, none: &str| {
            if has_no_name && !version.at_least(43) {
                vec![none.to_owned()]
            } else {
                names
            }
        };
        Self {
            containers: -1,
            created: image.created_at.to_parts().0,
            id: image.id,
            labels: (!image.labels.is_empty()).then_some(image.labels),
            parent_id: "",
            repo_digests: or_none(image.repo_digests, "<none>@<none>"),
            repo_tags: or_none(image.repo_tags, "<none>:<none>"),
            shared_size: -1,
            size: image.size_bytes,
            virtual_size: (!version.at_least(44)).then_some(image.size_bytes),
        }
    }

    /// The same with how many containers were made from it, which lists do not tell.
    pub(crate) fn with_uses(mut self, used: &BTreeMap<String, i64>) -> Self {
        self.containers = used.get(&self.id).copied().unwrap_or(0);
        self
    }
}

/// An image in full.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Inspect {
    id: String,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    parent: &'static str,
    comment: String,
    #[serde(skip_serializing_if = "is_default")]
    created: String,
    docker_version: &'static str,
    author: String,
    config: Config,
    architecture: String,
    #[serde(skip_serializing_if = "is_default")]
    variant: String,
    os: String,
    #[serde(skip_serializing_if = "is_default")]
    os_version: String,
    size: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    virtual_size: Option<i64>,
    graph_driver: GraphDriver,
    #[serde(rename = "RootFS")]
    root_fs: RootFs,
    metadata: Metadata,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct RootFs {
    #[serde(rename = "Type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "is_default")]
    layers: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    last_tag_time: String,
}

/// What containers of an image start with.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    hostname: &'static str,
    domainname: &'static str,
    user: String,
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    #[serde(skip_serializing_if = "is_default")]
    exposed_ports: BTreeMap<String, NoValue>,
    tty: bool,
    open_stdin: bool,
    stdin_once: bool,
    env: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<HealthConfig>,
    image: &'static str,
    volumes: Option<BTreeMap<String, NoValue>>,
    working_dir: String,
    entrypoint: Option<Vec<String>>,
    on_build: Option<Vec<String>>,
    labels: Option<Map>,
    #[serde(skip_serializing_if = "is_default")]
    stop_signal: String,
    #[serde(skip_serializing_if = "is_default")]
    shell: Vec<String>,
}

/// Go's `struct{}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct NoValue {}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

impl From<ImageConfig> for Config {
    fn from(config: ImageConfig) -> Self {
        let ports = config.exposed_ports.iter();
        let volumes: BTreeMap<_, _> = config
            .volumes
            .into_iter()
            .map(|path| (path, NoValue {}))
            .collect();
        Self {
            hostname: "",
            domainname: "",
            user: config.user,
            attach_stdin: false,
            attach_stdout: false,
            attach_stderr: false,
            exposed_ports: ports
                .map(|&(port, of)| (port_key(port, of), NoValue {}))
                .collect(),
            tty: false,
            open_stdin: false,
            stdin_once: false,
            env: some(config.env),
            cmd: some(config.cmd),
            healthcheck: config.health.as_ref().map(HealthConfig::from),
            image: "",
            volumes: (!volumes.is_empty()).then_some(volumes),
            working_dir: config.working_dir,
            entrypoint: some(config.entrypoint),
            on_build: some(config.on_build),
            labels: (!config.labels.is_empty()).then_some(config.labels),
            stop_signal: config.stop_signal,
            shell: config.shell,
        }
    }
}

impl Inspect {
    /// `image` as `version` shows it.
    pub(crate) fn new(image: ImageDetail, version: ApiVersion) -> Self {
        Self {
            id: image.summary.id,
            repo_tags: image.summary.repo_tags,
            repo_digests: image.summary.repo_digests,
            parent: "",
            comment: image.comment,
            created: rfc3339_nano(image.summary.created_at),
            docker_version: "",
            author: image.author,
            config: image.config.into(),
            architecture: image.architecture,
            variant: image.variant,
            os: image.os,
            os_version: image.os_version,
            size: image.summary.size_bytes,
            virtual_size: (!version.at_least(44)).then_some(image.summary.size_bytes),
            graph_driver: GraphDriver {
                data: image.storage_data,
                name: image.storage_driver,
            },
            root_fs: RootFs {
                kind: "layers",
                layers: image.layers,
            },
            metadata: Metadata {
                last_tag_time: rfc3339_nano(image.last_tagged_at),
            },
        }
    }
}

/// One step of an image's making.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct History {
    comment: String,
    created: i64,
    created_by: String,
    id: String,
    size: i64,
    tags: Option<Vec<String>>,
}

impl From<HistoryEntry> for History {
    fn from(entry: HistoryEntry) -> Self {
        Self {
            comment: entry.comment,
            created: entry.created_at.to_parts().0,
            created_by: entry.created_by,
            id: entry.id,
            size: entry.size_bytes,
            tags: some(entry.tags),
        }
    }
}

/// What a removal did; one field is set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) enum Removed {
    /// An image or layer went.
    Deleted(String),
    /// A name went.
    Untagged(String),
}

impl From<RemovedImage> for Removed {
    fn from(removed: RemovedImage) -> Self {
        match removed {
            RemovedImage::Untagged(name) => Self::Untagged(name),
            RemovedImage::Deleted(id) => Self::Deleted(id),
        }
    }
}

/// `POST /images/prune`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ImagesPruned {
    pub(crate) images_deleted: Option<Vec<Removed>>,
    pub(crate) space_reclaimed: u64,
}

/// `GET /distribution/{name}/json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Distribution {
    descriptor: Descriptor,
    platforms: Vec<Platform>,
}

#[derive(Debug, Serialize)]
struct Descriptor {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: String,
    size: i64,
}

#[derive(Debug, Serialize)]
struct Platform {
    architecture: String,
    os: String,
    #[serde(rename = "os.version", skip_serializing_if = "is_default")]
    os_version: String,
    #[serde(skip_serializing_if = "is_default")]
    variant: String,
}

impl From<DistributionInfo> for Distribution {
    fn from(info: DistributionInfo) -> Self {
        let platforms = info.platforms.into_iter().map(|platform| Platform {
            architecture: platform.architecture,
            os: platform.os,
            os_version: platform.os_version,
            variant: platform.variant,
        });
        Self {
            descriptor: Descriptor {
                media_type: info.media_type,
                digest: info.digest,
                size: info.size_bytes,
            },
            platforms: platforms.collect(),
        }
    }
}
