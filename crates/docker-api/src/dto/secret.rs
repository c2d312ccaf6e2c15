//! Secrets and configs: objects alike but for what they are called, and that the data of secrets is never shown.

use serde::{Deserialize, Serialize};

use crate::dto::{
    Map, is_default,
    meta::{Driver, Meta},
};

/// A secret or config.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Supply {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) meta: Meta,
    pub(crate) spec: SupplySpec,
}

/// What a secret or config is. `driver` is known of secrets only.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct SupplySpec {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) name: String,
    pub(crate) labels: Map,
    /// Base64.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) data: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) driver: Option<Driver>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) templating: Option<Driver>,
}

impl std::fmt::Debug for SupplySpec {
    /// Without the data.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SupplySpec")
            .field("name", &self.name)
            .field("labels", &self.labels)
            .finish_non_exhaustive()
    }
}

/// Answer to a creation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Created {
    #[serde(rename = "ID")]
    pub(crate) id: String,
}

/// Use of a secret by a service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct SecretReference {
    pub(crate) file: Option<FileTarget>,
    #[serde(rename = "SecretID")]
    pub(crate) secret_id: String,
    pub(crate) secret_name: String,
}

/// Use of a config by a service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ConfigReference {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<FileTarget>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) runtime: Option<RuntimeTarget>,
    #[serde(rename = "ConfigID")]
    pub(crate) config_id: String,
    pub(crate) config_name: String,
}

/// A file in the container. `mode` is Go's `os.FileMode`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct FileTarget {
    pub(crate) name: String,
    #[serde(rename = "UID")]
    pub(crate) uid: String,
    #[serde(rename = "GID")]
    pub(crate) gid: String,
    pub(crate) mode: u32,
}

/// The runtime itself reads it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RuntimeTarget {}
