//! Mounts of a container.

use std::collections::BTreeMap;

use crate::spec::Driver;

/// One mount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// Host path, volume name, or empty (anonymous volume, tmpfs). May hold a template.
    pub source: String,
    /// Absolute path inside the container. May hold a template.
    pub target: String,
    /// Mount without write access.
    pub is_read_only: bool,
    /// A hint other platforms use; carried, without effect on Linux (as in Docker).
    pub consistency: Consistency,
    /// Only for bind mounts.
    pub bind: Option<BindOptions>,
    /// Only for volumes.
    pub volume: Option<VolumeOptions>,
    /// Only for tmpfs.
    pub tmpfs: Option<TmpfsOptions>,
}

/// Kinds of mounts, with Swarm's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MountKind {
    /// A host path.
    #[default]
    Bind,
    /// A named or anonymous volume.
    Volume,
    /// Memory.
    Tmpfs,
    /// A Windows named pipe.
    NamedPipe,
    /// A CSI cluster volume.
    Cluster,
}

/// Consistency hint of a mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Not given.
    #[default]
    Default,
    /// `consistent`.
    Consistent,
    /// `cached`.
    Cached,
    /// `delegated`.
    Delegated,
}

/// Options of a bind mount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BindOptions {
    /// Mount propagation.
    pub propagation: Propagation,
    /// Bind only the mount itself, not what is mounted below it.
    pub is_non_recursive: bool,
    /// Create the host path when it is missing.
    pub create_mountpoint: bool,
    /// Read-only applies to the top mount only.
    pub is_read_only_non_recursive: bool,
    /// Fail rather than fall back when recursive read-only is not possible.
    pub is_read_only_force_recursive: bool,
}

/// Mount propagation, with Swarm's order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Propagation {
    /// `rprivate`, the default.
    #[default]
    RPrivate,
    /// `private`.
    Private,
    /// `rshared`.
    RShared,
    /// `shared`.
    Shared,
    /// `rslave`.
    RSlave,
    /// `slave`.
    Slave,
}

/// Options of a volume mount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeOptions {
    /// Do not fill an empty volume from the image's directory.
    pub is_no_copy: bool,
    /// Labels for a volume created by this mount.
    pub labels: BTreeMap<String, String>,
    /// Driver for a volume created by this mount.
    pub driver: Option<Driver>,
    /// Path inside the volume to mount.
    pub subpath: String,
}

/// Options of a tmpfs mount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TmpfsOptions {
    /// Size limit in bytes; 0 is unlimited.
    pub size_bytes: i64,
    /// Permission bits of the root, in Go's `os.FileMode` numbering; 0 means 1777.
    pub mode: u32,
    /// Raw mount options (`[["exec"],["uid","1000"]]` as JSON, as moby stores them).
    pub options: String,
}
