//! `skep local load`

use std::{io::Write, path::PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{
    commands::local::numbers,
    local::{layout::node_name, machine::Machine},
};

/// Which archive, and into which nodes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// The archive, as `docker save` writes it
    file: PathBuf,
    /// Nodes; all by default
    nodes: Vec<String>,
}

pub(super) async fn run(machine: &Machine, args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut wanted = numbers(machine, &args.nodes)?;
    if wanted.is_empty() {
        wanted = machine.state.numbers().collect();
    }
    for number in wanted {
        let file = tokio::fs::File::open(&args.file).await;
        let file = file.with_context(|| format!("failed to open `{}`", args.file.display()))?;
        let answer = machine
            .client(number)
            .upload("/images/load?quiet=1", "application/x-tar", file)
            .await?;
        for line in answer
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let message: Value = serde_json::from_slice(line).unwrap_or_default();
            if let Some(error) = message["error"].as_str() {
                bail!("{}: {error}", node_name(number));
            }
            if let Some(text) = message["stream"].as_str() {
                writeln!(out, "{}: {}", node_name(number), text.trim())?;
            }
        }
    }
    Ok(())
}
