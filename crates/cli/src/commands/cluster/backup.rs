//! `skep cluster backup`

use std::{
    ffi::OsString,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use skep_docker_api::client::Client;
use tokio::fs::{File, OpenOptions};

/// Read and write for the owner alone: a backup has the cluster's keys.
const MODE: u32 = 0o600;

/// Where to.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// The file to write; readable by you alone, as it has the cluster's keys
    file: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(client: &Client, args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    if !args.force && args.file.symlink_metadata().is_ok() {
        bail!("`{}` exists; --force replaces it", args.file.display());
    }
    let part = part_of(&args.file);
    let length = download(client, &part).await.and_then(|length| {
        place(&part, args)?;
        Ok(length)
    });
    if length.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    writeln!(out, "Wrote {} bytes to {}", length?, args.file.display())?;
    Ok(())
}

/// A name beside the file: half a backup must not be taken for one.
fn part_of(file: &Path) -> PathBuf {
    let mut name = OsString::from(file.as_os_str());
    name.push(format!(".part-{}", std::process::id()));
    name.into()
}

async fn download(client: &Client, part: &Path) -> anyhow::Result<u64> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(MODE).open(part);
    let mut file: File = opened
        .await
        .with_context(|| format!("failed to create `{}`", part.display()))?;
    let length = client.download("/skep/v1/backup", &mut file).await?;
    if length == 0 {
        bail!("the daemon sent nothing");
    }
    file.sync_all()
        .await
        .context("failed to store the backup")?;
    Ok(length)
}

/// Gives the whole file its name.
fn place(part: &Path, args: &Args) -> anyhow::Result<()> {
    let flags = if args.force {
        RenameFlags::empty()
    } else {
        RenameFlags::NOREPLACE
    };
    renameat_with(CWD, part, CWD, &args.file, flags)
        .with_context(|| format!("failed to write `{}`", args.file.display()))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::fake_daemon::FakeDaemon;

    fn args(file: PathBuf, force: bool) -> Args {
        Args { file, force }
    }

    #[tokio::test]
    async fn a_backup_is_private_and_replaces_nothing_unasked() {
        let turn = ("GET /skep/v1/backup ", 200, "secret".to_owned());
        let daemon = FakeDaemon::new(vec![turn.clone(), turn]);
        let (client, file) = (daemon.client(), daemon.path("backup"));
        let mut out = Vec::new();
        run(&client, &args(file.clone(), false), &mut out)
            .await
            .unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "secret");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, MODE);

        fs::write(&file, "precious").unwrap();
        let refused = run(&client, &args(file.clone(), false), &mut out).await;
        refused.expect_err("the file exists");
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
        run(&client, &args(file.clone(), true), &mut out)
            .await
            .unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "secret");
        daemon.requests().await;
    }

    #[tokio::test]
    async fn a_failed_backup_leaves_no_file() {
        let message = r#"{"message":"no manager"}"#.to_owned();
        let turns = vec![
            ("GET /skep/v1/backup ", 503, message),
            ("GET /skep/v1/backup ", 200, String::new()),
        ];
        let daemon = FakeDaemon::new(turns);
        let (client, file) = (daemon.client(), daemon.path("backup"));
        for _ in 0..2 {
            let failed = run(&client, &args(file.clone(), false), &mut Vec::new()).await;
            failed.expect_err("nothing to write");
        }
        let names: Vec<_> = fs::read_dir(file.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["s"], "only the socket is left");
        daemon.requests().await;
    }
}
