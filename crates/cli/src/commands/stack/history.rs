//! `skep stack history`

use std::io::Write;

use serde_json::Value;
use skep_docker_api::client::Client;

use super::path;
use crate::table;

/// Characters of a time up to its second.
const TIME_LENGTH: usize = 19;

/// Which stack.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// The stack's name
    stack: String,
}

pub(super) async fn run(client: &Client, args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let kept = client
        .get(&format!("{}/revisions", path(&args.stack)))
        .await?;
    let kept = kept.as_array().map(Vec::as_slice).unwrap_or_default();
    let headings = ["REVISION", "STORED", "SERVICES", "CHANGED", "STATE"].map(str::to_owned);
    let rows: Vec<_> = [headings].into_iter().chain(kept.iter().map(row)).collect();
    table::write(&rows, out)?;
    Ok(())
}

fn row(revision: &Value) -> [String; 5] {
    let stored = revision["CreatedAt"].as_str().unwrap_or_default();
    let stored = stored.get(..TIME_LENGTH).unwrap_or(stored);
    let changed = revision["Changed"].as_array().into_iter().flatten();
    let changed: Vec<&str> = changed.filter_map(Value::as_str).collect();
    let is_in_force = match (
        revision["IsCurrent"] == true,
        revision["IsPrevious"] == true,
    ) {
        (true, _) => "current",
        (false, true) => "previous",
        (false, false) => "",
    };
    let told = [is_in_force.to_owned()]
        .into_iter()
        .chain(troubles(&revision["RolledBack"], "rolled back: "))
        .chain(troubles(&revision["Paused"], ""));
    let told: Vec<String> = told.filter(|text| !text.is_empty()).collect();
    [
        revision["Number"].to_string(),
        stored.replace('T', " "),
        revision["Services"].to_string(),
        changed.join(", "),
        told.join("; "),
    ]
}

/// What became of services, by their names.
fn troubles<'a>(services: &'a Value, verb: &'a str) -> impl Iterator<Item = String> + 'a {
    let services = services.as_object().into_iter().flatten();
    services.map(move |(name, cause)| {
        let cause = cause.as_str().unwrap_or_default();
        format!("{verb}{name}: {cause}").replace(['\n', '\r'], " ")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_daemon::FakeDaemon;

    #[tokio::test]
    async fn revisions_say_what_they_changed() {
        let kept = r#"[{"Number":3,"CreatedAt":"2026-01-02T03:04:05.5Z","IsCurrent":true,"Services":2,"Changed":[]},
            {"Number":4,"CreatedAt":"2026-01-02T03:04:06Z","IsCurrent":false,"IsPrevious":true,"Services":3,
             "Changed":["service app_web","config app_x"]},
            {"Number":5,"CreatedAt":"2026-01-02T03:04:07Z","IsCurrent":true,"Services":3,
             "Changed":["service app_web"],"RolledBack":{"app_web":"early termination of task t: exit 3"},"Paused":{"app_db":"update paused"}}]"#;
        let turn = ("GET /skep/v1/stacks/app/revisions ", 200, kept.to_owned());
        let daemon = FakeDaemon::new(vec![turn]);
        let mut out = Vec::new();
        let args = Args {
            stack: "app".to_owned(),
        };
        run(&daemon.client(), &args, &mut out).await.unwrap();
        daemon.requests().await;
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "REVISION   STORED                SERVICES   CHANGED                         STATE\n\
             3          2026-01-02 03:04:05   2                                          current\n\
             4          2026-01-02 03:04:06   3          service app_web, config app_x   previous\n\
             5          2026-01-02 03:04:07   3          service app_web                 current; rolled back: app_web: early termination of task \
             t: exit 3; app_db: update paused\n"
        );
    }
}
