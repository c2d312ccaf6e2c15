//! What clients ask about networks: small ones that run out, such with two families, and services
//! on them with ports published on every node.

use skep_manager::command::Command;
use skep_model::{
    EndpointSpec, IpamConfig, IpamOptions, Network, NetworkAttachmentConfig, NetworkSpec,
    PortConfig, Protocol, PublishMode, ResolutionMode,
};
use skep_store::Store;

use super::{Clients, len};
use crate::profile::pick;

/// Networks beyond which clients create no more.
const NETWORKS_MAX: usize = 4;
/// Subnets asked for; the first two hold few tasks, and the last overlaps the node network.
const SUBNETS: [&str; 4] = [
    "10.200.0.0/29",
    "10.200.1.0/28",
    "10.200.2.0/24",
    "10.250.0.0/24",
];

impl Clients {
    /// A network more or less.
    pub(super) fn network_command(&mut self, store: &Store) -> Command {
        let own = own_networks(store);
        if store.networks().ingress().is_none() {
            let mut spec = self.network_spec("ingress".to_owned());
            spec.is_ingress = true;
            return Command::CreateNetwork {
                spec: Box::new(spec),
            };
        }
        if own.len() < NETWORKS_MAX && self.rng.percent(70) || own.is_empty() {
            let name = format!("network-{}", self.rng.below(6));
            let mut spec = self.network_spec(name);
            spec.has_ipv6 = self.rng.percent(30);
            let spec = Box::new(spec);
            return Command::CreateNetwork { spec };
        }
        let id = own[pick(&mut self.rng, len(&own))].id;
        Command::RemoveNetwork { id }
    }

    fn network_spec(&mut self, name: String) -> NetworkSpec {
        let mut spec = NetworkSpec::default();
        spec.annotations.name = name;
        if self.rng.percent(60) {
            let subnet = SUBNETS[pick(&mut self.rng, 4)].parse().ok();
            spec.ipam = Some(IpamOptions {
                driver: None,
                configs: vec![IpamConfig {
                    subnet,
                    ..IpamConfig::default()
                }],
            });
        }
        spec
    }

    /// Up to two of the networks there are, now and then one of nodes' own.
    pub(super) fn networks(&mut self, store: &Store) -> Vec<NetworkAttachmentConfig> {
        let mut targets = Vec::new();
        let own = own_networks(store);
        for _ in 0..self.rng.below(3) {
            let target = own
                .get(pick(&mut self.rng, len(&own).max(1)))
                .map(|n| n.id.to_string());
            targets.extend(target.filter(|target| !targets.contains(target)));
        }
        let host = store
            .networks()
            .by_name("host")
            .filter(|_| self.rng.percent(5));
        targets.extend(host.map(|host| host.id.to_string()));
        let config = |target| NetworkAttachmentConfig {
            target,
            ..NetworkAttachmentConfig::default()
        };
        targets.into_iter().map(config).collect()
    }

    /// Ports of nodes, ports on every node, some without a number, or none.
    pub(super) fn endpoint(&mut self) -> Option<EndpointSpec> {
        let publish_mode = match self.rng.below(10) {
            0..2 => PublishMode::Host,
            2..6 => PublishMode::Ingress,
            _ => {
                let mode = [ResolutionMode::Vip, ResolutionMode::DnsRr][pick(&mut self.rng, 2)];
                return self.rng.percent(30).then(|| EndpointSpec {
                    mode,
                    ..EndpointSpec::default()
                });
            }
        };
        let is_dynamic = publish_mode == PublishMode::Ingress && self.rng.percent(60);
        let number = u16::try_from(8000 + self.rng.below(3)).expect("a small number fits");
        let port = PortConfig {
            name: String::new(),
            protocol: Protocol::Tcp,
            target_port: 80,
            published_port: if is_dynamic { 0 } else { number },
            publish_mode,
        };
        Some(EndpointSpec {
            ports: vec![port],
            ..EndpointSpec::default()
        })
    }
}

fn own_networks(store: &Store) -> Vec<&Network> {
    let networks = store.networks().all().map(|network| &**network);
    let own = networks.filter(|network| network.spec.is_overlay() && !network.spec.is_ingress);
    own.collect()
}
