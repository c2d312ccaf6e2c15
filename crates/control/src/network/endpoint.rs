//! What a service is reached by: its ports and its virtual addresses.

use std::sync::Arc;

use ipnet::IpNet;
use skep_model::{
    Endpoint, EndpointSpec, Network, NetworkId, ResolutionMode, Service, ServiceSpec, TaskSpec,
    VirtualIp,
};
use skep_store::Store;

use crate::{
    network::{address, port},
    plan::Wait,
};

/// The endpoint the service should have, as far as it can be given now, and what is missing.
/// `None`: it needs none and never had one.
pub(crate) fn endpoint(view: &Store, service: &Service) -> (Option<Endpoint>, Vec<Wait>) {
    let spec = &service.spec;
    let mut waits = Vec::new();
    let has_networks = !spec.task.networks.is_empty() || !spec.networks.is_empty();
    if spec.endpoint.is_none() && service.endpoint.is_none() && !has_networks {
        return (None, waits);
    }
    let endpoint = Endpoint {
        spec: spec.endpoint.clone(),
        ports: port::ports(view.networks(), service, &mut waits),
        virtual_ips: virtual_ips(view, service, &mut waits),
    };
    (Some(endpoint), waits)
}

/// Networks on which a service needs places, or a task of some revision of it: ingress first, then
/// as `task` has them. What services of old have apart from their tasks is in `service`.
pub(super) fn networks<'a>(
    view: &'a Store,
    (service, task): (&ServiceSpec, &TaskSpec),
    endpoint: Option<&EndpointSpec>,
    waits: &mut Vec<Wait>,
) -> Vec<&'a Arc<Network>> {
    let mut networks = Vec::new();
    if port::is_ingress(endpoint) {
        add(view.networks().ingress(), "ingress", &mut networks, waits);
    }
    for wanted in service.networks_of(task) {
        let id = wanted.target.parse::<NetworkId>();
        let network = id.ok().and_then(|id| view.networks().get(id));
        add(network, &wanted.target, &mut networks, waits);
    }
    networks
}

/// Adds a network once, if it can be used.
fn add<'a>(
    network: Option<&'a Arc<Network>>,
    target: &str,
    networks: &mut Vec<&'a Arc<Network>>,
    waits: &mut Vec<Wait>,
) {
    match network.filter(|network| network.is_complete()) {
        None => waits.push(Wait::NoNetwork {
            target: target.to_owned(),
        }),
        Some(network) if networks.iter().any(|other| other.id == network.id) => {}
        Some(network) => networks.push(network),
    }
}

fn virtual_ips(view: &Store, service: &Service, waits: &mut Vec<Wait>) -> Vec<VirtualIp> {
    let spec = &service.spec;
    let networks = networks(view, (spec, &spec.task), spec.endpoint.as_ref(), waits);
    let mode = spec
        .endpoint
        .as_ref()
        .map_or(ResolutionMode::Vip, |spec| spec.mode);
    if mode == ResolutionMode::DnsRr {
        return Vec::new();
    }
    let mut virtual_ips = Vec::new();
    for network in networks
        .into_iter()
        .filter(|network| network.spec.is_overlay())
    {
        // IPv4 first: a dockerd takes the first address of a network.
        for is_v4 in [true, false] {
            if !address::has_family(network, is_v4) {
                continue;
            }
            let held = held(service, network, is_v4);
            match held.or_else(|| address::choose(view.networks(), network, is_v4)) {
                Some(addr) => virtual_ips.push(VirtualIp {
                    network_id: network.id.to_string(),
                    addr: addr.to_string(),
                }),
                None => waits.push(Wait::no_address(network)),
            }
        }
    }
    virtual_ips
}

/// The address the service has on the network already.
fn held(service: &Service, network: &Network, is_v4: bool) -> Option<IpNet> {
    let vips = service
        .endpoint
        .iter()
        .flat_map(|endpoint| &endpoint.virtual_ips);
    let mut held = vips
        .filter(|vip| vip.network_id == network.id.as_str())
        .filter_map(|vip| vip.addr.parse::<IpNet>().ok());
    held.find(|held| held.addr().is_ipv4() == is_v4 && address::fits(network, *held))
}
