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
    let headings = ["REVISION", "STORED", "IMAGE", "CHANGED SINCE", "STATE"].map(str::to_owned);
    let rows = kept.iter().map(|revision| row(revision, kept));
    let rows: Vec<_> = [headings].into_iter().chain(rows).collect();
    table::write(&rows, out)?;
    Ok(())
}

fn row(revision: &Value, kept: &[Value]) -> [String; 5] {
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
        changed_from(revision, kept),
        state.to_owned(),
    ]
}

/// What differs from the revision that was in force before; where that was not noted, from the one
/// stored before.
fn changed_from(revision: &Value, kept: &[Value]) -> String {
    let number = |revision: &Value| revision["Number"].as_u64();
    let noted = revision["Previous"].as_u64();
    let stored = kept.iter().map(number).filter(|n| *n < number(revision));
    let Some(before) = noted.or_else(|| stored.max().flatten()) else {
        return String::new();
    };
    match kept.iter().find(|kept| number(kept) == Some(before)) {
        Some(kept) => {
            let names = changed(&kept["Spec"], &revision["Spec"]);
            format!("{before}: {names}").trim_end().to_owned()
        }
        None => not_kept(before, revision, kept),
    }
}

/// What is changed to make tasks anew and nothing else.
const FORCED: &str = "ForceUpdate";

/// What differs from a revision that is gone, as far as that can be told. Of revisions that were only forced again the first
/// stands for all.
fn not_kept(before: u64, revision: &Value, kept: &[Value]) -> String {
    let number = |revision: &Value| revision["Number"].as_u64();
    let earlier = kept.iter().filter(|kept| number(kept) < Some(before));
    let nearest = earlier.max_by_key(|kept| number(kept));
    match nearest.map(|kept| changed(&kept["Spec"], &revision["Spec"])) {
        Some(names) if names == FORCED => format!("{before}: {names}"),
        _ => format!("{before}: no longer kept"),
    }
}

/// The parts of a spec that differ, by their names in the API.
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
        let revision =
            |number: u64, before: &str, (image, replicas): (&str, u64), current: bool| {
                format!(
                    r#"{{"Number":{number},{before}"CreatedAt":"2026-01-02T03:04:0{number}.5Z",
                "IsCurrent":{current},"IsPrevious":{},
                "Spec":{{"Name":"web","TaskTemplate":{{"ContainerSpec":{{"Image":"{image}"}}}},
                "Mode":{{"Replicated":{{"Replicas":{replicas}}}}}}}}}"#,
                    !current
                )
            };
        let kept = format!(
            "[{},{},{},{}]",
            revision(3, "", ("app:1@sha256:00", 2), false),
            revision(4, "", ("app:2", 5), false),
            // After a rollback.
            revision(5, r#""Previous":3,"#, ("app:3", 2), true),
            revision(6, r#""Previous":2,"#, ("app:3", 2), false)
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
            "REVISION   STORED                IMAGE   CHANGED SINCE            STATE\n\
             3          2026-01-02 03:04:03   app:1                            previous\n\
             4          2026-01-02 03:04:04   app:2   3: ContainerSpec, Mode   previous\n\
             5          2026-01-02 03:04:05   app:3   3: ContainerSpec         current\n\
             6          2026-01-02 03:04:06   app:3   2: no longer kept        previous\n"
        );
    }
}
