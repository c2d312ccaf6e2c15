//! The OCI description of a container: a pure function of its configuration and a few facts of the host.
//!
//! Defaults (capabilities, masked paths, mounts, devices) are Docker's; they are data in `defaults.rs`, the filter in `seccomp.rs`.

mod capabilities;
mod defaults;
mod mounts;
mod resources;
pub mod seccomp;

use std::{collections::BTreeMap, path::PathBuf};

use oci_spec::runtime::{Process, Spec};
use serde_json::{Value, json};

pub use self::capabilities::Held;
use super::{
    cgroup::Mode,
    config::{ContainerConfig, ContainerId, NetworkNamespace, Rlimit, Seccomp, SharedNamespace},
    exec::ExecConfig,
    user::User,
};

/// Where the init program appears inside, as in Docker.
const INIT_PATH: &str = "/sbin/docker-init";

/// Docker's search path where an image sets none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Largest number of any list in a configuration: beyond it the kernel or the OCI runtime would fail later and worse.
const LIST_LENGTH_MAX: usize = 10_000;

/// What the specification needs to know of the host and of the image's user database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The container's cgroup path.
    pub cgroup_path: String,
    pub cgroup_mode: Mode,
    /// The kernel accounts swap; without it swap limits are left out, as in Docker.
    pub has_swap_limit: bool,
    /// A static init program; needed with `has_init` only.
    pub init: Option<PathBuf>,
    /// The container's user, resolved.
    pub user: User,
    /// The capabilities there are.
    pub capabilities: Held,
    /// The devices of the configuration, looked up.
    pub devices: Vec<HostDevice>,
    /// All devices of the host; used by privileged containers only.
    pub all_devices: Vec<HostDevice>,
    /// Where the monitor puts the mounts it holds, each by its index.
    pub held_dir: PathBuf,
    /// Version of the kernel.
    pub kernel: (u32, u32),
}

/// A device node of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDevice {
    pub container_path: String,
    pub is_block: bool,
    pub major: i64,
    pub minor: i64,
    pub mode: u32,
    pub permissions: String,
}

/// A configuration that cannot become a container.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no command specified")]
    NoCommand,
    #[error("invalid mount `{destination}`: {reason}")]
    Mount {
        destination: String,
        reason: &'static str,
    },
    #[error("unknown capability to add or drop: `{0}`")]
    Capability(String),
    #[error("invalid ulimit type `{0}`")]
    Rlimit(String),
    #[error("sysctl `{0}` is not allowed with the host's namespace")]
    Sysctl(String),
    #[error("init requested, but this node has no static init program (install `tini`)")]
    NoInit,
    #[error("the configuration holds text that cannot be passed on: {0}")]
    Text(&'static str),
    #[error("decoding seccomp profile failed: {0}")]
    Seccomp(String),
    #[error("the specification is not valid")]
    Invalid(#[source] serde_json::Error),
}

/// The OCI specification of `config`.
pub fn oci_spec(id: &ContainerId, config: &ContainerConfig, host: &Host) -> Result<Spec, Error> {
    check(config)?;
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "process": process_value(config, host)?,
        "root": { "path": "rootfs", "readonly": config.is_rootfs_readonly },
        "hostname": hostname(id, config),
        "mounts": mounts::value(config, host)?,
        "annotations": config.annotations,
        "linux": {
            "namespaces": namespaces(config, host),
            "resources": resources::value(config, host),
            "cgroupsPath": host.cgroup_path,
            "devices": devices(config, host),
            "maskedPaths": masked(config),
            "readonlyPaths": readonly(config),
            "sysctl": sysctls(config)?,
            "rootfsPropagation": mounts::rootfs_propagation(config),
        },
    });
    if config.namespaces.uts == SharedNamespace::Host {
        spec["hostname"] = Value::Null;
    }
    if let Some(filter) = filter(config, host)? {
        spec["linux"]["seccomp"] = filter;
    }
    drop_nulls(&mut spec);
    serde_json::from_value(spec).map_err(Error::Invalid)
}

