//! The routing mesh: every node's slice of the node network reachable from all nodes, and published ports open on each. Pure.
//!
//! One tunnel (VXLAN id 1) joins the slices by routes. A published port is translated to a task's address on the node network,
//! on the node that was asked, without hiding the client. The task's node remembers in the connection's mark who brought it,
//! and routes the replies back there. Two clients' connections that would look alike to a task, because they came through
//! different nodes, are kept apart by conntrack zones. Design: `docs/design/mesh.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::balance::{family, octets, slot_count};
use super::desired::{DataPath, Desired, DesiredError, Health};
use super::sandbox::{LinkState, Remotes, Tunnel};
use crate::endpoint::Mac;
use crate::nfnl::Family;
use crate::nfnl::conntrack::{Flow, UDP};
use crate::nfnl::elements::{Change, Data, Verb};
use crate::ports::Protocol;
use crate::rules::mesh_link;

pub(crate) mod rules;

/// VXLAN id of the node network.
const VNI: u32 = 1;

/// Our table, in both families.
pub(crate) const TABLE: &str = "skep_mesh";

/// Upper half of marks and of routing tables' numbers: the lower half is a node's number.
pub(crate) const MARK: u32 = 0x5b00_0000;

/// Priority of our routing rules: before the main table, after the local one.
pub(crate) const RULE_PRIORITY: u32 = 5300;

/// Highest node number: conntrack zones have 16 bits.
const NUMBER_MAX: u16 = u16::MAX;

/// What the routing mesh should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mesh {
    /// Bridge of the node network (`Config::bridge`).
    pub bridge: String,
    /// This node's number, 1 or more, unique in the cluster.
    pub number: u16,
    /// This node's slice of the node network (`Layout::v4`).
    pub slice: Ipv4Net,
    /// The same of IPv6 (`Layout::v6`).
    pub slice6: Option<Ipv6Net>,
    /// The other nodes, by number.
    pub peers: BTreeMap<u16, Peer>,
    /// Published ports and where they lead.
    pub ports: BTreeMap<PublishedPort, Published>,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its data-path address.
    pub node: IpAddr,
    /// Its slice of the node network.
    pub slice: Ipv4Net,
    /// The same of IPv6.
    pub slice6: Option<Ipv6Net>,
    /// All its addresses: what it asks through another node is answered there, because its kernel keeps for itself what is
    /// addressed to it.
    pub addresses: BTreeSet<IpAddr>,
}

/// A port of every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublishedPort {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port.
    pub port: u16,
    /// The only address of a node that it is answered on; none for all but those that have a port of their own.
    pub address: Option<IpAddr>,
}

/// What a published port leads to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Published {
    /// The service's tasks.
    pub backends: Backends,
    /// Whether tasks of the node that is asked are the only ones to be led to, while it has ready ones.
    pub is_local_first: bool,
}

/// Tasks behind a port: address on the node network and port, and health. A task has one for each family.
pub type Backends = BTreeMap<SocketAddr, Health>;

/// What the kernel should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) link: String,
    pub(crate) bridge: String,
    pub(crate) mac: Mac,
    pub(crate) tunnel: Tunnel,
    pub(crate) mtu: u32,
    pub(crate) gateway: IpAddr,
    /// None on a node network without IPv6.
    pub(crate) gateway6: Option<IpAddr>,
    pub(crate) tables: Tables,
    pub(crate) elements: Elements,
}

/// What a node is able to do, apart from what is asked of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Means {
    /// What the data path carries, in bytes.
    pub(crate) mtu: u32,
    /// Whether the kernel has IPv6.
    pub(crate) has_v6: bool,
}

/// The way back to a node, for replies to what it brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Back {
    /// The node's number.
    pub number: u16,
    /// Whether it is IPv6's.
    pub is_v6: bool,
}

