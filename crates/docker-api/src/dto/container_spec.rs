//! The container part of a task template.

use serde::{Deserialize, Serialize};

use crate::dto::{
    Map, is_default,
    mount::Mount,
    secret::{ConfigReference, SecretReference},
};

/// The container a task runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ContainerSpec {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) image: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) labels: Map,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) command: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) args: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) hostname: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) env: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) dir: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) user: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) groups: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) privileges: Option<Privileges>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) init: Option<bool>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) stop_signal: String,
    #[serde(rename = "TTY", skip_serializing_if = "is_default")]
    pub(crate) tty: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) open_stdin: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) read_only: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) mounts: Vec<Mount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stop_grace_period: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) healthcheck: Option<HealthConfig>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) hosts: Vec<String>,
    #[serde(rename = "DNSConfig", skip_serializing_if = "Option::is_none")]
    pub(crate) dns_config: Option<DnsConfig>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) secrets: Vec<SecretReference>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) configs: Vec<ConfigReference>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) isolation: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) sysctls: Map,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) capability_add: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) capability_drop: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) ulimits: Vec<Ulimit>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) oom_score_adj: i64,
}

/// Privileges of a container. The first two fields are written as `null` when unset.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Privileges {
    pub(crate) credential_spec: Option<CredentialSpec>,
    #[serde(rename = "SELinuxContext")]
    pub(crate) selinux_context: Option<SeLinuxContext>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seccomp: Option<Seccomp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) app_armor: Option<AppArmor>,
    pub(crate) no_new_privileges: bool,
}

/// Windows credentials.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct CredentialSpec {
    pub(crate) config: String,
    pub(crate) file: String,
    pub(crate) registry: String,
}

/// SELinux labels.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct SeLinuxContext {
    pub(crate) disable: bool,
    pub(crate) user: String,
    pub(crate) role: String,
    #[serde(rename = "Type")]
    pub(crate) kind: String,
    pub(crate) level: String,
}

/// Seccomp choice; the profile is base64.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Seccomp {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) mode: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) profile: String,
}

/// AppArmor choice.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct AppArmor {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) mode: String,
}

/// Health check; durations in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct HealthConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) test: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) interval: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) timeout: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) start_period: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) start_interval: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) retries: i64,
}

/// Resolver settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct DnsConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) nameservers: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) search: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) options: Vec<String>,
}

/// A `setrlimit` pair.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Ulimit {
    pub(crate) name: String,
    pub(crate) hard: i64,
    pub(crate) soft: i64,
}
