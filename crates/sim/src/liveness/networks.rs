//! Networks when all is calm: whoever can have an address has one, and all others went back.
//!
//! Counted from the objects, without the store's index of addresses.

use std::{collections::BTreeSet, net::IpAddr};

use skep_model::{
    EndpointSpec, Network, Node, PublishMode, Task, TaskSpec, TaskState,
    directory::{Pools, Slice},
};
use skep_store::{Holder, Store};

/// All that is not as it should be.
pub(super) fn check(store: &Store, unmet: &mut Vec<String>) {
    for network in store.networks().all() {
        for (ip, holder) in store.networks().addresses().of_network(network.id) {
            if !is_wanted(store, network, holder) {
                let name = network.name();
                unmet.push(format!("{holder:?} still has {ip} of network {name}"));
            }
        }
    }
    for node in store.nodes() {
        check_node(store, node, unmet);
    }
}

/// Whether somebody who lives has the address, and a use for it.
fn is_wanted(store: &Store, network: &Network, holder: Holder) -> bool {
    match holder {
        Holder::Network(id) => id == network.id,
        Holder::Service(id) => store.service(id).is_some_and(|service| {
            let spec = &service.spec;
            let ids = wanted(store, &spec.task, spec.endpoint.as_ref());
            ids.contains(&network.id.to_string())
        }),
        Holder::Task(id) => store
            .task(id)
            .is_some_and(|task| !task.status.state.is_terminal()),
        Holder::Node(id) => store.node(id).is_some(),
    }
}

/// Networks a service needs places on, or a task of some revision of it.
fn wanted(store: &Store, task: &TaskSpec, endpoint: Option<&EndpointSpec>) -> Vec<String> {
    let mut ids: Vec<String> = task.networks.iter().map(|n| n.target.clone()).collect();
    if publishes(endpoint) {
        let ingress = store.networks().ingress();
        ids.push(ingress.map_or_else(|| "ingress".to_owned(), |n| n.id.to_string()));
    }
    ids
}

fn publishes(spec: Option<&EndpointSpec>) -> bool {
    let mut ports = spec.into_iter().flat_map(|spec| &spec.ports);
    ports.any(|port| port.publish_mode == PublishMode::Ingress)
}

/// A node of Skep has a slice unless all are in use; a dockerd its place on ingress.
fn check_node(store: &Store, node: &Node, unmet: &mut Vec<String>) {
    let id = node.id;
    let tables = store.networks();
    if node.is_skep() {
        let Some(network) = tables.node_network() else {
            return unmet.push("there is no node network".to_owned());
        };
        let message = node.status.message.as_str();
        match (node.slice().is_some(), is_cut_up(store, network)) {
            (true, _) if message.is_empty() => {}
            (true, _) => unmet.push(format!("node {id} has a slice and says `{message}`")),
            (false, true) if !message.is_empty() => {}
            (false, is_cut_up) => unmet.push(format!(
                "node {id} has no slice and says `{message}`; all are taken: {is_cut_up}"
            )),
        }
    } else if node.needs_load_balancers()
        && let Some(ingress) = tables.ingress()
    {
        let mut places = node.attachments.iter();
        if !places.any(|place| place.network.id == ingress.id) && !is_full(store, ingress) {
            unmet.push(format!("node {id} does not balance from ingress"));
        }
    }
}

/// Whether every slice is in use.
fn is_cut_up(store: &Store, network: &Network) -> bool {
    let Some(pools) = Pools::of(network) else {
        return false;
    };
    let numbers = held(store, network).into_iter().filter_map(|ip| match ip {
        IpAddr::V4(ip) => pools.number_of(ip),
        IpAddr::V6(_) => None,
    });
    let numbers: BTreeSet<u16> = numbers.filter(|number| *number > 0).collect();
    numbers.len() >= usize::from(pools.number_max())
}

/// Whether all IPv4 addresses of a network are in use.
fn is_full(store: &Store, network: &Network) -> bool {
    let held = held(store, network);
    let mut configs = network.subnets();
    configs.all(|config| match config.bounds() {
        Some((IpAddr::V4(first), IpAddr::V4(last))) => {
            let ips = first.to_bits()..=last.to_bits();
            ips.into_iter()
                .all(|bits| held.contains(&IpAddr::V4(bits.into())))
        }
        Some(_) | None => true,
    })
}

/// Addresses of a network that live objects have.
fn held(store: &Store, network: &Network) -> BTreeSet<IpAddr> {
    let mut held = BTreeSet::new();
    for config in network.subnets() {
        held.extend(config.gateway);
    }
    for service in store.services() {
        let vips = service.endpoint.iter().flat_map(|e| &e.virtual_ips);
        let own = vips.filter(|vip| vip.network_id == network.id.as_str());
        let ips = own.filter_map(|vip| vip.addr.parse::<ipnet::IpNet>().ok());
        held.extend(ips.map(|ip| ip.addr()));
    }
    let tasks = store
        .tasks()
        .filter(|task| task.status.state <= TaskState::Running);
    let places = tasks.flat_map(|task| &task.networks);
    let places = places.chain(store.nodes().flat_map(|node| &node.attachments));
    for place in places.filter(|place| place.network.id == network.id) {
        held.extend(place.addresses.iter().map(ipnet::IpNet::addr));
    }
    held
}

/// Whether a new task waits for an address that nobody can give it.
pub(super) fn is_starved(store: &Store, task: &Task) -> bool {
    let Some(service) = task.service_id.and_then(|id| store.service(id)) else {
        return false;
    };
    // The service comes first; the task may be of an earlier revision.
    let spec = &service.spec;
    let own = task.endpoint.as_ref().and_then(|e| e.spec.as_ref());
    let mut targets = wanted(store, &spec.task, spec.endpoint.as_ref());
    targets.extend(wanted(store, &task.spec, own));
    targets.iter().any(|target| {
        let id = target.parse().ok();
        let network = id.and_then(|id| store.networks().get(id));
        network.is_none_or(|network| network.spec.is_overlay() && is_full(store, network))
    })
}

/// Whether the slice of the node has an address for the task, if it needs one.
pub(super) fn fits(store: &Store, node: &Node, task: &Task) -> bool {
    let endpoint = task.endpoint.as_ref();
    let slice = node.slice().filter(|_| node.is_skep());
    let (true, Some(slice), Some(network)) = (
        publishes(endpoint.and_then(|endpoint| endpoint.spec.as_ref())),
        slice,
        store.networks().node_network(),
    ) else {
        return true;
    };
    has_room(&held(store, network), &slice)
}

fn has_room(held: &BTreeSet<IpAddr>, slice: &Slice) -> bool {
    let (first, last) = slice.tasks_v4();
    (first.to_bits()..=last.to_bits()).any(|bits| !held.contains(&IpAddr::V4(bits.into())))
}
