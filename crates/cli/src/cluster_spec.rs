//! Reading and changing the cluster's spec over the ordinary API, against others who do so too.

use anyhow::{Context, bail};
use serde_json::{Map, Value};
use skep_docker_api::client::{Client, Error};

/// Attempts against others who change the cluster at the same time.
const ATTEMPT_COUNT_MAX: u32 = 10;
/// Swarm's words for a version that is no longer the newest; tools know them.
const STALE: &str = "update out of sequence";

/// What is replaced with the spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rotate {
    Nothing,
    WorkerToken,
    ManagerToken,
}

/// The cluster with its join tokens.
pub(crate) async fn read(client: &Client) -> anyhow::Result<Value> {
    let swarm = client.get("/swarm").await;
    swarm.context("failed to ask for the cluster")
}

/// Changes labels of the cluster.
pub(crate) async fn update(
    client: &Client,
    rotate: Rotate,
    change: impl Fn(&mut Map<String, Value>),
) -> anyhow::Result<()> {
    for _ in 0..ATTEMPT_COUNT_MAX {
        let swarm = read(client).await?;
        let mut spec = swarm["Spec"].clone();
        if !spec["Labels"].is_object() {
            spec["Labels"] = Value::Object(Map::new());
        }
        if let Value::Object(labels) = &mut spec["Labels"] {
            change(labels);
        }
        let version = &swarm["Version"]["Index"];
        let rotate = match rotate {
            Rotate::Nothing => "",
            Rotate::WorkerToken => "&rotateWorkerToken=true",
            Rotate::ManagerToken => "&rotateManagerToken=true",
        };
        let path = format!("/swarm/update?version={version}{rotate}");
        match client.post(&path, &spec).await {
            Ok(_) => return Ok(()),
            Err(error) if is_stale(&error) => {}
            Err(error) => return Err(error).context("failed to change the cluster"),
        }
    }
    bail!("others change the cluster all the time")
}

/// Whether a change was refused because somebody else was faster.
pub(crate) fn is_stale(error: &Error) -> bool {
    matches!(error, Error::Refused { message, .. } if message.contains(STALE))
}