/// Tables of the tunnel and of routing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tables {
    pub(crate) forwarding: BTreeMap<Mac, IpAddr>,
    pub(crate) neighbours: BTreeMap<IpAddr, Mac>,
    /// Slices, and through which gateway they are reached.
    pub(crate) routes: BTreeMap<IpNet, IpAddr>,
    /// Nodes replies can be sent back through, with the gateway. A rule and a routing table each.
    pub(crate) returns: BTreeMap<Back, IpAddr>,
}

/// Elements by map and key.
pub(crate) type Elements = BTreeMap<(Family, &'static str, Vec<u8>), Data>;

/// What the kernel holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct State {
    pub(crate) link: Option<(Tunnel, Mac, LinkState)>,
    pub(crate) tables: Tables,
    /// Elements of our tables, if their rules are whole.
    pub(crate) elements: Option<Elements>,
}

/// A change of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Deletes the tunnel; its routes go with it.
    DeleteTunnel,
    /// Makes the tunnel.
    CreateTunnel,
    /// Gives the tunnel its MTU and switches, and puts it up.
    SetTunnel,
    /// Changes what the tunnel knows of other nodes.
    ChangeRemotes(Remotes),
    /// Removes ways to other nodes.
    RemoveWays {
        /// Slices.
        routes: BTreeSet<IpNet>,
        /// Ways back.
        returns: BTreeSet<Back>,
    },
    /// Adds ways to other nodes.
    AddWays {
        /// Slices with their gateway.
        routes: BTreeMap<IpNet, IpAddr>,
        /// Ways back with their gateway.
        returns: BTreeMap<Back, IpAddr>,
    },
    /// Makes our tables anew. The maps are empty then.
    ReplaceRules,
    /// Changes so many elements.
    Balance {
        /// How many.
        count: usize,
    },
}

/// The maps, all of them.
pub(crate) const MAPS: [&str; 9] = [
    "ports",
    "slots",
    "ports_addr",
    "slots_addr",
    "zones",
    "marks",
    "nodes",
    "connections",
    "connections_addr",
];

/// Those whose elements count connections: of ports of all addresses, and of one.
pub(crate) const COUNTERS: [&str; 2] = ["connections", "connections_addr"];

/// The steps that give the node what it should have, in order.
pub(crate) fn plan(wish: &Wish, state: &State) -> Vec<Action> {
    let mut actions = Vec::new();
    let identity = (wish.tunnel, wish.mac);
    let link = state
        .link
        .filter(|(tunnel, mac, _)| (*tunnel, *mac) == identity);
    if link.is_none() {
        if state.link.is_some() {
            actions.push(Action::DeleteTunnel);
        }
        actions.push(Action::CreateTunnel);
    }
    let ready = LinkState {
        mtu: wish.mtu,
        is_ready: true,
    };
    if link.is_none_or(|(_, _, link)| link != ready) {
        actions.push(Action::SetTunnel);
    }
    let nothing = Tables::default();
    // A tunnel that is down loses its routes; a new one has none.
    let known = if link.is_some() {
        &state.tables
    } else {
        &nothing
    };
    let remotes = Remotes::between(
        (&wish.tables.forwarding, &wish.tables.neighbours),
        (&known.forwarding, &known.neighbours),
    );
    if remotes != Remotes::default() {
        actions.push(Action::ChangeRemotes(remotes));
    }
    plan_ways(&wish.tables, known, &state.tables, &mut actions);
    if state.elements.is_none() {
        actions.push(Action::ReplaceRules);
    }
    let count = changes(state.elements.as_ref(), &wish.elements).len();
    if count > 0 {
        actions.push(Action::Balance { count });
    }
    actions
}

