//! `monitor.json` and `exec.json`: what the daemon tells the monitor and the exec helper.

use std::{collections::BTreeMap, fs, io, path::Path, path::PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::runtime::config::{PortReservation, Rootfs};

/// File name inside the container's directory.
pub const MONITOR_FILE: &str = "monitor.json";

/// File name inside an exec session's directory.
pub const EXEC_FILE: &str = "exec.json";

/// Directory of the [`HeldMount`]s inside the container's directory.
pub const HELD_DIR: &str = "bundle/held";

/// Hundreds of layers at 200 bytes a path are far below this.
const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// What the monitor needs of a container's configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MonitorConfig {
    pub version: u32,
    pub id: String,
    /// `args[0]`, for error texts.
    pub program: String,
    pub oci: OciRuntime,
    pub rootfs: Rootfs,
    /// Unmounted in the monitor's mount namespace before the OCI runtime runs.
    pub hidden_mount: Option<PathBuf>,
    pub has_tty: bool,
    /// Rows, columns.
    pub tty_size: Option<(u16, u16)>,
    pub has_stdin: bool,
    pub is_stdin_once: bool,
    pub log: Option<LogFile>,
    pub reserved_ports: Vec<PortReservation>,
    /// The container's cgroup in every hierarchy; removed at its end.
    pub cgroup_dirs: Vec<PathBuf>,
    /// The container's cgroup in a hierarchy the OCI runtime does not see; the monitor puts the container there.
    pub extra_cgroup: Option<PathBuf>,
    /// Where the monitor itself goes; failures are not fatal.
    pub monitor_cgroups: Vec<PathBuf>,
    /// Mounts taken from the host's mount namespace.
    #[serde(default)]
    pub held_mounts: Vec<HeldMount>,
}

/// A mount that the monitor takes from the host and puts where the OCI runtime finds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldMount {
    pub source: PathBuf,
    /// What of `source`; never anything outside of it. Empty: all.
    pub subpath: String,
    pub is_recursive: bool,
    /// Made by the monitor.
    pub target: PathBuf,
}

/// The OCI runtime program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OciRuntime {
    pub kind: OciKind,
    pub path: PathBuf,
    /// Its `--root`.
    pub root: PathBuf,
}

/// Which program it is: they differ in error texts and in what hosts they accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OciKind {
    Crun,
    Runc,
}

/// A json-file log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    pub path: PathBuf,
    /// 0: never rotate.
    pub max_size: u64,
    /// At least 1.
    pub max_files: u32,
    /// Written with every entry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

/// One exec session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExecSpec {
    pub version: u32,
    pub container_id: String,
    /// `args[0]`, for error texts.
    pub program: String,
    pub oci: OciRuntime,
    /// The monitor whose mount namespace is entered.
    pub monitor_pid: i32,
    pub has_tty: bool,
    /// The process is killed, with its group, this long after its start, or when the daemon goes away. `None`: never.
    pub time_limit_ms: Option<u64>,
}

// === impl OciKind ===

impl OciKind {
    /// The program's usual name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crun => "crun",
            Self::Runc => "runc",
        }
    }
}

/// Reads a JSON file of limited size.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    if fs::metadata(path)?.len() > CONFIG_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "file is too large",
        ));
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}
