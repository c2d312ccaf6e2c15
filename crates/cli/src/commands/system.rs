//! `skep version` and `skep info`.

use std::io::Write;

use anyhow::Context;
use serde_json::Value;
use skep_docker_api::client::Client;

/// `skep version`: this program's version always, the daemon's when it answers.
pub(crate) async fn version(client: &Client, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "Client: {}", env!("CARGO_PKG_VERSION"))?;
    let version = client
        .get("/version")
        .await
        .context("failed to ask for the daemon's version")?;
    writeln!(out, "Daemon: {}", text(&version["Version"]))?;
    let (newest, oldest) = (
        text(&version["ApiVersion"]),
        text(&version["MinAPIVersion"]),
    );
    writeln!(out, "Docker API: {oldest} to {newest}")?;
    writeln!(
        out,
        "Platform: {}/{}",
        text(&version["Os"]),
        text(&version["Arch"])
    )?;
    Ok(())
}

/// `skep info`
pub(crate) async fn info(client: &Client, out: &mut dyn Write) -> anyhow::Result<()> {
    let info = client
        .get("/info")
        .await
        .context("failed to ask the daemon about itself")?;
    let swarm = &info["Swarm"];
    let lines = [
        ("Name", text(&info["Name"])),
        ("Version", text(&info["ServerVersion"])),
        ("Operating system", text(&info["OperatingSystem"])),
        ("Kernel", text(&info["KernelVersion"])),
        ("CPUs", text(&info["NCPU"])),
        ("Memory bytes", text(&info["MemTotal"])),
        ("Data directory", text(&info["DockerRootDir"])),
        ("Runtime", text(&info["DefaultRuntime"])),
        ("Containers running", text(&info["ContainersRunning"])),
        ("Images", text(&info["Images"])),
        ("Swarm", text(&swarm["LocalNodeState"])),
    ];
    for (name, value) in lines {
        writeln!(out, "{name}: {value}")?;
    }
    if swarm["ControlAvailable"] == true {
        writeln!(out, "Cluster: {}", text(&swarm["Cluster"]["ID"]))?;
        writeln!(out, "Node: {}", text(&swarm["NodeID"]))?;
        let (managers, nodes) = (text(&swarm["Managers"]), text(&swarm["Nodes"]));
        writeln!(out, "Managers: {managers} of {nodes} nodes")?;
    }
    for warning in info["Warnings"].as_array().into_iter().flatten() {
        writeln!(out, "Warning: {}", text(warning))?;
    }
    Ok(())
}

/// A scalar as people read it.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "unknown".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_daemon::FakeDaemon;

    #[tokio::test]
    async fn info_shows_node_and_cluster() {
        let body = r#"{"Name":"host1","NCPU":2,"Swarm":{"LocalNodeState":"active",
            "ControlAvailable":true,"Cluster":{"ID":"c1"},"NodeID":"n1","Managers":1,"Nodes":3},
            "Warnings":["w"]}"#;
        let daemon = FakeDaemon::new(vec![("GET /info ", 200, body.to_owned())]);
        let mut out = Vec::new();
        info(&daemon.client(), &mut out).await.unwrap();
        daemon.requests().await;
        let text = String::from_utf8(out).unwrap();
        for line in [
            "Name: host1",
            "CPUs: 2",
            "Managers: 1 of 3 nodes",
            "Warning: w",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[tokio::test]
    async fn without_a_daemon_the_client_version_is_still_shown() {
        let directory = tempfile::tempdir().unwrap();
        let mut out = Vec::new();
        let client = Client::unix(directory.path().join("none"));
        let error = version(&client, &mut out).await.expect_err("no daemon");
        assert!(
            format!("{error:#}").contains("failed to connect to the daemon at"),
            "{error:#}"
        );
        assert!(String::from_utf8(out).unwrap().starts_with("Client: "));
    }
}
