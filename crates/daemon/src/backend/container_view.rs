//! Containers as the Engine API shows them. Pure but for sizes, which are read from disk.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use skep_docker_api::backend::{
    BlockIoEntry, ContainerDetail, ContainerHealth, ContainerNetwork, ContainerRuntimeState,
    ContainerState, ContainerSummary, CpuSample, HealthProbe, MemorySample, MountPoint,
    NetworkSample, PortBinding, ResourceSettings, RunSettings, StatsSample,
};
use skep_executor::{
    dataplane::Place,
    engine::{
        Container, ContainerStatusView, Engine, HealthStatus, LocalPlaceRecord, NetworkRecord,
        NodeMode, Phase, ProbeResult, Record,
    },
    runtime::{
        ContainerConfig, Stats,
        config::{Device, Seccomp, SharedNamespace},
    },
};
use skep_model::{Driver, Protocol, ResourceRequirements, Resources, Timestamp, Ulimit};

use crate::backend::images::exposed_port;

/// What Docker calls the network of containers on no other.
const NETWORK: &str = "bridge";
const HOST_NETWORK: &str = "host";
const NO_NETWORK: &str = "none";
/// Digits of a container's id that are a name of it.
const SHORT_ID_DIGITS: usize = 12;

/// A container in a list.
pub(crate) fn summary(engine: &Engine, container: &Arc<Container>, size: bool) -> ContainerSummary {
    let record = container.record();
    ContainerSummary {
        id: record.id.to_string(),
        name: record.name.clone(),
        image: record.image.clone(),
        image_id: record.image_id.clone(),
        command: record.config.args.clone(),
        created_at: Timestamp(record.created_at_ns),
        labels: record.labels.clone(),
        state: ContainerRuntimeState {
            health: health(container),
            ..state(&container.status())
        },
        ports: ports(record, container.status().has_ended()),
        networks: networks(record),
        mounts: mounts(record),
        size_rw_bytes: size.then(|| engine.writable_bytes(container)),
        size_root_bytes: size.then(|| engine.image_bytes(container)),
    }
}

/// A container in full.
pub(crate) fn detail(engine: &Engine, container: &Arc<Container>, size: bool) -> ContainerDetail {
    let record = container.record();
    let config = &record.config;
    let files = engine.files_of(container);
    let path = |name: &str| files.join(name).display().to_string();
    ContainerDetail {
        summary: summary(engine, container, size),
        log_path: engine
            .log_path(container)
            .map(|path| path.display().to_string())
            .unwrap_or_default(),
        resolv_conf_path: path("resolv.conf"),
        hostname_path: path("hostname"),
        hosts_path: path("hosts"),
        storage_driver: "overlay2".to_owned(),
        storage_data: BTreeMap::from([
            ("UpperDir".to_owned(), path("upper")),
            ("WorkDir".to_owned(), path("work")),
        ]),
        exec_ids: Vec::new(),
        apparmor_profile: String::new(),
        runtime: String::new(),
        hostname: config.hostname.clone(),
        user: config.user.clone(),
        env: config.env.clone(),
        entrypoint: record.entrypoint.clone(),
        cmd: record.cmd.clone(),
        working_dir: config.cwd.clone(),
        has_tty: config.has_tty,
        has_open_stdin: config.has_stdin,
        health_check: record.healthcheck.as_ref().map(Into::into),
        stop_signal: record.stop_signal.clone(),
        stop_timeout_seconds: i64::try_from(record.stop_grace_ms / 1000).ok(),
        exposed_ports: record
            .exposed_ports
            .iter()
            .filter_map(|port| exposed_port(port))
            .collect(),
        is_read_only: config.is_rootfs_readonly,
        has_init: Some(config.has_init),
        capability_add: config.security.capabilities_add.clone(),
        capability_drop: config.security.capabilities_drop.clone(),
        groups: config.groups_add.clone(),
        sysctls: config.sysctls.clone(),
        mounts: Vec::new(),
        log_driver: Driver {
            name: log_driver(record),
            options: record.log_driver.1.clone(),
        },
        resources: resources(record),
        run: run_settings(config),
        cgroup_parent: String::new(),
        sandbox_key: record
            .netns_path()
            .map(|path| path.display().to_string())
            .unwrap_or_default(),
    }
}

