//! `skep swarm join-token`

use std::{io::Write, time::Duration};

use anyhow::Context;
use clap::ValueEnum;
use jiff::{Timestamp, Unit};
use serde_json::Value;
use skep_docker_api::client::Client;
use skep_model::reserved;

use crate::{
    cluster_spec::{self, Rotate},
    duration,
};

/// Which token, and what becomes of it.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// What nodes with the token become
    #[arg(value_enum)]
    role: Role,
    /// How long from now the token admits nodes, such as 1h
    #[arg(long, value_parser = duration::parse)]
    ttl: Option<Duration>,
    /// How many more nodes the token admits
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=reserved::JOIN_USES_MAX))]
    uses: Option<u64>,
    /// Make a new token; the old one and its limits end
    #[arg(long)]
    rotate: bool,
    /// Show the token alone
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    Worker,
    Manager,
}

pub(super) async fn run(client: &Client, args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let (expires_key, uses_key) = args.role.labels();
    let expires = args.ttl.map(after).transpose()?;
    if args.rotate || expires.is_some() || args.uses.is_some() {
        let rotate = match (args.rotate, args.role) {
            (false, _) => Rotate::Nothing,
            (true, Role::Worker) => Rotate::WorkerToken,
            (true, Role::Manager) => Rotate::ManagerToken,
        };
        cluster_spec::update(client, rotate, |labels| {
            if args.rotate {
                labels.remove(expires_key);
                labels.remove(uses_key);
            }
            if let Some(expires) = &expires {
                labels.insert(expires_key.to_owned(), expires.as_str().into());
            }
            if let Some(uses) = args.uses {
                labels.insert(uses_key.to_owned(), uses.to_string().into());
            }
        })
        .await?;
    }
    show(client, args, out).await
}

async fn show(client: &Client, args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let swarm = cluster_spec::read(client).await?;
    let (key, role) = match args.role {
        Role::Worker => ("Worker", "worker"),
        Role::Manager => ("Manager", "manager"),
    };
    let token = swarm["JoinTokens"][key].as_str();
    let token = token.context("the daemon shows no join token")?;
    if args.quiet {
        writeln!(out, "{token}")?;
        return Ok(());
    }
    let addr = manager_address(&client.get("/info").await?)?;
    writeln!(
        out,
        "To add a {role} to this swarm, run the following command:\n"
    )?;
    writeln!(out, "    docker swarm join --token {token} {addr}\n")?;
    let (expires_key, uses_key) = args.role.labels();
    let label = |key: &str| swarm["Spec"]["Labels"][key].as_str().map(str::to_owned);
    if let Some(uses) = label(uses_key) {
        writeln!(out, "Nodes the token still admits: {uses}")?;
    }
    if let Some(expires) = label(expires_key) {
        writeln!(out, "It admits nodes until {expires}.")?;
    }
    Ok(())
}

/// Where this manager listens, as it tells others.
fn manager_address(info: &Value) -> anyhow::Result<String> {
    let swarm = &info["Swarm"];
    let managers = swarm["RemoteManagers"].as_array();
    let managers = managers.map(Vec::as_slice).unwrap_or_default();
    let own = managers
        .iter()
        .find(|manager| manager["NodeID"] == swarm["NodeID"]);
    let addr = own.and_then(|manager| manager["Addr"].as_str());
    Ok(addr
        .context("the daemon does not say where it listens")?
        .to_owned())
}

/// The time `ttl` from now, to the millisecond.
fn after(ttl: Duration) -> anyhow::Result<String> {
    let now = Timestamp::now().round(Unit::Millisecond)?;
    let time = now.checked_add(ttl).context("that is too far away")?;
    Ok(time.to_string())
}

// === impl Role ===

impl Role {
    /// Labels with the time and the uses that limit the role's token.
    fn labels(self) -> (&'static str, &'static str) {
        match self {
            Self::Worker => (reserved::JOIN_WORKER_EXPIRES, reserved::JOIN_WORKER_USES),
            Self::Manager => (reserved::JOIN_MANAGER_EXPIRES, reserved::JOIN_MANAGER_USES),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_daemon::FakeDaemon;

    const SWARM: &str = r#"{"Version":{"Index":7},"Spec":{"Name":"default",
        "Labels":{"a":"b","skep.join.worker.uses":"1"}},
        "JoinTokens":{"Worker":"SWMTKN-w","Manager":"SWMTKN-m"}}"#;
    const INFO: &str = r#"{"Swarm":{"NodeID":"n2","RemoteManagers":[
        {"NodeID":"n1","Addr":"10.0.0.1:2377"},{"NodeID":"n2","Addr":"10.0.0.2:2377"}]}}"#;

    fn args(role: Role) -> Args {
        Args {
            role,
            ttl: None,
            uses: None,
            rotate: false,
            quiet: false,
        }
    }

    #[tokio::test]
    async fn limits_are_labels_and_rotation_ends_the_old_ones() {
        let daemon = FakeDaemon::new(vec![
            ("GET /swarm ", 200, SWARM.to_owned()),
            (
                "POST /swarm/update?version=7&rotateWorkerToken=true ",
                200,
                String::new(),
            ),
            ("GET /swarm ", 200, SWARM.to_owned()),
        ]);
        let args = Args {
            ttl: Some(Duration::from_secs(3600)),
            rotate: true,
            quiet: true,
            ..args(Role::Worker)
        };
        let mut out = Vec::new();
        run(&daemon.client(), &args, &mut out).await.unwrap();
        assert_eq!(out, b"SWMTKN-w\n");
        let requests = daemon.requests().await;
        let sent: Value = serde_json::from_str(requests[1].rsplit_once("\r\n").unwrap().1).unwrap();
        assert_eq!(sent["Name"], "default");
        let labels = sent["Labels"].as_object().unwrap();
        assert_eq!((labels.len(), &labels["a"]), (2, &Value::from("b")));
        let expires: Timestamp = labels[reserved::JOIN_WORKER_EXPIRES]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let left = expires.duration_since(Timestamp::now()).as_secs();
        assert!((3500..=3600).contains(&left), "{left}");
    }

    #[tokio::test]
    async fn the_command_names_this_manager_and_the_limits() {
        let turns = vec![
            ("GET /swarm ", 200, SWARM.to_owned()),
            ("GET /info ", 200, INFO.to_owned()),
        ];
        let daemon = FakeDaemon::new(turns);
        let mut out = Vec::new();
        run(&daemon.client(), &args(Role::Worker), &mut out)
            .await
            .unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "To add a worker to this swarm, run the following command:\n\n    \
             docker swarm join --token SWMTKN-w 10.0.0.2:2377\n\n\
             Nodes the token still admits: 1\n"
        );
        daemon.requests().await;
    }
}
