//! The daemon's side of containers: creating, starting, stopping, adopting, exec, logs, top and stats over `skep monitor` and an OCI
//! runtime. Knows one container at a time; images, networks and names are the engine's. Design: `docs/design/monitor.md`.
//!
//! Entry points: [`Runtime`] makes and finds containers, [`Handle`] is one of them. There are no background tasks and no state in memory:
//! everything is read from the container's directory and its monitor.

pub mod cgroup;
mod client;
pub mod config;
mod create;
mod delete;
pub mod error;
pub mod exec;
mod handle;
pub mod log_details;
mod logs;
mod probe;
mod propagation;
mod pty;
pub mod spec;
pub mod stats;
mod sys;
pub mod top;
mod user;

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::{Mutex, OnceCell};

use self::cgroup::Hierarchies;
pub use self::{
    client::{AttachedInput, AttachedOutput, OutputStream},
    config::{ContainerConfig, ContainerId},
    error::{Error, ErrorList},
    exec::{Exec, ExecConfig, ExecControl, ExecInput, ExecOutput},
    handle::{AttachOptions, Handle},
    logs::{LogBatches, LogEntry, LogOptions, LogStream},
    probe::{OciChoice, Probe},
    stats::Stats,
    top::Processes,
    user::User,
};
use crate::monitor::{
    config::{OciRuntime, read_json},
    state::{Phase, State},
};

/// File with the `ContainerConfig` in the container's directory.
const CONFIG_FILE: &str = "config.json";

/// Where the runtime keeps things and what it runs.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// One directory per container; survives restarts of the host.
    pub root: PathBuf,
    /// The OCI runtime's state; must be empty after a restart of the host (`/run/skep`).
    pub run_dir: PathBuf,
    /// Program and leading arguments that end in `skep_executor::monitor::main`, e.g. `[/proc/self/exe, monitor]`.
    pub monitor_command: Vec<OsString>,
    pub oci: OciChoice,
    /// Absolute cgroup path above all containers (`/skep`).
    pub cgroup_parent: String,
    /// A static init program; `None` looks at the usual places.
    pub init: Option<PathBuf>,
}

/// Makes and finds containers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Runtime {
    settings: Arc<Settings>,
}

/// What a look at one container's directory finds.
#[derive(Clone, Debug)]
pub enum Adopted {
    /// Created or running under a living monitor.
    Live { handle: Handle, state: State },
    /// Ended, with its record. Also: never came to be ([`Phase::Failed`]), lost its monitor or its host (exit 137 with an error text).
    Ended { handle: Handle, state: State },
    /// The creation was cut off or its files are damaged: only `delete` makes sense.
    Broken { id: ContainerId, reason: String },
}

/// Shared by all handles.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: RuntimeConfig,
    pub(crate) hierarchies: Hierarchies,
    pub(crate) has_swap_limit: bool,
    probe: OnceCell<Probe>,
    /// One at a time writes the record of a container whose monitor died.
    pub(crate) burial: Mutex<()>,
}

// === impl Runtime ===

impl Runtime {
    /// Makes the directories; starts nothing.
    pub fn new(config: RuntimeConfig) -> Result<Self, Error> {
        for dir in [&config.root, &config.run_dir.join("oci")] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(Error::io("create", dir))?;
        }
        let hierarchies = Hierarchies::read().map_err(Error::io("read", "/proc/self/mountinfo"))?;
        let has_swap_limit = hierarchies.has_swap_limit();
        let (probe, burial) = (OnceCell::new(), Mutex::new(()));
        let settings = Settings {
            config,
            hierarchies,
            has_swap_limit,
            probe,
            burial,
        };
        Ok(Self {
            settings: Arc::new(settings),
        })
    }

    /// What this node runs containers with. Asked once; a failure is asked again next time.
    pub async fn probe(&self) -> Result<&Probe, Error> {
        self.settings.probe().await
    }

    /// Creates a container that waits for [`Handle::start`]. After an error the directory is gone, unless the error is that it exists.
    pub async fn create(&self, id: &ContainerId, config: ContainerConfig) -> Result<Handle, Error> {
        create::create(&self.settings, id, config).await
    }

    /// Removes a container in any state with everything it holds, killing it if need be. Gone is success; goes on past failures.
    pub async fn delete(&self, id: &ContainerId) -> Result<(), ErrorList> {
        delete::delete(&self.settings, id).await
    }

    /// Removes the empty cgroups of containers that are no more, but for those of `known` ones; returns how many. Another start may
    /// have been cut off, or the node's data removed.
    pub async fn sweep_cgroups(&self, known: BTreeSet<ContainerId>) -> usize {
        let parents = self
            .settings
            .hierarchies
            .dirs(&self.settings.config.cgroup_parent);
        let is_known = move |name: &str| known.iter().any(|id| id.as_str() == name);
        let sweeping = tokio::task::spawn_blocking(move || cgroup::sweep(&parents, is_known));
        sweeping.await.unwrap_or(0)
    }

    /// Looks at one container's directory.
    pub async fn open(&self, id: &ContainerId) -> Result<Adopted, Error> {
        let dir = self.settings.dir(id);
        if !dir.is_dir() {
            return Err(Error::NotFound(id.clone()));
        }
        adopt(&self.settings, id).await
    }

    /// All containers of this node, as after a start of the daemon. Starts no process; kills containers without monitor.
    pub async fn adopt_all(&self) -> Result<Vec<Adopted>, Error> {
        let root = &self.settings.config.root;
        let entries = fs::read_dir(root).map_err(Error::io("list", root))?;
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            let Ok(id) = name.parse::<ContainerId>() else {
                continue;
            };
            found.push(adopt(&self.settings, &id).await?);
        }
        Ok(found)
    }
}

