//! Networks, and all that is handed out cluster-wide: addresses, subnets, VXLAN ids, ports.
//!
//! One of the store's tables with its indexes. Everything but the networks themselves follows
//! from networks, services, tasks and nodes.

use std::{net::IpAddr, ops::Bound, sync::Arc};

use imbl::{OrdMap, OrdSet};
use ipnet::IpNet;
use skep_model::{
    Id, Network, NetworkAttachment, NetworkId, Node, PortConfig, Protocol, PublishMode, Service,
    ServiceId, Task, TaskId, TaskState,
};

use crate::addresses::{Addresses, Holder};

/// A published port and who has it.
type PortUse = (Protocol, u16, PublishMode, ServiceId);

/// Order of tasks that wait for addresses.
type AllocateKey = (Option<ServiceId>, u64, TaskId);

/// See the module's documentation. `clone` is O(1).
#[derive(Debug, Clone, Default)]
pub struct NetworkTables {
    networks: OrdMap<NetworkId, Arc<Network>>,
    /// Lower-case name → network: names are unique without regard to case.
    by_name: OrdMap<String, NetworkId>,
    /// One, unless somebody else's store had more.
    ingress: OrdSet<NetworkId>,
    /// One, likewise.
    node_network: OrdSet<NetworkId>,
    addresses: Addresses,
    /// Last known addresses of ended tasks: better given to somebody else as late as possible.
    former: OrdSet<(NetworkId, IpAddr, TaskId)>,
    subnets: OrdSet<(IpNet, NetworkId)>,
    vxlan_ids: OrdSet<(u32, NetworkId)>,
    /// Networks, there or removed, that a task which has not ended is on: how many attachments.
    vxlan_ids_held: OrdMap<(u32, NetworkId), usize>,
    subnets_held: OrdMap<(IpNet, NetworkId), usize>,
    ports: OrdSet<PortUse>,
    services: OrdSet<(NetworkId, ServiceId)>,
    tasks_to_allocate: OrdSet<AllocateKey>,
}

// === reading ===

impl NetworkTables {
    /// The network with `id`.
    pub fn get(&self, id: NetworkId) -> Option<&Arc<Network>> {
        self.networks.get(&id)
    }

