//! Containers and exec instances.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};
use skep_model::{Protocol, Timestamp};

use crate::{
    backend::{
        ConsoleSize, ContainerNetwork, ContainerRuntimeState, ContainerState, ContainerSummary,
        ExecConfig, ExecDetail, MountPoint, PortBinding,
    },
    dto::{Map, is_default},
    http::timestamp::human_duration,
};

pub(crate) mod inspect;

/// `80/tcp`.
pub(crate) fn port_key(port: u16, protocol: Protocol) -> String {
    format!("{port}/{}", protocol.name())
}

/// Storage driver and its data.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct GraphDriver {
    pub(crate) data: Map,
    pub(crate) name: String,
}

/// A container in a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Summary {
    id: String,
    names: Vec<String>,
    image: String,
    #[serde(rename = "ImageID")]
    image_id: String,
    command: String,
    created: i64,
    ports: Vec<Port>,
    #[serde(skip_serializing_if = "is_default")]
    size_rw: i64,
    #[serde(skip_serializing_if = "is_default")]
    size_root_fs: i64,
    labels: Map,
    state: &'static str,
    status: String,
    host_config: SummaryHostConfig,
    network_settings: SummaryNetworks,
    mounts: Vec<Mount>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SummaryHostConfig {
    network_mode: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SummaryNetworks {
    networks: BTreeMap<String, EndpointSettings>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Port {
    #[serde(rename = "IP", skip_serializing_if = "Option::is_none")]
    ip: Option<String>,
    #[serde(rename = "PrivatePort")]
    private_port: u16,
    #[serde(rename = "PublicPort", skip_serializing_if = "is_default")]
    public_port: u16,
    #[serde(rename = "Type")]
    kind: &'static str,
}

impl From<&PortBinding> for Port {
    fn from(binding: &PortBinding) -> Self {
        Self {
            ip: binding.host.map(|(ip, _)| ip.to_string()),
            private_port: binding.container_port,
            public_port: binding.host.map_or(0, |(_, port)| port),
            kind: binding.protocol.name(),
        }
    }
}

/// A mount in effect.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Mount {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(skip_serializing_if = "is_default")]
    name: String,
    source: String,
    destination: String,
    #[serde(skip_serializing_if = "is_default")]
    driver: String,
    mode: String,
    #[serde(rename = "RW")]
    rw: bool,
    propagation: String,
}

impl From<MountPoint> for Mount {
    fn from(mount: MountPoint) -> Self {
        Self {
            kind: mount.kind,
            name: mount.name,
            source: mount.source,
            destination: mount.destination,
            driver: mount.driver,
            mode: mount.mode,
            rw: mount.is_writable,
            propagation: mount.propagation,
        }
    }
}

/// A container's place in a network.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct EndpointSettings {
    #[serde(rename = "IPAMConfig")]
    ipam_config: Option<Map>,
    links: Option<Vec<String>>,
    aliases: Option<Vec<String>>,
    mac_address: String,
    driver_opts: Option<Map>,
    gw_priority: i64,
    #[serde(rename = "NetworkID")]
    network_id: String,
    #[serde(rename = "EndpointID")]
    endpoint_id: String,
    gateway: String,
    #[serde(rename = "IPAddress")]
    ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    ip_prefix_len: u8,
    #[serde(rename = "IPv6Gateway")]
    ipv6_gateway: String,
    #[serde(rename = "GlobalIPv6Address")]
    global_ipv6_address: String,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    global_ipv6_prefix_len: u8,
    #[serde(rename = "DNSNames")]
    dns_names: Option<Vec<String>>,
}

impl From<ContainerNetwork> for EndpointSettings {
    fn from(network: ContainerNetwork) -> Self {
        let text = |ip: Option<IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
        Self {
            ipam_config: None,
            links: None,
            aliases: (!network.aliases.is_empty()).then_some(network.aliases),
            mac_address: network.mac,
            driver_opts: None,
            gw_priority: 0,
            network_id: network.network_id,
            endpoint_id: network.endpoint_id,
            gateway: text(network.gateway),
            ip_address: text(network.ip),
            ip_prefix_len: network.prefix_length,
            ipv6_gateway: text(network.gateway6),
            global_ipv6_address: text(network.ip6),
            global_ipv6_prefix_len: network.prefix_length6,
            dns_names: (!network.dns_names.is_empty()).then_some(network.dns_names),
        }
    }
}

