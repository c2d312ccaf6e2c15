//! What must always hold of networks: every address, port and number has one owner, in its place.
//!
//! Read from the objects, not from the store's indexes, so that a mistake there shows here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use ipnet::IpNet;
use skep_model::{
    NetworkAttachment, NetworkId, NodeId, Protocol, PublishMode, Service, Task, TaskId, TaskState,
    reserved::service::ServicePolicy,
};
use skep_store::{Holder, Store};

use super::slices;

/// A broken invariant of networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkViolation {
    /// Two objects have one address of a network.
    SharedAddress {
        /// The network.
        network: NetworkId,
        /// The address.
        address: IpAddr,
    },
    /// An address lies in no subnet of its network.
    StrayAddress {
        /// The network.
        network: NetworkId,
        /// The address.
        address: IpNet,
    },
    /// The index does not say of an address what objects say.
    MisindexedAddress {
        /// The network.
        network: NetworkId,
        /// The address.
        address: IpAddr,
    },
    /// Two services publish one port on every node.
    SharedPort {
        /// The protocol.
        protocol: Protocol,
        /// The port.
        port: u16,
    },
    /// Two networks have one VXLAN id.
    SharedVxlanId {
        /// The id.
        id: u32,
    },
    /// Two networks have addresses in common.
    OverlappingSubnets {
        /// One subnet.
        first: IpNet,
        /// The other.
        second: IpNet,
    },
    /// A placed task lacks a place it needs, or one of its places lacks what a node needs of it.
    IncompletePlaces {
        /// The task.
        task: TaskId,
    },
    /// More than one network is the one between nodes.
    ManyNodeNetworks,
    /// A node has a slice that is another's, too, or is none.
    WrongSlice {
        /// The node.
        node: NodeId,
    },
    /// A task with published ports lacks an address in its node's slice, or another has one.
    WrongNodeAddress {
        /// The task.
        task: TaskId,
    },
}

/// Everything that is wrong with networks and what they hand out.
pub(super) fn check(view: &Store, found: &mut Vec<NetworkViolation>) {
    check_addresses(view, found);
    check_ports(view, found);
    check_vxlan_ids(view, found);
    check_subnets(view, found);
    slices::check(view, found);
    for task in view.tasks() {
        check_places(view, task, found);
    }
}

/// All uses of addresses, from the objects that have them.
fn uses(view: &Store) -> Vec<(NetworkId, IpNet, Holder)> {
    let mut uses = Vec::new();
    for network in view.networks().all() {
        for config in network.subnets() {
            let reserved = config.reserved.values().chain(&config.gateway);
            let holder = Holder::Network(network.id);
            let prefix_len = config.subnet.map_or(0, |subnet| subnet.prefix_len());
            let address = |ip: &IpAddr| IpNet::new(*ip, prefix_len).ok();
            // A gateway may be reserved by name as well.
            let ips: BTreeSet<IpNet> = reserved.filter_map(address).collect();
            uses.extend(ips.into_iter().map(|ip| (network.id, ip, holder)));
        }
    }
    for service in view.services() {
        let vips = service.endpoint.iter().flat_map(|e| &e.virtual_ips);
        let parsed =
            vips.filter_map(|vip| Some((vip.network_id.parse().ok()?, vip.addr.parse().ok()?)));
        uses.extend(parsed.map(|(network, ip)| (network, ip, Holder::Service(service.id))));
    }
    for task in view
        .tasks()
        .filter(|task| task.status.state <= TaskState::Running)
    {
        collect(&task.networks, Holder::Task(task.id), &mut uses);
    }
    for node in view.nodes() {
        collect(&node.attachments, Holder::Node(node.id), &mut uses);
    }
    uses
}

fn collect(
    places: &[NetworkAttachment],
    holder: Holder,
    uses: &mut Vec<(NetworkId, IpNet, Holder)>,
) {
    for place in places {
        let addresses = place.addresses.iter();
        uses.extend(addresses.map(|address| (place.network.id, *address, holder)));
    }
}

fn check_addresses(view: &Store, found: &mut Vec<NetworkViolation>) {
    let mut seen: BTreeMap<(NetworkId, IpAddr), Holder> = BTreeMap::new();
    let mut used: BTreeSet<(NetworkId, IpAddr, Holder)> = BTreeSet::new();
    for (network, address, holder) in uses(view) {
        if seen.insert((network, address.addr()), holder).is_some() {
            let address = address.addr();
            found.push(NetworkViolation::SharedAddress { network, address });
        }
        used.insert((network, address.addr(), holder));
        // What stays of a removed network is not looked at.
        let Some(network) = view.networks().get(network) else {
            continue;
        };
        let mut subnets = network.subnets().filter_map(|config| config.subnet);
        let is_inside = |subnet: IpNet| {
            let is_own = address.addr() == subnet.network() || address.addr() == subnet.broadcast();
            let is_tiny = subnet.max_prefix_len() - subnet.prefix_len() <= 1;
            // Slices of the node network are looked at by themselves.
            let is_slice = network.spec.is_node_network();
            subnet.contains(&address.addr())
                && (subnet.prefix_len() == address.prefix_len() || is_slice)
                && (!is_own || is_tiny)
        };
        if !subnets.any(is_inside) {
            let network = network.id;
            found.push(NetworkViolation::StrayAddress { network, address });
        }
    }
    let networks: BTreeSet<NetworkId> = view.networks().all().map(|n| n.id).collect();
    let used_on: BTreeSet<NetworkId> = used.iter().map(|(network, _, _)| *network).collect();
    let indexed = networks.union(&used_on).flat_map(|id| {
        let uses = view.networks().addresses().of_network(*id);
        uses.map(|(address, holder)| (*id, address, holder))
    });
    let indexed: BTreeSet<_> = indexed.collect();
    for (network, address, _) in used.symmetric_difference(&indexed) {
        found.push(NetworkViolation::MisindexedAddress {
            network: *network,
            address: *address,
        });
    }
}

