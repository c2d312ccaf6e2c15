//! What a container is, as plain resolved values: `ContainerConfig` is stored as `config.json` and holds no cluster types.
//!
//! Everything is decided before it gets here (image defaults merged, names resolved, files generated). Design: `docs/design/monitor.md`.

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

use super::log_details::{self, is_detail};

/// The version of `config.json` this code writes.
pub const CONFIG_VERSION: u32 = 1;

/// Docker's ids are 64 hex digits; names of files and cgroups are at most 255 bytes.
const ID_LENGTH_MAX: usize = 128;

/// A container's id: a safe file name, cgroup name and OCI id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

/// The text is not a container id.
#[derive(Debug, thiserror::Error)]
#[error("invalid container id `{0}`")]
pub struct InvalidId(String);

/// Everything the runtime must know of one container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerConfig {
    /// Format version of the stored file.
    pub version: u32,
    pub rootfs: Rootfs,
    /// Mount the root file system read-only.
    pub is_rootfs_readonly: bool,
    /// Entrypoint and command, already joined; never empty.
    pub args: Vec<String>,
    /// `KEY=value`; the first `PATH` is used to find `args[0]`.
    pub env: Vec<String>,
    /// Working directory inside the container; created when missing.
    pub cwd: String,
    /// `user`, `user:group`, `uid`, `uid:gid` or empty; resolved inside the root file system.
    pub user: String,
    /// Supplementary groups: names or numbers.
    pub groups_add: Vec<String>,
    /// A pty instead of three pipes.
    pub has_tty: bool,
    /// First size of the pty: rows, columns.
    pub tty_size: Option<(u16, u16)>,
    /// Keep stdin open; otherwise it is `/dev/null`.
    pub has_stdin: bool,
    /// Close stdin when the first attached client closes its own.
    pub is_stdin_once: bool,
    /// Run the static init found by `Runtime::probe` as process 1.
    pub has_init: bool,
    pub hostname: String,
    pub domainname: String,
    pub namespaces: Namespaces,
    /// Bind mounts, volumes and tmpfs beyond the default mounts, in order of destination depth.
    pub mounts: Vec<Mount>,
    /// Bytes of `/dev/shm`.
    pub shm_bytes: u64,
    pub security: Security,
    pub resources: Resources,
    pub rlimits: Vec<Rlimit>,
    pub sysctls: BTreeMap<String, String>,
    pub devices: Vec<Device>,
    pub log: LogConfig,
    /// Host ports reserved for as long as the container runs.
    pub reserved_ports: Vec<PortReservation>,
    /// What `stop` sends first; a number of `signal(7)`.
    pub stop_signal: i32,
    /// Opaque to the runtime; kept for the engine across daemon restarts.
    pub labels: BTreeMap<String, String>,
    /// OCI annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Where the root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rootfs {
    /// Overlay, mounted by the monitor in its own mount namespace. `lower` is ordered bottom to top.
    Overlay {
        lower: Vec<PathBuf>,
        upper: PathBuf,
        work: PathBuf,
    },
    /// A directory used as it is.
    Directory(PathBuf),
}

/// Which namespaces the container shares with others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    pub network: NetworkNamespace,
    pub pid: SharedNamespace,
    pub ipc: SharedNamespace,
    pub uts: SharedNamespace,
    /// A cgroup namespace of its own (`--cgroupns private`).
    pub is_cgroup_private: bool,
}

/// The container's network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkNamespace {
    /// A new, empty one (`--network none`).
    #[default]
    Private,
    Host,
    /// Prepared by the caller, e.g. `/run/netns/x` or `/proc/PID/ns/net`.
    Path(PathBuf),
}

/// Another namespace: new, the host's, or of a given path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SharedNamespace {
    #[default]
    Private,
    Host,
    Path(PathBuf),
}

/// One mount beyond the defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside the container.
    pub destination: String,
    pub is_readonly: bool,
    pub kind: MountKind,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// A path of the host (bind mount, volume, generated file); must exist.
    Bind {
        source: PathBuf,
        propagation: Propagation,
        is_recursive: bool,
        /// Of a read-only mount: the mounts below it are read-only, too.
        #[serde(default)]
        is_readonly_below: bool,
        /// What of `source` is mounted; never anything outside of it. Empty: all.
        #[serde(default)]
        subpath: String,
    },
    /// `size_bytes` 0: the kernel's default; `mode` 0: 1777; `options` are passed on (`exec`, `uid=…`).
    Tmpfs {
        size_bytes: u64,
        mode: u32,
        options: Vec<String>,
    },
}

