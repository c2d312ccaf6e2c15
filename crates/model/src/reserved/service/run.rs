//! Labels of services for what `docker run` has and services in Swarm never could have: devices, privileges, the
//! node's namespaces.
//!
//! What gives a container power over its node is only for nodes whose operator allows it, with the node label
//! [`ALLOW`]; the scheduler heeds it, and the node itself looks again. Design: `docs/design/run-options.md`.

use std::{collections::BTreeSet, fmt};

use super::super::Labels;

/// `true`: all capabilities, all devices, no filters.
pub const PRIVILEGED: &str = "skep.run.privileged";
/// Devices of the node, separated by commas: `/dev/x`, `/dev/x:/dev/y`, `/dev/x:/dev/y:rwm`.
pub const DEVICES: &str = "skep.run.devices";
/// Size of `/dev/shm` (`256m`).
pub const SHM_SIZE: &str = "skep.run.shm-size";
/// Some of `no-new-privileges`, `seccomp=unconfined`, `apparmor=unconfined`, `systempaths=unconfined`, separated by commas.
pub const SECURITY_OPT: &str = "skep.run.security-opt";
/// `host`: the node's processes.
pub const PID: &str = "skep.run.pid";
/// `host`: the node's shared memory and message queues.
pub const IPC: &str = "skep.run.ipc";
/// `host`: the node's name.
pub const UTS: &str = "skep.run.uts";

/// Labels of services read here.
pub const KNOWN: [&str; 7] = [PRIVILEGED, DEVICES, SHM_SIZE, SECURITY_OPT, PID, IPC, UTS];

/// Label of a node: which [`Power`]s containers may have there, separated by commas.
pub const ALLOW: &str = "skep.allow";

/// Devices of one service. Each is looked up and becomes a rule of a control group.
pub const DEVICES_MAX: usize = 64;
/// Least [`SHM_SIZE`]: one page.
pub const SHM_BYTES_MIN: u64 = 4096;
/// Largest [`SHM_SIZE`]: as much memory as the largest machines have.
pub const SHM_BYTES_MAX: u64 = 1 << 44;

/// What the labels of a service say about how its containers run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunPolicy {
    /// See [`PRIVILEGED`].
    pub is_privileged: bool,
    /// See [`DEVICES`].
    pub devices: Vec<Device>,
    /// See [`SHM_SIZE`]; `None`: the node's default.
    pub shm_bytes: Option<u64>,
    /// `no-new-privileges`.
    pub is_no_new_privileges: bool,
    /// `seccomp=unconfined`.
    pub is_seccomp_unconfined: bool,
    /// `apparmor=unconfined`.
    pub is_apparmor_unconfined: bool,
    /// `systempaths=unconfined`: nothing below `/proc` and `/sys` is hidden or read-only.
    pub is_system_unconfined: bool,
    /// See [`PID`].
    pub is_pid_host: bool,
    /// See [`IPC`].
    pub is_ipc_host: bool,
    /// See [`UTS`].
    pub is_uts_host: bool,
}

/// A device of the node made available to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Path on the node.
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// Some of `rwm`.
    pub permissions: String,
}

/// Power over its node that a container may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Power {
    /// All there is; includes the others.
    Privileged,
    /// Devices.
    Devices,
    /// The node's processes.
    HostPid,
    /// The node's shared memory.
    HostIpc,
    /// The node's name.
    HostUts,
    /// Without the usual filters.
    Unconfined,
}

