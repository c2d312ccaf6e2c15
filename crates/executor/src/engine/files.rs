//! The three files every container gets: hosts, hostname, resolv.conf. Contents are pure.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use skep_network::{DnsSettings, container_resolv_conf, dns::Upstream, overlay_resolv_conf};

use super::{places::NodeMode, record::replace_file};
use crate::runtime::config::{Mount, MountKind, Propagation};

/// Resolver configuration of systemd-resolved that names real servers.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";
/// What every container knows of itself.
const LOCALHOST: &str = "127.0.0.1\tlocalhost\n\
     ::1\tlocalhost ip6-localhost ip6-loopback\n\
     fe00::0\tip6-localnet\n\
     ff00::0\tip6-mcastprefix\n\
     ff02::1\tip6-allnodes\n\
     ff02::2\tip6-allrouters\n";

/// What the files are made from.
#[derive(Debug)]
pub(super) struct Identity<'a> {
    pub(super) hostname: &'a str,
    /// What the host name leads to.
    pub(super) addresses: &'a [IpAddr],
    /// Entries the user wants: address and names.
    pub(super) hosts: &'a [(String, Vec<String>)],
    /// The container shares the node's network, and so what the node knows of names.
    pub(super) is_host: bool,
    pub(super) resolv_conf: &'a str,
}

/// The node's resolver configuration, with the servers that do the work.
fn node_resolv_conf() -> String {
    let text = fs::read_to_string(RESOLVED).or_else(|_| fs::read_to_string(RESOLV_CONF));
    text.unwrap_or_default()
}

/// The `resolv.conf` of a container: on overlay networks our own server answers, on the host's
/// network the node's is taken as it is, else the node's servers that can be reached.
pub(super) fn resolv_conf(mode: NodeMode, has_places: bool, dns: &DnsSettings) -> String {
    let node = node_resolv_conf();
    if mode == NodeMode::Host {
        let own = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
        return if *dns == DnsSettings::default() {
            own
        } else {
            container_resolv_conf(&own, dns)
        };
    }
    if has_places {
        overlay_resolv_conf(&node, dns).0
    } else {
        container_resolv_conf(&node, dns)
    }
}

/// The servers that our own asks for a container on overlay networks.
pub(super) fn upstreams(dns: &DnsSettings) -> Vec<Upstream> {
    overlay_resolv_conf(&node_resolv_conf(), dns).1
}

/// Writes the files into `dir` and returns the mounts that show them, unless the user mounts
/// something there.
pub(super) fn write(
    dir: &Path,
    identity: &Identity<'_>,
    taken: &[Mount],
) -> io::Result<Vec<Mount>> {
    let files = [
        ("hosts", hosts(identity)),
        ("hostname", format!("{}\n", identity.hostname)),
        ("resolv.conf", identity.resolv_conf.to_owned()),
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
        is_readonly_below: false,
        subpath: String::new(),
    };
    Mount {
        destination,
        is_readonly: false,
        kind,
    }
}

fn hosts(identity: &Identity<'_>) -> String {
    let own = identity
        .is_host
        .then(|| fs::read_to_string(HOSTS).ok())
        .flatten();
    let mut text = own.unwrap_or_else(|| LOCALHOST.to_owned());
    if !text.ends_with('\n') {
        text.push('\n');
    }
    for address in identity.addresses {
        text.push_str(&format!("{address}\t{}\n", identity.hostname));
    }
    for (address, names) in identity.hosts {
        text.push_str(&format!("{address}\t{}\n", names.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity<'a>(addresses: &'a [IpAddr], hosts: &'a [(String, Vec<String>)]) -> Identity<'a> {
        Identity {
            hostname: "web",
            addresses,
            hosts,
            is_host: false,
            resolv_conf: "nameserver 127.0.0.11\n",
        }
    }

    #[test]
    fn hosts_names_the_container_and_what_the_user_wants() {
        let addresses = ["10.255.0.9".parse().unwrap(), "10.0.1.5".parse().unwrap()];
        let wanted = [(
            "192.0.2.1".to_owned(),
            vec!["db".to_owned(), "db2".to_owned()],
        )];
        let text = hosts(&identity(&addresses, &wanted));
        let end = "10.255.0.9\tweb\n10.0.1.5\tweb\n192.0.2.1\tdb db2\n";
        assert!(text.ends_with(end), "{text}");
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"), "{text}");
    }

    #[test]
    fn a_users_mount_replaces_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let taken = [bind("/x".into(), "/etc/hosts".to_owned())];
        let mounts = write(dir.path(), &identity(&[], &[]), &taken).unwrap();
        let targets: Vec<&str> = mounts.iter().map(|mount| &mount.destination[..]).collect();
        assert_eq!(targets, ["/etc/hostname", "/etc/resolv.conf"]);
    }
}
