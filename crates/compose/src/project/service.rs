//! One service of a project: what its containers are.

use std::{collections::BTreeMap, time::Duration};

use super::{
    deploy::Deploy,
    mount::{Mount, Tmpfs},
};
use crate::word::words;

/// A service. Each field is the key of the same name, unless its documentation says otherwise.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Service {
    /// Image reference; always there, as a cluster builds nothing.
    pub image: String,
    /// Arguments; a string has been split as a shell does. `Some([])`: the image's are cleared.
    pub command: Option<Vec<String>>,
    /// The program, as [`Self::command`].
    pub entrypoint: Option<Vec<String>>,
    /// `env_file` and `environment`. `None`: named without a value, and the environment given to `load` has none.
    pub environment: BTreeMap<String, Option<String>>,
    /// Labels of the container, with `label_file`.
    pub labels: BTreeMap<String, String>,
    /// How a cluster runs it; with `scale`, `cpus`, `mem_limit`, `mem_reservation` and `pids_limit`, which say the same.
    pub deploy: Deploy,
    /// `restart`; counts only without `deploy.restart_policy`.
    pub restart: Option<Restart>,
    /// What must hold of other services before this one starts, by service name. `links` are not in it.
    pub depends_on: BTreeMap<String, Dependency>,
    /// Networks by key of the project; empty: the `default` network.
    pub networks: BTreeMap<String, ServiceNetwork>,
    /// Ports, one entry for each: ranges are expanded.
    pub ports: Vec<Port>,
    /// Ports other containers may reach; without effect on a cluster's networks.
    pub expose: Vec<String>,
    /// `volumes`, in order.
    pub mounts: Vec<Mount>,
    /// `tmpfs`, in order.
    pub tmpfs: Vec<Tmpfs>,
    /// Secrets as files.
    pub secrets: Vec<FileReference>,
    /// Configs as files.
    pub configs: Vec<FileReference>,
    /// `healthcheck`.
    pub healthcheck: Option<Healthcheck>,
    /// `logging`.
    pub logging: Option<Logging>,
    /// `hostname`; may hold a template of the cluster.
    pub hostname: Option<String>,
    /// Lines of `/etc/hosts`, in order of the file; a host with several addresses stands several times.
    pub extra_hosts: Vec<ExtraHost>,
    /// Name servers.
    pub dns: Vec<String>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// `dns_opt`.
    pub dns_options: Vec<String>,
    /// `user[:group]`, names or numbers.
    pub user: Option<String>,
    /// `group_add`: names or numbers.
    pub groups: Vec<String>,
    /// `working_dir`.
    pub working_dir: Option<String>,
    /// `stop_signal`.
    pub stop_signal: Option<String>,
    /// `stop_grace_period`.
    pub stop_grace_period: Option<Duration>,
    /// `init`: a reaper as process 1.
    pub has_init: Option<bool>,
    /// `tty`.
    pub has_tty: bool,
    /// `stdin_open`.
    pub is_stdin_open: bool,
    /// `read_only`: the root file system cannot be written.
    pub is_read_only: bool,
    /// `cap_add`.
    pub cap_add: Vec<String>,
    /// `cap_drop`.
    pub cap_drop: Vec<String>,
    /// Kernel settings of the container's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Limits of processes by name (`nofile`).
    pub ulimits: BTreeMap<String, Ulimit>,
    /// `oom_score_adj`, −1000 to 1000.
    pub oom_score_adj: Option<i64>,
    /// `isolation`, of Windows.
    pub isolation: Option<String>,
    /// `credential_spec`, of Windows.
    pub credential_spec: Option<CredentialSpec>,
    /// `platform`: where the image runs.
    pub platform: Option<Platform>,
    /// `privileged`; on a cluster the label `skep.run.privileged`.
    pub is_privileged: bool,
    /// Devices of the node; on a cluster the label `skep.run.devices`.
    pub devices: Vec<Device>,
    /// Bytes of `/dev/shm`; on a cluster the label `skep.run.shm-size`.
    pub shm_size: Option<u64>,
    /// On a cluster the label `skep.run.security-opt`.
    pub security_opt: Vec<String>,
    /// On a cluster the label `skep.run.pid`.
    pub pid: Option<String>,
    /// On a cluster the label `skep.run.ipc`.
    pub ipc: Option<String>,
    /// On a cluster the label `skep.run.uts`.
    pub uts: Option<String>,
    /// `userns_mode`: `host` is all there is.
    pub userns_mode: Option<String>,
    /// Profiles it belongs to; empty: always active.
    pub profiles: Vec<String>,
}