/// A label that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRun {
    /// Neither `true` nor `false`.
    #[error("label `{PRIVILEGED}`: `{0}` is neither `true` nor `false`")]
    Privileged(String),
    /// Not a device.
    #[error(
        "label `{DEVICES}`: `{0}` is not a device like `/dev/a`, `/dev/a:/dev/b` or `/dev/a:/dev/b:rwm`"
    )]
    Device(String),
    /// Too many.
    #[error("label `{DEVICES}`: at most {DEVICES_MAX} devices are allowed")]
    DeviceCount,
    /// Not a size.
    #[error("label `{SHM_SIZE}`: `{0}` is not a size like `256m` of at least 4k")]
    ShmSize(String),
    /// Not an option.
    #[error(
        "label `{SECURITY_OPT}`: `{0}` is none of no-new-privileges, seccomp=unconfined, apparmor=unconfined, \
         systempaths=unconfined"
    )]
    SecurityOpt(String),
    /// Neither `host` nor `private`.
    #[error("label `{label}`: `{value}` is neither `host` nor `private`")]
    Namespace {
        /// The label.
        label: &'static str,
        /// What it says.
        value: String,
    },
}

// === impl RunPolicy ===

impl RunPolicy {
    /// What the labels of a service say.
    ///
    /// # Errors
    /// Everything wrong with them.
    pub fn of(labels: &Labels) -> Result<Self, Vec<InvalidRun>> {
        let (policy, problems) = Self::read(labels);
        if problems.is_empty() {
            Ok(policy)
        } else {
            Err(problems)
        }
    }

    /// Everything wrong with these labels.
    pub fn problems(labels: &Labels) -> Vec<InvalidRun> {
        Self::read(labels).1
    }

    /// Whether containers made by the one and the other differ. They are made once, so tasks have to be replaced.
    pub fn differs(one: &Labels, other: &Labels) -> bool {
        KNOWN.iter().any(|key| one.get(*key) != other.get(*key))
    }

    /// What containers may do that other containers may not.
    pub fn powers(&self) -> BTreeSet<Power> {
        let is_unconfined =
            self.is_seccomp_unconfined || self.is_apparmor_unconfined || self.is_system_unconfined;
        let all = [
            (self.is_privileged, Power::Privileged),
            (!self.devices.is_empty(), Power::Devices),
            (self.is_pid_host, Power::HostPid),
            (self.is_ipc_host, Power::HostIpc),
            (self.is_uts_host, Power::HostUts),
            (is_unconfined, Power::Unconfined),
        ];
        let wanted = all.into_iter().filter(|(is_wanted, _)| *is_wanted);
        wanted.map(|(_, power)| power).collect()
    }

    fn read(labels: &Labels) -> (Self, Vec<InvalidRun>) {
        let mut policy = Self::default();
        let mut problems = Vec::new();
        match labels.get(PRIVILEGED).map(String::as_str) {
            None | Some("false") => {}
            Some("true") => policy.is_privileged = true,
            Some(other) => problems.push(InvalidRun::Privileged(other.to_owned())),
        }
        for text in parts(labels, DEVICES) {
            match Device::parse(text) {
                Some(device) => policy.devices.push(device),
                None => problems.push(InvalidRun::Device(text.to_owned())),
            }
        }
        if policy.devices.len() > DEVICES_MAX {
            problems.push(InvalidRun::DeviceCount);
        }
        if let Some(text) = labels.get(SHM_SIZE) {
            match size(text).filter(|size| (SHM_BYTES_MIN..=SHM_BYTES_MAX).contains(size)) {
                Some(size) => policy.shm_bytes = Some(size),
                None => problems.push(InvalidRun::ShmSize(text.clone())),
            }
        }
        for option in parts(labels, SECURITY_OPT) {
            match option {
                "no-new-privileges" | "no-new-privileges=true" => {
                    policy.is_no_new_privileges = true
                }
                "seccomp=unconfined" => policy.is_seccomp_unconfined = true,
                "apparmor=unconfined" => policy.is_apparmor_unconfined = true,
                "systempaths=unconfined" => policy.is_system_unconfined = true,
                other => problems.push(InvalidRun::SecurityOpt(other.to_owned())),
            }
        }
        for (label, is_host) in [
            (PID, &mut policy.is_pid_host),
            (IPC, &mut policy.is_ipc_host),
            (UTS, &mut policy.is_uts_host),
        ] {
            match labels.get(label).map(String::as_str) {
                None | Some("private") => {}
                Some("host") => *is_host = true,
                Some(other) => problems.push(InvalidRun::Namespace {
                    label,
                    value: other.to_owned(),
                }),
            }
        }
        (policy, problems)
    }
}

