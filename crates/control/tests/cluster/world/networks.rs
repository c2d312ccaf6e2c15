//! Commands on networks, and what they hand out.

use std::fmt::Write;

use skep_control::network::{Allocation, allocate, node_network};
use skep_model::{
    Cluster, Driver, IpamConfig, IpamOptions, Meta, Network, NetworkAttachment, NetworkId,
    NetworkSpec, ServiceSpec, VXLAN_IDS_OPTION, directory::Slice, validate,
};

use super::World;

impl World {
    /// As the manager does it: allocated at once, or refused.
    pub(super) fn create_network(&mut self, name: &str, args: &[&str]) -> String {
        let id = NetworkId::random(&mut self.rng);
        let mut spec = NetworkSpec::default();
        spec.annotations.name = name.to_owned();
        let mut configs: Vec<IpamConfig> = Vec::new();
        let mut is_bare = false;
        for arg in args {
            let (key, value) = arg.split_once('=').unwrap_or((arg, ""));
            match key {
                "ingress" => spec.is_ingress = true,
                "ipv6" => spec.has_ipv6 = true,
                "config-from" => spec.config_from = Some(value.to_owned()),
                // As another's store may hold one.
                "bare" => is_bare = true,
                "driver" => spec.driver.get_or_insert_with(Driver::default).name = value.to_owned(),
                "subnet" => configs.push(IpamConfig {
                    subnet: Some(value.parse().unwrap()),
                    ..IpamConfig::default()
                }),
                "gateway" => configs.last_mut().unwrap().gateway = Some(value.parse().unwrap()),
                "range" => configs.last_mut().unwrap().range = Some(value.parse().unwrap()),
                "aux" => {
                    let reserved = &mut configs.last_mut().unwrap().reserved;
                    reserved.insert("aux".to_owned(), value.parse().unwrap());
                }
                "vxlan" => {
                    let driver = spec.driver.get_or_insert_with(Driver::default);
                    driver
                        .options
                        .insert(VXLAN_IDS_OPTION.to_owned(), value.to_owned());
                }
                other => panic!("unknown word `{other}`"),
            }
        }
        if !configs.is_empty() {
            spec.ipam = Some(IpamOptions {
                configs,
                ..IpamOptions::default()
            });
        }
        if let Some(problem) = validate::network_spec(&spec).first() {
            return format!("{problem}\n");
        }
        let allocation = if is_bare {
            None
        } else {
            match allocate(&self.store, id, &spec) {
                Ok(allocation) => Some(allocation),
                Err(refusal) => return format!("{refusal}\n"),
            }
        };
        let (driver_state, ipam) = allocation
            .map(|Allocation { driver_state, ipam }| (driver_state, ipam))
            .unzip();
        let network = Network {
            id,
            meta: Meta::default(),
            spec,
            driver_state,
            ipam,
            is_pending_delete: false,
        };
        self.mark(|tx| tx.create_network(network).unwrap());
        String::new()
    }

    /// As the manager does it for a new cluster, or for one that lacks it.
    pub(super) fn create_node_network(&mut self, pool: Option<&str>) -> String {
        let pool = pool.map(|pool| pool.parse().unwrap());
        let Some(spec) = node_network(&self.store, pool) else {
            return "no pool\n".to_owned();
        };
        let id = NetworkId::random(&mut self.rng);
        let Allocation { driver_state, ipam } = allocate(&self.store, id, &spec).unwrap();
        let network = Network {
            id,
            meta: Meta::default(),
            spec,
            driver_state: Some(driver_state),
            ipam: Some(ipam),
            is_pending_delete: false,
        };
        self.mark(|tx| tx.create_network(network).unwrap());
        String::new()
    }

    pub(super) fn remove_network(&mut self, name: &str) -> String {
        let id = self.store.networks().by_name(name).unwrap().id;
        self.mark(|tx| assert!(tx.remove_network(id)));
        String::new()
    }

