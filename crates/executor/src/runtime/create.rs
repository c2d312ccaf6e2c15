//! Creating a container: files first, then the monitor, then its report.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use serde::Serialize;
use tokio::{io::AsyncReadExt, time::timeout};

use super::{
    CONFIG_FILE, Settings,
    cgroup::Mode,
    config::{ContainerConfig, ContainerId, LogConfig, Mount, MountKind},
    delete,
    error::Error,
    handle::Handle,
    host_device, propagation, spec, user,
};
use crate::monitor::{
    config::{HELD_DIR, HeldMount, LogFile, MONITOR_FILE, MonitorConfig, OciKind, OciRuntime},
    state::{Phase, State},
};

/// The monitor mounts and runs the OCI runtime's `create`: tens of milliseconds, seconds under heavy load.
const CREATE_WAIT_MAX: Duration = Duration::from_secs(120);

/// A report is a `State`; more means the wrong program answered.
const REPORT_BYTES_MAX: u64 = 64 << 10;

/// Stderr of the monitor.
const MONITOR_LOG: &str = "monitor.log";

/// Device nodes given to a privileged container; a host has some hundred.
const DEVICE_COUNT_MAX: usize = 4096;

pub(super) async fn create(
    settings: &Arc<Settings>,
    id: &ContainerId,
    config: ContainerConfig,
) -> Result<Handle, Error> {
    let dir = settings.dir(id);
    let oci = settings.oci().await?;
    let init = settings.probe().await?.init.clone();
    let plan = Plan {
        settings: settings.clone(),
        id: id.clone(),
        dir: dir.clone(),
        oci,
        init,
    };
    let prepared = tokio::task::spawn_blocking(move || plan.prepare(config))
        .await
        .map_err(|error| Error::Protocol(io::Error::other(error)))?;
    let outcome = match prepared {
        Ok(config) => match run_monitor(settings, &dir).await {
            Ok(()) => return Ok(Handle::new(settings.clone(), id.clone(), dir, config)),
            Err(error) => error,
        },
        Err(error @ Error::Exists(_)) => return Err(error),
        Err(error) => error,
    };
    if let Err(errors) = delete::delete(settings, id).await {
        tracing::warn!(container.id = %id, %errors, "Failed to clean up after a failed creation");
    }
    Err(outcome)
}

/// Starts the monitor and waits for its report.
async fn run_monitor(settings: &Settings, dir: &Path) -> Result<(), Error> {
    let log_path = dir.join(MONITOR_LOG);
    let log = File::create(&log_path).map_err(Error::io("create", &log_path))?;
    let mut child = settings
        .monitor_command(&[dir])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(Error::io("run the monitor in", dir))?;
    let mut report = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let mut stdout = stdout.take(REPORT_BYTES_MAX);
        match timeout(CREATE_WAIT_MAX, stdout.read_to_end(&mut report)).await {
            Ok(read) => drop(read.map_err(Error::Protocol)?),
            Err(_) => {
                let _ = child.start_kill();
                let message = "failed to create task for container: no answer in time".to_owned();
                return Err(Error::NotRun { code: 128, message });
            }
        }
    }
    // Dropping the child leaves it running; the async runtime reaps it when it ends.
    match serde_json::from_slice::<State>(&report) {
        Ok(State {
            phase: Phase::Failed,
            exit: Some(exit),
            ..
        }) => Err(Error::NotRun {
            code: exit.code,
            message: exit.error,
        }),
        Ok(_) => Ok(()),
        Err(_) => {
            let words = fs::read_to_string(&log_path).unwrap_or_default();
            let words: String = words.trim().chars().take(1000).collect();
            let message = format!("failed to create task for container: monitor ended: {words}");
            Err(Error::NotRun { code: 128, message })
        }
    }
}

struct Plan {
    settings: Arc<Settings>,
    id: ContainerId,
    dir: PathBuf,
    oci: OciRuntime,
    init: Option<PathBuf>,
}

impl Plan {
    /// Writes everything the monitor reads. Blocking.
    fn prepare(&self, mut config: ContainerConfig) -> Result<ContainerConfig, Error> {
        let mut private = DirBuilder::new();
        private.mode(0o700);
        private
            .create(&self.dir)
            .map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists => Error::Exists(self.id.clone()),
                _ => Error::Io {
                    action: "create",
                    path: self.dir.clone(),
                    source,
                },
            })?;
        let rootfs = self.dir.join("bundle/rootfs");
        private
            .recursive(true)
            .create(&rootfs)
            .map_err(Error::io("create", &rootfs))?;
        check_sources(&mut config)?;
        let host = self.settings.host(&self.id, &config, self.init.clone())?;
        let oci_spec = spec::oci_spec(&self.id, &config, &host)?;
        self.write(CONFIG_FILE, &config)?;
        self.write("bundle/config.json", &oci_spec)?;
        self.write(MONITOR_FILE, &self.monitor_config(&config))?;
        Ok(config)
    }

    fn write(&self, name: &str, value: &impl Serialize) -> Result<(), Error> {
        let path = self.dir.join(name);
        let write = || {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = io::BufWriter::new(options.open(&path)?);
            serde_json::to_writer(&mut file, value)?;
            file.into_inner()
                .map(drop)
                .map_err(io::IntoInnerError::into_error)
        };
        write().map_err(Error::io("write", &path))
    }

    fn monitor_config(&self, config: &ContainerConfig) -> MonitorConfig {
        let hierarchies = &self.settings.hierarchies;
        let is_hidden = self.oci.kind == OciKind::Crun && hierarchies.mode() == Mode::Hybrid;
        let unified = hierarchies.v2.clone();
        let relative = self
            .settings
            .cgroup_path(&self.id)
            .trim_start_matches('/')
            .to_owned();
        MonitorConfig {
            version: 1,
            id: self.id.to_string(),
            program: config.args.first().cloned().unwrap_or_default(),
            oci: self.oci.clone(),
            rootfs: config.rootfs.clone(),
            hidden_mount: unified.clone().filter(|_| is_hidden),
            has_tty: config.has_tty,
            tty_size: config.tty_size,
            has_stdin: config.has_stdin,
            is_stdin_once: config.is_stdin_once,
            log: log_file(&self.id, &self.dir, &config.log),
            reserved_ports: config.reserved_ports.clone(),
            cgroup_dirs: self.settings.cgroup_dirs(&self.id),
            extra_cgroup: unified
                .filter(|_| is_hidden)
                .map(|point| point.join(relative)),
            monitor_cgroups: hierarchies.monitor_dirs(&self.settings.config.cgroup_parent),
            held_mounts: held_mounts(&self.dir, config),
        }
    }
}