/// Rules outlive the tunnel, so stale ones are looked for in what was found, whatever became of the tunnel.
fn plan_ways(wish: &Tables, known: &Tables, found: &Tables, actions: &mut Vec<Action>) {
    let routes: BTreeSet<IpNet> = known
        .routes
        .keys()
        .filter(|net| !wish.routes.contains_key(net))
        .copied()
        .collect();
    let returns: BTreeSet<Back> = found
        .returns
        .keys()
        .filter(|back| !wish.returns.contains_key(back))
        .copied()
        .collect();
    if !(routes.is_empty() && returns.is_empty()) {
        actions.push(Action::RemoveWays { routes, returns });
    }
    let missing = wish.routes.iter();
    let missing = missing.filter(|(net, gateway)| known.routes.get(net) != Some(gateway));
    let routes: BTreeMap<IpNet, IpAddr> = missing.map(|(&net, &ip)| (net, ip)).collect();
    let missing = wish.returns.iter();
    let missing = missing.filter(|(back, gateway)| known.returns.get(back) != Some(gateway));
    let returns: BTreeMap<Back, IpAddr> = missing.map(|(&back, &ip)| (back, ip)).collect();
    if !(routes.is_empty() && returns.is_empty()) {
        actions.push(Action::AddWays { routes, returns });
    }
}

/// The changes of elements; all belong into one transaction.
pub(crate) fn changes(old: Option<&Elements>, new: &Elements) -> Vec<Change> {
    let change = |(family, map, key): &(Family, &'static str, Vec<u8>), verb| Change {
        family: *family,
        map,
        key: key.clone(),
        verb,
    };
    let nothing = Elements::new();
    let old = old.unwrap_or(&nothing);
    let stale = old.iter().filter(|(key, data)| new.get(key) != Some(data));
    let missing = new.iter().filter(|(key, data)| old.get(key) != Some(data));
    stale
        .map(|(key, _)| change(key, Verb::Delete))
        .chain(missing.map(|(key, data)| change(key, Verb::Add(data.clone()))))
        .collect()
}

/// Whether a flow to a published port must be forgotten: who answers it is gone, or it has no connection to keep.
pub(crate) fn is_doomed(flow: &Flow, ports: &BTreeMap<PublishedPort, Published>) -> bool {
    let Some(protocol) = protocol_of(flow.protocol) else {
        return false;
    };
    let port = |address| PublishedPort {
        protocol,
        port: flow.destination_port,
        address,
    };
    let own = ports.get(&port(Some(flow.destination)));
    let Some(published) = own.or_else(|| ports.get(&port(None))) else {
        return false;
    };
    let is_translated = flow.answerer != flow.destination;
    match published
        .backends
        .get(&SocketAddr::new(flow.answerer, flow.answerer_port))
    {
        Some(health) => !super::balance::keeps(*health, flow),
        // Connections of programs on the node, from before the port was published, go on.
        None => is_translated || protocol == Protocol::Udp,
    }
}

// === impl Mesh ===

impl Mesh {
    pub(crate) fn check(&self, errors: &mut Vec<DesiredError>) {
        let both = |v4: Ipv4Net, v6: Option<Ipv6Net>| {
            let v6 = v6.map(|net| IpNet::from(net.trunc()));
            [Some(v4.trunc().into()), v6].into_iter().flatten()
        };
        let peers = self.peers.values();
        let slices: Vec<IpNet> = peers
            .flat_map(|peer| both(peer.slice, peer.slice6))
            .chain(both(self.slice, self.slice6))
            .collect();
        let is_good = |net: &IpNet| net.prefix_len() <= if net.addr().is_ipv4() { 30 } else { 126 };
        let overlap = slices.iter().enumerate().any(|(index, net)| {
            let others = &slices[index + 1..];
            others
                .iter()
                .any(|other| other.contains(net) || net.contains(other))
        });
        if overlap || !slices.iter().all(is_good) {
            errors.push(DesiredError::Slices);
        }
        let numbers = self.peers.keys().chain([&self.number]);
        if self.peers.contains_key(&self.number) || numbers.clone().any(|number| *number == 0) {
            errors.push(DesiredError::Number(self.number));
        }
        let is_inside = |backend: &SocketAddr| slices.iter().any(|net| net.contains(&backend.ip()));
        for (port, published) in &self.ports {
            if port.port == 0 || !published.backends.keys().all(is_inside) {
                errors.push(DesiredError::Published(port.port));
            }
        }
    }

