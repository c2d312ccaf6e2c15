//! `skep stack rm`

use std::{io::Write, time::Duration};

use anyhow::bail;
use skep_docker_api::client::{Client, Error};

use super::{changes, path};

/// Between two looks at what is left.
const POLL: Duration = Duration::from_millis(250);

/// Which stacks.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// The stacks' names
    #[arg(required = true, value_name = "STACK")]
    stacks: Vec<String>,
    /// End at once instead of waiting until nothing is left
    #[arg(short, long, num_args = 0..=1, default_value_t = true, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    detach: bool,
}

/// Removes what can be removed, and then says what could not.
pub(super) async fn run(client: &Client, args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    for name in &args.stacks {
        match client.delete(&path(name)).await {
            Ok(answer) => {
                changes::warn(&answer);
                changes::tell(&changes::steps(&answer), out)?;
            }
            Err(error) => failed.push(format!("{name}: {error}")),
        }
    }
    if !args.detach {
        for name in &args.stacks {
            if let Err(error) = gone(client, name).await {
                failed.push(format!("{name}: {error}"));
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("{}", failed.join("; "))
}

/// Waits until nobody knows the stack.
async fn gone(client: &Client, name: &str) -> Result<(), Error> {
    loop {
        match client.get(&path(name)).await {
            // What could not be removed is there to stay; that was told.
            Ok(stack) if stack["State"] != "removing" => return Ok(()),
            Ok(_) => {}
            Err(error) => match error.status().map(|status| status.as_u16()) {
                Some(404) => return Ok(()),
                // A change of leader may come in between: the next look finds the new one.
                Some(503) => {}
                _ => return Err(error),
            },
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_daemon::FakeDaemon;

    #[tokio::test]
    async fn all_stacks_are_tried_and_waited_for() {
        let answer = r#"{"Changes":[{"Kind":"network","Name":"a_default","Action":"remove"},
            {"Kind":"service","Name":"a_web","Action":"remove"}]}"#;
        let missing = || r#"{"message":"stack b not found"}"#.to_owned();
        let daemon = FakeDaemon::new(vec![
            ("DELETE /skep/v1/stacks/a ", 200, answer.to_owned()),
            ("DELETE /skep/v1/stacks/b ", 404, missing()),
            (
                "GET /skep/v1/stacks/a ",
                200,
                r#"{"State":"removing"}"#.to_owned(),
            ),
            ("GET /skep/v1/stacks/a ", 404, missing()),
            ("GET /skep/v1/stacks/b ", 404, missing()),
        ]);
        let mut out = Vec::new();
        let args = Args {
            stacks: vec!["a".to_owned(), "b".to_owned()],
            detach: false,
        };
        let failed = run(&daemon.client(), &args, &mut out).await.unwrap_err();
        assert_eq!(failed.to_string(), "b: daemon: stack b not found");
        daemon.requests().await;
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "Removing network a_default\nRemoving service a_web\n"
        );
    }
}
