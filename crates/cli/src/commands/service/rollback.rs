//! `skep service rollback`

use std::{io::Write, time::Duration};

use anyhow::bail;
use serde_json::Value;
use skep_docker_api::client::Client;

use crate::url::escape;

/// Between two looks at how far it is.
const POLL: Duration = Duration::from_millis(250);

/// Which service, and where to.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// The service's name or id
    service: String,
    /// The number of a revision, as `skep service history` shows it [default: the spec before]
    #[arg(long, value_name = "REVISION")]
    to: Option<u64>,
    /// Do not wait until it is done
    #[arg(short, long)]
    detach: bool,
}

pub(super) async fn run(client: &Client, args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let name = escape(&args.service);
    let to = args
        .to
        .map_or(String::new(), |number| format!("?to={number}"));
    let path = format!("/skep/v1/services/{name}/rollback{to}");
    client.post(&path, &Value::Null).await?;
    if args.detach {
        return Ok(());
    }
    let mut shown = String::new();
    loop {
        match client.get(&format!("/services/{name}")).await {
            Ok(service) => {
                let status = &service["UpdateStatus"];
                let text = |key: &str| status[key].as_str().unwrap_or_default();
                let message = text("Message");
                if message != shown {
                    writeln!(out, "{}: {message}", args.service)?;
                    out.flush()?;
                    message.clone_into(&mut shown);
                }
                match text("State") {
                    "rollback_started" => {}
                    "rollback_completed" => return Ok(()),
                    state => bail!("the rollback ended as {state}"),
                }
            }
            // A change of leader may come in between: the next look finds the new one.
            Err(error) if error.status().is_some_and(|status| status.as_u16() == 503) => {}
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_daemon::FakeDaemon;

    fn args(to: Option<u64>) -> Args {
        Args {
            service: "web".to_owned(),
            to,
            detach: false,
        }
    }

    fn status(state: &str, message: &str) -> String {
        format!(r#"{{"UpdateStatus":{{"State":"{state}","Message":"{message}"}}}}"#)
    }

    #[tokio::test]
    async fn a_rollback_is_waited_for() {
        let asked = "manually requested rollback to revision 3";
        let daemon = FakeDaemon::new(vec![
            (
                "POST /skep/v1/services/web/rollback?to=3 ",
                200,
                "{}".to_owned(),
            ),
            ("GET /services/web ", 200, status("rollback_started", asked)),
            (
                "GET /services/web ",
                503,
                r#"{"message":"no leader"}"#.to_owned(),
            ),
            ("GET /services/web ", 200, status("rollback_started", asked)),
            (
                "GET /services/web ",
                200,
                status("rollback_completed", "rollback completed"),
            ),
        ]);
        let mut out = Vec::new();
        run(&daemon.client(), &args(Some(3)), &mut out)
            .await
            .unwrap();
        daemon.requests().await;
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "web: manually requested rollback to revision 3\nweb: rollback completed\n"
        );
    }

    #[tokio::test]
    async fn a_rollback_that_fails_is_an_error() {
        let daemon = FakeDaemon::new(vec![
            ("POST /skep/v1/services/web/rollback ", 200, "{}".to_owned()),
            (
                "GET /services/web ",
                200,
                status("rollback_paused", "update paused"),
            ),
        ]);
        let error = run(&daemon.client(), &args(None), &mut Vec::new()).await;
        let text = error.expect_err("it is paused").to_string();
        assert_eq!(text, "the rollback ended as rollback_paused");
        daemon.requests().await;
    }
}