/// Mount propagation. What is not private needs a source that is `shared` (or, for slaves, a slave) on the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    #[default]
    Rprivate,
    Private,
    Rslave,
    Slave,
    Rshared,
    Shared,
}

/// What the container's processes may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    pub is_privileged: bool,
    /// `CAP_` prefix optional, any case; `ALL` is understood.
    pub capabilities_add: Vec<String>,
    pub capabilities_drop: Vec<String>,
    pub is_no_new_privileges: bool,
    pub seccomp: Seccomp,
    /// `None`: the default list; `Some(vec![])`: nothing is masked.
    pub masked_paths: Option<Vec<String>>,
    pub readonly_paths: Option<Vec<String>>,
    /// `None` leaves the OCI runtime's default.
    pub oom_score_adj: Option<i32>,
}

/// The system call filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    /// The built-in allow-list, adapted to the capabilities.
    #[default]
    Default,
    Unconfined,
    /// A profile in Docker's format.
    Custom(serde_json::Value),
}

/// Limits; 0 or `None` means none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    pub nano_cpus: u64,
    pub cpu_shares: u64,
    /// Explicit quota in microseconds; wins over `nano_cpus`.
    pub cpu_quota_us: i64,
    pub cpu_period_us: u64,
    /// `0-3,7`.
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub memory_bytes: u64,
    pub memory_reservation_bytes: u64,
    /// Memory plus swap, as Docker: 0 = twice the memory, -1 = unlimited swap.
    pub memory_swap_bytes: i64,
    pub memory_swappiness: Option<u64>,
    pub is_oom_kill_disabled: bool,
    /// 0 or negative: unlimited.
    pub pids_max: i64,
    /// 10–1000, 0 unset.
    pub blkio_weight: u16,
}

/// One `RLIMIT_*`; `name` as Docker's ulimits: `nofile`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    pub name: String,
    pub soft: u64,
    pub hard: u64,
}

/// A host device made available inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub host_path: PathBuf,
    pub container_path: String,
    /// Some of `rwm`.
    pub permissions: String,
}

/// Where output goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogConfig {
    /// Docker's json-file driver.
    JsonFile {
        /// `None`: `<id>-json.log` in the container's directory.
        path: Option<PathBuf>,
        /// Rotate at this size; 0 never.
        max_size: u64,
        /// Files kept, at least 1 (truncate in place).
        max_files: u32,
        /// Written with every line.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        details: BTreeMap<String, String>,
    },
    /// Nothing is kept; attached clients still see the output.
    None,
}

/// The log driver or one of its options is not supported; the text is for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogConfigError {
    #[error("logger: no log driver named '{0}' is registered")]
    UnknownDriver(String),
    #[error("unknown log opt '{option}' for {driver} log driver")]
    UnknownOption { driver: String, option: String },
    #[error("invalid value `{value}` for log opt `{option}`")]
    InvalidValue { option: String, value: String },
    #[error("log opt `compress` is not supported by this node")]
    Compress,
    #[error("max-file cannot be set without max-size")]
    FilesWithoutSize,
}

/// A host port bound by the monitor for the container's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortReservation {
    pub protocol: Protocol,
    pub addr: IpAddr,
    /// Never 0: the caller has chosen.
    pub port: u16,
}

/// Transport of a reserved port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    /// Accepted and not held: the kernel may lack it and nothing else binds it by accident.
    Sctp,
}

// === impl ContainerId ===

impl ContainerId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let starts_well = text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
        let is_safe = text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if starts_well && is_safe && text.len() <= ID_LENGTH_MAX {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId(text.chars().take(ID_LENGTH_MAX).collect()))
        }
    }
}

impl TryFrom<String> for ContainerId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Propagation ===

impl Propagation {
    /// The name mount options have.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rprivate => "rprivate",
            Self::Private => "private",
            Self::Rslave => "rslave",
            Self::Slave => "slave",
            Self::Rshared => "rshared",
            Self::Shared => "shared",
        }
    }
}

// === impl MountKind ===

impl MountKind {
    /// Whether the monitor takes it from the host before it leaves the host's mount namespace: only there can a mount
    /// be shared with the host, and be held while its path is looked at.
    pub(crate) fn is_held(&self) -> bool {
        match self {
            Self::Bind {
                propagation,
                subpath,
                ..
            } => {
                let is_shared = matches!(propagation, Propagation::Shared | Propagation::Rshared);
                is_shared || !subpath.is_empty()
            }
            Self::Tmpfs { .. } => false,
        }
    }
}

// === impl ContainerConfig ===

