//! Options of the local driver: what `mount -t TYPE -o OPTIONS DEVICE` says, and the call it makes.
//!
//! The same names, and the same refusals, as Docker's local driver. Pure, but for the lookup of a
//! host's address, which is an argument.

use std::{collections::BTreeMap, net::IpAddr};

use nix::mount::MsFlags;

/// Options there are, with those that must then be there, too.
const OPTIONS: [(&str, &[&str]); 4] = [
    ("device", &["type"]),
    ("o", &["device", "type"]),
    ("size", &[]),
    ("type", &["device"]),
];
/// Words of `o` that are flags; `true`: set.
const FLAGS: [(&str, bool, MsFlags); 22] = [
    ("async", false, MsFlags::MS_SYNCHRONOUS),
    ("atime", false, MsFlags::MS_NOATIME),
    ("bind", true, MsFlags::MS_BIND),
    ("defaults", true, MsFlags::empty()),
    ("dev", false, MsFlags::MS_NODEV),
    ("diratime", false, MsFlags::MS_NODIRATIME),
    ("dirsync", true, MsFlags::MS_DIRSYNC),
    ("exec", false, MsFlags::MS_NOEXEC),
    ("mand", true, MsFlags::MS_MANDLOCK),
    ("noatime", true, MsFlags::MS_NOATIME),
    ("nodev", true, MsFlags::MS_NODEV),
    ("nodiratime", true, MsFlags::MS_NODIRATIME),
    ("noexec", true, MsFlags::MS_NOEXEC),
    ("nomand", false, MsFlags::MS_MANDLOCK),
    ("nosuid", true, MsFlags::MS_NOSUID),
    ("rbind", true, MsFlags::MS_BIND.union(MsFlags::MS_REC)),
    ("relatime", true, MsFlags::MS_RELATIME),
    ("ro", true, MsFlags::MS_RDONLY),
    ("rw", false, MsFlags::MS_RDONLY),
    ("strictatime", true, MsFlags::MS_STRICTATIME),
    ("suid", false, MsFlags::MS_NOSUID),
    ("sync", true, MsFlags::MS_SYNCHRONOUS),
];
/// Words of `o` that say how mounts spread; a call of its own.
const PROPAGATIONS: [(&str, MsFlags); 8] = [
    ("private", MsFlags::MS_PRIVATE),
    ("rprivate", MsFlags::MS_PRIVATE.union(MsFlags::MS_REC)),
    ("rshared", MsFlags::MS_SHARED.union(MsFlags::MS_REC)),
    ("rslave", MsFlags::MS_SLAVE.union(MsFlags::MS_REC)),
    ("runbindable", MsFlags::MS_UNBINDABLE.union(MsFlags::MS_REC)),
    ("shared", MsFlags::MS_SHARED),
    ("slave", MsFlags::MS_SLAVE),
    ("unbindable", MsFlags::MS_UNBINDABLE),
];

/// A call of mount(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MountCall {
    /// Device, export or path.
    pub(super) device: String,
    /// File system.
    pub(super) kind: String,
    pub(super) flags: MsFlags,
    /// How it spreads, unless as its place does.
    pub(super) propagation: Option<MsFlags>,
    /// What the file system is told. May hold a password: never shown.
    pub(super) data: String,
}

/// Refuses options nobody could mount. Texts are Docker's.
pub(super) fn check(options: &BTreeMap<String, String>) -> Result<(), String> {
    for name in options.keys() {
        if !OPTIONS.iter().any(|(known, _)| known == name) {
            return Err(format!("invalid option: \"{name}\""));
        }
    }
    for (_, required) in OPTIONS
        .iter()
        .filter(|(name, _)| options.contains_key(*name))
    {
        if let Some(missing) = required.iter().find(|name| !options.contains_key(**name)) {
            return Err(format!("missing required option: \"{missing}\""));
        }
    }
    if options.contains_key("size") {
        return Err("quota size requested but no quota support".to_owned());
    }
    Ok(())
}

/// The call for `options`; `resolve` finds the address of a host.
pub(super) fn mount_call(
    options: &BTreeMap<String, String>,
    resolve: impl Fn(&str) -> Result<IpAddr, String>,
) -> Result<MountCall, String> {
    let option = |name: &str| options.get(name).map_or("", String::as_str);
    let (kind, mut device) = (option("type"), option("device").to_owned());
    if device.is_empty() {
        return Err("missing device in volume options".to_owned());
    }
    let mut flags = MsFlags::empty();
    let mut propagation = None;
    let mut data = Vec::new();
    let is_remote = matches!(kind, "nfs" | "nfs4" | "cifs");
    let mut has_address = false;
    for word in option("o").split(',').filter(|word| !word.is_empty()) {
        if let Some((_, is_set, flag)) = FLAGS.iter().find(|(name, ..)| *name == word) {
            flags.set(*flag, *is_set);
        } else if let Some((_, found)) = PROPAGATIONS.iter().find(|(name, _)| *name == word) {
            propagation = Some(*found);
        } else if let Some(host) = word.strip_prefix("addr=").filter(|_| is_remote) {
            has_address = true;
            data.push(format!("addr={}", address(host, &resolve)?));
        } else {
            data.push(word.to_owned());
        }
    }
    if kind == "cifs" && !has_address {
        device = with_address(&device, &resolve)?;
    }
    Ok(MountCall {
        device,
        kind: kind.to_owned(),
        flags,
        propagation,
        data: data.join(","),
    })
}

