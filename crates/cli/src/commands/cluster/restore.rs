//! `skep cluster restore`

use std::{io::Write, net::SocketAddr, path::PathBuf};

use anyhow::Context;
use serde_json::Value;
use skep_docker_api::client::Client;
use tokio::fs::File;

/// From what, and where the manager is to be reached.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// A file that `skep cluster backup` wrote
    file: PathBuf,
    /// Address other nodes reach this one at: ADDRESS or INTERFACE, with or without :PORT
    #[arg(long, value_name = "ADDR", default_value = "", value_parser = plain)]
    advertise_addr: String,
    /// Address to listen on [default: 0.0.0.0:2377]
    #[arg(long, value_name = "ADDR")]
    listen_addr: Option<SocketAddr>,
}

pub(super) async fn run(client: &Client, args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let file = File::open(&args.file).await;
    let file = file.with_context(|| format!("failed to open `{}`", args.file.display()))?;
    let listen = args.listen_addr.map(|addr| addr.to_string());
    let path = format!(
        "/skep/v1/restore?listenAddr={}&advertiseAddr={}",
        listen.as_deref().unwrap_or("0.0.0.0:2377"),
        args.advertise_addr
    );
    let answer = client
        .upload(&path, "application/octet-stream", file)
        .await?;
    let node: Value = serde_json::from_slice(&answer).unwrap_or_default();
    let node = node.as_str().unwrap_or("this node");
    writeln!(out, "The cluster is restored; {node} is its only manager.")?;
    writeln!(
        out,
        "hint: let other managers and workers leave their old cluster and join this one"
    )?;
    Ok(())
}

/// What needs no escaping in a URL.
fn plain(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    match text.bytes().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err(format!("`{text}` is neither an address nor an interface")),
    }
}
