//! `skep stack ps`: docker's table.

use std::{collections::BTreeMap, io::Write};

use anyhow::bail;
use jiff::Timestamp;
use serde_json::Value;
use skep_docker_api::client::Client;

use super::{filters, words};
use crate::{names::names, table};

/// Characters of an error in a table.
const ERROR_LENGTH: usize = 30;

/// Which stack, and how much of it.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// The stack's name
    stack: String,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids, images and errors
    #[arg(long)]
    no_trunc: bool,
}

pub(super) async fn run(client: &Client, args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let filters = filters(&args.stack, false);
    let tasks = client.get(&format!("/tasks?filters={filters}")).await?;
    let tasks = tasks.as_array().map(Vec::as_slice).unwrap_or_default();
    if tasks.is_empty() {
        bail!("nothing found in stack: {}", args.stack);
    }
    let services = client.get(&format!("/services?filters={filters}")).await?;
    let services = names(&services, "/Spec/Name");
    let nodes = names(&client.get("/nodes").await?, "/Description/Hostname");
    let tasks = sorted(tasks, &services);
    if args.quiet {
        for (_, task) in tasks {
            let id = task["ID"].as_str().unwrap_or_default();
            writeln!(
                out,
                "{}",
                if args.no_trunc {
                    id
                } else {
                    words::short_id(id)
                }
            )?;
        }
        return Ok(());
    }
    let headings = [
        "ID",
        "NAME",
        "IMAGE",
        "NODE",
        "DESIRED STATE",
        "CURRENT STATE",
        "ERROR",
        "PORTS",
    ];
    let mut rows = vec![headings.map(str::to_owned)];
    let mut before = None;
    let now = Timestamp::now();
    for (name, task) in tasks {
        let shown = match before.as_ref() == Some(&name) {
            true => format!(" \\_ {name}"),
            false => name.clone(),
        };
        let node = task["NodeID"].as_str().unwrap_or_default();
        let node = nodes.get(node).map_or(node, String::as_str);
        rows.push(row([shown, node.to_owned()], task, now, args.no_trunc));
        before = Some(name);
    }
    table::write(&rows, out)?;
    Ok(())
}

/// By service and slot, the newest of a slot first.
fn sorted<'a>(tasks: &'a [Value], services: &BTreeMap<String, String>) -> Vec<(String, &'a Value)> {
    let text = |task: &'a Value, key: &str| task[key].as_str().unwrap_or_default();
    let mut named: Vec<_> = tasks
        .iter()
        .map(|task| {
            let service = text(task, "ServiceID");
            let service = services
                .get(service)
                .map_or(service, String::as_str)
                .to_owned();
            let slot = task["Slot"].as_u64().unwrap_or(0);
            let name = match slot {
                0 => format!("{service}.{}", text(task, "NodeID")),
                slot => format!("{service}.{slot}"),
            };
            ((service, slot, name), task)
        })
        .collect();
    named.sort_by(|(one, a), (other, b)| {
        let age = text(b, "CreatedAt").cmp(text(a, "CreatedAt"));
        one.cmp(other).then(age)
    });
    named
        .into_iter()
        .map(|((_, _, name), task)| (name, task))
        .collect()
}

fn row([name, node]: [String; 2], task: &Value, now: Timestamp, is_whole: bool) -> [String; 8] {
    let id = task["ID"].as_str().unwrap_or_default();
    let image = task["Spec"]["ContainerSpec"]["Image"]
        .as_str()
        .unwrap_or_default();
    let status = &task["Status"];
    let state = words::capital(status["State"].as_str().unwrap_or_default());
    let since: Option<Timestamp> = status["Timestamp"]
        .as_str()
        .and_then(|time| time.parse().ok());
    let age = since.map_or(0, |since| now.as_second() - since.as_second());
    let error = status["Err"].as_str().unwrap_or_default();
    [
        if is_whole { id } else { words::short_id(id) }.to_owned(),
        name,
        if is_whole { image } else { words::image(image) }.to_owned(),
        node,
        words::capital(task["DesiredState"].as_str().unwrap_or_default()),
        format!("{state} {} ago", words::age(age).to_lowercase()),
        self::error(error, is_whole),
        ports(&status["PortStatus"]["Ports"]),
    ]
}

fn error(text: &str, is_whole: bool) -> String {
    if text.is_empty() {
        return String::new();
    }
    if is_whole || text.chars().count() <= ERROR_LENGTH {
        return format!("\"{text}\"");
    }
    let start: String = text.chars().take(ERROR_LENGTH - 1).collect();
    format!("\"{start}…\"")
}

fn ports(ports: &Value) -> String {
    let ports = ports.as_array().into_iter().flatten();
    let texts = ports.map(|port| {
        let protocol = port["Protocol"].as_str().unwrap_or("tcp");
        format!(
            "*:{}->{}/{protocol}",
            port["PublishedPort"], port["TargetPort"]
        )
    });
    texts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_daemon::FakeDaemon;

    #[tokio::test]
    async fn earlier_tasks_of_a_slot_are_below_the_newest() {
        let task = |id: &str, slot: u64, created: &str, state: &str, error: &str| {
            format!(
                r#"{{"ID":"{id}","ServiceID":"s","NodeID":"n","Slot":{slot},"CreatedAt":"{created}","DesiredState":"running",
                "Spec":{{"ContainerSpec":{{"Image":"web:1@sha256:00"}}}},
                "Status":{{"State":"{state}","Timestamp":"2020-01-01T00:00:00Z","Err":"{error}"}}}}"#
            )
        };
        let long = "a text that is longer than thirty characters";
        let tasks = format!(
            "[{},{},{}]",
            task("t10", 10, "2020-01-01T00:00:01Z", "running", ""),
            task("t1", 2, "2020-01-01T00:00:01Z", "failed", long),
            task("t2", 2, "2020-01-01T00:00:02Z", "running", "")
        );
        let services = r#"[{"ID":"s","Spec":{"Name":"app_web"}}]"#;
        let nodes = r#"[{"ID":"n","Description":{"Hostname":"node1"}}]"#;
        let daemon = FakeDaemon::new(vec![
            ("GET /tasks?filters=", 200, tasks),
            ("GET /services?filters=", 200, services.to_owned()),
            ("GET /nodes ", 200, nodes.to_owned()),
        ]);
        let mut out = Vec::new();
        let args = Args {
            stack: "app".to_owned(),
            quiet: false,
            no_trunc: false,
        };
        run(&daemon.client(), &args, &mut out).await.unwrap();
        daemon.requests().await;
        let text = String::from_utf8(out).unwrap();
        let column = |range: std::ops::Range<usize>| -> Vec<String> {
            let cells = text
                .lines()
                .map(|line| line.get(range.clone()).unwrap_or("").trim_end());
            cells.map(str::to_owned).collect()
        };
        assert_eq!(column(0..6), ["ID", "t2", "t1", "t10"]);
        assert_eq!(
            column(6..22),
            ["NAME", "app_web.2", " \\_ app_web.2", "app_web.10"]
        );
        assert!(
            text.contains("\"a text that is longer than th…\""),
            "{text}"
        );
        assert!(
            text.contains("Failed") && text.contains("years ago"),
            "{text}"
        );
    }
}
