//! `skep stack plan`

use std::io::Write;

use clap::ValueEnum;
use skep_docker_api::client::Client;

use super::{changes, deploy, input, path, size};

/// What to plan.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    input: input::Input,
    #[command(flatten)]
    options: deploy::Options,
    /// How to show it
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// The stack's name [default: `name:` of the file]
    #[arg(value_name = "STACK")]
    name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

pub(super) async fn run(client: &Client, args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let name = args.name.as_deref();
    let document = deploy::document(client, &args.input, &args.options, name).await?;
    let path = format!("{}/plan{}", path(&document.name), args.options.query());
    let body = size::checked(document.to_json())?;
    let answer = client.post(&path, &body).await?;
    changes::warn(&answer);
    match args.format {
        Format::Text => changes::explain(&changes::steps(&answer), out)?,
        Format::Json => writeln!(out, "{answer:#}")?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;
    use crate::fake_daemon::FakeDaemon;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[tokio::test]
    async fn a_plan_is_asked_for_and_shown() {
        let answer = r#"{"Revision":1,"Changes":[{"Kind":"service","Name":"shop_web","Action":"create",
            "Placement":{"Nodes":[{"Name":"n1","Count":1}],"Pending":0}}]}"#;
        let none = ("GET /services?filters=", 200, "[]".to_owned());
        let turn = (
            "POST /skep/v1/stacks/shop/plan?prune=false&force=false ",
            200,
            answer.to_owned(),
        );
        let daemon = FakeDaemon::new(vec![none, turn]);
        let file = daemon.path("f.yml");
        fs::write(&file, "services: {web: {image: app}}\n").unwrap();
        let file = file.display().to_string();
        let line = ["plan", "-c", &file, "--resolve-image=never", "shop"];
        let args = Line::try_parse_from(line).unwrap().args;
        let mut out = Vec::new();
        run(&daemon.client(), &args, &mut out).await.unwrap();
        daemon.requests().await;
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "+ service shop_web\n    runs on n1 (1)\n1 to create, 0 to update, 0 to remove, 0 unchanged\n"
        );
    }
}