    /// The network whose name is `name`, without regard to case.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Network>> {
        let id = self.by_name.get(&name.to_lowercase())?;
        self.networks.get(id)
    }

    /// The network that carries published ports.
    pub fn ingress(&self) -> Option<&Arc<Network>> {
        let id = self.ingress.get_min()?;
        self.networks.get(id)
    }

    /// The network of which every node of Skep has a slice.
    pub fn node_network(&self) -> Option<&Arc<Network>> {
        let id = self.node_network.get_min()?;
        self.networks.get(id)
    }

    /// All networks, by id.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &Arc<Network>> {
        self.networks.values()
    }

    /// Number of networks.
    pub fn count(&self) -> usize {
        self.networks.len()
    }

    /// Addresses in use.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The last address from `first` to `last` that a task had which has ended and is still known.
    pub fn last_former(&self, network: NetworkId, first: IpAddr, last: IpAddr) -> Option<IpAddr> {
        let range = (network, first, LOWEST_TASK)..=(network, last, HIGHEST_TASK);
        let mut former = self.former.range(range);
        former.next_back().map(|(_, ip, _)| *ip)
    }

    /// Subnets of all networks that share an address with `subnet`.
    pub fn overlapping(&self, subnet: IpNet) -> impl Iterator<Item = (IpNet, NetworkId)> {
        let subnet = subnet.trunc();
        // Two subnets overlap when one holds the other: first those that hold it, then those in it.
        let holders = (0..subnet.prefix_len())
            .filter_map(move |prefix_len| IpNet::new(subnet.network(), prefix_len).ok());
        let holders = holders.flat_map(|net| self.exactly(net.trunc()));
        let inner = self.subnets.range((subnet, LOWEST_NETWORK)..);
        let inner = inner.take_while(move |(net, _)| subnet.contains(net));
        holders.chain(inner.copied())
    }

    /// The last subnet that begins in `range`, other than the node network's: it lies at the end
    /// of Swarm's default pool, and what comes behind it is not what is left of the pool.
    pub fn last_subnet_in(&self, range: IpNet) -> Option<IpNet> {
        let end = IpNet::new(range.broadcast(), range.max_prefix_len()).ok()?;
        let before = self.subnets.range(..=(end, HIGHEST_NETWORK));
        let mut before = before.filter(|(_, id)| !self.node_network.contains(id));
        let (subnet, _) = before.next_back()?;
        range.contains(&subnet.network()).then_some(*subnet)
    }

    /// All subnets with their networks, in order.
    pub fn subnets(&self) -> impl Iterator<Item = (IpNet, NetworkId)> {
        self.subnets.iter().copied()
    }

    /// Subnets of networks that a task which has not ended is on and that share an address with
    /// `subnet`. The networks may have been removed.
    pub fn held_overlapping(&self, subnet: IpNet) -> impl Iterator<Item = (IpNet, NetworkId)> {
        let subnet = subnet.trunc();
        let range = (subnet, LOWEST_NETWORK)..;
        let inner = self.subnets_held.range(range).map(|(key, _)| *key);
        let inner = inner.take_while(move |(net, _)| subnet.contains(net));
        let holders = (0..subnet.prefix_len())
            .filter_map(move |prefix_len| IpNet::new(subnet.network(), prefix_len).ok());
        let holders = holders.flat_map(|net| {
            let range = (net.trunc(), LOWEST_NETWORK)..=(net.trunc(), HIGHEST_NETWORK);
            self.subnets_held.range(range).map(|(key, _)| *key)
        });
        holders.chain(inner)
    }

    /// Networks that use a VXLAN id: a network that was removed does as long as it has a task that
    /// has not ended, because the nodes' tunnels go by the id alone.
    pub fn networks_with_vxlan_id(&self, id: u32) -> impl Iterator<Item = NetworkId> {
        let range = (id, LOWEST_NETWORK)..=(id, HIGHEST_NETWORK);
        let held = self.vxlan_ids_held.range(range.clone());
        let held = held.map(|((_, network), _)| *network);
        let there = self.vxlan_ids.range(range).map(|(_, network)| *network);
        there.chain(held)
    }

    /// The largest VXLAN id in use.
    pub fn last_vxlan_id(&self) -> Option<u32> {
        let there = self.vxlan_ids.get_max().map(|(id, _)| *id);
        let held = self.vxlan_ids_held.get_max().map(|((id, _), _)| *id);
        there.max(held)
    }

    /// All VXLAN ids in use.
    pub fn vxlan_ids(&self) -> impl Iterator<Item = u32> {
        let held = self.vxlan_ids_held.keys().map(|(id, _)| *id);
        self.vxlan_ids.iter().map(|(id, _)| *id).chain(held)
    }

    /// Services that want or have a published port, and in which way.
    pub fn services_with_port(
        &self,
        protocol: Protocol,
        port: u16,
    ) -> impl Iterator<Item = (PublishMode, ServiceId)> {
        let lowest = (protocol, port, PublishMode::Ingress, LOWEST_SERVICE);
        let highest = (protocol, port, PublishMode::Host, HIGHEST_SERVICE);
        let uses = self.ports.range(lowest..=highest);
        uses.map(|(_, _, mode, service)| (*mode, *service))
    }

    /// Numbers from `first` to `last` that services want or have published, in order.
    pub fn ports_in(&self, protocol: Protocol, first: u16, last: u16) -> impl Iterator<Item = u16> {
        let lowest = (protocol, first, PublishMode::Ingress, LOWEST_SERVICE);
        let highest = (protocol, last, PublishMode::Host, HIGHEST_SERVICE);
        self.ports
            .range(lowest..=highest)
            .map(|(_, port, _, _)| *port)
    }

    /// Services that want or have a place on a network.
    pub fn services_on(&self, network: NetworkId) -> impl Iterator<Item = ServiceId> {
        let range = (network, LOWEST_SERVICE)..=(network, HIGHEST_SERVICE);
        self.services.range(range).map(|(_, service)| *service)
    }

    /// The first new task of each service that has any: what may wait for addresses.
    pub fn first_tasks_to_allocate(&self) -> impl Iterator<Item = (Option<ServiceId>, TaskId)> {
        // One behind the last key of the service before; `None` comes before every service.
        let mut from = Some((None, 0, LOWEST_TASK));
        std::iter::from_fn(move || {
            let start: AllocateKey = from?;
            let (service, _, task) = *self.tasks_to_allocate.range(start..).next()?;
            let end: AllocateKey = (service, u64::MAX, HIGHEST_TASK);
            let beyond = (Bound::Excluded(end), Bound::Unbounded);
            from = self.tasks_to_allocate.range(beyond).next().copied();
            Some((service, task))
        })
    }

    /// The new task after `task` among those of its service.
    pub fn next_task_to_allocate(&self, task: &Task) -> Option<TaskId> {
        let key = (task.service_id, task.slot, task.id);
        let mut rest = self.tasks_to_allocate.range(key..);
        let next = rest.find(|other| **other != key)?;
        (next.0 == task.service_id).then_some(next.2)
    }

    fn exactly(&self, subnet: IpNet) -> impl Iterator<Item = (IpNet, NetworkId)> {
        let range = (subnet, LOWEST_NETWORK)..=(subnet, HIGHEST_NETWORK);
        self.subnets.range(range).copied()
    }
}