    /// The elements of a port in one family.
    fn add_port(
        &self,
        family: Family,
        port: PublishedPort,
        published: &Published,
        elements: &mut Elements,
    ) {
        let of_family = |ip: IpAddr| super::balance::family(ip) == family;
        if port.address.is_some_and(|address| !of_family(address)) {
            return;
        }
        let backends = published.backends.iter();
        let ready = backends
            .filter(|(backend, health)| **health == Health::Ready && of_family(backend.ip()));
        let mut ready: Vec<SocketAddr> = ready.map(|(&backend, _)| backend).collect();
        let is_local = |backend: &SocketAddr| match backend.ip() {
            IpAddr::V4(ip) => self.slice.contains(&ip),
            IpAddr::V6(ip) => self.slice6.is_some_and(|slice| slice.contains(&ip)),
        };
        if published.is_local_first && ready.iter().any(is_local) {
            ready.retain(is_local);
        }
        ready.truncate(super::balance::BACKEND_COUNT_MAX);
        let key = port.key();
        let (ports, slots, chain) = match port.address {
            None => ("ports", "slots", 'n'),
            Some(_) => ("ports_addr", "slots_addr", 'a'),
        };
        let counter = COUNTERS[usize::from(port.address.is_some())];
        elements.insert((family, counter, key.clone()), Data::Nothing);
        let count = slot_count(ready.len());
        if count == 0 {
            // The node answers itself, that nobody listens; also where another service has the port on all other addresses.
            if port.address.is_some() {
                elements.insert((family, ports, key), Data::Goto(rules::CLOSED.to_owned()));
            }
            return;
        }
        for (slot, backend) in (0u32..).zip(ready.iter().cycle()).take(count) {
            let slot = [key.as_slice(), &slot.to_ne_bytes()].concat();
            let [high, low] = backend.port().to_be_bytes();
            let data = [octets(backend.ip()).as_slice(), &[high, low, 0, 0]].concat();
            elements.insert((family, slots, slot), Data::Value(data));
        }
        elements.insert((family, ports, key), Data::Goto(format!("{chain}{count}")));
    }
}

// === impl PublishedPort ===

impl PublishedPort {
    /// As in our maps: address if it has one, protocol, port, each filled up to four bytes.
    fn key(self) -> Vec<u8> {
        let [high, low] = self.port.to_be_bytes();
        let mut key = self.address.map(octets).unwrap_or_default();
        key.extend([number(self.protocol), 0, 0, 0, high, low, 0, 0]);
        key
    }

    /// The port of a [`PublishedPort::key`].
    pub(crate) fn from_key(key: &[u8]) -> Option<PublishedPort> {
        let (address, &[protocol, _, _, _, high, low, _, _]) = key.split_last_chunk::<8>()?;
        Some(PublishedPort {
            protocol: protocol_of(protocol)?,
            port: u16::from_be_bytes([high, low]),
            address: match address {
                [] => None,
                octets => Some(super::balance::address(octets)?),
            },
        })
    }
}

/// A protocol's number on the wire.
fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => UDP,
        Protocol::Sctp => 132,
    }
}

fn protocol_of(number: u8) -> Option<Protocol> {
    match number {
        6 => Some(Protocol::Tcp),
        UDP => Some(Protocol::Udp),
        132 => Some(Protocol::Sctp),
        _ => None,
    }
}

// === impl Wish ===

