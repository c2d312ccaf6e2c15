//! What is mounted into a service's containers: `volumes` and `tmpfs`.

use std::collections::BTreeMap;

use crate::word::words;

/// One entry of `volumes`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mount {
    /// `type`.
    pub kind: MountKind,
    /// Key of the project's volume; of binds an absolute path; of images a reference. `None`: an anonymous volume, or tmpfs.
    pub source: Option<String>,
    /// Path in the container.
    pub target: String,
    /// `read_only`.
    pub is_read_only: bool,
    /// `consistency`, of Docker Desktop.
    pub consistency: Option<String>,
    /// `bind`, when said; only with that type.
    pub bind: Option<BindOptions>,
    /// `volume`, when said; only with that type.
    pub volume: Option<VolumeOptions>,
    /// `tmpfs`, when said; only with that type.
    pub tmpfs: Option<TmpfsOptions>,
    /// `image.subpath`; only with that type.
    pub image_subpath: Option<String>,
}

words! {
    /// What a mount is of.
    MountKind {
        /// A volume.
        #[default]
        Volume = "volume",
        /// A path of the node.
        Bind = "bind",
        /// Memory.
        Tmpfs = "tmpfs",
        /// A pipe of Windows.
        Npipe = "npipe",
        /// A volume of the cluster (CSI).
        Cluster = "cluster",
        /// The files of an image.
        Image = "image",
    }
}

/// Options of binds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BindOptions {
    /// How mounts below spread.
    pub propagation: Option<Propagation>,
    /// Makes the directory on the node when it is missing; `None`: not said, as in every short form.
    pub is_created: Option<bool>,
    /// Mounts below.
    pub recursive: Option<Recursive>,
    /// Relabelling.
    pub selinux: Option<Selinux>,
}

words! {
    /// How mounts below a bind spread.
    Propagation {
        /// Not, the mounts below neither.
        #[default]
        Rprivate = "rprivate",
        /// Not.
        Private = "private",
        /// Both ways, the mounts below too.
        Rshared = "rshared",
        /// Both ways.
        Shared = "shared",
        /// Into the container, the mounts below too.
        Rslave = "rslave",
        /// Into the container.
        Slave = "slave",
    }
}

words! {
    /// What becomes of mounts below a bind.
    Recursive {
        /// They are there.
        #[default]
        Enabled = "enabled",
        /// They are not.
        Disabled = "disabled",
        /// They stay writable below a read-only bind.
        Writable = "writable",
        /// They are read-only, or it is an error.
        Readonly = "readonly",
    }
}

words! {
    /// SELinux label of a bind.
    Selinux {
        /// Shared between containers.
        #[default]
        Shared = "z",
        /// For this container.
        Private = "Z",
    }
}

/// Options of volumes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeOptions {
    /// A new volume does not get what the image has there.
    pub is_nocopy: bool,
    /// A path in the volume.
    pub subpath: Option<String>,
    /// Labels of an anonymous volume.
    pub labels: BTreeMap<String, String>,
}

/// Options of a tmpfs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TmpfsOptions {
    /// `size`.
    pub size_bytes: Option<u64>,
    /// Permission bits.
    pub mode: Option<u32>,
}

/// One entry of `tmpfs`: `PATH[:options]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tmpfs {
    /// Path in the container.
    pub target: String,
    /// `size` and `mode`.
    pub options: TmpfsOptions,
    /// The other options (`noexec`, `uid=1000`), in order.
    pub flags: Vec<String>,
}