// === following objects ===

impl NetworkTables {
    /// Turns a network from `old` into `new`.
    pub(crate) fn set_network(&mut self, old: Option<&Network>, new: Option<&Arc<Network>>) {
        if let Some(old) = old {
            self.networks.remove(&old.id);
            self.by_name.remove(&old.name().to_lowercase());
            self.ingress.remove(&old.id);
            self.node_network.remove(&old.id);
            for (subnet, reserved) in subnets_of(old) {
                self.subnets.remove(&(subnet, old.id));
                for ip in reserved {
                    self.addresses.remove(old.id, ip, Holder::Network(old.id));
                }
            }
            for id in old.vxlan_ids() {
                self.vxlan_ids.remove(&(id, old.id));
            }
        }
        let Some(new) = new else { return };
        self.by_name.insert(new.name().to_lowercase(), new.id);
        if new.spec.is_ingress {
            self.ingress.insert(new.id);
        }
        if new.spec.is_node_network() {
            self.node_network.insert(new.id);
        }
        for (subnet, reserved) in subnets_of(new) {
            self.subnets.insert((subnet, new.id));
            for ip in reserved {
                self.addresses.insert(new.id, ip, Holder::Network(new.id));
            }
        }
        self.vxlan_ids
            .extend(new.vxlan_ids().map(|id| (id, new.id)));
        self.networks.insert(new.id, Arc::clone(new));
    }

    /// Turns a service from `old` into `new`.
    pub(crate) fn set_service(&mut self, old: Option<&Service>, new: Option<&Service>) {
        if let (Some(old), Some(new)) = (old, new)
            && Arc::ptr_eq(&old.spec, &new.spec)
            && old.endpoint == new.endpoint
        {
            return;
        }
        if let Some(old) = old {
            for (network, ip) in virtual_ips(old) {
                self.addresses.remove(network, ip, Holder::Service(old.id));
            }
            for use_of in ports_of(old) {
                self.ports.remove(&use_of);
            }
            for network in networks_of(old) {
                self.services.remove(&(network, old.id));
            }
        }
        if let Some(new) = new {
            for (network, ip) in virtual_ips(new) {
                self.addresses.insert(network, ip, Holder::Service(new.id));
            }
            self.ports.extend(ports_of(new));
            self.services
                .extend(networks_of(new).map(|network| (network, new.id)));
        }
    }

