//! A container in full.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Serialize;

use crate::{
    backend::{
        ContainerDetail, ContainerHealth, ContainerRuntimeState, ContainerState, PortBinding,
    },
    dto::{
        Map,
        container::{EndpointSettings, GraphDriver, Mount, network_mode, port_key},
        container_spec::{HealthConfig, Ulimit},
        image::NoValue,
        is_default, mount,
    },
    http::timestamp::rfc3339_nano,
};

/// `GET /containers/{id}/json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Inspect {
    id: String,
    created: String,
    path: String,
    args: Vec<String>,
    state: State,
    image: String,
    resolv_conf_path: String,
    hostname_path: String,
    hosts_path: String,
    log_path: String,
    name: String,
    restart_count: u32,
    driver: String,
    platform: &'static str,
    mount_label: &'static str,
    process_label: &'static str,
    app_armor_profile: String,
    #[serde(rename = "ExecIDs")]
    exec_ids: Option<Vec<String>>,
    host_config: HostConfig,
    graph_driver: GraphDriver,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_rw: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_root_fs: Option<i64>,
    mounts: Vec<Mount>,
    config: Config,
    network_settings: NetworkSettings,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: &'static str,
    running: bool,
    paused: bool,
    restarting: bool,
    #[serde(rename = "OOMKilled")]
    oom_killed: bool,
    dead: bool,
    pid: i32,
    exit_code: i32,
    error: String,
    started_at: String,
    finished_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<Health>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Health {
    status: &'static str,
    failing_streak: u32,
    log: Vec<HealthProbe>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct HealthProbe {
    start: String,
    end: String,
    exit_code: i32,
    output: String,
}

impl From<ContainerHealth> for Health {
    fn from(health: ContainerHealth) -> Self {
        let log = health.log.into_iter().map(|probe| HealthProbe {
            start: rfc3339_nano(probe.started_at),
            end: rfc3339_nano(probe.ended_at),
            exit_code: probe.exit_code,
            output: probe.output,
        });
        Self {
            status: health.status,
            failing_streak: health.failing_streak,
            log: log.collect(),
        }
    }
}

impl From<ContainerRuntimeState> for State {
    fn from(state: ContainerRuntimeState) -> Self {
        let is_paused = state.state == ContainerState::Paused;
        Self {
            status: state.state.name(),
            running: is_paused || state.state == ContainerState::Running,
            paused: is_paused,
            restarting: false,
            oom_killed: state.is_oom_killed,
            dead: state.state == ContainerState::Dead,
            pid: state.pid,
            exit_code: state.exit_code,
            error: state.error,
            started_at: rfc3339_nano(state.started_at),
            finished_at: rfc3339_nano(state.finished_at),
            health: state.health.map(Health::from),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    hostname: String,
    domainname: &'static str,
    user: String,
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    #[serde(skip_serializing_if = "is_default")]
    exposed_ports: BTreeMap<String, NoValue>,
    tty: bool,
    open_stdin: bool,
    stdin_once: bool,
    env: Vec<String>,
    cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<HealthConfig>,
    image: String,
    volumes: Option<Map>,
    working_dir: String,
    entrypoint: Option<Vec<String>>,
    on_build: Option<Vec<String>>,
    labels: Map,
    #[serde(skip_serializing_if = "is_default")]
    stop_signal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_timeout: Option<i64>,
}

/// A device of the node.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DeviceMapping {
    path_on_host: String,
    path_in_container: String,
    cgroup_permissions: String,
}

impl From<&[String; 3]> for DeviceMapping {
    fn from([source, target, permissions]: &[String; 3]) -> Self {
        Self {
            path_on_host: source.clone(),
            path_in_container: target.clone(),
            cgroup_permissions: permissions.clone(),
        }
    }
}

/// The settings a swarm task can have; the many others of `docker run` are left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    binds: Option<Vec<String>>,
    log_config: LogConfig,
    network_mode: String,
    port_bindings: BTreeMap<String, Vec<HostPort>>,
    restart_policy: RestartPolicy,
    auto_remove: bool,
    cap_add: Option<Vec<String>>,
    cap_drop: Option<Vec<String>>,
    group_add: Option<Vec<String>>,
    ipc_mode: &'static str,
    oom_score_adj: i64,
    pid_mode: &'static str,
    privileged: bool,
    publish_all_ports: bool,
    readonly_rootfs: bool,
    security_opt: Option<Vec<String>>,
    #[serde(rename = "UTSMode", skip_serializing_if = "is_default")]
    uts_mode: &'static str,
    #[serde(skip_serializing_if = "is_default")]
    devices: Vec<DeviceMapping>,
    shm_size: i64,
    #[serde(skip_serializing_if = "is_default")]
    sysctls: Map,
    runtime: String,
    isolation: &'static str,
    memory: i64,
    #[serde(rename = "NanoCpus")]
    nano_cpus: i64,
    cgroup_parent: String,
    memory_reservation: i64,
    memory_swap: i64,
    memory_swappiness: Option<i64>,
    pids_limit: Option<i64>,
    ulimits: Vec<Ulimit>,
    #[serde(skip_serializing_if = "is_default")]
    mounts: Vec<mount::Mount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    init: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct LogConfig {
    #[serde(rename = "Type")]
    kind: String,
    config: Map,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct RestartPolicy {
    name: &'static str,
    maximum_retry_count: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct HostPort {
    host_ip: String,
    host_port: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    bridge: &'static str,
    #[serde(rename = "SandboxID")]
    sandbox_id: &'static str,
    sandbox_key: String,
    /// `null` for a port that is exposed but not published.
    ports: BTreeMap<String, Option<Vec<HostPort>>>,
    gateway: String,
    #[serde(rename = "IPAddress")]
    ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    ip_prefix_len: u8,
    mac_address: String,
    networks: BTreeMap<String, EndpointSettings>,
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn port_map(ports: &[PortBinding]) -> BTreeMap<String, Option<Vec<HostPort>>> {
    let mut map = BTreeMap::<String, Option<Vec<HostPort>>>::new();
    for port in ports {
        let list = map
            .entry(port_key(port.container_port, port.protocol))
            .or_default();
        if let Some((ip, number)) = port.host {
            let host = HostPort {
                host_ip: ip.to_string(),
                host_port: number.to_string(),
            };
            list.get_or_insert_default().push(host);
        }
    }
    map
}

impl From<&ContainerDetail> for HostConfig {
    fn from(container: &ContainerDetail) -> Self {
        let requirements = &container.resources.requirements;
        let limits = &requirements.limits;
        let swap = match (limits.memory_bytes, requirements.swap_bytes) {
            (_, Some(-1)) => -1,
            (memory, Some(swap)) => memory + swap,
            (memory, None) => memory * 2,
        };
        let ports = port_map(&container.summary.ports);
        Self {
            binds: None,
            log_config: LogConfig {
                kind: container.log_driver.name.clone(),
                config: container.log_driver.options.clone(),
            },
            network_mode: network_mode(&container.summary.networks),
            port_bindings: ports
                .into_iter()
                .filter_map(|(key, list)| Some((key, list?)))
                .collect(),
            restart_policy: RestartPolicy {
                name: "no",
                maximum_retry_count: 0,
            },
            auto_remove: false,
            cap_add: some(container.capability_add.clone()),
            cap_drop: some(container.capability_drop.clone()),
            group_add: some(container.groups.clone()),
            ipc_mode: if container.run.is_ipc_host {
                "host"
            } else {
                "private"
            },
            oom_score_adj: container.resources.oom_score_adj,
            pid_mode: if container.run.is_pid_host {
                "host"
            } else {
                ""
            },
            privileged: container.run.is_privileged,
            publish_all_ports: false,
            readonly_rootfs: container.is_read_only,
            security_opt: some(container.run.security_options.clone()),
            uts_mode: if container.run.is_uts_host {
                "host"
            } else {
                ""
            },
            devices: container.run.devices.iter().map(Into::into).collect(),
            shm_size: container.resources.shm_bytes,
            sysctls: container.sysctls.clone(),
            runtime: container.runtime.clone(),
            isolation: "",
            memory: limits.memory_bytes,
            nano_cpus: limits.nano_cpus,
            cgroup_parent: container.cgroup_parent.clone(),
            memory_reservation: requirements.reservations.memory_bytes,
            memory_swap: swap,
            memory_swappiness: requirements.memory_swappiness,
            pids_limit: (requirements.pids_limit != 0).then_some(requirements.pids_limit),
            ulimits: container
                .resources
                .ulimits
                .iter()
                .map(Ulimit::from)
                .collect(),
            mounts: container.mounts.iter().map(mount::Mount::from).collect(),
            init: container.has_init,
        }
    }
}

impl From<ContainerDetail> for Config {
    fn from(container: ContainerDetail) -> Self {
        let ports = container.exposed_ports.iter();
        Self {
            hostname: container.hostname,
            domainname: "",
            user: container.user,
            attach_stdin: false,
            attach_stdout: false,
            attach_stderr: false,
            exposed_ports: ports
                .map(|&(port, of)| (port_key(port, of), NoValue {}))
                .collect(),
            tty: container.has_tty,
            open_stdin: container.has_open_stdin,
            stdin_once: false,
            env: container.env,
            cmd: some(container.cmd),
            healthcheck: container.health_check.as_ref().map(HealthConfig::from),
            image: container.summary.image,
            volumes: None,
            working_dir: container.working_dir,
            entrypoint: some(container.entrypoint),
            on_build: None,
            labels: container.summary.labels,
            stop_signal: container.stop_signal,
            stop_timeout: container.stop_timeout_seconds,
        }
    }
}

impl From<&ContainerDetail> for NetworkSettings {
    fn from(container: &ContainerDetail) -> Self {
        let summary = &container.summary;
        // The older fields speak of the node's own network alone.
        let bridge = summary.networks.get("bridge").cloned().unwrap_or_default();
        let text = |ip: Option<IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
        let networks = summary.networks.iter();
        Self {
            bridge: "",
            sandbox_id: "",
            sandbox_key: container.sandbox_key.clone(),
            ports: port_map(&summary.ports),
            gateway: text(bridge.gateway),
            ip_address: text(bridge.ip),
            ip_prefix_len: bridge.prefix_length,
            mac_address: bridge.mac,
            networks: networks
                .map(|(name, n)| (name.clone(), n.clone().into()))
                .collect(),
        }
    }
}

impl From<ContainerDetail> for Inspect {
    fn from(container: ContainerDetail) -> Self {
        let summary = container.summary.clone();
        let mut command = summary.command.into_iter();
        Self {
            id: summary.id,
            created: rfc3339_nano(summary.created_at),
            path: command.next().unwrap_or_default(),
            args: command.collect(),
            state: summary.state.into(),
            image: summary.image_id,
            resolv_conf_path: container.resolv_conf_path.clone(),
            hostname_path: container.hostname_path.clone(),
            hosts_path: container.hosts_path.clone(),
            log_path: container.log_path.clone(),
            name: format!("/{}", summary.name),
            restart_count: 0,
            driver: container.storage_driver.clone(),
            platform: "linux",
            mount_label: "",
            process_label: "",
            app_armor_profile: container.apparmor_profile.clone(),
            exec_ids: some(container.exec_ids.clone()),
            host_config: (&container).into(),
            graph_driver: GraphDriver {
                data: container.storage_data.clone(),
                name: container.storage_driver.clone(),
            },
            size_rw: summary.size_rw_bytes,
            size_root_fs: summary.size_root_bytes,
            mounts: summary.mounts.into_iter().map(Mount::from).collect(),
            network_settings: (&container).into(),
            config: container.into(),
        }
    }
}