fn address(
    host: &str,
    resolve: &impl Fn(&str) -> Result<IpAddr, String>,
) -> Result<IpAddr, String> {
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse();
    literal.or_else(|_| {
        let found = resolve(host);
        found.map_err(|reason| {
            format!("error resolving passed in network volume address: lookup {host}: {reason}")
        })
    })
}

/// `//server/share` with the server's address.
fn with_address(
    device: &str,
    resolve: &impl Fn(&str) -> Result<IpAddr, String>,
) -> Result<String, String> {
    let Some((host, share)) = device
        .strip_prefix("//")
        .and_then(|rest| rest.split_once('/'))
    else {
        return Ok(device.to_owned());
    };
    if host.is_empty() {
        return Ok(device.to_owned());
    }
    Ok(format!("//{}/{share}", address(host, resolve)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        let entries = entries.iter();
        entries
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn call(entries: &[(&str, &str)]) -> Result<MountCall, String> {
        mount_call(&options(entries), |host| match host {
            "files" => Ok("10.0.0.7".parse().unwrap()),
            _ => Err("no such host".to_owned()),
        })
    }

    #[test]
    fn options_that_make_no_mount_are_refused() {
        let refusal = |entries: &[(&str, &str)]| check(&options(entries)).err().unwrap_or_default();
        assert_eq!(refusal(&[]), "");
        assert_eq!(refusal(&[("type", "tmpfs"), ("device", "tmpfs")]), "");
        assert_eq!(refusal(&[("foo", "1")]), "invalid option: \"foo\"");
        assert_eq!(
            refusal(&[("type", "nfs")]),
            "missing required option: \"device\""
        );
        assert_eq!(
            refusal(&[("device", "/x")]),
            "missing required option: \"type\""
        );
        assert_eq!(
            refusal(&[("o", "ro")]),
            "missing required option: \"device\""
        );
        assert_eq!(
            refusal(&[("size", "1G")]),
            "quota size requested but no quota support"
        );
    }

    #[test]
    fn flags_are_told_from_what_the_file_system_reads() {
        let found = call(&[
            ("type", "tmpfs"),
            ("device", "tmpfs"),
            ("o", "size=1m,nosuid,noexec,exec,uid=7,ro"),
        ])
        .unwrap();
        assert_eq!(found.flags, MsFlags::MS_NOSUID | MsFlags::MS_RDONLY);
        assert_eq!(
            (&found.data[..], found.propagation),
            ("size=1m,uid=7", None)
        );
        let found = call(&[("type", "none"), ("device", "/srv"), ("o", "rbind,rslave")]).unwrap();
        assert_eq!(found.flags, MsFlags::MS_BIND | MsFlags::MS_REC);
        assert_eq!(found.propagation, Some(MsFlags::MS_SLAVE | MsFlags::MS_REC));
    }

    #[test]
    fn servers_are_given_by_address() {
        let nfs = |o: &str| call(&[("type", "nfs"), ("device", ":/export"), ("o", o)]);
        let found = nfs("addr=files,rw,nfsvers=4").unwrap();
        assert_eq!(
            (&found.data[..], &found.device[..]),
            ("addr=10.0.0.7,nfsvers=4", ":/export")
        );
        assert_eq!(nfs("addr=10.1.1.1").unwrap().data, "addr=10.1.1.1");
        assert_eq!(
            nfs("addr=nowhere").unwrap_err(),
            "error resolving passed in network volume address: lookup nowhere: no such host"
        );
        let cifs = |device: &str, o: &str| call(&[("type", "cifs"), ("device", device), ("o", o)]);
        let found = cifs("//files/share/a b", "username=u,password=p").unwrap();
        assert_eq!(found.device, "//10.0.0.7/share/a b");
        assert_eq!(found.data, "username=u,password=p");
        let found = cifs("//files/share", "addr=files").unwrap();
        assert_eq!(
            (&found.device[..], &found.data[..]),
            ("//files/share", "addr=10.0.0.7")
        );
    }
}
