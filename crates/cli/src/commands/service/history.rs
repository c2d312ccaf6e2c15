//! `skep service history`

use std::io::Write;

use serde_json::Value;
use skep_docker_api::client::Client;

use crate::{table, url::escape};

/// Characters of a time up to its second.
const TIME_LENGTH: usize = 19;

/// Which service.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// The service's name or id
    service: String,
}

pub(super) async fn run(client: &Client, args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let path = format!("/skep/v1/services/{}/revisions", escape(&args.service));
    let kept = client.get(&path).await?;
    let kept = kept.as_array().map(Vec::as_slice).unwrap_or_default();
    let headings = ["REVISION", "STORED", "IMAGE", "CHANGED", "STATE"].map(str::to_owned);
    let before = [None].into_iter().chain(kept.iter().map(Some));
    let rows = kept
        .iter()
        .zip(before)
        .map(|(revision, before)| row(revision, before));
    let rows: Vec<_> = [headings].into_iter().chain(rows).collect();
    table::write(&rows, out)?;
    Ok(())
}

fn row(revision: &Value, before: Option<&Value>) -> [String; 5] {
    let stored = revision["CreatedAt"].as_str().unwrap_or_default();
    let spec = &revision["Spec"];
    let image = spec["TaskTemplate"]["ContainerSpec"]["Image"].as_str();
    let image = image
        .unwrap_or_default()
        .split('@')
        .next()
        .unwrap_or_default();
    let state = match (&revision["IsCurrent"], &revision["IsPrevious"]) {
        (Value::Bool(true), _) => "current",
        (_, Value::Bool(true)) => "previous",
        _ => "",
    };
    [
        revision["Number"].to_string(),
        stored
            .get(..TIME_LENGTH)
            .unwrap_or(stored)
            .replace('T', " "),
        image.to_owned(),
        before.map_or(String::new(), |before| changed(&before["Spec"], spec)),
        state.to_owned(),
    ]
}

/// The parts of a spec that differ from the revision listed before it, by their names in the API.
fn changed(before: &Value, spec: &Value) -> String {
    let mut names = Vec::new();
    let empty = serde_json::Map::new();
    let parts = |value: &Value| {
        let mut parts = Vec::new();
        for (name, part) in value.as_object().unwrap_or(&empty) {
            match part.as_object().filter(|_| name == "TaskTemplate") {
                Some(inner) => parts.extend(inner.iter().map(|(n, p)| (n.clone(), p.clone()))),
                None => parts.push((name.clone(), part.clone())),
            }
        }
        parts
    };
    let (old, new) = (parts(before), parts(spec));
    for (name, part) in new.iter().chain(&old) {
        let value_in = |parts: &[(String, Value)]| {
            parts
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, p)| p.clone())
        };
        let is_changed = value_in(&old) != value_in(&new);
        if is_changed && !part.is_null() && !names.contains(&name.as_str()) {
            names.push(name.as_str());
        }
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_daemon::FakeDaemon;

    #[tokio::test]
    async fn each_revision_says_what_it_changed() {
        let revision = |number: u64, image: &str, replicas: u64, current: bool| {
            format!(
                r#"{{"Number":{number},"CreatedAt":"2026-01-02T03:04:0{number}.5Z",
                "IsCurrent":{current},"IsPrevious":{},
                "Spec":{{"Name":"web","TaskTemplate":{{"ContainerSpec":{{"Image":"{image}"}}}},
                "Mode":{{"Replicated":{{"Replicas":{replicas}}}}}}}}}"#,
                !current
            )
        };
        let kept = format!(
            "[{},{}]",
            revision(3, "app:1@sha256:00", 2, false),
            revision(4, "app:2", 5, true)
        );
        let daemon = FakeDaemon::new(vec![("GET /skep/v1/services/web/revisions ", 200, kept)]);
        let mut out = Vec::new();
        let args = Args {
            service: "web".to_owned(),
        };
        run(&daemon.client(), &args, &mut out).await.unwrap();
        daemon.requests().await;
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "REVISION   STORED                IMAGE   CHANGED               STATE\n\
             3          2026-01-02 03:04:03   app:1                         previous\n\
             4          2026-01-02 03:04:04   app:2   ContainerSpec, Mode   current\n"
        );
    }
}
