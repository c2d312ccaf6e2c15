//! Which capabilities a container's processes hold.

use super::Error;
use crate::runtime::config::Security;

/// All names, by number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The capabilities there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The highest number the kernel knows.
    pub last: u32,
    /// Bits of those the daemon holds.
    pub set: u64,
}

/// What Docker leaves to root in a container.
const DEFAULTS: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The bounding set, with `CAP_`, in the kernel's order. "All" are those that the kernel knows and the daemon itself holds:
/// one that runs in a container cannot give what it does not have.
pub(super) fn granted(security: &Security, held: Held) -> Result<Vec<String>, Error> {
    let add = names(&security.capabilities_add)?;
    let drop = names(&security.capabilities_drop)?;
    let has =
        |list: &[String], name: &str| list.iter().any(|entry| entry == name || entry == "ALL");
    let is_named = |list: &[String], name: &str| list.iter().any(|entry| entry == name);
    let keeps = |number: u32, name: &str| {
        let is_held = held.set >> number & 1 == 1;
        if security.is_privileged {
            return is_held;
        }
        // A name beats `ALL`; with `add ALL`, drop only takes what it names.
        let is_base = DEFAULTS.contains(&name) && !has(&drop, "ALL");
        let is_added = is_named(&add, name) || (has(&add, "ALL") && is_held);
        (is_base || is_added) && !is_named(&drop, name)
    };
    Ok((0..=held.last)
        .zip(NAMES)
        .filter(|(number, name)| keeps(*number, name))
        .map(|(_, name)| format!("CAP_{name}"))
        .collect())
}

fn names(list: &[String]) -> Result<Vec<String>, Error> {
    list.iter()
        .map(|text| {
            let upper = text.to_ascii_uppercase();
            let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
            match name == "ALL" || NAMES.contains(&name) {
                true => Ok(name.to_owned()),
                false => Err(Error::Capability(text.clone())),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Held = Held {
        last: 40,
        set: u64::MAX,
    };

    #[track_caller]
    fn check(add: &[&str], drop: &[&str], expected: usize) {
        let own = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        let security = Security {
            capabilities_add: own(add),
            capabilities_drop: own(drop),
            ..Security::default()
        };
        assert_eq!(granted(&security, ALL).unwrap().len(), expected);
    }

    #[test]
    fn additions_and_drops_combine_as_in_docker() {
        check(&[], &[], 14);
        check(&["net_admin", "CAP_SYS_TIME"], &["KILL"], 15);
        check(&[], &["ALL"], 0);
        check(&["CHOWN"], &["ALL"], 1);
        check(&["ALL"], &["SYS_ADMIN"], 40);
    }

    #[test]
    fn kernels_without_the_newest_capabilities_are_not_asked_for_them() {
        let security = Security {
            is_privileged: true,
            ..Security::default()
        };
        let old = Held { last: 37, ..ALL };
        assert_eq!(granted(&security, old).unwrap().len(), 38);
        let few = Held { set: 0b101, ..ALL };
        assert_eq!(
            granted(&security, few).unwrap(),
            ["CAP_CHOWN", "CAP_DAC_READ_SEARCH"]
        );
    }

    #[test]
    fn an_unknown_capability_is_refused() {
        let security = Security {
            capabilities_add: vec!["FLY".to_owned()],
            ..Security::default()
        };
        assert!(granted(&security, ALL).is_err());
    }
}
