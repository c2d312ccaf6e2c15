//! `skep stack deploy`

use std::{io::Write, time::Duration};

use skep_docker_api::client::Client;

use super::{
    changes,
    images::{self, Resolve},
    input, path, progress,
    registry::Logins,
    size,
};
use crate::duration;

/// What to deploy, and how.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    input: input::Input,
    #[command(flatten)]
    options: Options,
    /// End at once instead of waiting for the services
    #[arg(short, long, num_args = 0..=1, default_value_t = true, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    detach: bool,
    /// How long to wait at most
    #[arg(long, value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// The stack's name [default: `name:` of the file]
    #[arg(value_name = "STACK")]
    name: Option<String>,
}

/// What plans have, too.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Options {
    /// Remove what the stack has and the files do not
    #[arg(long)]
    prune: bool,
    /// Update services that are as they shall be, too
    #[arg(long)]
    force: bool,
    /// When to ask registries for digests
    #[arg(long, value_enum, default_value = "always")]
    resolve_image: Resolve,
    /// Send the credentials of `docker login` along, for nodes to pull with
    #[arg(long)]
    with_registry_auth: bool,
    /// Only if this revision is in force (0: none yet)
    #[arg(long, value_name = "REVISION")]
    expect: Option<u64>,
}

// === impl Options ===

impl Options {
    /// The query of a plan or deploy.
    pub(super) fn query(&self) -> String {
        format!("?prune={}&force={}", self.prune, self.force)
    }
}

/// The body of a plan or deploy of `input`.
pub(super) async fn document(
    client: &Client,
    input: &input::Input,
    options: &Options,
    name: Option<&str>,
) -> anyhow::Result<skep_compose::convert::StackDocument> {
    let mut document = input.document(name)?;
    document.expect = options.expect;
    let logins = match options.with_registry_auth {
        true => {
            let environment = input::environment();
            let mut logins = Logins::read(&environment)?;
            let images = document.services.iter().map(images::image);
            logins.ask(images, &environment).await?;
            Some(logins)
        }
        false => None,
    };
    images::resolve(
        client,
        &mut document,
        options.resolve_image,
        logins.as_ref(),
    )
    .await?;
    Ok(document)
}

pub(super) async fn run(client: &Client, args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let name = args.name.as_deref();
    let document = document(client, &args.input, &args.options, name).await?;
    let name = &document.name;
    let path = format!("{}{}", path(name), args.options.query());
    let body = size::checked(document.to_json())?;
    let answer = client.put(&path, &body).await?;
    changes::warn(&answer);
    let steps = changes::steps(&answer);
    changes::tell(&steps, out)?;
    writeln!(out, "{name}: revision {}", answer["Revision"])?;
    if args.detach {
        return Ok(());
    }
    let changed = changes::changed_services(&steps);
    progress::wait(client, name, &changed, args.timeout, out).await
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;
    use serde_json::Value;

    use super::*;
    use crate::fake_daemon::FakeDaemon;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &[&str]) -> Args {
        let words = std::iter::once(&"deploy").chain(line);
        Line::try_parse_from(words).unwrap().args
    }

    #[test]
    fn waiting_is_asked_for_as_with_docker() {
        assert!(args(&["app"]).detach);
        assert!(!args(&["--detach=false", "app"]).detach);
        let short = args(&["-d", "app"]);
        assert_eq!((short.detach, short.name.as_deref()), (true, Some("app")));
    }

    #[tokio::test]
    async fn a_file_is_sent_as_one_document() {
        let answer = r#"{"Name":"shop","Revision":1,"Changes":[
            {"Kind":"network","Name":"shop_default","Action":"create"},
            {"Kind":"service","Name":"shop_web","Action":"create"}]}"#;
        let none = ("GET /services?filters=", 200, "[]".to_owned());
        let turn = (
            "PUT /skep/v1/stacks/shop?prune=true&force=false ",
            200,
            answer.to_owned(),
        );
        let daemon = FakeDaemon::new(vec![none, turn]);
        let file = daemon.path("f.yml");
        fs::write(&file, "name: shop\nservices: {web: {image: app}}\n").unwrap();
        let args = args(&[
            "-c",
            &file.display().to_string(),
            "--prune",
            "--resolve-image=never",
            "--expect=0",
        ]);
        let mut out = Vec::new();
        run(&daemon.client(), &args, &mut out).await.unwrap();
        let requests = daemon.requests().await;
        let sent = requests[1].rsplit_once("\r\n").unwrap().1;
        let sent: Value = serde_json::from_str(sent).unwrap();
        assert_eq!(
            (&sent["Name"], &sent["Expect"]),
            (&"shop".into(), &0.into())
        );
        assert_eq!(sent["Networks"][0]["Name"], "shop_default");
        assert_eq!(sent["Services"][0]["Name"], "shop_web");
        assert!(
            sent["Source"].as_str().unwrap().contains("image: app"),
            "{sent}"
        );
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "Creating network shop_default\nCreating service shop_web\nshop: revision 1\n"
        );
    }
}