async fn adopt(settings: &Arc<Settings>, id: &ContainerId) -> Result<Adopted, Error> {
    let dir = settings.dir(id);
    let broken = |reason: String| Adopted::Broken {
        id: id.clone(),
        reason,
    };
    let config: ContainerConfig = match read_json(&dir.join(CONFIG_FILE)) {
        Ok(config) => config,
        Err(error) => return Ok(broken(format!("{CONFIG_FILE}: {error}"))),
    };
    if let Err(error) = State::read(&dir) {
        return Ok(broken(format!("state.json: {error}")));
    }
    let handle = Handle::new(settings.clone(), id.clone(), dir, config);
    let state = handle.settled_state().await?;
    Ok(match state.phase {
        Phase::Creating => broken("its creation is still under way or was cut off".to_owned()),
        Phase::Created | Phase::Running => Adopted::Live { handle, state },
        Phase::Exited | Phase::Failed => Adopted::Ended { handle, state },
    })
}

// === impl Settings ===

impl Settings {
    pub(crate) fn dir(&self, id: &ContainerId) -> PathBuf {
        self.config.root.join(id.as_str())
    }

    pub(crate) async fn probe(&self) -> Result<&Probe, Error> {
        let init = self.config.init.as_deref();
        self.probe
            .get_or_try_init(|| probe::probe(&self.config.oci, init, &self.hierarchies))
            .await
    }

    pub(crate) async fn oci(&self) -> Result<OciRuntime, Error> {
        let probe = self.probe().await?;
        Ok(OciRuntime {
            kind: probe.kind,
            path: probe.path.clone(),
            root: self.oci_root(),
        })
    }

    pub(crate) fn oci_root(&self) -> PathBuf {
        self.config.run_dir.join("oci")
    }

    pub(crate) fn cgroup_path(&self, id: &ContainerId) -> String {
        format!("{}/{id}", self.config.cgroup_parent.trim_end_matches('/'))
    }

    pub(crate) fn cgroup_dirs(&self, id: &ContainerId) -> Vec<PathBuf> {
        self.hierarchies.dirs(&self.cgroup_path(id))
    }

    /// A command that reaches `monitor::main` with `args`, without the daemon's environment.
    pub(crate) fn monitor_command(&self, args: &[&Path]) -> tokio::process::Command {
        let (program, leading) = match self.config.monitor_command.split_first() {
            Some((program, leading)) => (program.clone(), leading),
            None => (OsString::from("/proc/self/exe"), &[][..]),
        };
        let mut command = tokio::process::Command::new(program);
        command
            .args(leading)
            .args(args)
            .current_dir("/")
            .env_clear();
        command.env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
        command
    }
}

/// The device node at `path`, for the specification.
pub(crate) fn host_device(
    path: &Path,
    container_path: &str,
    permissions: &str,
) -> Result<spec::HostDevice, Error> {
    let meta = fs::metadata(path).map_err(Error::io("look up device", path))?;
    const FORMAT_MASK: u32 = 0o170_000;
    const BLOCK: u32 = 0o060_000;
    let number = meta.rdev();
    Ok(spec::HostDevice {
        container_path: container_path.to_owned(),
        is_block: meta.mode() & FORMAT_MASK == BLOCK,
        major: i64::from(rustix::fs::major(number)),
        minor: i64::from(rustix::fs::minor(number)),
        mode: meta.mode(),
        permissions: permissions.to_owned(),
    })
}
