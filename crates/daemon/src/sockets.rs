//! The Engine API's listening sockets.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt, chown},
    path::Path,
};

use anyhow::{Context, bail};
use nix::unistd::Group;
use tokio::net::{TcpListener, UnixListener};

use crate::config::{Config, Listen};

/// Docker's group; members may use the socket and are thereby root.
const DEFAULT_GROUP: &str = "docker";

/// A bound socket.
pub(crate) enum Socket {
    /// Unix.
    Unix(UnixListener),
    /// TCP.
    Tcp(TcpListener),
}

/// Binds all sockets, or none.
pub(crate) async fn bind(config: &Config) -> anyhow::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for listen in &config.listen {
        let socket = match listen {
            Listen::Unix(path) => {
                let bound = bind_unix(path, config.group.as_deref());
                Socket::Unix(bound.with_context(|| format!("failed to bind `{}`", path.display()))?)
            }
            Listen::Tcp(addr) => {
                let bound = TcpListener::bind(addr).await;
                Socket::Tcp(bound.with_context(|| format!("failed to bind `{addr}`"))?)
            }
        };
        sockets.push(socket);
    }
    Ok(sockets)
}

/// Binds a unix socket over a dead one of an earlier life. The data directory's lock has made sure
/// that no daemon of ours serves it; a living foreign one is not taken over.
fn bind_unix(path: &Path, group: Option<&str>) -> anyhow::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                bail!("another program serves it");
            }
            fs::remove_file(path)?;
        }
        Ok(_) => bail!("it exists and is not a socket"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    match Group::from_name(group.unwrap_or(DEFAULT_GROUP))? {
        Some(group) => chown(path, None, Some(group.gid.as_raw()))?,
        None => {
            if let Some(group) = group {
                bail!("there is no group `{group}`");
            }
        }
    }
    Ok(listener)
}
