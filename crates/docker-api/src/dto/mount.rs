//! Mounts.

use serde::{Deserialize, Serialize};

use crate::dto::{Map, is_default, meta::Driver};

/// One mount.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Mount {
    #[serde(rename = "Type", skip_serializing_if = "is_default")]
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) source: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) target: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) read_only: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) consistency: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bind_options: Option<BindOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) volume_options: Option<VolumeOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image_options: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tmpfs_options: Option<TmpfsOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cluster_options: Option<serde_json::Value>,
}

/// Options of a bind mount.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct BindOptions {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) propagation: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) non_recursive: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) create_mountpoint: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) read_only_non_recursive: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) read_only_force_recursive: bool,
}

/// Options of a volume mount.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct VolumeOptions {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) no_copy: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) labels: Map,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) subpath: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) driver_config: Option<Driver>,
}

/// Options of a tmpfs mount.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct TmpfsOptions {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) size_bytes: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) mode: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) options: Vec<Vec<String>>,
}
