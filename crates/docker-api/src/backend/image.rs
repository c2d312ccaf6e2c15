//! Images of this node, and registries.

use std::collections::BTreeMap;

use async_trait::async_trait;
use skep_model::{Protocol, Redacted, Timestamp};

use crate::{
    backend::{ByteStream, ProgressStream},
    error::Result,
};

/// Image side of the API.
///
/// `reference` is what the client sent: a name with or without tag or digest, a whole id or a
/// unique id prefix. Unknown: [`ErrorKind::NotFound`] with `No such image: <reference>` (a name
/// without tag is shown with `:latest`).
///
/// Long operations return `Err` for what is known before they begin (bad reference, …) and a
/// stream otherwise; an `Err` in it is shown by the client and ends it.
///
/// [`ErrorKind::NotFound`]: crate::error::ErrorKind::NotFound
#[async_trait]
pub trait ImageBackend: Send + Sync + 'static {
    /// All images, newest first. The API filters.
    async fn images(&self) -> Result<Vec<ImageSummary>>;

    /// One image in full.
    async fn image(&self, reference: &str) -> Result<ImageDetail>;

    /// Its layers, newest first.
    async fn history(&self, reference: &str) -> Result<Vec<HistoryEntry>>;

    /// Fetches an image from its registry.
    async fn pull(&self, request: PullRequest) -> Result<ProgressStream>;

    /// Reads images from a docker-archive or OCI layout, plain or compressed.
    async fn load(&self, archive: ByteStream, request: LoadRequest) -> Result<ProgressStream>;

    /// Makes an image of one layer from a file system archive. The last message's status is the
    /// image's id.
    async fn import(&self, archive: ByteStream, request: ImportRequest) -> Result<ProgressStream>;

    /// Writes images as a docker-archive.
    async fn save(&self, references: Vec<String>) -> Result<ByteStream>;

    /// Adds a name. `name` is `repository:tag`, checked for form by the backend.
    async fn tag(&self, reference: &str, name: &str) -> Result<()>;

    /// Removes a name and, with the last one, the image. In use:
    /// [`ErrorKind::Conflict`](crate::error::ErrorKind::Conflict) with Docker's text (`conflict:
    /// unable to remove repository reference "X" (must force) - container Y is using its
    /// referenced image Z`).
    async fn remove(&self, reference: &str, force: bool) -> Result<Vec<RemovedImage>>;

    /// Removes unused images.
    async fn prune(&self, request: ImagePruneRequest) -> Result<(Vec<RemovedImage>, u64)>;

    /// Bytes of all layers, each counted once.
    async fn layers_bytes(&self) -> Result<u64>;

    /// Asks the registry for digest and platforms of an image, without fetching it.
    async fn distribution(
        &self,
        reference: &str,
        auth: Option<RegistryAuth>,
    ) -> Result<DistributionInfo>;

    /// Checks credentials at their registry. Refused:
    /// [`ErrorKind::Unauthorized`](crate::error::ErrorKind::Unauthorized).
    async fn login(&self, auth: RegistryAuth) -> Result<LoginOutcome>;
}

/// An image in a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageSummary {
    /// `sha256:…` of the config.
    pub id: String,
    /// `repository:tag` names in familiar form (`busybox:latest`).
    pub repo_tags: Vec<String>,
    /// `repository@digest` names.
    pub repo_digests: Vec<String>,
    /// When the image was built.
    pub created_at: Timestamp,
    /// Bytes of its layers, unpacked.
    pub size_bytes: i64,
    /// Labels of its config.
    pub labels: BTreeMap<String, String>,
    /// Containers that use it.
    pub container_count: u64,
}

/// An image in full.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageDetail {
    /// What lists show too.
    pub summary: ImageSummary,
    /// Comment of the newest history entry.
    pub comment: String,
    /// Author.
    pub author: String,
    /// Go's architecture name.
    pub architecture: String,
    /// Its variant (`v8`).
    pub variant: String,
    /// Operating system.
    pub os: String,
    /// Its version (Windows).
    pub os_version: String,
    /// What containers start with.
    pub config: ImageConfig,
    /// `sha256:…` of each layer, unpacked, lowest first.
    pub layers: Vec<String>,
    /// Storage driver, e.g. `overlay2`.
    pub storage_driver: String,
    /// Its data.
    pub storage_data: BTreeMap<String, String>,
    /// When a name was last set here; zero: unknown.
    pub last_tagged_at: Timestamp,
}

