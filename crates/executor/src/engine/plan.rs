//! From a task and its image to what the engine makes: a pure function.
//!
//! Everything Docker decides between a service's container spec and the OCI configuration is
//! decided here; files are written and volumes made by the caller, from what is returned.

mod mounts;
mod security;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use skep_model::{self as model, Task, TaskId, reserved::service::run::Power};
use skep_network::{HostPort, Protocol};

use self::mounts::Mounts;
use super::{health, record::MountRecord};
use crate::{
    image::{Healthcheck, Image},
    runtime::config::{ContainerConfig, LogConfig, LogConfigError, Resources, Rlimit},
};

/// Container labels that tie a container to its task; Swarm's names.
pub(super) const LABEL_TASK_ID: &str = "com.docker.swarm.task.id";
const LABEL_TASK: &str = "com.docker.swarm.task";
const LABEL_TASK_NAME: &str = "com.docker.swarm.task.name";
const LABEL_NODE_ID: &str = "com.docker.swarm.node.id";
const LABEL_SERVICE_ID: &str = "com.docker.swarm.service.id";
const LABEL_SERVICE_NAME: &str = "com.docker.swarm.service.name";

/// `PATH` of containers whose image sets none; Docker's.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a task cannot become a container on this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Neither image nor spec says what to run. The text is Docker's.
    #[error("no command specified")]
    NoCommand,
    /// The spec uses something this node does not have.
    #[error("`{0}` is not supported by this node")]
    Unsupported(&'static str),
    /// A signal nobody knows.
    #[error("invalid signal: {0}")]
    Signal(String),
    /// A bind mount's source is not an absolute path. The text is Docker's.
    #[error(
        "invalid mount config for type \"bind\": invalid mount path: '{0}' mount path must be absolute"
    )]
    RelativePath(String),
    /// Another mount that cannot be. Texts are Docker's.
    #[error("invalid mount config for type \"{kind}\": {reason}")]
    Mount {
        /// Docker's name of the kind.
        kind: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A reserved label of the service.
    #[error("{0}")]
    Run(String),
    /// The seccomp profile is no JSON.
    #[error("decoding seccomp profile failed: {0}")]
    Seccomp(String),
    /// Log settings.
    #[error(transparent)]
    Log(#[from] LogConfigError),
}

/// A volume a container uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VolumeUse {
    /// Name; `None`: the caller makes one up.
    pub name: Option<String>,
    /// Driver; `None`: that of the volume there is, else the local one.
    pub driver: Option<String>,
    /// Options for a new volume.
    pub options: BTreeMap<String, String>,
    /// Labels for a new volume.
    pub labels: BTreeMap<String, String>,
    /// Where in the container; also what a new volume is filled from.
    pub target: String,
    /// Without write access.
    pub is_read_only: bool,
    /// Do not fill a new volume.
    pub is_no_copy: bool,
    /// Path inside the volume.
    pub subpath: String,
}

/// A container to make.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ContainerPlan {
    /// Name without slash.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Entrypoint in force.
    pub entrypoint: Vec<String>,
    /// Arguments in force.
    pub cmd: Vec<String>,
    /// Stop signal as given.
    pub stop_signal: String,
    /// Grace between stop signal and SIGKILL.
    pub stop_grace: Duration,
    /// Health check in force.
    pub healthcheck: Option<Healthcheck>,
    /// Log driver and options.
    pub log_driver: (String, BTreeMap<String, String>),
    /// Host name; empty: derived from the container's id.
    pub hostname: String,
    /// Volumes, named and anonymous.
    pub volumes: Vec<VolumeUse>,
    /// Bind sources to create when missing.
    pub sources_to_create: Vec<PathBuf>,
    /// Bind and tmpfs mounts as `docker inspect` shows them; volumes follow.
    pub mounts: Vec<MountRecord>,
    /// Ports to publish on the node.
    pub ports: Vec<HostPort>,
    /// What the node must allow.
    pub powers: BTreeSet<Power>,
    /// What the runtime gets, but for root file system, network, volumes and generated files.
    pub config: ContainerConfig,
}

