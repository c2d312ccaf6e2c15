//! `skep net doctor`: what of the networks is not as it should be, node by node.

use std::{io::Write, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use serde_json::Value;
use skep_docker_api::client::Client;

use crate::{
    args::Connection,
    local::{layout::node_name, state::State},
};

/// A node compares everything with its kernel, which takes seconds where there is much.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(60);
const PATH: &str = "/skep/v1/doctor";
const HEAL_PATH: &str = "/skep/v1/doctor/heal";

/// Whom to ask, and for what.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Repair what can be repaired
    #[arg(long)]
    heal: bool,
    /// Every node of a cluster that `skep local` runs
    #[arg(long, conflicts_with = "nodes")]
    all: bool,
    /// A node of a cluster that `skep local` runs; may be repeated
    #[arg(long = "node", value_name = "NODE")]
    nodes: Vec<String>,
    /// Which cluster of `skep local`
    #[arg(long, default_value = "default", value_name = "NAME")]
    name: String,
}

/// Succeeds with exit code 1 when something was found that is not repaired.
pub(super) async fn run(
    connection: &Connection,
    args: &Args,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let mut is_well = true;
    for (name, client) in clients(connection, args)? {
        match ask(&client, args.heal).await {
            Ok(answer) => is_well &= show(name.as_deref(), &answer, out)?,
            // The others may have something to say.
            Err(error) => {
                let name = name.as_deref().unwrap_or("node");
                writeln!(out, "{name}: {error:#}")?;
                is_well = false;
            }
        }
    }
    Ok(if is_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn clients(connection: &Connection, args: &Args) -> anyhow::Result<Vec<(Option<String>, Client)>> {
    if !args.all && args.nodes.is_empty() {
        return Ok(vec![(None, connection.client()?)]);
    }
    let Some(state) = State::read(&args.name)? else {
        bail!("there is no local cluster `{}`", args.name);
    };
    let layout = state.layout(&args.name);
    let numbers: Vec<u8> = if args.all {
        state.numbers().collect()
    } else {
        let numbers = args.nodes.iter().map(|name| state.number_of(name));
        numbers.collect::<anyhow::Result<_>>()?
    };
    let client = |number| (Some(node_name(number)), Client::unix(layout.socket(number)));
    Ok(numbers.into_iter().map(client).collect())
}

async fn ask(client: &Client, heal: bool) -> anyhow::Result<Value> {
    let answer = async {
        if heal {
            client.post(HEAL_PATH, &Value::Null).await
        } else {
            client.get(PATH).await
        }
    };
    let answer = tokio::time::timeout(ANSWER_WAIT_MAX, answer).await;
    Ok(answer.context("no answer within a minute")??)
}

/// Writes what a node says; whether nothing is left to do.
fn show(name: Option<&str>, answer: &Value, out: &mut dyn Write) -> anyhow::Result<bool> {
    let name = name.or(answer["Node"].as_str()).unwrap_or("node");
    let texts = |key: &str| {
        let list = answer[key].as_array().into_iter().flatten();
        list.filter_map(Value::as_str)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (repaired, findings) = (texts("Repaired"), texts("Findings"));
    for text in &repaired {
        writeln!(out, "{name}: repaired: {text}")?;
    }
    for text in &findings {
        writeln!(out, "{name}: {text}")?;
    }
    if repaired.is_empty() && findings.is_empty() {
        writeln!(out, "{name}: all is well")?;
    }
    Ok(findings.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(answer: &str, is_well: bool, expect: &str) {
        let answer = serde_json::from_str(answer).unwrap();
        let mut out = Vec::new();
        assert_eq!(show(None, &answer, &mut out).unwrap(), is_well);
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }

    #[test]
    fn each_finding_is_a_line_of_its_node() {
        check(r#"{"Node":"a","Findings":[]}"#, true, "a: all is well\n");
        check(
            r#"{"Node":"a","Findings":["x","y"]}"#,
            false,
            "a: x\na: y\n",
        );
        check(
            r#"{"Node":"a","Repaired":["x"],"Findings":[]}"#,
            true,
            "a: repaired: x\n",
        );
    }
}
