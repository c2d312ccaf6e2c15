//! Volumes of this node.

use std::collections::BTreeMap;

use async_trait::async_trait;
use skep_model::Timestamp;

use crate::error::Result;

/// Volume side of the API. Unknown: [`ErrorKind::NotFound`] with `get <name>: no such volume`.
///
/// [`ErrorKind::NotFound`]: crate::error::ErrorKind::NotFound
#[async_trait]
pub trait VolumeBackend: Send + Sync + 'static {
    /// All volumes, by name, and what is not known of some. The API filters.
    async fn volumes(&self) -> Result<VolumeListing>;

    /// Bytes of a volume's files; `None`: not this node's to count. Reads the whole tree.
    async fn size_bytes(&self, name: &str) -> Result<Option<i64>>;

    /// One volume.
    async fn volume(&self, name: &str) -> Result<VolumeDetail>;

    /// Creates a volume, or returns the equal one that exists.
    async fn create(&self, request: CreateVolumeRequest) -> Result<VolumeDetail>;

    /// Removes a volume. In use: [`ErrorKind::Conflict`](crate::error::ErrorKind::Conflict) with
    /// `remove <name>: volume is in use - [<container id>, …]`.
    async fn remove(&self, name: &str, force: bool) -> Result<()>;
}

/// Volumes of this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeListing {
    /// All that is known.
    pub volumes: Vec<VolumeDetail>,
    /// Plugins that do not answer, in words.
    pub warnings: Vec<String>,
}

/// A volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeDetail {
    /// Name.
    pub name: String,
    /// Driver: `local`, or a plugin's name.
    pub driver: String,
    /// Path on the host.
    pub mountpoint: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Made for one container, without a name given.
    pub is_anonymous: bool,
    /// Containers that use it.
    pub users: Vec<String>,
    /// What its plugin tells of it.
    pub status: Option<serde_json::Map<String, serde_json::Value>>,
}

/// A volume to create.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateVolumeRequest {
    /// Name; empty: 64 random hex digits, anonymous.
    pub name: String,
    /// Driver; empty: `local`.
    pub driver: String,
    /// Its options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}
