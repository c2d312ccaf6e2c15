//! `skep stack config`

use std::io::Write;

use anyhow::Context;
use skep_docker_api::client::Client;

use super::{input, path};

/// Which files, or which revision.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    input: input::Input,
    /// Leave variables as they are
    #[arg(long, visible_alias = "skip-interpolation")]
    no_interpolate: bool,
    /// Only check
    #[arg(short, long)]
    quiet: bool,
    /// What was deployed as this revision of the stack, instead of files
    #[arg(long, requires = "name")]
    revision: Option<u64>,
    /// The stack's name
    #[arg(value_name = "STACK")]
    name: Option<String>,
}

pub(super) async fn run(client: &Client, args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let text = match (args.revision, &args.name) {
        (Some(revision), Some(name)) => {
            let kept = client
                .get(&format!("{}/revisions/{revision}", path(name)))
                .await?;
            let source = kept["Source"].as_str();
            source.context("the revision has no file")?.to_owned()
        }
        _ if args.no_interpolate => args.input.merge()?,
        _ => {
            let loaded = args.input.load(args.name.as_deref())?;
            skep_compose::render(&loaded.document)
        }
    };
    if !args.quiet {
        write!(out, "{text}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::fake_daemon::FakeDaemon;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[tokio::test]
    async fn the_file_of_a_revision_is_shown() {
        let kept = r#"{"Number":2,"Source":"services:\n  web: {}\n"}"#;
        let turn = ("GET /skep/v1/stacks/app/revisions/2 ", 200, kept.to_owned());
        let daemon = FakeDaemon::new(vec![turn]);
        let args = Line::try_parse_from(["config", "--revision", "2", "app"])
            .unwrap()
            .args;
        let mut out = Vec::new();
        run(&daemon.client(), &args, &mut out).await.unwrap();
        daemon.requests().await;
        assert_eq!(out, b"services:\n  web: {}\n");
        assert!(Line::try_parse_from(["config", "--revision", "2"]).is_err());
    }
}
