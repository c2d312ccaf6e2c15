//! The system side of the Engine API: facts about this node.

use std::{collections::BTreeMap, fs, sync::Arc};

use async_trait::async_trait;
use ipnet::IpNet;
use skep_docker_api::{
    backend::{EngineFacts, EngineTotals, NetworkDetail, RuntimeFacts, SystemBackend},
    error::{ApiError, Result},
};
use skep_executor::{
    engine::{Engine, LOCAL_DRIVER, NodeFacts},
    image::Filters,
    local_network::{Definition, Scope},
    runtime::{Probe, cgroup::Mode},
};
use skep_model::{
    IpamConfig, NetworkSpec, Timestamp,
    directory::{Change, Entry},
};

use crate::{backend::errors::from_local_network, config::Config};

/// See the module's documentation.
pub(crate) struct System {
    pub(crate) engine: Arc<Engine>,
    pub(crate) config: Config,
    pub(crate) node: NodeFacts,
    /// What runs containers; `None` when nothing was found at start.
    pub(crate) probe: Option<Probe>,
    pub(crate) engine_id: String,
}

impl System {
    fn volume_drivers(&self) -> Vec<String> {
        let plugins = self.engine.volumes().plugins().names();
        let mut drivers: Vec<String> = plugins.borrow().iter().cloned().collect();
        drivers.push(LOCAL_DRIVER.to_owned());
        drivers.sort();
        drivers
    }

    fn warnings(&self) -> Vec<String> {
        let missing = "No OCI runtime found: containers cannot run until crun or runc is installed";
        let mut warnings = Vec::new();
        if self.probe.is_none() {
            warnings.push(format!("WARNING: {missing}"));
        }
        let status = self.engine.dataplane().status();
        let problems = &status.borrow().problems;
        warnings.extend(problems.iter().map(|problem| format!("WARNING: {problem}")));
        warnings
    }
}

#[async_trait]
impl SystemBackend for System {
    fn facts(&self) -> EngineFacts {
        let (node, config) = (self.node.clone(), &self.config);
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let runtime = self.probe.as_ref().map(|probe| {
            let path = probe.path.display().to_string();
            (
                probe.kind.name().to_owned(),
                RuntimeFacts {
                    path,
                    version: probe.version.clone(),
                },
            )
        });
        let is_v2 = self
            .probe
            .as_ref()
            .is_some_and(|probe| probe.cgroup_mode == Mode::V2);
        EngineFacts {
            id: self.engine_id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            git_commit: option_env!("SKEP_GIT_COMMIT")
                .unwrap_or_default()
                .to_owned(),
            build_time: option_env!("SKEP_BUILD_TIME")
                .unwrap_or_default()
                .to_owned(),
            kernel_version: node.kernel_version,
            operating_system: node.operating_system,
            os_version: node.os_version,
            architecture: node.architecture,
            cpu_count: node.cpu_count,
            memory_bytes: node.memory_bytes,
            name: node.hostname,
            labels: config
                .labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect(),
            generic_resources: config.node_generic_resources.clone(),
            root_dir: config.data_dir.display().to_string(),
            storage_driver: "overlay2".to_owned(),
            storage_status: vec![("Supports d_type".to_owned(), "true".to_owned())],
            log_driver: "json-file".to_owned(),
            cgroup_driver: "cgroupfs".to_owned(),
            cgroup_version: if is_v2 { 2 } else { 1 },
            default_runtime: runtime
                .as_ref()
                .map(|(name, _)| name.clone())
                .unwrap_or_default(),
            runtimes: runtime.into_iter().collect(),
            security_options: names(&["name=seccomp,profile=builtin"]),
            init_binary: self
                .probe
                .as_ref()
                .and_then(|probe| probe.init.as_ref())
                .map(|path| path.display().to_string())
                .unwrap_or_default(),
            insecure_registries: config.insecure_registries.clone(),
            volume_drivers: self.volume_drivers(),
            network_drivers: names(&["bridge", "host", "macvlan", "null", "overlay"]),
            log_drivers: names(&["json-file", "none"]),
            has_memory_limit: true,
            has_swap_limit: true,
            has_cpu_quota: true,
            has_cpu_set: true,
            has_pids_limit: true,
            has_ipv4_forwarding: is_forwarding(),
            warnings: self.warnings(),
            ..EngineFacts::default()
        }
    }