/// The mounts the monitor has to take from the host.
fn held_mounts(dir: &Path, config: &ContainerConfig) -> Vec<HeldMount> {
    let held = |(index, mount): (usize, &Mount)| match &mount.kind {
        MountKind::Bind {
            source,
            subpath,
            is_recursive,
            ..
        } if mount.kind.is_held() => Some(HeldMount {
            source: source.clone(),
            subpath: subpath.clone(),
            is_recursive: *is_recursive,
            target: dir.join(HELD_DIR).join(index.to_string()),
        }),
        MountKind::Bind { .. } | MountKind::Tmpfs { .. } => None,
    };
    config.mounts.iter().enumerate().filter_map(held).collect()
}

/// The container's log, if it has one.
pub(super) fn log_file(id: &ContainerId, dir: &Path, config: &LogConfig) -> Option<LogFile> {
    match config {
        LogConfig::None => None,
        LogConfig::JsonFile {
            path,
            max_size,
            max_files,
            details,
        } => {
            let usual = || dir.join(format!("{id}-json.log"));
            let path = path.clone().unwrap_or_else(usual);
            Some(LogFile {
                path,
                max_size: *max_size,
                max_files: (*max_files).max(1),
                details: details.clone(),
            })
        }
    }
}

/// Sources must exist and be what is asked of them.
fn check_sources(config: &mut ContainerConfig) -> Result<(), Error> {
    for mount in &mut config.mounts {
        if let MountKind::Bind {
            source,
            propagation: wanted,
            is_readonly_below,
            subpath,
            ..
        } = &mut mount.kind
        {
            // Nothing is below a file, and crun 1.8 takes it for a directory then.
            *is_readonly_below &= source.join(subpath).is_dir();
            if !source.exists() {
                return Err(Error::MissingSource(source.clone()));
            }
            propagation::check(source, *wanted)?;
        }
    }
    Ok(())
}

// === impl Settings ===

impl Settings {
    /// The host's facts a specification needs. Blocking: reads the image's user database.
    pub(crate) fn host(
        &self,
        id: &ContainerId,
        config: &ContainerConfig,
        init: Option<PathBuf>,
    ) -> Result<spec::Host, Error> {
        let mut devices = Vec::with_capacity(config.devices.len());
        for device in &config.devices {
            let (path, inside) = (&device.host_path, &device.container_path);
            devices.push(host_device(path, inside, &device.permissions)?);
        }
        let is_privileged = config.security.is_privileged;
        Ok(spec::Host {
            cgroup_path: self.cgroup_path(id),
            cgroup_mode: self.hierarchies.mode(),
            has_swap_limit: self.has_swap_limit,
            init,
            user: user::resolve(&config.rootfs, &config.user, &config.groups_add)?,
            capabilities: capabilities(),
            devices,
            all_devices: if is_privileged {
                all_devices(Path::new("/dev"))
            } else {
                Vec::new()
            },
            held_dir: self.dir(id).join(HELD_DIR),
            kernel: kernel_version(),
        })
    }
}

/// What the kernel knows and this process holds.
fn capabilities() -> spec::Held {
    let last = fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    spec::Held {
        last: last.trim().parse().unwrap_or(40),
        set: set
            .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
            .unwrap_or(u64::MAX),
    }
}

/// Major and minor number of the kernel's version; zeros when it has an odd one.
fn kernel_version() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|text| text.parse().ok());
    (next().unwrap_or(0), next().unwrap_or(0))
}

/// Device nodes below `/dev`, without pseudo terminals and what the OCI runtime makes itself.
fn all_devices(dir: &Path) -> Vec<spec::HostDevice> {
    const OWN: [&str; 6] = ["pts", "shm", "mqueue", "console", "fd", "ptmx"];
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else {
        return found;
    };
    for entry in entries.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if name.to_str().is_none_or(|name| OWN.contains(&name)) || found.len() >= DEVICE_COUNT_MAX {
            continue;
        }
        if kind.is_dir() {
            found.extend(all_devices(&path));
        } else if !kind.is_file()
            && !kind.is_symlink()
            && let Some(text) = path.to_str()
            && let Ok(device) = host_device(&path, text, "rwm")
            && device.major > 0
        {
            found.push(device);
        }
    }
    found
}
