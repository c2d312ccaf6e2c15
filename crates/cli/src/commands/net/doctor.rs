//! `skep net doctor`: what of the networks is not as it should be, node by node.

use std::{io::Write, process::ExitCode, time::Duration};

use anyhow::Context;
use serde_json::Value;
use skep_docker_api::client::Client;

use crate::{
    args::Connection,
    local::{layout::node_name, state::State},
    url::escape,
};

/// A node compares everything with its kernel, which takes seconds where there is much.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(60);
const PATH: &str = "/skep/v1/doctor";

/// Whom to ask, and for what.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Repair what can be repaired
    #[arg(long)]
    heal: bool,
    /// Every node: of a cluster that `skep local` runs, else of the daemon's cluster, if it is a manager
    #[arg(long, conflicts_with = "nodes")]
    all: bool,
    /// A node of that cluster; may be repeated
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
    for (name, client, path) in questions(connection, args).await? {
        match ask(&client, &path, args.heal).await {
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

/// Whom to ask where; a name for those that cannot say their own.
type Question = (Option<String>, Client, String);

async fn questions(connection: &Connection, args: &Args) -> anyhow::Result<Vec<Question>> {
    let own = PATH.to_owned();
    if !args.all && args.nodes.is_empty() {
        return Ok(vec![(None, connection.client()?, own)]);
    }
    let local = if connection.is_named() {
        None
    } else {
        State::read(&args.name)?
    };
    let Some(state) = local else {
        return of_cluster(&connection.client()?, args).await;
    };
    let layout = state.layout(&args.name);
    let numbers: Vec<u8> = if args.all {
        state.numbers().collect()
    } else {
        let numbers = args.nodes.iter().map(|name| state.number_of(name));
        numbers.collect::<anyhow::Result<_>>()?
    };
    let question = |number| {
        let client = Client::unix(layout.socket(number));
        (Some(node_name(number)), client, own.clone())
    };
    Ok(numbers.into_iter().map(question).collect())
}

/// Through a manager, who asks the nodes.
async fn of_cluster(client: &Client, args: &Args) -> anyhow::Result<Vec<Question>> {
    let path = |node: &str| format!("/skep/v1/nodes/{}/doctor", escape(node));
    if !args.all {
        let named = args.nodes.iter();
        let question = |name: &String| (Some(name.clone()), client.clone(), path(name));
        return Ok(named.map(question).collect());
    }
    let nodes = client.get("/nodes").await?;
    let question = |node: &Value| {
        let name = node["Description"]["Hostname"].as_str().map(str::to_owned);
        let id = node["ID"].as_str().unwrap_or_default();
        (name, client.clone(), path(id))
    };
    Ok(nodes
        .as_array()
        .into_iter()
        .flatten()
        .map(question)
        .collect())
}

async fn ask(client: &Client, path: &str, heal: bool) -> anyhow::Result<Value> {
    let answer = async {
        if heal {
            client.post(&format!("{path}/heal"), &Value::Null).await
        } else {
            client.get(path).await
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
    use crate::fake_daemon::FakeDaemon;

    #[track_caller]
    fn check(answer: &str, is_well: bool, expect: &str) {
        let answer = serde_json::from_str(answer).unwrap();
        let mut out = Vec::new();
        assert_eq!(show(None, &answer, &mut out).unwrap(), is_well);
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }

    #[tokio::test]
    async fn all_nodes_of_a_cluster_are_asked_through_a_manager() {
        let nodes = r#"[{"ID":"i1","Description":{"Hostname":"a"}},{"ID":"i2","Description":{"Hostname":"b"}}]"#;
        let finding = r#"{"Node":"a","Findings":["x"]}"#;
        let refusal = r#"{"message":"node i2 is not available"}"#;
        let daemon = FakeDaemon::new(vec![
            ("GET /nodes ", 200, nodes.to_owned()),
            ("GET /skep/v1/nodes/i1/doctor ", 200, finding.to_owned()),
            ("GET /skep/v1/nodes/i2/doctor ", 503, refusal.to_owned()),
        ]);
        let connection = Connection {
            host: Some(format!("unix://{}", daemon.path("s").display())),
            docker_host: None,
        };
        let args = Args {
            heal: false,
            all: true,
            nodes: Vec::new(),
            name: "default".to_owned(),
        };
        let mut out = Vec::new();
        let code = run(&connection, &args, &mut out).await.unwrap();
        let expect = "a: x\nb: daemon: node i2 is not available\n";
        assert_eq!(String::from_utf8(out).unwrap(), expect);
        assert_eq!(code, ExitCode::FAILURE);
        daemon.requests().await;
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