impl Wish {
    pub(crate) fn new(desired: &Desired, mesh: &Arc<Mesh>, means: Means) -> Wish {
        let DataPath { address, port } = desired.data_path;
        let mut tables = Tables::default();
        let mut elements = Elements::new();
        let slice6 = mesh.slice6.filter(|_| means.has_v6);
        let families = [Some(Family::V4), slice6.map(|_| Family::V6)];
        for (&number, peer) in &mesh.peers {
            let mac = mac(number);
            tables.forwarding.insert(mac, peer.node);
            let slices = [
                Some(IpNet::from(peer.slice)),
                slice6.and(peer.slice6).map(IpNet::from),
            ];
            for slice in slices.into_iter().flatten() {
                let gateway = gateway(slice);
                let is_v6 = gateway.is_ipv6();
                tables.neighbours.insert(gateway, mac);
                tables.routes.insert(slice.trunc(), gateway);
                tables.returns.insert(Back { number, is_v6 }, gateway);
            }
            for family in families.into_iter().flatten() {
                let zone = Data::Value(number.to_ne_bytes().to_vec());
                elements.insert((family, "zones", mac.0.to_vec()), zone);
                let mark = Data::Value((MARK | u32::from(number)).to_ne_bytes().to_vec());
                elements.insert((family, "marks", mac.0.to_vec()), mark);
            }
            for &address in &peer.addresses {
                if address.is_ipv4() || slice6.is_some() {
                    let key = (family(address), "nodes", octets(address));
                    elements.insert(key, Data::Nothing);
                }
            }
        }
        for family in families.into_iter().flatten() {
            for (port, published) in &mesh.ports {
                mesh.add_port(family, *port, published, &mut elements);
            }
        }
        Wish {
            link: mesh_link(&mesh.bridge),
            bridge: mesh.bridge.clone(),
            mac: mac(mesh.number),
            tunnel: Tunnel {
                vni: VNI,
                port,
                local: address,
            },
            mtu: means.mtu,
            gateway: gateway(mesh.slice.into()),
            gateway6: slice6.map(|slice| gateway(slice.into())),
            tables,
            elements,
        }
    }

    /// The state in which nothing is left to do.
    pub(crate) fn fulfilled(self) -> State {
        let link = LinkState {
            mtu: self.mtu,
            is_ready: true,
        };
        State {
            link: Some((self.tunnel, self.mac, link)),
            tables: self.tables,
            elements: Some(self.elements),
        }
    }
}

/// The tunnel's Ethernet address on a node.
pub(crate) fn mac(number: u16) -> Mac {
    let [high, low] = number.to_be_bytes();
    Mac([0x02, 0x5b, 0, 0, high, low])
}

/// How names of tunnels end (`rules::mesh_link`).
pub(crate) const LINK_SUFFIX: &str = "x";

/// Whether a tunnel is that of a mesh.
pub(crate) fn is_mesh(tunnel: Tunnel, mac: Mac) -> bool {
    tunnel.vni == VNI && mac.0.starts_with(&[0x02, 0x5b, 0, 0])
}

/// The address of a slice's bridge.
fn gateway(slice: IpNet) -> IpAddr {
    match slice.network() {
        IpAddr::V4(ip) => Ipv4Addr::from(u32::from(ip).wrapping_add(1)).into(),
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip).wrapping_add(1)).into(),
    }
}

/// The number of a node in a mark or a routing table's number.
pub(crate) fn number_in(mark: u32) -> Option<u16> {
    let number = mark ^ MARK;
    u16::try_from(number)
        .ok()
        .filter(|number| (1..=NUMBER_MAX).contains(number))
}

impl fmt::Display for Back {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.is_v6 { " by IPv6" } else { "" };
        write!(f, "node {}{family}", self.number)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::DeleteTunnel => write!(f, "delete mesh tunnel"),
            Action::CreateTunnel => write!(f, "create mesh tunnel"),
            Action::SetTunnel => write!(f, "set mesh tunnel"),
            Action::ChangeRemotes(remotes) => write!(f, "mesh: {remotes}"),
            Action::RemoveWays { routes, returns } => {
                write!(f, "remove ways:")?;
                routes.iter().try_for_each(|net| write!(f, " to {net};"))?;
                returns
                    .iter()
                    .try_for_each(|back| write!(f, " back to {back};"))
            }
            Action::AddWays { routes, returns } => {
                write!(f, "add ways:")?;
                routes
                    .iter()
                    .try_for_each(|(net, ip)| write!(f, " to {net} via {ip};"))?;
                let mut returns = returns.iter();
                returns.try_for_each(|(back, ip)| write!(f, " back to {back} via {ip};"))
            }
            Action::ReplaceRules => write!(f, "replace rules of the mesh"),
            Action::Balance { count } => write!(f, "change {count} elements of the mesh"),
        }
    }
}

#[cfg(test)]
mod tests;