/// Plans the container of `task` from `image`.
pub(super) fn plan(task: &Task, image: &Image) -> Result<ContainerPlan, Error> {
    let spec = &task.spec.container;
    let from_image = image.config();
    let (entrypoint, cmd) = command(spec, &from_image.entrypoint, &from_image.cmd);
    let args: Vec<String> = entrypoint.iter().chain(&cmd).cloned().collect();
    if args.is_empty() {
        return Err(Error::NoCommand);
    }
    let labels = labels(task, &from_image.labels);
    let stop_signal = first_of(&spec.stop_signal, &from_image.stop_signal);
    let log_driver = task.log_driver.clone().unwrap_or_default();
    let user = first_of(&spec.user, &from_image.user);
    let mut mounts = Mounts::default();
    for mount in &spec.mounts {
        mounts.add(mount)?;
    }
    let image_volumes = from_image.volumes.keys().map(String::as_str);
    mounts.add_image_volumes(image_volumes);
    let (run, default) = (security::run_policy(task)?, ContainerConfig::default());
    let env = environment(spec, task, &from_image.env);
    let log = LogConfig::for_container(&log_driver.name, &log_driver.options, &labels, &env)?;
    let config = ContainerConfig {
        is_rootfs_readonly: spec.is_read_only,
        args,
        env,
        cwd: absolute(&first_of(&spec.dir, &from_image.working_dir)),
        user,
        groups_add: spec.groups.clone(),
        has_tty: spec.has_tty,
        has_stdin: spec.has_open_stdin,
        has_init: spec.init.unwrap_or(false),
        hostname: spec.hostname.clone(),
        mounts: mounts.runtime,
        security: security::of(spec, &run)?,
        namespaces: security::namespaces(&run),
        devices: run.devices.iter().map(security::device).collect(),
        shm_bytes: run.shm_bytes.unwrap_or(default.shm_bytes),
        resources: resources(&task.spec.resources),
        rlimits: spec.ulimits.iter().map(rlimit).collect(),
        sysctls: spec.sysctls.clone(),
        log,
        stop_signal: signal_number(&stop_signal)?,
        labels: labels.clone(),
        ..default
    };
    Ok(ContainerPlan {
        name: task.name(),
        labels,
        entrypoint,
        cmd,
        stop_signal,
        stop_grace: spec.stop_grace_period(),
        healthcheck: health::merge(spec.health.as_ref(), from_image.healthcheck.as_ref()),
        log_driver: (log_driver.name, log_driver.options),
        hostname: spec.hostname.clone(),
        volumes: mounts.volumes,
        sources_to_create: mounts.sources_to_create,
        mounts: mounts.records,
        ports: host_ports(task),
        powers: run.powers(),
        config,
    })
}

/// Whether `labels` belong to the container of `task`.
pub(super) fn is_container_of(labels: &BTreeMap<String, String>, task: TaskId) -> bool {
    labels
        .get(LABEL_TASK_ID)
        .is_some_and(|id| id == task.as_str())
}

/// Number of a signal given by name, with or without `SIG`, or by number; empty is SIGTERM.
pub fn signal_number(signal: &str) -> Result<i32, Error> {
    let invalid = || Error::Signal(signal.to_owned());
    if signal.is_empty() {
        return Ok(15);
    }
    if let Ok(number) = signal.parse::<i32>() {
        return if (1..=64).contains(&number) {
            Ok(number)
        } else {
            Err(invalid())
        };
    }
    let name = signal.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(offset) = name.strip_prefix("RTMIN+") {
        let offset: i32 = offset.parse().map_err(|_| invalid())?;
        return if (0..=30).contains(&offset) {
            Ok(34 + offset)
        } else {
            Err(invalid())
        };
    }
    let parsed: Result<nix::sys::signal::Signal, _> = format!("SIG{name}").parse();
    parsed.map(|signal| signal as i32).map_err(|_| invalid())
}

/// Docker's rule: a given entrypoint drops the image's command, given arguments replace it.
fn command(
    spec: &model::ContainerSpec,
    image_entrypoint: &[String],
    image_cmd: &[String],
) -> (Vec<String>, Vec<String>) {
    let has_entrypoint = !spec.command.is_empty();
    let entrypoint = if has_entrypoint {
        &spec.command[..]
    } else {
        image_entrypoint
    };
    let cmd = match (spec.args.is_empty(), has_entrypoint) {
        (false, _) => &spec.args[..],
        (true, true) => &[],
        (true, false) => image_cmd,
    };
    (entrypoint.to_vec(), cmd.to_vec())
}