/// An ingress port is taken on every node, so nobody else may publish it in any way.
fn check_ports(view: &Store, found: &mut Vec<NetworkViolation>) {
    let mut taken: BTreeMap<(Protocol, u16), Vec<(&Service, PublishMode)>> = BTreeMap::new();
    for service in view.services() {
        let ports = service.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
        for port in ports.filter(|port| port.published_port != 0) {
            let holders = taken
                .entry((port.protocol, port.published_port))
                .or_default();
            holders.push((&**service, port.publish_mode));
        }
    }
    for ((protocol, port), holders) in taken {
        if are_shared(&holders) {
            found.push(NetworkViolation::SharedPort { protocol, port });
        }
    }
}

/// Whether two of these cannot both have the port.
fn are_shared(holders: &[(&Service, PublishMode)]) -> bool {
    let has_ingress = holders
        .iter()
        .any(|(_, mode)| *mode == PublishMode::Ingress);
    let annotations = |index: usize| &holders[index].0.spec.annotations;
    let mut pairs = (1..holders.len()).flat_map(|b| (0..b).map(move |a| (a, b)));
    has_ingress && pairs.any(|(a, b)| !ServicePolicy::are_apart(annotations(a), annotations(b)))
}

/// A removed network has its id as long as a task on it has not ended: its node's tunnel has it, too.
fn check_vxlan_ids(view: &Store, found: &mut Vec<NetworkViolation>) {
    let live = view.tasks().filter(|task| task.holds_addresses());
    let places = live.flat_map(|task| &task.networks);
    let overlays = places.filter(|place| place.network.spec.is_overlay());
    let attached = overlays.map(|place| &place.network);
    let networks = view.networks().all().chain(attached);
    let mut owners: BTreeMap<u32, NetworkId> = BTreeMap::new();
    let mut shared = BTreeSet::new();
    for network in networks {
        for id in network.vxlan_ids() {
            if *owners.entry(id).or_insert(network.id) != network.id {
                shared.insert(id);
            }
        }
    }
    let shared = shared.into_iter();
    found.extend(shared.map(|id| NetworkViolation::SharedVxlanId { id }));
}

fn check_subnets(view: &Store, found: &mut Vec<NetworkViolation>) {
    let configs = view.networks().all().flat_map(|network| network.subnets());
    let mut subnets: Vec<IpNet> = configs
        .filter_map(|c| c.subnet)
        .map(|n| n.trunc())
        .collect();
    subnets.sort();
    // Sorted by first address: the one that reaches furthest so far is in the way of the next.
    let mut furthest: Option<IpNet> = None;
    for second in subnets {
        let is_same_family = |first: &IpNet| first.addr().is_ipv4() == second.addr().is_ipv4();
        if let Some(first) = furthest.filter(is_same_family)
            && first.broadcast() >= second.network()
        {
            found.push(NetworkViolation::OverlappingSubnets { first, second });
            continue;
        }
        furthest = Some(second);
    }
}

fn check_places(view: &Store, task: &Task, found: &mut Vec<NetworkViolation>) {
    let is_placed = (TaskState::Pending..=TaskState::Running).contains(&task.status.state);
    if !is_placed {
        return;
    }
    let is_complete = |place: &NetworkAttachment| {
        place.network.is_complete()
            && (!place.network.spec.is_overlay() || !place.addresses.is_empty())
    };
    let has = |wanted: &str| {
        let mut places = task.networks.iter();
        places.any(|place| place.network.id.as_str() == wanted)
    };
    let spec = task
        .endpoint
        .as_ref()
        .and_then(|endpoint| endpoint.spec.as_ref());
    let mut ports = spec.into_iter().flat_map(|spec| &spec.ports);
    let needs_ingress = ports.any(|port| port.publish_mode == PublishMode::Ingress);
    let ingress = view.networks().ingress().filter(|_| needs_ingress);
    let has_all = task
        .spec
        .networks
        .iter()
        .all(|network| has(&network.target))
        && ingress.is_none_or(|ingress| has(ingress.id.as_str()));
    if !has_all || !task.networks.iter().all(is_complete) {
        found.push(NetworkViolation::IncompletePlaces { task: task.id });
    }
}

impl fmt::Display for NetworkViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SharedAddress { network, address } => {
                write!(f, "address {address} of network {network} is used twice")
            }
            Self::StrayAddress { network, address } => {
                write!(
                    f,
                    "address {address} lies in no subnet of network {network}"
                )
            }
            Self::MisindexedAddress { network, address } => {
                write!(
                    f,
                    "address {address} of network {network} is not as indexed"
                )
            }
            Self::SharedPort { protocol, port } => {
                write!(f, "port {port}/{} is published twice", protocol.name())
            }
            Self::SharedVxlanId { id } => write!(f, "vxlan id {id} is used twice"),
            Self::OverlappingSubnets { first, second } => {
                write!(f, "subnets {first} and {second} overlap")
            }
            Self::IncompletePlaces { task } => {
                write!(f, "task {task} lacks a place on a network")
            }
            Self::ManyNodeNetworks => f.write_str("there is more than one node network"),
            Self::WrongSlice { node } => {
                write!(f, "node {node} has no proper slice of the node network")
            }
            Self::WrongNodeAddress { task } => {
                write!(
                    f,
                    "task {task} lacks an address in its node's slice, or has a wrong one"
                )
            }
        }
    }
}