/// What containers of an image start with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// User.
    pub user: String,
    /// Ports.
    pub exposed_ports: Vec<(u16, Protocol)>,
    /// Environment.
    pub env: Vec<String>,
    /// Entrypoint.
    pub entrypoint: Vec<String>,
    /// Command.
    pub cmd: Vec<String>,
    /// Volumes.
    pub volumes: Vec<String>,
    /// Working directory.
    pub working_dir: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Stop signal.
    pub stop_signal: String,
    /// Triggers for builds.
    pub on_build: Vec<String>,
    /// Shell for shell forms.
    pub shell: Vec<String>,
    /// Health check: test, and in nanoseconds interval, timeout, start period; retries.
    pub health: Option<skep_model::HealthConfig>,
}

/// One step of an image's making.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Image id of the step, or `<missing>`.
    pub id: String,
    /// When.
    pub created_at: Timestamp,
    /// What was run.
    pub created_by: String,
    /// Names of that image.
    pub tags: Vec<String>,
    /// Bytes it added.
    pub size_bytes: i64,
    /// Comment.
    pub comment: String,
}

/// Credentials of a registry, decoded from `X-Registry-Auth`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistryAuth {
    /// User.
    pub username: String,
    /// Password. A secret.
    pub password: Redacted<String>,
    /// OAuth refresh token. A secret.
    pub identity_token: Redacted<String>,
    /// Bearer token. A secret.
    pub registry_token: Redacted<String>,
    /// Registry address as the client wrote it; empty: the reference's.
    pub server_address: String,
}

/// What to pull.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PullRequest {
    /// `name`, `name:tag` or `name@digest`; without tag `:latest` was added unless `all_tags`.
    pub reference: String,
    /// All tags of the name.
    pub all_tags: bool,
    /// Wanted platform (`linux/arm64`); empty: the node's.
    pub platform: String,
    /// Credentials.
    pub auth: Option<RegistryAuth>,
}

/// How to load.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadRequest {
    /// No progress, only the outcome (`Loaded image: X`).
    pub quiet: bool,
    /// Wanted platform; empty: all.
    pub platform: String,
}

/// What to make of an imported archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportRequest {
    /// `repository:tag`; empty: none.
    pub name: String,
    /// Dockerfile instructions to apply.
    pub changes: Vec<String>,
    /// Commit message.
    pub message: String,
    /// Platform of the image; empty: the node's.
    pub platform: String,
}

/// One message of a long operation; Docker's `jsonmessage`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// What it is about (a layer's short id); empty: the whole.
    pub id: String,
    /// `Downloading`, `Pull complete`, ….
    pub status: String,
    /// Plain output (`docker load`); excludes the others.
    pub stream: String,
    /// How far it got.
    pub detail: Option<ProgressDetail>,
    /// Result for programs (`{"ID": …}` of a push or build), as JSON.
    pub aux: Option<serde_json::Value>,
}

/// How far an operation got, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProgressDetail {
    /// Done.
    pub current: u64,
    /// All; 0: unknown.
    pub total: u64,
}

/// What a removal did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemovedImage {
    /// A name went.
    Untagged(String),
    /// An image or layer went.
    Deleted(String),
}

/// What to prune.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImagePruneRequest {
    /// Only images without names; else all unused ones.
    pub dangling_only: bool,
    /// Only images built before.
    pub until: Option<Timestamp>,
    /// Only images with all of these labels (`key` or `key=value`).
    pub labels: Vec<String>,
    /// Only images with none of these.
    pub labels_absent: Vec<String>,
}

/// What a registry says of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DistributionInfo {
    /// Media type of the manifest or index.
    pub media_type: String,
    /// Its digest.
    pub digest: String,
    /// Its bytes.
    pub size_bytes: i64,
    /// Platforms it serves.
    pub platforms: Vec<ImagePlatform>,
}

/// A platform in a registry's terms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImagePlatform {
    /// Go's architecture name.
    pub architecture: String,
    /// Operating system.
    pub os: String,
    /// Variant.
    pub variant: String,
    /// Version of the operating system (Windows).
    pub os_version: String,
}

/// Credentials were accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoginOutcome {
    /// `Login Succeeded`.
    pub status: String,
    /// Token to keep in place of the password; may be empty. A secret.
    pub identity_token: Redacted<String>,
}
