//! Docker's defaults as data: mounts, masked and read-only paths, devices every container has.

use serde_json::{Value, json};

use crate::runtime::config::{ContainerConfig, SharedNamespace};

/// `RLIMIT_` names without the prefix.
pub(super) const RLIMITS: [&str; 16] = [
    "AS",
    "CORE",
    "CPU",
    "DATA",
    "FSIZE",
    "LOCKS",
    "MEMLOCK",
    "MSGQUEUE",
    "NICE",
    "NOFILE",
    "NPROC",
    "RSS",
    "RTPRIO",
    "RTTIME",
    "SIGPENDING",
    "STACK",
];

/// Hidden from unprivileged containers.
pub(super) const MASKED_PATHS: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];

/// Read-only in unprivileged containers.
pub(super) const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Device rules of unprivileged containers: type, major, minor (`None` all), access. Nothing but these.
pub(super) const DEVICE_RULES: [(&str, Option<i64>, Option<i64>, &str); 9] = [
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", Some(1), Some(3), "rwm"),
    ("c", Some(1), Some(5), "rwm"),
    ("c", Some(1), Some(7), "rwm"),
    ("c", Some(1), Some(8), "rwm"),
    ("c", Some(1), Some(9), "rwm"),
    ("c", Some(5), Some(0), "rwm"),
    ("c", Some(5), Some(2), "rwm"),
];

/// `/proc`, `/dev` and what belongs below, `/sys`.
pub(super) fn mounts(config: &ContainerConfig) -> Vec<Value> {
    let is_privileged = config.security.is_privileged;
    let access = if is_privileged { "rw" } else { "ro" };
    let mut list = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc",
            "options": ["nosuid", "noexec", "nodev"] }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] }),
        json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", access] }),
        json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] }),
        json!({ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"] }),
    ];
    if config.namespaces.ipc == SharedNamespace::Host {
        // Message queues are those of the namespace, wherever they are mounted; shared memory is a directory.
        list.push(
            json!({ "destination": "/dev/shm", "type": "bind", "source": "/dev/shm",
            "options": ["rbind", "nosuid", "noexec", "nodev"] }),
        );
    } else {
        let size = format!("size={}", config.shm_bytes);
        list.push(
            json!({ "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", size] }),
        );
    }
    // Language runtimes size themselves by what they read here.
    list.push(
        json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
        "options": ["nosuid", "noexec", "nodev", access] }),
    );
    list
}