impl Default for ContainerConfig {
    fn default() -> Self {
        Self {
            version: CONFIG_VERSION,
            rootfs: Rootfs::Directory(PathBuf::new()),
            is_rootfs_readonly: false,
            args: Vec::new(),
            env: Vec::new(),
            cwd: "/".to_owned(),
            user: String::new(),
            groups_add: Vec::new(),
            has_tty: false,
            tty_size: None,
            has_stdin: false,
            is_stdin_once: false,
            has_init: false,
            hostname: String::new(),
            domainname: String::new(),
            namespaces: Namespaces::default(),
            mounts: Vec::new(),
            shm_bytes: 64 << 20,
            security: Security::default(),
            resources: Resources::default(),
            rlimits: Vec::new(),
            sysctls: BTreeMap::new(),
            devices: Vec::new(),
            log: LogConfig::default(),
            reserved_ports: Vec::new(),
            stop_signal: 15,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }
}

impl Default for Security {
    fn default() -> Self {
        Self {
            is_privileged: false,
            capabilities_add: Vec::new(),
            capabilities_drop: Vec::new(),
            is_no_new_privileges: false,
            seccomp: Seccomp::Default,
            masked_paths: None,
            readonly_paths: None,
            oom_score_adj: None,
        }
    }
}

// === impl LogConfig ===

impl Default for LogConfig {
    fn default() -> Self {
        Self::JsonFile {
            path: None,
            max_size: 0,
            max_files: 1,
            details: BTreeMap::new(),
        }
    }
}

impl LogConfig {
    /// Reads Docker's driver name and options. An empty name is json-file. Of the container's labels and variables those that the
    /// options name are written with every line.
    pub fn for_container(
        driver: &str,
        options: &BTreeMap<String, String>,
        labels: &BTreeMap<String, String>,
        env: &[String],
    ) -> Result<Self, LogConfigError> {
        let mut config = Self::from_docker(driver, options)?;
        if let Self::JsonFile { details, .. } = &mut config {
            *details = log_details::details(options, labels, env)?;
        }
        Ok(config)
    }

    fn from_docker(
        driver: &str,
        options: &BTreeMap<String, String>,
    ) -> Result<Self, LogConfigError> {
        match driver {
            "" | "json-file" => Self::json_file(options),
            "none" => Ok(Self::None),
            other => Err(LogConfigError::UnknownDriver(other.to_owned())),
        }
    }

    fn json_file(options: &BTreeMap<String, String>) -> Result<Self, LogConfigError> {
        let (mut size, mut files) = (0, None);
        for (option, value) in options {
            let invalid = || LogConfigError::InvalidValue {
                option: option.clone(),
                value: value.clone(),
            };
            match option.as_str() {
                "max-size" => size = parse_size(value).ok_or_else(invalid)?,
                "max-file" => {
                    let count: u32 = value.parse().map_err(|_| invalid())?;
                    files = Some(if count == 0 {
                        return Err(invalid());
                    } else {
                        count
                    });
                }
                "compress" if value == "false" => {}
                "compress" => return Err(LogConfigError::Compress),
                "mode" if value == "blocking" || value == "non-blocking" => {}
                "max-buffer-size" => {}
                option if is_detail(option) => {}
                _ => {
                    let (driver, option) = ("json-file".to_owned(), option.clone());
                    return Err(LogConfigError::UnknownOption { driver, option });
                }
            }
        }
        if size == 0 && files.is_some_and(|count| count > 1) {
            return Err(LogConfigError::FilesWithoutSize);
        }
        Ok(Self::JsonFile {
            path: None,
            max_size: size,
            max_files: files.unwrap_or(1),
            details: BTreeMap::new(),
        })
    }
}

/// `10m`, `1.5g`, `100kb`, `1024`: Docker's sizes, powers of 1024; `-1` is no limit.
fn parse_size(text: &str) -> Option<u64> {
    if text == "-1" {
        return Some(0);
    }
    let lower = text.trim().to_ascii_lowercase();
    let number = lower.trim_end_matches('b').trim_end_matches('i');
    let (digits, shift) = match number.as_bytes().last()? {
        b'k' => (&number[..number.len() - 1], 10),
        b'm' => (&number[..number.len() - 1], 20),
        b'g' => (&number[..number.len() - 1], 30),
        b't' => (&number[..number.len() - 1], 40),
        _ => (number, 0),
    };
    let (whole, fraction) = digits.trim().split_once('.').unwrap_or((digits.trim(), ""));
    let unit = 1u64.checked_shl(shift)?;
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    if fraction.is_empty() {
        return Some(whole);
    }
    let scale = 10u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = fraction.parse::<u64>().ok()?.checked_mul(unit)? / scale;
    whole.checked_add(part)
}

// === impl Protocol ===

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}
