//! Nodes.

use serde::{Deserialize, Serialize};

use crate::dto::{
    Map, is_default,
    meta::{Meta, Platform, TlsInfo},
    task::Resources,
};

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Node {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) meta: Meta,
    pub(crate) spec: NodeSpec,
    pub(crate) description: NodeDescription,
    pub(crate) status: NodeStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) manager_status: Option<ManagerStatus>,
}

/// The operator's wish for a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct NodeSpec {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) name: String,
    pub(crate) labels: Map,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) role: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) availability: String,
}

/// What a node says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NodeDescription {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) hostname: String,
    pub(crate) platform: Platform,
    pub(crate) resources: Resources,
    pub(crate) engine: EngineDescription,
    #[serde(rename = "TLSInfo")]
    pub(crate) tls_info: TlsInfo,
}

/// The engine of a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct EngineDescription {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) engine_version: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) labels: Map,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) plugins: Vec<PluginDescription>,
}

/// A driver of an engine.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PluginDescription {
    #[serde(rename = "Type", skip_serializing_if = "is_default")]
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) name: String,
}

/// What is known of a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NodeStatus {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) state: &'static str,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) message: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) addr: String,
}

/// Manager part of a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ManagerStatus {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) leader: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) reachability: &'static str,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) addr: String,
}
