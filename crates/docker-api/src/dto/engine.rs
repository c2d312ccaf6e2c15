//! `/version`, `/info` and `/auth`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    backend::{EngineFacts, EngineTotals},
    convert::task_spec::generic,
    dto::{Map, cluster::LocalInfo, is_default, meta::GenericResource},
    http::version::{ApiVersion, VERSION_MAX, VERSION_MIN},
};

/// `GET /version`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Version {
    platform: Named,
    components: Vec<Component>,
    version: String,
    api_version: String,
    #[serde(rename = "MinAPIVersion")]
    min_api_version: String,
    git_commit: String,
    go_version: String,
    os: &'static str,
    arch: String,
    #[serde(skip_serializing_if = "is_default")]
    kernel_version: String,
    #[serde(skip_serializing_if = "is_default")]
    build_time: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Named {
    name: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Component {
    name: String,
    version: String,
    details: Map,
}

/// Go's name of an architecture that `uname -m` calls `machine`.
pub(crate) fn go_architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" | "armv6l" => "arm",
        "i686" | "i386" => "386",
        "ppc64le" | "s390x" | "riscv64" => machine,
        other => other,
    }
}

impl From<EngineFacts> for Version {
    fn from(facts: EngineFacts) -> Self {
        let arch = go_architecture(&facts.architecture).to_owned();
        let details = [
            ("ApiVersion", VERSION_MAX.to_string()),
            ("Arch", arch.clone()),
            ("BuildTime", facts.build_time.clone()),
            ("Experimental", "false".to_owned()),
            ("GitCommit", facts.git_commit.clone()),
            ("GoVersion", String::new()),
            ("KernelVersion", facts.kernel_version.clone()),
            ("MinAPIVersion", VERSION_MIN.to_string()),
            ("Os", "linux".to_owned()),
        ];
        let engine = Component {
            name: "Engine".to_owned(),
            version: facts.version.clone(),
            details: details.map(|(key, value)| (key.to_owned(), value)).into(),
        };
        let runtimes = facts.runtimes.into_iter().map(|(name, runtime)| Component {
            name,
            version: runtime.version,
            details: Map::from([("GitCommit".to_owned(), String::new())]),
        });
        Self {
            platform: Named { name: "Skep" },
            components: std::iter::once(engine).chain(runtimes).collect(),
            version: facts.version,
            api_version: VERSION_MAX.to_string(),
            min_api_version: VERSION_MIN.to_string(),
            git_commit: facts.git_commit,
            go_version: String::new(),
            os: "linux",
            arch,
            kernel_version: facts.kernel_version,
            build_time: facts.build_time,
        }
    }
}

