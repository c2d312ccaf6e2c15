//! Parts that many objects share.

use serde::{Deserialize, Serialize};

use crate::dto::{Map, is_default};

/// An object's version.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Version {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) index: u64,
}

/// Bookkeeping of a stored object.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Meta {
    pub(crate) version: Version,
    pub(crate) created_at: String,
    pub(crate) updated_at: String,
}

/// Name and labels.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Annotations {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) name: String,
    pub(crate) labels: Map,
}

/// A driver with options.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Driver {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) options: Map,
}

/// Issuer of certificates. Byte strings are base64 in JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct TlsInfo {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) trust_root: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) cert_issuer_subject: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) cert_issuer_public_key: String,
}

/// Operating system and architecture.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Platform {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) architecture: String,
    #[serde(rename = "OS", skip_serializing_if = "is_default")]
    pub(crate) os: String,
}

/// A user-defined resource; exactly one field is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct GenericResource {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) named_resource_spec: Option<NamedResource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) discrete_resource_spec: Option<DiscreteResource>,
}

/// A particular item.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct NamedResource {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) value: String,
}

/// An amount.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct DiscreteResource {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) value: i64,
}