/// What a service waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// Until when.
    pub condition: Condition,
    /// Whether the waiting service restarts when the other is updated.
    pub is_restart: bool,
    /// Whether the other has to be there; a missing one that is not required has been left out.
    pub is_required: bool,
}

words! {
    /// Until when a service waits for another.
    Condition {
        /// Its tasks run.
        #[default]
        Started = "service_started",
        /// Its tasks are healthy.
        Healthy = "service_healthy",
        /// Its tasks have ended with code 0.
        Completed = "service_completed_successfully",
    }
}

/// `restart` of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// `no`.
    No,
    /// `always`.
    Always,
    /// `unless-stopped`.
    UnlessStopped,
    /// `on-failure[:attempts]`.
    OnFailure {
        /// Attempts; `None`: without end.
        attempts_max: Option<u64>,
    },
}

/// How a service is attached to a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceNetwork {
    /// Further names on the network.
    pub aliases: Vec<String>,
    /// `driver_opts`.
    pub driver_opts: BTreeMap<String, String>,
}

/// A published port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Port {
    /// `name`.
    pub name: Option<String>,
    /// Port in the container; never 0.
    pub target: u16,
    /// Port on the nodes; `None`: the cluster chooses.
    pub published: Option<u16>,
    /// `protocol`.
    pub protocol: Protocol,
    /// `mode`.
    pub mode: PublishMode,
    /// Address of the node; clusters listen on all.
    pub host_ip: Option<String>,
    /// `app_protocol`, a hint for people.
    pub app_protocol: Option<String>,
}

words! {
    /// Protocol of a port.
    Protocol {
        /// `tcp`.
        #[default]
        Tcp = "tcp",
        /// `udp`.
        Udp = "udp",
        /// `sctp`.
        Sctp = "sctp",
    }
}

words! {
    /// Where a port is published.
    PublishMode {
        /// On each node, through the routing mesh.
        #[default]
        Ingress = "ingress",
        /// On the nodes that run a task.
        Host = "host",
    }
}

/// A secret or config as a file in the container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileReference {
    /// Key of the project's secret or config.
    pub source: String,
    /// File name; `None`: the source's.
    pub target: Option<String>,
    /// Owner.
    pub uid: Option<String>,
    /// Group.
    pub gid: Option<String>,
    /// Permission bits; `None`: 0444.
    pub mode: Option<u32>,
}

/// How the health of a container is found out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Healthcheck {
    /// The test; `None`: the image's.
    pub test: Option<Test>,
    /// Between tests.
    pub interval: Option<Duration>,
    /// For one test.
    pub timeout: Option<Duration>,
    /// Failures in a row until unhealthy.
    pub retries: Option<u64>,
    /// Failures do not count so long.
    pub start_period: Option<Duration>,
    /// Between tests during the start period.
    pub start_interval: Option<Duration>,
}

/// A health test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// `disable: true` or `["NONE"]`: not even the image's.
    None,
    /// `["CMD", …]`.
    Command(Vec<String>),
    /// `["CMD-SHELL", …]`, or a string.
    Shell(String),
}

/// Where output goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Logging {
    /// `driver`; `None`: the node's.
    pub driver: Option<String>,
    /// `options`; a null is an empty text.
    pub options: BTreeMap<String, String>,
}

/// A line of `/etc/hosts`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExtraHost {
    /// Host name.
    pub host: String,
    /// Address, without the brackets of IPv6, or `host-gateway`.
    pub address: String,
}

/// Soft and hard limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ulimit {
    /// Soft; −1: none.
    pub soft: i64,
    /// Hard; −1: none.
    pub hard: i64,
}

/// `credential_spec`: one of them is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CredentialSpec {
    /// Key of the project's config.
    pub config: Option<String>,
    /// A file on the node.
    pub file: Option<String>,
    /// A value of the node's registry.
    pub registry: Option<String>,
}

/// `os[/arch[/variant]]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`; `None`: any.
    pub architecture: Option<String>,
}

/// A device of the node in the container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// Path on the node.
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// Some of `rwm`.
    pub permissions: String,
}