/// `GET /info`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Info {
    #[serde(rename = "ID")]
    id: String,
    containers: u64,
    containers_running: u64,
    containers_paused: u64,
    containers_stopped: u64,
    images: u64,
    driver: String,
    driver_status: Vec<(String, String)>,
    plugins: Plugins,
    memory_limit: bool,
    swap_limit: bool,
    cpu_cfs_period: bool,
    cpu_cfs_quota: bool,
    #[serde(rename = "CPUShares")]
    cpu_shares: bool,
    #[serde(rename = "CPUSet")]
    cpu_set: bool,
    pids_limit: bool,
    #[serde(rename = "IPv4Forwarding")]
    ipv4_forwarding: bool,
    bridge_nf_iptables: bool,
    bridge_nf_ip6tables: bool,
    debug: bool,
    #[serde(rename = "NFd")]
    fd_count: u64,
    oom_kill_disable: bool,
    #[serde(rename = "NGoroutines")]
    goroutine_count: u64,
    system_time: String,
    logging_driver: String,
    cgroup_driver: String,
    cgroup_version: String,
    #[serde(rename = "NEventsListener")]
    event_listener_count: u64,
    kernel_version: String,
    operating_system: String,
    #[serde(rename = "OSVersion")]
    os_version: String,
    #[serde(rename = "OSType")]
    os_type: &'static str,
    architecture: String,
    index_server_address: &'static str,
    registry_config: RegistryConfig,
    #[serde(rename = "NCPU")]
    cpu_count: u32,
    mem_total: i64,
    generic_resources: Option<Vec<GenericResource>>,
    docker_root_dir: String,
    http_proxy: String,
    https_proxy: String,
    no_proxy: String,
    name: String,
    labels: Vec<String>,
    experimental_build: bool,
    server_version: String,
    runtimes: BTreeMap<String, Runtime>,
    default_runtime: String,
    swarm: LocalInfo,
    live_restore_enabled: bool,
    isolation: &'static str,
    init_binary: String,
    containerd_commit: Commit,
    runc_commit: Commit,
    init_commit: Commit,
    security_options: Vec<String>,
    #[serde(rename = "CDISpecDirs")]
    cdi_spec_dirs: Vec<String>,
    warnings: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Plugins {
    volume: Vec<String>,
    network: Vec<String>,
    authorization: Option<()>,
    log: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct RegistryConfig {
    #[serde(rename = "InsecureRegistryCIDRs")]
    insecure_registry_cidrs: Vec<String>,
    index_configs: BTreeMap<String, Index>,
    mirrors: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Index {
    name: String,
    mirrors: Vec<String>,
    secure: bool,
    official: bool,
}

#[derive(Debug, Serialize)]
struct Runtime {
    path: String,
}

#[derive(Debug, Default, Serialize)]
struct Commit {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Expected", skip_serializing_if = "Option::is_none")]
    expected: Option<String>,
}

impl Commit {
    fn new(id: &str, version: ApiVersion) -> Self {
        let expected = (!version.at_least(49)).then(|| id.to_owned());
        Self {
            id: id.to_owned(),
            expected,
        }
    }
}

impl Info {
    /// What `docker info` shows. `now` is written as the system's time.
    #[expect(clippy::too_many_lines, reason = "one line per field, nothing else")]
    pub(crate) fn new(
        facts: EngineFacts,
        totals: EngineTotals,
        swarm: LocalInfo,
        version: ApiVersion,
        now: String,
    ) -> Self {
        let plugins = Plugins::new(
            facts.volume_drivers,
            facts.network_drivers,
            facts.log_drivers,
        );
        let mut warnings = facts.warnings;
        warnings.extend(swarm.warnings.iter().cloned());
        let runtime = facts.runtimes.get(&facts.default_runtime);
        let runtime_version = runtime.map_or("", |runtime| &runtime.version);
        let runtime_version = runtime_version.to_owned();
        let runtimes = facts.runtimes.into_iter();
        let runtimes = runtimes
            .map(|(name, runtime)| (name, Runtime { path: runtime.path }))
            .collect();
        let has_cpu_quota = facts.has_cpu_quota;
        Self {
            id: facts.id,
            containers: totals.running + totals.paused + totals.stopped,
            containers_running: totals.running,
            containers_paused: totals.paused,
            containers_stopped: totals.stopped,
            images: totals.images,
            driver: facts.storage_driver,
            driver_status: facts.storage_status,
            plugins,
            memory_limit: facts.has_memory_limit,
            swap_limit: facts.has_swap_limit,
            cpu_cfs_period: has_cpu_quota,
            cpu_cfs_quota: has_cpu_quota,
            cpu_shares: has_cpu_quota,
            cpu_set: facts.has_cpu_set,
            pids_limit: facts.has_pids_limit,
            ipv4_forwarding: facts.has_ipv4_forwarding,
            bridge_nf_iptables: true,
            bridge_nf_ip6tables: true,
            debug: facts.is_debug,
            fd_count: 0,
            oom_kill_disable: facts.cgroup_version == 1,
            goroutine_count: 0,
            system_time: now,
            logging_driver: facts.log_driver,
            cgroup_driver: facts.cgroup_driver,
            cgroup_version: facts.cgroup_version.to_string(),
            event_listener_count: 0,
            kernel_version: facts.kernel_version,
            operating_system: facts.operating_system,
            os_version: facts.os_version,
            os_type: "linux",
            architecture: facts.architecture,
            index_server_address: "https://index.docker.io/v1/",
            registry_config: RegistryConfig::new(facts.insecure_registries),
            cpu_count: facts.cpu_count,
            mem_total: facts.memory_bytes,
            generic_resources: (!facts.generic_resources.is_empty())
                .then(|| generic(&facts.generic_resources)),
            docker_root_dir: facts.root_dir,
            http_proxy: facts.http_proxy,
            https_proxy: facts.https_proxy,
            no_proxy: facts.no_proxy,
            name: facts.name,
            labels: facts.labels,
            experimental_build: false,
            server_version: facts.version,
            runc_commit: Commit::new(&runtime_version, version),
            containerd_commit: Commit::new("", version),
            init_commit: Commit::new("", version),
            runtimes,
            default_runtime: facts.default_runtime,
            swarm,
            live_restore_enabled: true,
            isolation: "",
            init_binary: facts.init_binary,
            security_options: facts.security_options,
            cdi_spec_dirs: Vec::new(),
            warnings: (!warnings.is_empty()).then_some(warnings),
        }
    }
}

impl Plugins {
    fn new(volume: Vec<String>, network: Vec<String>, log: Vec<String>) -> Self {
        Self {
            volume,
            network,
            authorization: None,
            log,
        }
    }
}

impl RegistryConfig {
    fn new(insecure: Vec<String>) -> Self {
        let (cidrs, hosts): (Vec<_>, Vec<_>) =
            insecure.into_iter().partition(|name| name.contains('/'));
        let index = |name: &str, secure, official| {
            (
                name.to_owned(),
                Index {
                    name: name.to_owned(),
                    mirrors: Vec::new(),
                    secure,
                    official,
                },
            )
        };
        let insecure = hosts.iter().map(|host| index(host, false, false));
        let index_configs = insecure.chain([index("docker.io", true, true)]).collect();
        Self {
            insecure_registry_cidrs: cidrs,
            index_configs,
            mirrors: None,
        }
    }
}

/// Credentials, as `POST /auth` and the `X-Registry-Auth` header carry them.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AuthConfig {
    pub(crate) username: String,
    pub(crate) password: String,
    /// `user:password` in base64.
    pub(crate) auth: String,
    #[serde(rename = "serveraddress")]
    pub(crate) server_address: String,
    #[serde(rename = "identitytoken")]
    pub(crate) identity_token: String,
    #[serde(rename = "registrytoken")]
    pub(crate) registry_token: String,
}

/// Answer to `POST /auth`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AuthResponse {
    pub(crate) identity_token: String,
    pub(crate) status: String,
}