/// The parts of a list; an empty label is an empty list.
fn parts<'a>(labels: &'a Labels, key: &str) -> impl Iterator<Item = &'a str> {
    let text = labels.get(key).map(String::as_str).unwrap_or_default();
    text.split(',')
        .map(str::trim)
        .filter(move |_| !text.is_empty())
}

/// Bytes: a number and perhaps `k`, `m` or `g`, in powers of 1024.
fn size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let number = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, shift) = match number.as_bytes().last()? {
        b'k' => (&number[..number.len() - 1], 10),
        b'm' => (&number[..number.len() - 1], 20),
        b'g' => (&number[..number.len() - 1], 30),
        _ => (number, 0),
    };
    let is_decimal = digits.bytes().all(|byte| byte.is_ascii_digit());
    let value: u64 = digits.parse().ok().filter(|_| is_decimal)?;
    value.checked_mul(1 << shift)
}

// === impl Device ===

impl Device {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(':');
        let source = words.next()?;
        // As in Docker a second word may be a path or permissions.
        let (target, permissions) = match (words.next(), words.next(), words.next()) {
            (None, _, _) => (source, "rwm"),
            (Some(word), None, _) if word.starts_with('/') => (word, "rwm"),
            (Some(word), None, _) => (source, word),
            (Some(target), Some(permissions), None) => (target, permissions),
            (Some(_), Some(_), Some(_)) => return None,
        };
        let is_path =
            |path: &str| path.starts_with("/dev/") && !path.split('/').any(|part| part == "..");
        let distinct: BTreeSet<char> = permissions.chars().collect();
        let are_permissions = !permissions.is_empty()
            && distinct.len() == permissions.len()
            && distinct.iter().all(|c| "rwm".contains(*c));
        let is_device = is_path(source) && is_path(target) && are_permissions;
        is_device.then(|| Self {
            source: source.to_owned(),
            target: target.to_owned(),
            permissions: permissions.to_owned(),
        })
    }
}

// === impl Power ===

impl Power {
    /// All there are.
    pub const ALL: [Self; 6] = [
        Self::Privileged,
        Self::Devices,
        Self::HostPid,
        Self::HostIpc,
        Self::HostUts,
        Self::Unconfined,
    ];

    /// Its name in [`ALLOW`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Devices => "devices",
            Self::HostPid => "host-pid",
            Self::HostIpc => "host-ipc",
            Self::HostUts => "host-uts",
            Self::Unconfined => "unconfined",
        }
    }

    /// What a node's label [`ALLOW`] names that there is not.
    pub fn unknown(node: &Labels) -> Vec<&str> {
        let is_known = |name: &str| Self::ALL.iter().any(|power| power.name() == name);
        parts(node, ALLOW).filter(|name| !is_known(name)).collect()
    }

    /// Those of `wanted` that a node with these labels does not allow. One that allows privileged containers allows all.
    pub fn missing(wanted: &BTreeSet<Self>, node: &Labels) -> Vec<Self> {
        let allowed: BTreeSet<&str> = parts(node, ALLOW).collect();
        if allowed.contains(Self::Privileged.name()) {
            return Vec::new();
        }
        let missing = wanted
            .iter()
            .filter(|power| !allowed.contains(power.name()));
        missing.copied().collect()
    }
}