/// `NetworkMode`: the first network's name, `default` without any.
pub(crate) fn network_mode(networks: &BTreeMap<String, ContainerNetwork>) -> String {
    networks
        .keys()
        .next()
        .cloned()
        .unwrap_or_else(|| "default".to_owned())
}

impl Summary {
    /// `container` at `now`.
    pub(crate) fn new(container: ContainerSummary, now: Timestamp) -> Self {
        let mut ports: Vec<Port> = container.ports.iter().map(Port::from).collect();
        ports.sort();
        Self {
            names: vec![format!("/{}", container.name)],
            command: command_line(&container.command),
            created: container.created_at.to_parts().0,
            ports,
            size_rw: container.size_rw_bytes.unwrap_or(0),
            size_root_fs: container.size_root_bytes.unwrap_or(0),
            state: container.state.state.name(),
            status: status(&container.state, now),
            host_config: SummaryHostConfig {
                network_mode: network_mode(&container.networks),
            },
            network_settings: SummaryNetworks {
                networks: container
                    .networks
                    .into_iter()
                    .map(|(k, v)| (k, v.into()))
                    .collect(),
            },
            mounts: container.mounts.into_iter().map(Mount::from).collect(),
            id: container.id,
            image: container.image,
            image_id: container.image_id,
            labels: container.labels,
        }
    }
}

/// Path and arguments as one line; arguments with spaces are quoted, as Docker shows them.
fn command_line(command: &[String]) -> String {
    let quoted = command.iter().map(|part| match part.contains(' ') {
        true => format!("'{part}'"),
        false => part.clone(),
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// `Up 5 minutes`, `Exited (1) About an hour ago`, ….
pub(crate) fn status(state: &ContainerRuntimeState, now: Timestamp) -> String {
    let up = || format!("Up {}", human_duration(now - state.started_at));
    let health = match state.health.as_ref().map(|health| health.status) {
        None => String::new(),
        Some("starting") => " (health: starting)".to_owned(),
        Some(known) => format!(" ({known})"),
    };
    match state.state {
        ContainerState::Created => "Created".to_owned(),
        ContainerState::Running => up() + &health,
        ContainerState::Paused => up() + " (Paused)",
        ContainerState::Removing => "Removal In Progress".to_owned(),
        ContainerState::Dead => "Dead".to_owned(),
        ContainerState::Exited => {
            let ago = human_duration(now - state.finished_at);
            format!("Exited ({}) {ago} ago", state.exit_code)
        }
    }
}

/// `GET /containers/{id}/top`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Top {
    pub(crate) processes: Vec<Vec<String>>,
    pub(crate) titles: Vec<String>,
}

/// Answer to `POST /containers/{id}/wait`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Wait {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<WaitError>,
    pub(crate) status_code: i64,
}

/// What went wrong with a wait.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct WaitError {
    pub(crate) message: String,
}

/// `POST /containers/prune`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ContainersPruned {
    pub(crate) containers_deleted: Option<Vec<String>>,
    pub(crate) space_reclaimed: u64,
}

/// An id.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct IdResponse {
    pub(crate) id: String,
}

/// `POST /containers/{id}/exec`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ExecCreate {
    user: String,
    privileged: bool,
    tty: bool,
    console_size: Option<[u16; 2]>,
    attach_stdin: bool,
    attach_stderr: bool,
    attach_stdout: bool,
    env: Vec<String>,
    working_dir: String,
    pub(crate) cmd: Vec<String>,
}

fn console_size([height, width]: [u16; 2]) -> ConsoleSize {
    ConsoleSize { height, width }
}

