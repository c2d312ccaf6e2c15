//! The three files every container gets: hosts, hostname, resolv.conf. Contents are pure.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use skep_network::{DnsSettings, container_resolv_conf};

use super::record::replace_file;
use crate::runtime::config::{Mount, MountKind, Propagation};

/// Resolver configuration of systemd-resolved that names real servers.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What the files are made from.
#[derive(Debug)]
pub(super) struct Identity<'a> {
    pub(super) hostname: &'a str,
    pub(super) address: Option<IpAddr>,
}

/// Writes the files into `dir` and returns the mounts that show them, unless the user mounts
/// something there.
pub(super) fn write(
    dir: &Path,
    identity: &Identity<'_>,
    taken: &[Mount],
) -> io::Result<Vec<Mount>> {
    let node = fs::read_to_string(RESOLVED).or_else(|_| fs::read_to_string(RESOLV_CONF));
    let resolv = container_resolv_conf(&node.unwrap_or_default(), &DnsSettings::default());
    let files = [
        ("hosts", hosts(identity)),
        ("hostname", format!("{}\n", identity.hostname)),
        ("resolv.conf", resolv),
    ];
    let mut mounts = Vec::new();
    for (name, text) in files {
        let source = dir.join(name);
        replace_file(&source, text.as_bytes())?;
        let destination = format!("/etc/{name}");
        if !taken.iter().any(|mount| mount.destination == destination) {
            mounts.push(bind(source, destination));
        }
    }
    Ok(mounts)
}

fn bind(source: PathBuf, destination: String) -> Mount {
    let kind = MountKind::Bind {
        source,
        propagation: Propagation::Rprivate,
        is_recursive: true,
    };
    Mount {
        destination,
        is_readonly: false,
        kind,
    }
}

fn hosts(identity: &Identity<'_>) -> String {
    let mut text = "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n"
        .to_owned();
    if let Some(address) = identity.address {
        text.push_str(&format!("{address}\t{}\n", identity.hostname));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_names_the_container() {
        let address = "10.255.0.9".parse().ok();
        let text = hosts(&Identity {
            hostname: "web",
            address,
        });
        assert!(text.ends_with("10.255.0.9\tweb\n"), "{text}");
    }

    #[test]
    fn a_users_mount_replaces_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let taken = [bind("/x".into(), "/etc/hosts".to_owned())];
        let identity = Identity {
            hostname: "web",
            address: None,
        };
        let mounts = write(dir.path(), &identity, &taken).unwrap();
        let targets: Vec<&str> = mounts.iter().map(|mount| &mount.destination[..]).collect();
        assert_eq!(targets, ["/etc/hostname", "/etc/resolv.conf"]);
    }
}
