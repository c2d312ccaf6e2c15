//! `skep job run`

use std::io::Write;

use anyhow::bail;
use serde_json::Value;
use skep_docker_api::client::Client;

/// Which job.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// The job's name or id
    job: String,
}

pub(super) async fn run(client: &Client, args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let job = &args.job;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if job.is_empty() || !job.bytes().all(is_plain) {
        bail!("`{job}` is no name of a job");
    }
    let path = format!("/skep/v1/jobs/{job}/run");
    client.post(&path, &Value::Null).await?;
    writeln!(out, "{job}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_daemon::FakeDaemon;

    #[tokio::test]
    async fn what_is_no_name_is_not_sent() {
        let turn = ("POST /skep/v1/jobs/night/run ", 204, String::new());
        let daemon = FakeDaemon::new(vec![turn]);
        let (client, mut out) = (daemon.client(), Vec::new());
        let args = |job: &str| Args {
            job: job.to_owned(),
        };
        for name in ["", "a/b", "a b", "a?x"] {
            let refused = run(&client, &args(name), &mut out).await;
            refused.expect_err("it is no name");
        }
        run(&client, &args("night"), &mut out).await.unwrap();
        assert_eq!(out, b"night\n");
        daemon.requests().await;
    }
}