/// The system call filter; a profile that was given applies to privileged containers, too, as in Docker.
fn filter(config: &ContainerConfig, host: &Host) -> Result<Option<Value>, Error> {
    let security = &config.security;
    let granted = capabilities::granted(security, host.capabilities)?;
    match &security.seccomp {
        Seccomp::Unconfined => Ok(None),
        Seccomp::Default if security.is_privileged => Ok(None),
        Seccomp::Default => Ok(Some(seccomp::profile(&granted))),
        Seccomp::Custom(profile) => {
            let filter = seccomp::custom::filter(profile, &granted, host.kernel);
            filter.map(Some).map_err(Error::Seccomp)
        }
    }
}

/// The OCI process of an exec session in a container of `config`.
pub fn oci_exec(
    config: &ContainerConfig,
    exec: &ExecConfig,
    user: &User,
    host: &Host,
) -> Result<Process, Error> {
    let mut inner = config.clone();
    inner.args.clone_from(&exec.args);
    inner.env.extend(exec.env.iter().cloned());
    inner.has_tty = exec.has_tty;
    inner.tty_size = exec.tty_size;
    inner.has_init = false;
    inner.security.is_privileged |= exec.is_privileged;
    if !exec.cwd.is_empty() {
        inner.cwd.clone_from(&exec.cwd);
    }
    check(&inner)?;
    let host = Host {
        user: user.clone(),
        ..host.clone()
    };
    let mut process = process_value(&inner, &host)?;
    drop_nulls(&mut process);
    serde_json::from_value(process).map_err(Error::Invalid)
}

fn check(config: &ContainerConfig) -> Result<(), Error> {
    if config.args.is_empty() || config.args[0].is_empty() {
        return Err(Error::NoCommand);
    }
    let texts = config
        .args
        .iter()
        .chain(&config.env)
        .chain([&config.cwd, &config.hostname]);
    if texts.into_iter().any(|text| text.contains('\0')) {
        return Err(Error::Text("a NUL byte"));
    }
    let lengths = [
        config.args.len(),
        config.env.len(),
        config.mounts.len(),
        config.devices.len(),
    ];
    if lengths.into_iter().any(|length| length > LIST_LENGTH_MAX) {
        return Err(Error::Text("a list that is too long"));
    }
    if !config.cwd.starts_with('/') {
        return Err(Error::Text("a working directory that is not absolute"));
    }
    Ok(())
}

fn process_value(config: &ContainerConfig, host: &Host) -> Result<Value, Error> {
    let mut args = config.args.clone();
    if config.has_init {
        args.splice(0..0, [INIT_PATH.to_owned(), "--".to_owned()]);
    }
    let size = config.tty_size.filter(|_| config.has_tty);
    let security = &config.security;
    let held = capabilities::granted(security, host.capabilities)?;
    // A user other than root holds nothing at first; the bounding set is what setuid programs may gain.
    let effective = if host.user.uid == 0 {
        held.clone()
    } else {
        Vec::new()
    };
    Ok(json!({
        "terminal": config.has_tty,
        "consoleSize": size.map(|(height, width)| json!({ "height": height, "width": width })),
        "user": {
            "uid": host.user.uid,
            "gid": host.user.gid,
            "additionalGids": host.user.groups,
        },
        "args": args,
        "env": environment(config, host),
        "cwd": config.cwd,
        "capabilities": {
            "bounding": held, "effective": effective, "permitted": effective,
            "inheritable": [], "ambient": [],
        },
        "rlimits": rlimits(&config.rlimits)?,
        "noNewPrivileges": security.is_no_new_privileges,
        "oomScoreAdj": security.oom_score_adj.unwrap_or(0),
    }))
}

/// Docker's order: `PATH`, `HOSTNAME`, `TERM`, then the configuration's, which win; `HOME` of the user is added when missing.
fn environment(config: &ContainerConfig, host: &Host) -> Vec<String> {
    let mut env = vec![DEFAULT_PATH.to_owned()];
    if !config.hostname.is_empty() {
        env.push(format!("HOSTNAME={}", config.hostname));
    }
    if config.has_tty {
        env.push("TERM=xterm".to_owned());
    }
    let key = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    for entry in &config.env {
        let name = key(entry);
        let known = env.iter_mut().find(|known| key(known) == name);
        match (known, entry.contains('=')) {
            (Some(known), true) => entry.clone_into(known),
            (None, true) => env.push(entry.clone()),
            // A bare name removes the variable.
            (_, false) => env.retain(|known| key(known) != name),
        }
    }
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", host.user.home));
    }
    env
}

