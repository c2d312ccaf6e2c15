//! Volumes of this node.

use serde::{Deserialize, Serialize};

use crate::{
    backend::{CreateVolumeRequest, VolumeDetail},
    dto::Map,
    http::timestamp::rfc3339,
};

/// A volume.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Volume {
    created_at: String,
    driver: String,
    labels: Option<Map>,
    mountpoint: String,
    name: String,
    options: Option<Map>,
    scope: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage_data: Option<UsageData>,
}

/// Use of a volume.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct UsageData {
    ref_count: usize,
    size: i64,
}

impl Volume {
    /// A volume as lists show it.
    pub(crate) fn new(volume: VolumeDetail) -> Self {
        let some = |map: Map| (!map.is_empty()).then_some(map);
        Self {
            created_at: rfc3339(volume.created_at),
            driver: volume.driver,
            labels: some(volume.labels),
            mountpoint: volume.mountpoint,
            name: volume.name,
            options: some(volume.options),
            scope: "local",
            status: volume.status,
            usage_data: None,
        }
    }

    /// A volume as `system df` shows it.
    pub(crate) fn with_usage(volume: VolumeDetail, size_bytes: Option<i64>) -> Self {
        let usage = UsageData {
            ref_count: volume.users.len(),
            size: size_bytes.unwrap_or(-1),
        };
        Self {
            usage_data: Some(usage),
            ..Self::new(volume)
        }
    }
}

/// `GET /volumes`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct VolumeList {
    pub(crate) volumes: Vec<Volume>,
    pub(crate) warnings: Option<Vec<String>>,
}

/// `POST /volumes/create`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct CreateVolume {
    name: String,
    driver: String,
    driver_opts: Map,
    labels: Map,
    pub(crate) cluster_volume_spec: Option<serde_json::Value>,
}

impl From<CreateVolume> for CreateVolumeRequest {
    fn from(request: CreateVolume) -> Self {
        Self {
            name: request.name,
            driver: request.driver,
            options: request.driver_opts,
            labels: request.labels,
        }
    }
}

/// `POST /volumes/prune`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct VolumesPruned {
    pub(crate) volumes_deleted: Option<Vec<String>>,
    pub(crate) space_reclaimed: i64,
}
