//! `skep node rebalance`

use std::io::Write;

use anyhow::Context;
use clap::ValueEnum;
use serde_json::{Map, Value};
use skep_docker_api::client::Client;
use skep_model::reserved::rebalance::{BUDGET, MODE, ONCE};

use crate::cluster_spec::{self, Rotate};

const PATH: &str = "/skep/v1/rebalance";

/// What to move, and when.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Only show the moves
    #[arg(long, conflicts_with_all = ["mode", "budget"])]
    dry_run: bool,
    /// When tasks are moved from now on; nothing is moved at once because of it
    #[arg(long)]
    mode: Option<Mode>,
    /// How many tasks move at a time from now on
    #[arg(long, value_name = "COUNT")]
    budget: Option<u32>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    /// Never
    Off,
    /// When nodes join or return
    OnJoin,
    /// Whenever tasks could be spread better
    Continuous,
}

pub(super) async fn run(client: &Client, args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let settings = settings(args);
    if !settings.is_empty() {
        return set(client, &settings).await;
    }
    let moves = client.get(PATH).await;
    let moves = moves.context("failed to ask what would move")?;
    let moves = moves.as_array().map(Vec::as_slice).unwrap_or_default();
    for step in moves {
        let text = |key: &str| step[key].as_str().unwrap_or_default();
        writeln!(out, "{}: {}", text("Task"), text("Reason"))?;
    }
    if moves.is_empty() {
        writeln!(out, "nothing to move")?;
    } else if !args.dry_run {
        set(client, &[(ONCE, "true".to_owned())]).await?;
        writeln!(out, "{} moves begin", moves.len())?;
    }
    Ok(())
}

/// Labels of the cluster to set.
fn settings(args: &Args) -> Vec<(&'static str, String)> {
    let mode = args.mode.map(|mode| match mode {
        Mode::Off => "off",
        Mode::OnJoin => "on-join",
        Mode::Continuous => "continuous",
    });
    let mode = mode.map(|mode| (MODE, mode.to_owned()));
    let budget = args.budget.map(|budget| (BUDGET, budget.to_string()));
    mode.into_iter().chain(budget).collect()
}

async fn set(client: &Client, settings: &[(&'static str, String)]) -> anyhow::Result<()> {
    cluster_spec::update(
        client,
        Rotate::Nothing,
        |labels: &mut Map<String, Value>| {
            for (label, value) in settings {
                labels.insert((*label).to_owned(), value.as_str().into());
            }
        },
    )
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_daemon::FakeDaemon;

    const SWARM: &str = r#"{"Version":{"Index":7},"Spec":{"Labels":{}}}"#;
    const MOVES: &str =
        r#"[{"Task":"web.2","Reason":"rebalanced from a to b: 2 tasks there, 0 here"}]"#;

    fn args(dry_run: bool, mode: Option<Mode>, budget: Option<u32>) -> Args {
        Args {
            dry_run,
            mode,
            budget,
        }
    }

    #[tokio::test]
    async fn moves_are_shown_and_begun_unless_dry() {
        let daemon = FakeDaemon::new(vec![
            ("GET /skep/v1/rebalance ", 200, MOVES.to_owned()),
            ("GET /skep/v1/rebalance ", 200, MOVES.to_owned()),
            ("GET /swarm ", 200, SWARM.to_owned()),
            ("POST /swarm/update?version=7 ", 200, String::new()),
        ]);
        let (client, mut out) = (daemon.client(), Vec::new());
        run(&client, &args(true, None, None), &mut out)
            .await
            .unwrap();
        let line = "web.2: rebalanced from a to b: 2 tasks there, 0 here\n";
        assert_eq!(String::from_utf8(out).unwrap(), line);
        let mut out = Vec::new();
        run(&client, &args(false, None, None), &mut out)
            .await
            .unwrap();
        let shown = String::from_utf8(out).unwrap();
        assert_eq!(shown, format!("{line}1 moves begin\n"));
        let requests = daemon.requests().await;
        let labels = r#"{"Labels":{"skep.rebalance.once":"true"}}"#;
        assert!(requests[3].ends_with(labels), "{}", requests[3]);
    }

    #[tokio::test]
    async fn settings_are_labels_of_the_cluster() {
        let daemon = FakeDaemon::new(vec![
            ("GET /swarm ", 200, SWARM.to_owned()),
            ("POST /swarm/update?version=7 ", 200, String::new()),
        ]);
        let (client, mut out) = (daemon.client(), Vec::new());
        let args = args(false, Some(Mode::OnJoin), Some(3));
        run(&client, &args, &mut out).await.unwrap();
        assert!(out.is_empty());
        let requests = daemon.requests().await;
        let labels = r#"{"Labels":{"skep.rebalance":"on-join","skep.rebalance.budget":"3"}}"#;
        assert!(requests[1].ends_with(labels), "{}", requests[1]);
    }
}