impl From<ExecCreate> for ExecConfig {
    fn from(request: ExecCreate) -> Self {
        Self {
            command: request.cmd,
            env: request.env,
            user: request.user,
            working_dir: request.working_dir,
            is_privileged: request.privileged,
            has_tty: request.tty,
            attach_stdin: request.attach_stdin,
            attach_stdout: request.attach_stdout,
            attach_stderr: request.attach_stderr,
            console_size: request
                .console_size
                .filter(|_| request.tty)
                .map(console_size),
        }
    }
}

/// `POST /exec/{id}/start`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ExecStart {
    pub(crate) detach: bool,
    pub(crate) tty: bool,
    console_size: Option<[u16; 2]>,
}

impl From<ExecStart> for crate::backend::ExecStart {
    fn from(request: ExecStart) -> Self {
        let size = request.console_size.filter(|_| request.tty);
        Self {
            is_detached: request.detach,
            console_size: size.map(console_size),
        }
    }
}

/// `GET /exec/{id}/json`.
#[derive(Debug, Serialize)]
pub(crate) struct ExecInspect {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Running")]
    running: bool,
    #[serde(rename = "ExitCode")]
    exit_code: Option<i32>,
    #[serde(rename = "ProcessConfig")]
    process: ExecProcess,
    #[serde(rename = "OpenStdin")]
    open_stdin: bool,
    #[serde(rename = "OpenStderr")]
    open_stderr: bool,
    #[serde(rename = "OpenStdout")]
    open_stdout: bool,
    #[serde(rename = "CanRemove")]
    can_remove: bool,
    #[serde(rename = "ContainerID")]
    container_id: String,
    #[serde(rename = "DetachKeys")]
    detach_keys: &'static str,
    #[serde(rename = "Pid")]
    pid: i32,
}

#[derive(Debug, Serialize)]
struct ExecProcess {
    tty: bool,
    entrypoint: String,
    arguments: Vec<String>,
    privileged: bool,
    #[serde(skip_serializing_if = "is_default")]
    user: String,
}

impl From<ExecDetail> for ExecInspect {
    fn from(exec: ExecDetail) -> Self {
        let mut command = exec.config.command.into_iter();
        Self {
            id: exec.id,
            running: exec.is_running,
            exit_code: exec.exit_code,
            process: ExecProcess {
                tty: exec.config.has_tty,
                entrypoint: command.next().unwrap_or_default(),
                arguments: command.collect(),
                privileged: exec.config.is_privileged,
                user: exec.config.user,
            },
            open_stdin: exec.config.attach_stdin,
            open_stderr: exec.config.attach_stderr,
            open_stdout: exec.config.attach_stdout,
            can_remove: exec.exit_code.is_some(),
            container_id: exec.container_id,
            detach_keys: "",
            pid: exec.pid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ContainerHealth;

    #[test]
    fn status_reads_as_docker_shows_it() {
        let now = Timestamp::from_parts(1000, 0);
        let state = |state| ContainerRuntimeState {
            state,
            exit_code: 137,
            started_at: Timestamp::from_parts(880, 0),
            finished_at: Timestamp::from_parts(930, 0),
            ..ContainerRuntimeState::default()
        };
        assert_eq!(status(&state(ContainerState::Running), now), "Up 2 minutes");
        let with_health = |status| ContainerRuntimeState {
            health: Some(ContainerHealth {
                status,
                ..ContainerHealth::default()
            }),
            ..state(ContainerState::Running)
        };
        for (known, expected) in [
            ("starting", "Up 2 minutes (health: starting)"),
            ("healthy", "Up 2 minutes (healthy)"),
            ("unhealthy", "Up 2 minutes (unhealthy)"),
        ] {
            assert_eq!(status(&with_health(known), now), expected);
        }
        let exited = status(&state(ContainerState::Exited), now);
        assert_eq!(exited, "Exited (137) About a minute ago");
        assert_eq!(status(&state(ContainerState::Created), now), "Created");
    }

    #[test]
    fn arguments_with_spaces_are_quoted() {
        let command = ["sh", "-c", "sleep 1"].map(str::to_owned);
        assert_eq!(command_line(&command), "sh -c 'sleep 1'");
    }
}
