//! What runs: image, process, environment, mounts, privileges.

use std::{collections::BTreeMap, time::Duration};

use crate::{redact::Redacted, spec::Mount};

/// Swarm's default time between the stop signal and SIGKILL.
pub const DEFAULT_STOP_GRACE_PERIOD: Duration = Duration::from_secs(10);

/// The container a task runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Image reference, possibly pinned by digest.
    pub image: String,
    /// Labels of the container (not of the service).
    pub labels: BTreeMap<String, String>,
    /// Replaces the image's entrypoint when not empty.
    pub command: Vec<String>,
    /// Replaces the image's command when not empty.
    pub args: Vec<String>,
    /// Host name inside the container; may hold a template. Empty: the container id's start.
    pub hostname: String,
    /// `KEY=value` entries; values may hold templates.
    pub env: Vec<String>,
    /// Working directory; empty: the image's.
    pub dir: String,
    /// `user[:group]` by name or number; empty: the image's.
    pub user: String,
    /// Additional groups.
    pub groups: Vec<String>,
    /// Privileges.
    pub privileges: Option<Privileges>,
    /// Run an init process as pid 1; `None`: the daemon's default.
    pub init: Option<bool>,
    /// Allocate a terminal.
    pub has_tty: bool,
    /// Keep stdin open.
    pub has_open_stdin: bool,
    /// Mount the root file system read-only.
    pub is_read_only: bool,
    /// Signal that asks the process to end; empty: the image's, else SIGTERM.
    pub stop_signal: String,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Time between the stop signal and SIGKILL; `None`: [`DEFAULT_STOP_GRACE_PERIOD`].
    pub stop_grace_period: Option<Duration>,
    /// Base64url JSON credentials used for pulling. A secret: never logged.
    pub registry_auth: Redacted<String>,
    /// Secrets to deliver.
    pub secrets: Vec<SecretReference>,
    /// Configs to deliver.
    pub configs: Vec<ConfigReference>,
    /// Extra `/etc/hosts` entries in the form `IP name…`.
    pub hosts: Vec<String>,
    /// Resolver settings.
    pub dns: Option<DnsConfig>,
    /// Health check.
    pub health: Option<HealthConfig>,
    /// Windows isolation.
    pub isolation: Isolation,
    /// Kernel parameters of the container's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Capabilities added to the default set.
    pub capability_add: Vec<String>,
    /// Capabilities removed from the default set.
    pub capability_drop: Vec<String>,
    /// Resource limits of the process.
    pub ulimits: Vec<Ulimit>,
    /// OOM killer preference, -1000..=1000.
    pub oom_score_adj: i64,
}

impl ContainerSpec {
    /// The grace period in force.
    pub fn stop_grace_period(&self) -> Duration {
        self.stop_grace_period.unwrap_or(DEFAULT_STOP_GRACE_PERIOD)
    }
}

/// A `setrlimit` pair.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ulimit {
    /// Name without `RLIMIT_`, lower case, e.g. `nofile`.
    pub name: String,
    /// Soft limit; -1 is unlimited.
    pub soft: i64,
    /// Hard limit; -1 is unlimited.
    pub hard: i64,
}

/// Where a secret or config appears.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileTarget {
    /// File name (secrets: below `/run/secrets`).
    pub name: String,
    /// Owner.
    pub uid: String,
    /// Group.
    pub gid: String,
    /// Go `os.FileMode` bits.
    pub mode: u32,
}

/// Use of a secret by a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretReference {
    /// Id of the secret.
    pub secret_id: String,
    /// Its name, for display.
    pub secret_name: String,
    /// Target file.
    pub file: Option<FileTarget>,
}

/// Where a config goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigTarget {
    /// A file in the container.
    File(FileTarget),
    /// Used by the runtime (credential specs).
    Runtime,
}

/// Use of a config by a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigReference {
    /// Id of the config.
    pub config_id: String,
    /// Its name, for display.
    pub config_name: String,
    /// Target.
    pub target: Option<ConfigTarget>,
}

/// Resolver settings of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// Addresses of name servers.
    pub nameservers: Vec<String>,
    /// Search domains.
    pub search: Vec<String>,
    /// `resolv.conf` options.
    pub options: Vec<String>,
}

/// Health check of a container. Zero durations mean the engine's defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthConfig {
    /// `[]` inherit, `["NONE"]` disable, `["CMD", …]`, `["CMD-SHELL", command]`.
    pub test: Vec<String>,
    /// Time between probes.
    pub interval: Duration,
    /// Time a probe may take.
    pub timeout: Duration,
    /// Failures in a row until unhealthy.
    pub retries: i32,
    /// Time in which failures do not count.
    pub start_period: Duration,
    /// Time between probes during the start period.
    pub start_interval: Duration,
}

/// Windows isolation; carried only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Daemon's default.
    #[default]
    Default,
    /// `process`.
    Process,
    /// `hyperv`.
    HyperV,
}

/// Privileges of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Privileges {
    /// Windows credential spec.
    pub credential_spec: Option<CredentialSpec>,
    /// SELinux labels.
    pub selinux: Option<SeLinuxContext>,
    /// Seccomp profile.
    pub seccomp: Option<SeccompOptions>,
    /// AppArmor mode.
    pub apparmor: Option<AppArmorMode>,
    /// Forbid gaining privileges through setuid programs.
    pub no_new_privileges: bool,
}

/// Source of a Windows credential spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialSpec {
    /// A file below Docker's data directory.
    File(String),
    /// A registry value.
    Registry(String),
    /// A config.
    Config(String),
}

/// SELinux labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeLinuxContext {
    /// Turn labels off.
    pub is_disabled: bool,
    /// User part.
    pub user: String,
    /// Role part.
    pub role: String,
    /// Type part.
    pub kind: String,
    /// Level part.
    pub level: String,
}

/// Seccomp choice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeccompOptions {
    /// Which profile.
    pub mode: SeccompMode,
    /// JSON of a custom profile.
    pub profile: Vec<u8>,
}

/// Which seccomp profile.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SeccompMode {
    /// The engine's.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// Given.
    Custom,
}

/// AppArmor mode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AppArmorMode {
    /// The engine's profile.
    #[default]
    Default,
    /// None.
    Disabled,
}
