//! `skep stack services`: docker's table.

use std::{collections::BTreeMap, io::Write};

use anyhow::bail;
use serde_json::Value;
use skep_docker_api::client::Client;

use super::{filters, path, words};
use crate::table;

/// Which stack.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// The stack's name
    stack: String,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
}

pub(super) async fn run(client: &Client, args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let filters = filters(&args.stack, false);
    let services = format!("/services?status=true&filters={filters}");
    let services = client.get(&services).await?;
    let services = services.as_array().map(Vec::as_slice).unwrap_or_default();
    if services.is_empty() {
        bail!("nothing found in stack: {}", args.stack);
    }
    let name = |service: &Value| {
        service["Spec"]["Name"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let services: BTreeMap<String, &Value> = services
        .iter()
        .map(|service| (name(service), service))
        .collect();
    if args.quiet {
        for service in services.values() {
            let id = service["ID"].as_str().unwrap_or_default();
            writeln!(out, "{}", words::short_id(id))?;
        }
        return Ok(());
    }
    let headings = ["ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"].map(str::to_owned);
    let rows = services.iter().map(|(name, service)| row(name, service));
    let rows: Vec<_> = [headings].into_iter().chain(rows).collect();
    table::write(&rows, out)?;
    // Docker's table, and below it what docker does not know.
    let stack = client.get(&path(&args.stack)).await?;
    let reasons = stack["Reasons"].as_array().into_iter().flatten();
    let reasons: Vec<&str> = reasons.filter_map(Value::as_str).collect();
    if !reasons.is_empty() {
        writeln!(out)?;
    }
    for reason in reasons {
        writeln!(out, "{}", reason.replace(['\n', '\r'], " "))?;
    }
    Ok(())
}

fn row(name: &str, service: &Value) -> [String; 6] {
    let spec = &service["Spec"];
    let image = spec["TaskTemplate"]["ContainerSpec"]["Image"].as_str();
    let (mode, replicas) = mode(service);
    [
        words::short_id(service["ID"].as_str().unwrap_or_default()).to_owned(),
        name.to_owned(),
        mode.to_owned(),
        replicas,
        words::image(image.unwrap_or_default()).to_owned(),
        ports(&service["Endpoint"]["Ports"]),
    ]
}

fn mode(service: &Value) -> (&'static str, String) {
    let spec = &service["Spec"];
    let count = |key: &str| service["ServiceStatus"][key].as_u64().unwrap_or(0);
    let (running, desired) = (count("RunningTasks"), count("DesiredTasks"));
    let plain = format!("{running}/{desired}");
    let mode = |name: &str| spec["Mode"].get(name).is_some_and(|mode| !mode.is_null());
    if mode("Global") {
        return ("global", plain);
    }
    let completed = count("CompletedTasks");
    if mode("GlobalJob") {
        let all = desired + completed;
        return (
            "global job",
            format!("{plain} ({completed}/{all} completed)"),
        );
    }
    if mode("ReplicatedJob") {
        let all = spec["Mode"]["ReplicatedJob"]["TotalCompletions"].as_u64();
        let all = all.unwrap_or(1);
        return (
            "replicated job",
            format!("{plain} ({completed}/{all} completed)"),
        );
    }
    let limit = spec["TaskTemplate"]["Placement"]["MaxReplicas"].as_u64();
    match limit.filter(|limit| *limit > 0) {
        Some(limit) => ("replicated", format!("{plain} (max {limit} per node)")),
        None => ("replicated", plain),
    }
}

fn ports(ports: &Value) -> String {
    let ports = ports.as_array().map(Vec::as_slice).unwrap_or_default();
    let shown = |port: &Value| {
        let published = port["PublishedPort"]
            .as_u64()
            .filter(|number| *number > 0)?;
        let protocol = port["Protocol"].as_str().unwrap_or("tcp");
        Some((protocol.to_owned(), published, port["TargetPort"].as_u64()?))
    };
    let mut ports: Vec<_> = ports.iter().filter_map(shown).collect();
    ports.sort();
    let texts = ports
        .into_iter()
        .map(|(protocol, published, target)| format!("*:{published}->{target}/{protocol}"));
    texts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_daemon::FakeDaemon;

    #[tokio::test]
    async fn services_are_shown_as_docker_shows_them() {
        let services = r#"[{"ID":"0123456789abcdef","Spec":{"Name":"app_web","Mode":{"Replicated":{"Replicas":3}},
            "TaskTemplate":{"ContainerSpec":{"Image":"web:1@sha256:00"},"Placement":{"MaxReplicas":2}}},
            "Endpoint":{"Ports":[{"Protocol":"udp","TargetPort":53,"PublishedPort":53},
              {"Protocol":"tcp","TargetPort":80,"PublishedPort":8080}]},
            "ServiceStatus":{"RunningTasks":1,"DesiredTasks":3}},
            {"ID":"1","Spec":{"Name":"app_job","Mode":{"ReplicatedJob":{"TotalCompletions":5}},
             "TaskTemplate":{"ContainerSpec":{"Image":"job"}}},"Endpoint":{},
             "ServiceStatus":{"RunningTasks":2,"DesiredTasks":2,"CompletedTasks":3}}]"#;
        let daemon = FakeDaemon::new(vec![
            (
                "GET /services?status=true&filters=%7B%22label%22",
                200,
                services.to_owned(),
            ),
            (
                "GET /skep/v1/stacks/app ",
                200,
                r#"{"Reasons":["app_web: slot 2 is crash-looping: exit 3 (5 failures)"]}"#
                    .to_owned(),
            ),
            ("GET /services?status=true&filters=", 200, "[]".to_owned()),
        ]);
        let (client, mut out) = (daemon.client(), Vec::new());
        let args = |stack: &str| Args {
            stack: stack.to_owned(),
            quiet: false,
        };
        run(&client, &args("app"), &mut out).await.unwrap();
        let missing = run(&client, &args("b"), &mut Vec::new()).await;
        assert_eq!(
            missing.unwrap_err().to_string(),
            "nothing found in stack: b"
        );
        daemon.requests().await;
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "ID             NAME      MODE             REPLICAS              IMAGE   PORTS\n\
             1              app_job   replicated job   2/2 (3/5 completed)   job\n\
             0123456789ab   app_web   replicated       1/3 (max 2 per node)  web:1   *:8080->80/tcp, *:53->53/udp\n\
             \n\
             app_web: slot 2 is crash-looping: exit 3 (5 failures)\n"
                .replace("(max 2 per node)  web", "(max 2 per node)   web")
                .replace("REPLICAS              IMAGE", "REPLICAS               IMAGE")
                .replace("(3/5 completed)   job", "(3/5 completed)    job")
        );
    }
}
