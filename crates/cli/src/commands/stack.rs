//! `skep stack`: arguments, and which command gets them.

use std::{io::Write, process::ExitCode};

use clap::Subcommand;
use serde_json::json;
use skep_compose::convert::NAMESPACE;

use crate::{args::Connection, url::escape};

mod changes;
mod config;
mod deploy;
mod history;
mod images;
mod input;
mod keychain;
mod ls;
mod plan;
mod progress;
mod ps;
mod registry;
mod rm;
mod rollback;
mod services;
mod size;
mod words;

/// What to do with stacks.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Subcommand)]
enum Verb {
    /// Write out compose files merged and checked
    Config(config::Args),
    /// Bring a stack to what compose files say, in one step
    Deploy(deploy::Args),
    /// Show the revisions kept of a stack
    History(history::Args),
    /// List stacks
    Ls(ls::Args),
    /// Show what a deploy would change, and where tasks would run
    Plan(plan::Args),
    /// List the tasks of a stack
    Ps(ps::Args),
    /// Remove stacks
    #[command(visible_aliases = ["remove", "down"])]
    Rm(rm::Args),
    /// Return to a revision the stack had
    Rollback(rollback::Args),
    /// List the services of a stack
    Services(services::Args),
}

/// Runs a command of `skep stack`.
pub(crate) async fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let client = args.connection.client()?;
    match &args.verb {
        Verb::Config(args) => config::run(&client, args, out).await?,
        Verb::Deploy(args) => deploy::run(&client, args, out).await?,
        Verb::History(args) => history::run(&client, args, out).await?,
        Verb::Ls(args) => ls::run(&client, args, out).await?,
        Verb::Plan(args) => plan::run(&client, args, out).await?,
        Verb::Ps(args) => ps::run(&client, args, out).await?,
        Verb::Rm(args) => rm::run(&client, args, out).await?,
        Verb::Rollback(args) => rollback::run(&client, args, out).await?,
        Verb::Services(args) => services::run(&client, args, out).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The path of a stack.
fn path(name: &str) -> String {
    format!("/skep/v1/stacks/{}", escape(name))
}

/// Filters for objects of a stack, and of tasks only those that are as their service says now.
fn filters(name: &str, is_current: bool) -> String {
    let mut filters = json!({ "label": { format!("{NAMESPACE}={name}"): true } });
    if is_current {
        filters["_up-to-date"] = json!({ "true": true });
    }
    escape(&filters.to_string())
}
