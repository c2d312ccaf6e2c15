//! `skep stack ls`

use std::io::Write;

use serde_json::Value;
use skep_docker_api::client::Client;

use crate::table;

/// How to list.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Only names
    #[arg(short, long)]
    quiet: bool,
}

pub(super) async fn run(client: &Client, args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let stacks = client.get("/skep/v1/stacks").await?;
    let stacks = stacks.as_array().map(Vec::as_slice).unwrap_or_default();
    if args.quiet {
        for stack in stacks {
            writeln!(out, "{}", stack["Name"].as_str().unwrap_or_default())?;
        }
        return Ok(());
    }
    let headings = ["NAME", "SERVICES", "REVISION", "STATE"].map(str::to_owned);
    let rows: Vec<_> = [headings]
        .into_iter()
        .chain(stacks.iter().map(row))
        .collect();
    table::write(&rows, out)?;
    Ok(())
}

fn row(stack: &Value) -> [String; 4] {
    let text = |key: &str| stack[key].as_str().unwrap_or_default().to_owned();
    let revision = match stack["Revision"].as_u64() {
        None | Some(0) => "-".to_owned(),
        Some(number) => number.to_string(),
    };
    [
        text("Name"),
        stack["Services"].to_string(),
        revision,
        text("State"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_daemon::FakeDaemon;

    #[tokio::test]
    async fn stacks_of_others_have_no_revision() {
        let stacks = r#"[{"Name":"app","Services":3,"Revision":4,"State":"converging"},
            {"Name":"old","Services":12,"Revision":0,"State":"running"}]"#;
        let turn = || ("GET /skep/v1/stacks ", 200, stacks.to_owned());
        let daemon = FakeDaemon::new(vec![turn(), turn()]);
        let (client, mut out) = (daemon.client(), Vec::new());
        run(&client, &Args { quiet: false }, &mut out)
            .await
            .unwrap();
        run(&client, &Args { quiet: true }, &mut out).await.unwrap();
        daemon.requests().await;
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "NAME   SERVICES   REVISION   STATE\n\
             app    3          4          converging\n\
             old    12         -          running\n\
             app\nold\n"
        );
    }
}