fn labels(task: &Task, image: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut labels = image.clone();
    labels.extend(task.spec.container.labels.clone());
    let mut set = |key: &str, value: String| labels.insert(key.to_owned(), value);
    set(LABEL_TASK, String::new());
    set(LABEL_TASK_ID, task.id.to_string());
    set(LABEL_TASK_NAME, task.name());
    set(
        LABEL_NODE_ID,
        task.node_id.map(|id| id.to_string()).unwrap_or_default(),
    );
    set(
        LABEL_SERVICE_ID,
        task.service_id.map(|id| id.to_string()).unwrap_or_default(),
    );
    set(LABEL_SERVICE_NAME, task.service_annotations.name.clone());
    labels
}

/// Image's environment, overridden by the spec's; a spec entry without `=` unsets.
fn environment(spec: &model::ContainerSpec, task: &Task, image: &[String]) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    let mut defaults = vec![DEFAULT_PATH.to_owned()];
    if spec.has_tty {
        defaults.push("TERM=xterm".to_owned());
    }
    let generic = generic_resources(&task.assigned_generic_resources);
    let all = defaults
        .into_iter()
        .chain(image.iter().cloned())
        .chain(spec.env.iter().cloned());
    for entry in all.chain(generic) {
        let name = entry.split('=').next().unwrap_or_default().to_owned();
        let position = env.iter().position(|other| {
            other
                .split_once('=')
                .is_some_and(|(other, _)| other == name)
        });
        match (position, entry.contains('=')) {
            (Some(position), true) => env[position] = entry,
            (None, true) => env.push(entry),
            (Some(position), false) => {
                env.remove(position);
            }
            (None, false) => {}
        }
    }
    env
}

/// What the task was given, by kind: items with commas between them, or how many.
fn generic_resources(assigned: &[model::GenericResource]) -> Vec<String> {
    let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for resource in assigned {
        let name = format!("DOCKER_RESOURCE_{}", resource.kind().to_uppercase());
        let value = match resource {
            model::GenericResource::Named { value, .. } => value.clone(),
            model::GenericResource::Discrete { value, .. } => value.to_string(),
        };
        by_name.entry(name).or_default().push(value);
    }
    let entries = by_name.into_iter();
    entries
        .map(|(name, values)| format!("{name}={}", values.join(",")))
        .collect()
}

fn resources(requirements: &model::ResourceRequirements) -> Resources {
    let positive = |value: i64| u64::try_from(value).unwrap_or(0);
    let limits = &requirements.limits;
    let memory_swap_bytes = match requirements.swap_bytes {
        Some(swap) if swap < 0 => -1,
        Some(swap) => limits.memory_bytes.saturating_add(swap),
        None => 0,
    };
    Resources {
        nano_cpus: positive(limits.nano_cpus),
        memory_bytes: positive(limits.memory_bytes),
        memory_reservation_bytes: 0,
        memory_swap_bytes,
        memory_swappiness: requirements
            .memory_swappiness
            .and_then(|value| u64::try_from(value).ok()),
        pids_max: requirements.pids_limit,
        ..Resources::default()
    }
}

fn rlimit(ulimit: &model::Ulimit) -> Rlimit {
    let value = |limit: i64| u64::try_from(limit).unwrap_or(u64::MAX);
    Rlimit {
        name: ulimit.name.clone(),
        soft: value(ulimit.soft),
        hard: value(ulimit.hard),
    }
}

/// Host-mode ports of the task; ports of the routing mesh are not the container's business.
fn host_ports(task: &Task) -> Vec<HostPort> {
    let ports = task.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    ports
        .filter(|port| port.publish_mode == model::PublishMode::Host)
        .map(|port| HostPort {
            protocol: match port.protocol {
                model::Protocol::Tcp => Protocol::Tcp,
                model::Protocol::Udp => Protocol::Udp,
                model::Protocol::Sctp => Protocol::Sctp,
            },
            host_ip: std::net::Ipv4Addr::UNSPECIFIED.into(),
            published: port.published_port,
            target: port.target_port,
        })
        .collect()
}

fn first_of(first: &str, second: &str) -> String {
    if first.is_empty() {
        second.to_owned()
    } else {
        first.to_owned()
    }
}

fn absolute(dir: &str) -> String {
    if dir.starts_with('/') {
        dir.to_owned()
    } else {
        format!("/{dir}")
    }
}
