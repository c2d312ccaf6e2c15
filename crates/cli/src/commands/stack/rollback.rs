//! `skep stack rollback`

use std::{io::Write, time::Duration};

use serde_json::Value;
use skep_docker_api::client::Client;

use super::{changes, path, progress};
use crate::duration;

/// Which stack, and where to.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// The stack's name
    stack: String,
    /// The number of a revision, as `skep stack history` shows it [default: the one that was in force before, so that a second rollback undoes the first]
    #[arg(long, value_name = "REVISION")]
    to: Option<u64>,
    /// End at once instead of waiting for the services
    #[arg(short, long, num_args = 0..=1, default_value_t = true, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    detach: bool,
    /// How long to wait at most
    #[arg(long, value_parser = duration::parse)]
    timeout: Option<Duration>,
}

pub(super) async fn run(client: &Client, args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let name = &args.stack;
    let to = args
        .to
        .map_or(String::new(), |number| format!("?to={number}"));
    let path = format!("{}/rollback{to}", path(name));
    let answer = client.post(&path, &Value::Null).await?;
    changes::warn(&answer);
    let steps = changes::steps(&answer);
    changes::tell(&steps, out)?;
    writeln!(out, "{name}: revision {}", answer["Revision"])?;
    if args.detach {
        return Ok(());
    }
    // A service that goes back ends as rolled back; that is what was asked for, so none counts as changed.
    progress::wait(client, name, &[].into(), args.timeout, out).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_daemon::FakeDaemon;

    #[tokio::test]
    async fn what_a_rollback_did_is_told() {
        let answer = r#"{"Name":"app","Revision":2,"Changes":[
            {"Kind":"service","Name":"app_web","Action":"update","Fields":[]}]}"#;
        let turn = (
            "POST /skep/v1/stacks/app/rollback?to=2 ",
            200,
            answer.to_owned(),
        );
        let daemon = FakeDaemon::new(vec![turn]);
        let mut out = Vec::new();
        let args = Args {
            stack: "app".to_owned(),
            to: Some(2),
            detach: true,
            timeout: None,
        };
        run(&daemon.client(), &args, &mut out).await.unwrap();
        daemon.requests().await;
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "Updating service app_web\napp: revision 2\n"
        );
    }
}