fn run_settings(config: &ContainerConfig) -> RunSettings {
    let (security, namespaces) = (&config.security, &config.namespaces);
    let options = [
        (security.is_no_new_privileges, "no-new-privileges"),
        (
            security.seccomp == Seccomp::Unconfined,
            "seccomp=unconfined",
        ),
        (
            security.masked_paths.as_ref().is_some_and(Vec::is_empty),
            "systempaths=unconfined",
        ),
    ];
    let options = options.into_iter().filter(|(is_set, _)| *is_set);
    let device = |device: &Device| {
        let source = device.host_path.display().to_string();
        [
            source,
            device.container_path.clone(),
            device.permissions.clone(),
        ]
    };
    RunSettings {
        is_privileged: security.is_privileged,
        is_pid_host: namespaces.pid == SharedNamespace::Host,
        is_ipc_host: namespaces.ipc == SharedNamespace::Host,
        is_uts_host: namespaces.uts == SharedNamespace::Host,
        security_options: options.map(|(_, option)| option.to_owned()).collect(),
        devices: config.devices.iter().map(device).collect(),
    }
}

fn log_driver(record: &Record) -> String {
    let name = &record.log_driver.0;
    if name.is_empty() {
        "json-file".to_owned()
    } else {
        name.clone()
    }
}

fn resources(record: &Record) -> ResourceSettings {
    let (config, limits) = (&record.config, &record.config.resources);
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    ResourceSettings {
        requirements: ResourceRequirements {
            limits: Resources {
                nano_cpus: signed(limits.nano_cpus),
                memory_bytes: signed(limits.memory_bytes),
                generic: Vec::new(),
            },
            reservations: Resources::default(),
            swap_bytes: None,
            memory_swappiness: limits.memory_swappiness.map(signed),
            pids_limit: limits.pids_max,
        },
        ulimits: config
            .rlimits
            .iter()
            .map(|limit| Ulimit {
                name: limit.name.clone(),
                soft: i64::try_from(limit.soft).unwrap_or(-1),
                hard: i64::try_from(limit.hard).unwrap_or(-1),
            })
            .collect(),
        oom_score_adj: i64::from(config.security.oom_score_adj.unwrap_or(0)),
        shm_bytes: signed(config.shm_bytes),
    }
}

fn state(status: &ContainerStatusView) -> ContainerRuntimeState {
    ContainerRuntimeState {
        state: match status.phase {
            Phase::Created => ContainerState::Created,
            Phase::Running => ContainerState::Running,
            Phase::Exited => ContainerState::Exited,
            // A container that could not be started is `created` with an error in Docker.
            Phase::Dead if status.started_at.is_none() => ContainerState::Created,
            Phase::Dead => ContainerState::Dead,
            Phase::Removed => ContainerState::Removing,
        },
        is_oom_killed: status.is_oom_killed,
        pid: status.pid,
        exit_code: status.exit_code,
        error: status.error.clone(),
        started_at: status.started_at.unwrap_or(Timestamp::ZERO),
        finished_at: status.finished_at.unwrap_or(Timestamp::ZERO),
        health: None,
    }
}

/// As in Docker: nothing before the start, and unhealthy after the end.
fn health(container: &Container) -> Option<ContainerHealth> {
    let status = container.status();
    let health = container.health()?;
    let shown = match status.has_ended() {
        true => HealthStatus::Unhealthy,
        false => health.status,
    };
    let probe = |result: &ProbeResult| HealthProbe {
        started_at: Timestamp(result.started_at_ns),
        ended_at: Timestamp(result.ended_at_ns),
        exit_code: result.exit_code,
        output: result.output.clone(),
    };
    status.started_at.map(|_| ContainerHealth {
        status: shown.name(),
        failing_streak: health.failing_streak,
        log: health.log.iter().map(probe).collect(),
    })
}

