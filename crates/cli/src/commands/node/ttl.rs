//! `skep node ttl`

use std::io::Write;

use skep_docker_api::client::Client;
use skep_model::reserved;

use crate::cluster_spec::{self, Rotate};

/// What turns it off.
const OFF: &str = "off";

/// How long.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// A duration such as 24h, or off; shown when not given
    ttl: Option<String>,
}

pub(super) async fn run(client: &Client, args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let Some(ttl) = &args.ttl else {
        let swarm = cluster_spec::read(client).await?;
        let ttl = swarm["Spec"]["Labels"][reserved::NODE_TTL].as_str();
        writeln!(out, "{}", ttl.unwrap_or(OFF))?;
        return Ok(());
    };
    cluster_spec::update(client, Rotate::Nothing, |labels| {
        if ttl == OFF {
            labels.remove(reserved::NODE_TTL);
        } else {
            labels.insert(reserved::NODE_TTL.to_owned(), ttl.as_str().into());
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_daemon::FakeDaemon;

    const SWARM: &str = r#"{"Version":{"Index":7},"Spec":{"Labels":{"skep.node.ttl":"24h"}}}"#;

    #[tokio::test]
    async fn off_removes_the_label() {
        let daemon = FakeDaemon::new(vec![
            ("GET /swarm ", 200, SWARM.to_owned()),
            ("GET /swarm ", 200, SWARM.to_owned()),
            ("POST /swarm/update?version=7 ", 200, String::new()),
        ]);
        let (client, mut out) = (daemon.client(), Vec::new());
        run(&client, &Args { ttl: None }, &mut out).await.unwrap();
        assert_eq!(out, b"24h\n");
        let off = Args {
            ttl: Some(OFF.to_owned()),
        };
        run(&client, &off, &mut out).await.unwrap();
        let requests = daemon.requests().await;
        assert!(requests[2].ends_with(r#"{"Labels":{}}"#), "{}", requests[2]);
    }
}