fn rlimits(limits: &[Rlimit]) -> Result<Vec<Value>, Error> {
    limits
        .iter()
        .map(|limit| {
            let name = limit.name.to_ascii_uppercase();
            let name = name.strip_prefix("RLIMIT_").unwrap_or(&name);
            if !defaults::RLIMITS.contains(&name) || limit.soft > limit.hard {
                return Err(Error::Rlimit(limit.name.clone()));
            }
            let name = format!("RLIMIT_{name}");
            Ok(json!({ "type": name, "soft": limit.soft, "hard": limit.hard }))
        })
        .collect()
}

fn hostname(id: &ContainerId, config: &ContainerConfig) -> String {
    match config.hostname.is_empty() {
        true => id.as_str().chars().take(12).collect(),
        false => config.hostname.clone(),
    }
}

fn namespaces(config: &ContainerConfig, host: &Host) -> Vec<Value> {
    let wanted = &config.namespaces;
    let mut list = vec![json!({ "type": "mount" })];
    match &wanted.network {
        NetworkNamespace::Private => list.push(json!({ "type": "network" })),
        NetworkNamespace::Path(path) => list.push(json!({ "type": "network", "path": path })),
        NetworkNamespace::Host => {}
    }
    for (kind, shared) in [
        ("pid", &wanted.pid),
        ("ipc", &wanted.ipc),
        ("uts", &wanted.uts),
    ] {
        match shared {
            SharedNamespace::Private => list.push(json!({ "type": kind })),
            SharedNamespace::Path(path) => list.push(json!({ "type": kind, "path": path })),
            SharedNamespace::Host => {}
        }
    }
    // Docker's default: private on v2 hosts, the host's on v1.
    if wanted.is_cgroup_private || host.cgroup_mode == Mode::V2 {
        list.push(json!({ "type": "cgroup" }));
    }
    list
}

fn devices(config: &ContainerConfig, host: &Host) -> Vec<Value> {
    let all = if config.security.is_privileged {
        &host.all_devices[..]
    } else {
        &[]
    };
    let chosen: BTreeMap<&str, &HostDevice> = all
        .iter()
        .chain(&host.devices)
        .map(|device| (device.container_path.as_str(), device))
        .collect();
    chosen
        .values()
        .map(|device| {
            json!({
                "path": device.container_path,
                "type": if device.is_block { "b" } else { "c" },
                "major": device.major,
                "minor": device.minor,
                "fileMode": device.mode & 0o777,
                "uid": 0,
                "gid": 0,
            })
        })
        .collect()
}

fn masked(config: &ContainerConfig) -> Vec<String> {
    path_list(
        config,
        config.security.masked_paths.as_ref(),
        &defaults::MASKED_PATHS,
    )
}

fn readonly(config: &ContainerConfig) -> Vec<String> {
    path_list(
        config,
        config.security.readonly_paths.as_ref(),
        &defaults::READONLY_PATHS,
    )
}

fn path_list(config: &ContainerConfig, own: Option<&Vec<String>>, usual: &[&str]) -> Vec<String> {
    match own {
        Some(paths) => paths.clone(),
        None if config.security.is_privileged => Vec::new(),
        None => usual.iter().map(|&path| path.to_owned()).collect(),
    }
}

fn sysctls(config: &ContainerConfig) -> Result<BTreeMap<String, String>, Error> {
    let mut all = BTreeMap::new();
    let has_network = config.namespaces.network != NetworkNamespace::Host;
    if has_network && !config.security.is_privileged {
        // As Docker since 20.10: unprivileged users may listen on low ports and send pings.
        all.insert(
            "net.ipv4.ip_unprivileged_port_start".to_owned(),
            "0".to_owned(),
        );
        all.insert(
            "net.ipv4.ping_group_range".to_owned(),
            "0 2147483647".to_owned(),
        );
    }
    for (name, value) in &config.sysctls {
        if !has_network && name.starts_with("net.") {
            return Err(Error::Sysctl(name.clone()));
        }
        all.insert(name.clone(), value.clone());
    }
    if !config.domainname.is_empty() {
        all.entry("kernel.domainname".to_owned())
            .or_insert_with(|| config.domainname.clone());
    }
    Ok(all)
}

/// OCI readers differ on what `null` means: absent is clear.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, inner| !inner.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests;