/// A container that has ended has given its ports back.
fn ports(record: &Record, has_ended: bool) -> Vec<PortBinding> {
    let published = record
        .network
        .iter()
        .filter(|_| !has_ended)
        .flat_map(|network| &network.ports);
    let mut ports: Vec<PortBinding> = published
        .map(|port| PortBinding {
            container_port: port.target,
            protocol: protocol(port.protocol),
            host: Some((port.host_ip, port.published)),
        })
        .collect();
    for (port, protocol) in record
        .exposed_ports
        .iter()
        .filter_map(|port| exposed_port(port))
    {
        let is_published = ports
            .iter()
            .any(|other| other.container_port == port && other.protocol == protocol);
        if !is_published {
            ports.push(PortBinding {
                container_port: port,
                protocol,
                host: None,
            });
        }
    }
    ports
}

fn protocol(protocol: skep_network::Protocol) -> Protocol {
    match protocol {
        skep_network::Protocol::Tcp => Protocol::Tcp,
        skep_network::Protocol::Udp => Protocol::Udp,
        skep_network::Protocol::Sctp => Protocol::Sctp,
    }
}

/// By name: the overlay networks of its task; those that are the node's own only for a container on
/// no other.
fn networks(record: &Record) -> BTreeMap<String, ContainerNetwork> {
    let places = record.places.iter();
    let places = places.map(|place| (place.network.name.clone(), on_overlay(record, place)));
    let own = record.local_places.iter();
    let own = own.map(|place| (place.network_name.clone(), on_own(record, place)));
    let networks: BTreeMap<_, _> = places.chain(own).collect();
    if !networks.is_empty() {
        return networks;
    }
    let (name, network) = match (record.node_mode, &record.network) {
        (NodeMode::Host, _) => (HOST_NETWORK, None),
        (NodeMode::Attached, Some(network)) => (NETWORK, Some(network)),
        (NodeMode::Attached, None) | (NodeMode::Closed, _) => (NO_NETWORK, None),
    };
    let shown = ContainerNetwork {
        network_id: crate::backend::system::network_id(name),
        endpoint_id: record.id.to_string(),
        ..network.map(on_node).unwrap_or_default()
    };
    BTreeMap::from([(name.to_owned(), shown)])
}

fn on_node(network: &NetworkRecord) -> ContainerNetwork {
    let address = |text: &str| text.parse::<IpNet>().ok();
    let (v4, v6) = (address(&network.address), address(&network.address6));
    ContainerNetwork {
        gateway: network.gateway.parse().ok(),
        ip: v4.map(|net| net.addr()),
        prefix_length: v4.map_or(0, |net| net.prefix_len()),
        gateway6: network.gateway6.parse().ok(),
        ip6: v6.map(|net| net.addr()),
        prefix_length6: v6.map_or(0, |net| net.prefix_len()),
        mac: network.mac.clone(),
        ..ContainerNetwork::default()
    }
}

/// On a network that the node has for itself.
fn on_own(record: &Record, place: &LocalPlaceRecord) -> ContainerNetwork {
    ContainerNetwork {
        network_id: place.network_id.clone(),
        mac: place.mac().map(|mac| mac.to_string()).unwrap_or_default(),
        ..on_network(record, &place.addresses, &place.gateways, &place.aliases)
    }
}

fn on_overlay(record: &Record, place: &Place) -> ContainerNetwork {
    ContainerNetwork {
        network_id: place.network.id.clone(),
        mac: place.mac().map(|mac| mac.to_string()).unwrap_or_default(),
        ..on_network(
            record,
            &place.addresses,
            &place.network.gateways,
            &place.aliases,
        )
    }
}