    pub(super) fn set_pool(&mut self, pool: &str, size: &str) -> String {
        let mut cluster = Cluster::clone(self.store.cluster().unwrap());
        cluster.default_address_pool = pool.split(',').map(|net| net.parse().unwrap()).collect();
        cluster.subnet_size = size.parse().unwrap();
        self.mark(|tx| tx.update_cluster(cluster).unwrap());
        String::new()
    }

    /// Names of networks become their ids, as the API does it.
    pub(super) fn with_networks(&self, mut spec: ServiceSpec) -> ServiceSpec {
        let task = std::sync::Arc::make_mut(&mut spec.task);
        for config in &mut task.networks {
            if let Some(network) = self.store.networks().by_name(&config.target) {
                config.target = network.id.to_string();
            }
        }
        spec
    }

    pub(super) fn show_networks(&self) -> String {
        let mut networks: Vec<_> = self.store.networks().all().collect();
        networks.sort_by_key(|network| network.name());
        let mut text = String::new();
        for network in networks {
            let _ = write!(text, "{} {}", network.name(), network.spec.driver_name());
            for id in network.vxlan_ids() {
                let _ = write!(text, " vxlan {id}");
            }
            for config in network.subnets() {
                let subnet = config.subnet.unwrap();
                let _ = write!(text, " {subnet}");
                if let Some(gateway) = config.gateway {
                    let _ = write!(text, " via {gateway}");
                }
            }
            text.push('\n');
        }
        text
    }

    /// Where tasks are on networks; of one service, or of all.
    pub(super) fn show_places(&self, service: Option<&str>) -> String {
        let mut lines: Vec<String> = Vec::new();
        for task in self.store.tasks() {
            if service.is_some_and(|name| task.service_annotations.name != name) {
                continue;
            }
            let name = &self.names[&task.id];
            let state = task.status.state;
            let err = &task.status.err;
            let places = places(&task.networks);
            let line = format!("{name:<10} {state:<9}{places} {err}");
            lines.push(line.trim_end().to_owned());
        }
        lines.sort();
        lines
            .iter()
            .fold(String::new(), |text, line| text + line + "\n")
    }

    pub(super) fn show_endpoints(&self) -> String {
        let mut lines: Vec<String> = Vec::new();
        for service in self.store.services() {
            let mut line = service.name().to_owned();
            if let Some(endpoint) = &service.endpoint {
                for port in &endpoint.ports {
                    let mode = format!("{:?}", port.publish_mode).to_lowercase();
                    let protocol = port.protocol.name();
                    let _ = write!(
                        line,
                        " {}:{}/{protocol}/{mode}",
                        port.published_port, port.target_port
                    );
                }
                for vip in &endpoint.virtual_ips {
                    let _ = write!(line, " {}={}", vip.network_id, vip.addr);
                }
            }
            lines.push(self.redact(&line));
        }
        lines.sort();
        lines
            .iter()
            .fold(String::new(), |text, line| text + line + "\n")
    }

    pub(super) fn show_balancers(&self) -> String {
        let mut text = String::new();
        for (name, id) in &self.nodes {
            if let Some(node) = self.store.node(*id) {
                let _ = writeln!(text, "{name}{}", places(&node.attachments));
            }
        }
        text
    }

    pub(super) fn show_slices(&self) -> String {
        let mut text = String::new();
        for (name, id) in &self.nodes {
            let Some(node) = self.store.node(*id) else {
                continue;
            };
            let _ = write!(text, "{name}");
            if let Some(Slice { number, v4, v6 }) = node.slice() {
                let _ = write!(text, " {number} {v4}");
                let _ = write!(text, "{}", v6.map_or(String::new(), |v6| format!(" {v6}")));
            }
            let line = format!(" {}", node.status.message);
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }
}

fn places(places: &[NetworkAttachment]) -> String {
    places.iter().fold(String::new(), |mut text, place| {
        let _ = write!(text, " {}=", place.network.name());
        let addresses: Vec<String> = place.addresses.iter().map(ToString::to_string).collect();
        let _ = write!(text, "{}", addresses.join("+"));
        text
    })
}