impl fmt::Display for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(own).collect()
    }

    #[track_caller]
    fn check(label: &str, value: &str, expected: Option<RunPolicy>) {
        let read = RunPolicy::of(&labels(&[(label, value)]));
        match expected {
            Some(policy) => assert_eq!(read, Ok(policy)),
            None => {
                let problems = read.unwrap_err();
                assert_eq!(problems.len(), 1, "{problems:?}");
                assert!(problems[0].to_string().contains(label), "{problems:?}");
            }
        }
    }

    #[test]
    fn labels_say_how_containers_run() {
        let none = RunPolicy::default;
        check("app", "web", Some(none()));
        check(
            PRIVILEGED,
            "true",
            Some(RunPolicy {
                is_privileged: true,
                ..none()
            }),
        );
        check(
            SHM_SIZE,
            "256m",
            Some(RunPolicy {
                shm_bytes: Some(256 << 20),
                ..none()
            }),
        );
        check(
            SHM_SIZE,
            "1GB",
            Some(RunPolicy {
                shm_bytes: Some(1 << 30),
                ..none()
            }),
        );
        check(
            PID,
            "host",
            Some(RunPolicy {
                is_pid_host: true,
                ..none()
            }),
        );
        check(IPC, "private", Some(none()));
        let confined = RunPolicy {
            is_no_new_privileges: true,
            is_system_unconfined: true,
            ..none()
        };
        check(
            SECURITY_OPT,
            "no-new-privileges, systempaths=unconfined",
            Some(confined),
        );
        let device = |source: &str, target: &str, permissions: &str| Device {
            source: source.to_owned(),
            target: target.to_owned(),
            permissions: permissions.to_owned(),
        };
        let devices = vec![
            device("/dev/a", "/dev/a", "rwm"),
            device("/dev/b", "/dev/c", "rwm"),
            device("/dev/d", "/dev/d", "r"),
            device("/dev/e/f", "/dev/g", "rw"),
        ];
        let policy = RunPolicy { devices, ..none() };
        check(
            DEVICES,
            "/dev/a,/dev/b:/dev/c,/dev/d:r,/dev/e/f:/dev/g:rw",
            Some(policy),
        );
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        for (label, value) in [
            (PRIVILEGED, "yes"),
            (SHM_SIZE, "big"),
            (SHM_SIZE, "1"),
            (SHM_SIZE, "99999g"),
            (SHM_SIZE, "18446744073709551615g"),
            (PID, "container:x"),
            (UTS, ""),
            (SECURITY_OPT, "seccomp=/etc/x.json"),
            (DEVICES, "/etc/passwd"),
            (DEVICES, "/dev/../etc/passwd"),
            (DEVICES, "/dev/a:/dev/b:x"),
            (DEVICES, "/dev/a:/dev/b:rr"),
            (DEVICES, "/dev/a:/dev/b:r:w"),
            (DEVICES, "/dev/a,"),
        ] {
            check(label, value, None);
        }
        let many = vec!["/dev/a"; DEVICES_MAX + 1].join(",");
        check(DEVICES, &many, None);
    }

    #[test]
    fn a_node_allows_what_its_label_names() {
        let wanted: BTreeSet<Power> = [Power::Devices, Power::HostPid].into();
        let missing = |allow: &str| Power::missing(&wanted, &labels(&[(ALLOW, allow)]));
        assert_eq!(
            Power::missing(&wanted, &Labels::new()),
            [Power::Devices, Power::HostPid]
        );
        assert_eq!(missing("devices"), [Power::HostPid]);
        assert_eq!(missing("host-pid, devices"), []);
        assert_eq!(missing("privileged"), []);
        let unknown = labels(&[(ALLOW, "all, devices,")]);
        assert_eq!(Power::unknown(&unknown), ["all", ""]);
        assert_eq!(Power::missing(&BTreeSet::new(), &Labels::new()), []);
        let all = RunPolicy {
            is_privileged: true,
            is_apparmor_unconfined: true,
            is_no_new_privileges: true,
            shm_bytes: Some(1),
            ..RunPolicy::default()
        };
        assert_eq!(all.powers(), [Power::Privileged, Power::Unconfined].into());
    }
}