    /// Turns a task from `old` into `new`.
    pub(crate) fn set_task(&mut self, old: Option<&Task>, new: Option<&Task>) {
        let waits = |task: &&Task| {
            task.status.state == TaskState::New && task.desired_state <= TaskState::Complete
        };
        let key = |task: &Task| (task.service_id, task.slot, task.id);
        let old_key = old.filter(waits).map(key);
        let new_key = new.filter(waits).map(key);
        if old_key != new_key {
            if let Some(key) = &old_key {
                self.tasks_to_allocate.remove(key);
            }
            self.tasks_to_allocate.extend(new_key);
        }
        self.hold_networks(old, new);
        let is_same = match (old, new) {
            (Some(old), Some(new)) => {
                old.holds_addresses() == new.holds_addresses()
                    && has_same_addresses(&old.networks, &new.networks)
            }
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if is_same {
            return;
        }
        if let Some(old) = old {
            for (network, ip) in attached(&old.networks) {
                if old.holds_addresses() {
                    self.addresses.remove(network, ip, Holder::Task(old.id));
                } else {
                    self.former.remove(&(network, ip, old.id));
                }
            }
        }
        if let Some(new) = new {
            for (network, ip) in attached(&new.networks) {
                if new.holds_addresses() {
                    self.addresses.insert(network, ip, Holder::Task(new.id));
                } else {
                    self.former.insert((network, ip, new.id));
                }
            }
        }
    }

    /// Counts what a task's networks must not lose to others while the task is there.
    fn hold_networks(&mut self, old: Option<&Task>, new: Option<&Task>) {
        let held = |task: Option<&Task>| -> Vec<Arc<Network>> {
            let task = task.filter(|task| task.holds_addresses());
            let places = task.into_iter().flat_map(|task| &task.networks);
            let overlays = places.filter(|place| place.network.spec.is_overlay());
            overlays.map(|place| Arc::clone(&place.network)).collect()
        };
        let (before, after) = (held(old), held(new));
        let is_same = |(a, b): (&Arc<Network>, &Arc<Network>)| Arc::ptr_eq(a, b) || a == b;
        if before.len() == after.len() && before.iter().zip(&after).all(is_same) {
            return;
        }
        for network in &before {
            for id in network.vxlan_ids() {
                release(&mut self.vxlan_ids_held, (id, network.id));
            }
            for (subnet, _) in subnets_of(network) {
                release(&mut self.subnets_held, (subnet, network.id));
            }
        }
        for network in &after {
            for id in network.vxlan_ids() {
                *self.vxlan_ids_held.entry((id, network.id)).or_default() += 1;
            }
            for (subnet, _) in subnets_of(network) {
                *self.subnets_held.entry((subnet, network.id)).or_default() += 1;
            }
        }
    }

    /// Turns a node from `old` into `new`.
    pub(crate) fn set_node(&mut self, old: Option<&Node>, new: Option<&Node>) {
        let places = |node: Option<&Node>| -> Vec<(NetworkId, IpAddr)> {
            node.map(|node| attached(&node.attachments).collect())
                .unwrap_or_default()
        };
        let (before, after) = (places(old), places(new));
        if before == after {
            return;
        }
        if let Some(old) = old {
            for (network, ip) in before {
                self.addresses.remove(network, ip, Holder::Node(old.id));
            }
        }
        if let Some(new) = new {
            for (network, ip) in after {
                self.addresses.insert(network, ip, Holder::Node(new.id));
            }
        }
    }
}

impl PartialEq for NetworkTables {
    /// Equal when the networks are; indexes follow from objects.
    fn eq(&self, other: &Self) -> bool {
        self.networks == other.networks
    }
}

const LOWEST_NETWORK: NetworkId = NetworkId(Id::LOWEST);
const HIGHEST_NETWORK: NetworkId = NetworkId(Id::HIGHEST);
const LOWEST_SERVICE: ServiceId = ServiceId(Id::LOWEST);
const HIGHEST_SERVICE: ServiceId = ServiceId(Id::HIGHEST);
const LOWEST_TASK: TaskId = TaskId(Id::LOWEST);
const HIGHEST_TASK: TaskId = TaskId(Id::HIGHEST);

/// One holder less.
fn release<K: Ord + Clone>(held: &mut OrdMap<K, usize>, key: K) {
    match held.get(&key).copied() {
        Some(2..) => *held.entry(key).or_default() -= 1,
        Some(_) | None => drop(held.remove(&key)),
    }
}

/// Allocated subnets of a network, each with the addresses in it that nobody else may have.
fn subnets_of(network: &Network) -> impl Iterator<Item = (IpNet, Vec<IpAddr>)> {
    network.subnets().filter_map(|config| {
        let reserved = config.reserved.values().chain(&config.gateway).copied();
        Some((config.subnet?.trunc(), reserved.collect()))
    })
}

fn virtual_ips(service: &Service) -> impl Iterator<Item = (NetworkId, IpAddr)> {
    let endpoint = service.endpoint.iter();
    let vips = endpoint.flat_map(|endpoint| &endpoint.virtual_ips);
    vips.filter_map(|vip| {
        let addr: IpNet = vip.addr.parse().ok()?;
        Some((vip.network_id.parse().ok()?, addr.addr()))
    })
}

/// Published ports a service wants, and those allocated for it.
fn ports_of(service: &Service) -> impl Iterator<Item = PortUse> {
    let wanted = service.spec.endpoint.iter().flat_map(|spec| &spec.ports);
    let allocated = service.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    let published = wanted
        .chain(allocated)
        .filter(|port| port.published_port != 0);
    published.map(|port: &PortConfig| {
        (
            port.protocol,
            port.published_port,
            port.publish_mode,
            service.id,
        )
    })
}

/// Networks a service wants to be on, and those it has virtual addresses on.
fn networks_of(service: &Service) -> impl Iterator<Item = NetworkId> {
    let wanted = service
        .spec
        .task
        .networks
        .iter()
        .chain(&service.spec.networks);
    let wanted = wanted.filter_map(|network| network.target.parse().ok());
    wanted.chain(virtual_ips(service).map(|(network, _)| network))
}

fn attached(attachments: &[NetworkAttachment]) -> impl Iterator<Item = (NetworkId, IpAddr)> {
    attachments.iter().flat_map(|attachment| {
        let addresses = attachment.addresses.iter();
        addresses.map(|address| (attachment.network.id, address.addr()))
    })
}

fn has_same_addresses(a: &[NetworkAttachment], b: &[NetworkAttachment]) -> bool {
    a.len() == b.len() && attached(a).eq(attached(b))
}