/// What a place on any network shows, without the network's id and the link's address.
fn on_network(
    record: &Record,
    addresses: &[IpNet],
    gateways: &[IpAddr],
    aliases: &[String],
) -> ContainerNetwork {
    let of = |is_v6: bool| {
        let mut addresses = addresses.iter();
        addresses.find(|net| net.addr().is_ipv6() == is_v6)
    };
    let gateway = |is_v6: bool| {
        let mut gateways = gateways.iter();
        gateways.find(|ip| ip.is_ipv6() == is_v6).copied()
    };
    let short_id: String = record.id.as_str().chars().take(SHORT_ID_DIGITS).collect();
    let mut dns_names = vec![record.name.clone(), short_id];
    dns_names.extend(aliases.iter().cloned());
    ContainerNetwork {
        endpoint_id: record.id.to_string(),
        gateway: gateway(false),
        ip: of(false).map(IpNet::addr),
        prefix_length: of(false).map_or(0, IpNet::prefix_len),
        gateway6: gateway(true),
        ip6: of(true).map(IpNet::addr),
        prefix_length6: of(true).map_or(0, IpNet::prefix_len),
        aliases: aliases.to_vec(),
        dns_names,
        ..ContainerNetwork::default()
    }
}

fn mounts(record: &Record) -> Vec<MountPoint> {
    record
        .mounts
        .iter()
        .map(|mount| MountPoint {
            kind: mount.kind.clone(),
            name: mount.name.clone(),
            source: mount.source.clone(),
            destination: mount.destination.clone(),
            driver: mount.driver.clone(),
            mode: String::new(),
            is_writable: mount.is_writable,
            propagation: mount.propagation.clone(),
        })
        .collect()
}

/// A measurement of a container that does not run.
pub(crate) fn stopped_sample(container: &Container) -> StatsSample {
    let record = container.record();
    StatsSample {
        id: record.id.to_string(),
        name: record.name.clone(),
        ..StatsSample::default()
    }
}

/// A measurement.
pub(crate) fn stats_sample(container: &Container, stats: Stats) -> StatsSample {
    let (cpu, memory) = (stats.cpu, stats.memory);
    StatsSample {
        time: Timestamp(stats.read_at),
        cpu: CpuSample {
            total_ns: cpu.total_nanos,
            kernel_ns: cpu.kernel_nanos,
            user_ns: cpu.user_nanos,
            system_ns: cpu.system_nanos,
            online_cpus: cpu.online_cpus,
            periods: cpu.periods,
            throttled_periods: cpu.throttled_periods,
            throttled_ns: cpu.throttled_nanos,
        },
        memory: MemorySample {
            usage_bytes: memory.usage_bytes,
            max_usage_bytes: memory.max_usage_bytes.unwrap_or(0),
            limit_bytes: memory.limit_bytes,
            fail_count: memory.failure_count,
            stats: memory.stat,
        },
        pids_current: stats.pids.current,
        pids_limit: stats.pids.limit.unwrap_or(0),
        io_service_bytes: stats
            .block_io
            .into_iter()
            .map(|io| BlockIoEntry {
                major: io.major,
                minor: io.minor,
                operation: io.operation,
                value: io.bytes,
            })
            .collect(),
        io_serviced: Vec::new(),
        networks: stats
            .networks
            .into_iter()
            .map(|(name, net)| {
                let sample = NetworkSample {
                    rx_bytes: net.rx_bytes,
                    rx_packets: net.rx_packets,
                    rx_errors: net.rx_errors,
                    rx_dropped: net.rx_dropped,
                    tx_bytes: net.tx_bytes,
                    tx_packets: net.tx_packets,
                    tx_errors: net.tx_errors,
                    tx_dropped: net.tx_dropped,
                };
                (name, sample)
            })
            .collect(),
        ..stopped_sample(container)
    }
}