    async fn totals(&self) -> Result<EngineTotals> {
        let containers = self.engine.containers();
        let running = containers
            .iter()
            .filter(|container| container.status().is_running())
            .count();
        let images = self
            .engine
            .images()
            .list(&Filters::default())
            .map_err(|error| ApiError::system("failed to list images", error))?;
        let count = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        Ok(EngineTotals {
            running: count(running),
            paused: 0,
            stopped: count(containers.len() - running),
            images: count(images.len()),
        })
    }

    async fn networks(&self) -> Result<Vec<NetworkDetail>> {
        let layout = self.engine.network().layout().await;
        let layout =
            layout.map_err(|error| ApiError::system("failed to ask the node network", error))?;
        let config = |subnet: IpNet, gateway| IpamConfig {
            subnet: Some(subnet.trunc()),
            gateway,
            ..IpamConfig::default()
        };
        let v4 = config(layout.v4.into(), Some(layout.gateway()));
        let v6 = layout.v6.map(|v6| config(v6.into(), layout.gateway6()));
        let bridge = NetworkDetail {
            has_ipv6: v6.is_some(),
            subnets: std::iter::once(v4).chain(v6).collect(),
            options: bridge_options(&self.config.bridge),
            ..network("bridge", "bridge")
        };
        let mut networks = vec![bridge, network("host", "host"), network("none", "null")];
        let own = self.engine.local_networks().list().await;
        networks.extend(own.iter().map(|network| detail(network)));
        Ok(networks)
    }

    async fn create_network(&self, spec: NetworkSpec, is_config_only: bool) -> Result<String> {
        let (engine, networks) = (&self.engine, self.engine.local_networks());
        let made = (engine.random_name(), engine.now());
        let created = networks.create(made, &spec, is_config_only).await;
        let network = created.map_err(from_local_network)?;
        engine.note_local_network("create", &network);
        Ok(network.id.clone())
    }

    async fn remove_network(&self, id: &str) -> Result<()> {
        let removed = self.engine.local_networks().remove(id).await;
        let network = removed.map_err(from_local_network)?;
        self.engine.note_local_network("destroy", &network);
        Ok(())
    }

    async fn examine_networks(&self) -> Result<Vec<String>> {
        Ok(self.engine.examine_networks().await)
    }

    async fn repaired_networks(&self) -> Result<Vec<String>> {
        Ok(self.engine.repaired_networks().await)
    }

    async fn heal_networks(&self) -> Result<Vec<String>> {
        Ok(self.engine.heal_networks().await)
    }

    async fn directory(&self) -> Result<Vec<Entry>> {
        let told = self.engine.dataplane().directory().await;
        let changes = told.into_iter().flat_map(|message| message.changes);
        let entries = changes.filter_map(|change| match change {
            Change::Set(entry) => Some(entry),
            Change::Remove(_) => None,
        });
        Ok(entries.collect())
    }
}

/// What Docker shows of its default bridge.
fn bridge_options(bridge: &str) -> BTreeMap<String, String> {
    let options = [
        ("default_bridge", "true"),
        // Containers on the node network meet through published ports alone.
        ("enable_icc", "false"),
        ("enable_ip_masquerade", "true"),
        ("host_binding_ipv4", "0.0.0.0"),
        ("name", bridge),
    ];
    let options = options.into_iter();
    options
        .map(|(key, value)| (format!("com.docker.network.bridge.{key}"), value.to_owned()))
        .collect()
}

/// A network that the node has for itself.
fn detail(network: &Definition) -> NetworkDetail {
    NetworkDetail {
        id: network.id.clone(),
        name: network.name.clone(),
        driver: network.driver.clone(),
        scope: match network.scope {
            Scope::Local => "local".to_owned(),
            Scope::Swarm => "swarm".to_owned(),
        },
        created_at: Timestamp(network.created_at_ns),
        subnets: network.ipam().configs,
        options: network.options.clone(),
        labels: network.labels.clone(),
        has_ipv6: network.has_ipv6,
        is_internal: network.is_internal,
        is_attachable: network.is_attachable,
        is_config_only: network.is_config_only,
        config_from: network.config_from.clone(),
    }
}

fn network(name: &str, driver: &str) -> NetworkDetail {
    NetworkDetail {
        id: network_id(name),
        name: name.to_owned(),
        driver: driver.to_owned(),
        scope: "local".to_owned(),
        created_at: Timestamp::ZERO,
        ..NetworkDetail::default()
    }
}

/// The id of one of the node's own networks: fixed, since there is one of each.
pub(crate) fn network_id(name: &str) -> String {
    let hex: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex:0<64}")
}

fn is_forwarding() -> bool {
    fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.trim() == "1")
}
