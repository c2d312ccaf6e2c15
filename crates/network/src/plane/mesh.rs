//! The routing mesh: every node's slice of the node network reachable from all nodes, and published ports open on each. Pure.
//!
//! One tunnel (VXLAN id 1) joins the slices by routes. A published port is translated to a task's address on the node network,
//! on the node that was asked, without hiding the client. The task's node remembers in the connection's mark who brought it,
//! and routes the replies back there. Two clients' connections that would look alike to a task, because they came through
//! different nodes, are kept apart by conntrack zones. Design: `docs/design/mesh.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use super::balance::{octets, slot_count, slot_counts};
use super::desired::{DataPath, Desired, DesiredError, Health};
use super::sandbox::{LinkState, Remotes, Tunnel};
use crate::digest::fnv1a;
use crate::endpoint::Mac;
use crate::nfnl::Family;
use crate::nfnl::conntrack::{Flow, UDP};
use crate::nfnl::elements::{Change, Data, Verb};
use crate::nft::DIGEST_PREFIX;
use crate::ports::Protocol;
use crate::rules::mesh_link;

/// VXLAN id of the node network.
const VNI: u32 = 1;

/// Our table.
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
    /// This node's slice of the node network (`Config::subnet`), IPv4.
    pub slice: IpNet,
    /// The other nodes, by number.
    pub peers: BTreeMap<u16, Peer>,
    /// Published ports and where they lead.
    pub ports: BTreeMap<PublishedPort, Backends>,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its data-path address.
    pub node: IpAddr,
    /// Its slice of the node network.
    pub slice: IpNet,
    /// All its IPv4 addresses: what it asks through another node is answered there, because its kernel keeps for itself what is
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
}

/// Tasks behind a port: address on the node network and port, and health.
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
    pub(crate) tables: Tables,
    pub(crate) elements: Elements,
}

/// Tables of the tunnel and of routing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tables {
    pub(crate) forwarding: BTreeMap<Mac, IpAddr>,
    pub(crate) neighbours: BTreeMap<IpAddr, Mac>,
    /// Slices, and through which gateway they are reached.
    pub(crate) routes: BTreeMap<IpNet, IpAddr>,
    /// Nodes replies can be sent back through: by number, the gateway. A rule and a routing table each.
    pub(crate) returns: BTreeMap<u16, IpAddr>,
}

/// Elements by map and key.
pub(crate) type Elements = BTreeMap<(&'static str, Vec<u8>), Data>;

/// What the kernel holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct State {
    pub(crate) link: Option<(Tunnel, Mac, LinkState)>,
    pub(crate) tables: Tables,
    /// Elements of our table, if its rules are whole.
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
        /// Numbers of nodes.
        returns: BTreeSet<u16>,
    },
    /// Adds ways to other nodes.
    AddWays {
        /// Slices with their gateway.
        routes: BTreeMap<IpNet, IpAddr>,
        /// Numbers of nodes with their gateway.
        returns: BTreeMap<u16, IpAddr>,
    },
    /// Makes our table anew. The maps are empty then.
    ReplaceRules,
    /// Changes so many elements.
    Balance {
        /// How many.
        count: usize,
    },
}

/// The maps, all of them.
pub(crate) const MAPS: [&str; 5] = ["ports", "slots", "zones", "marks", "nodes"];

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
    let returns: BTreeSet<u16> = found
        .returns
        .keys()
        .filter(|number| !wish.returns.contains_key(number))
        .copied()
        .collect();
    if !(routes.is_empty() && returns.is_empty()) {
        actions.push(Action::RemoveWays { routes, returns });
    }
    let missing = wish.routes.iter();
    let missing = missing.filter(|(net, gateway)| known.routes.get(net) != Some(gateway));
    let routes: BTreeMap<IpNet, IpAddr> = missing.map(|(&net, &ip)| (net, ip)).collect();
    let missing = wish.returns.iter();
    let missing = missing.filter(|(number, gateway)| known.returns.get(number) != Some(gateway));
    let returns: BTreeMap<u16, IpAddr> = missing.map(|(&number, &ip)| (number, ip)).collect();
    if !(routes.is_empty() && returns.is_empty()) {
        actions.push(Action::AddWays { routes, returns });
    }
}

/// The changes of elements; all belong into one transaction.
pub(crate) fn changes(old: Option<&Elements>, new: &Elements) -> Vec<Change> {
    let change = |(map, key): &(&'static str, Vec<u8>), verb| Change {
        family: Family::V4,
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
pub(crate) fn is_doomed(flow: &Flow, ports: &BTreeMap<PublishedPort, Backends>) -> bool {
    let protocol = match flow.protocol {
        6 => Protocol::Tcp,
        UDP => Protocol::Udp,
        132 => Protocol::Sctp,
        _ => return false,
    };
    let port = PublishedPort {
        protocol,
        port: flow.destination_port,
    };
    let Some(backends) = ports.get(&port) else {
        return false;
    };
    let is_translated = flow.answerer != flow.destination;
    match backends.get(&SocketAddr::new(flow.answerer, flow.answerer_port)) {
        Some(Health::Ready) => false,
        Some(Health::Leaving) => protocol == Protocol::Udp,
        // Connections of programs on the node, from before the port was published, go on.
        None => is_translated || protocol == Protocol::Udp,
    }
}

/// The transaction that makes the table, without elements.
pub(crate) fn script(wish: &Wish) -> String {
    format!(
        "add table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n  chain {DIGEST_PREFIX}{} {{ }}\n{}}}\n",
        digest(wish),
        body(wish)
    )
}

/// Whether a table has these rules.
pub(crate) fn is_whole(wish: &Wish, chains: &[String], rule_count: usize) -> bool {
    let wanted = format!("{DIGEST_PREFIX}{}", digest(wish));
    chains.contains(&wanted) && rule_count == body(wish).matches(RULE_MARK).count()
}

/// Starts every line that is a rule.
const RULE_MARK: &str = "\n    ";

fn digest(wish: &Wish) -> String {
    format!("{:016x}", fnv1a(body(wish).as_bytes()))
}

fn body(wish: &Wish) -> String {
    let Wish {
        link,
        bridge,
        gateway,
        ..
    } = wish;
    let port = "meta l4proto . th dport";
    let mut text = format!(
        "  map ports {{ typeof {port} : verdict; }}
  map slots {{ typeof {port} . numgen random mod 16 : ip daddr . th dport; }}
  map zones {{ typeof ether saddr : ct zone; }}
  map marks {{ typeof ether saddr : ct mark; }}
  set nodes {{ type ipv4_addr; }}
"
    );
    let mut chain = |name: &str, hook: &str, rules: &[String]| {
        let rules: String = rules
            .iter()
            .map(|rule| format!("{RULE_MARK}{rule}"))
            .collect();
        text.push_str(&format!("  chain {name} {{ {hook}{rules}\n  }}\n"));
    };
    for count in slot_counts() {
        let rule = format!("dnat ip to {port} . numgen random mod {count} map @slots");
        chain(&format!("n{count}"), "", &[rule]);
    }
    let hook = |kind, hook, priority| {
        format!("type {kind} hook {hook} priority {priority}; policy accept;")
    };
    // What `route_localnet` would let in, and which node brought the rest.
    let raw = [
        format!("iifname \"{link}\" ip daddr 127.0.0.0/8 drop"),
        format!("iifname \"{link}\" ct original zone set ether saddr map @zones"),
    ];
    chain("raw_pre", &hook("filter", "prerouting", "raw"), &raw);
    let mangle = [
        format!("iifname \"{link}\" ct state new ct mark set ether saddr map @marks"),
        format!(
            "iifname \"{bridge}\" ct direction reply ct mark and 0xffff0000 == {MARK:#x} meta mark set ct mark"
        ),
    ];
    chain(
        "mangle_pre",
        &hook("filter", "prerouting", "mangle"),
        &mangle,
    );
    let publish = format!("fib daddr type local {port} vmap @ports");
    let pre = [format!("iifname != \"{link}\" {publish}")];
    chain("nat_pre", &hook("nat", "prerouting", "dstnat"), &pre);
    chain("nat_out", &hook("nat", "output", "-100"), &[publish]);
    let post = [
        format!("oifname \"{link}\" ip saddr 127.0.0.0/8 snat to {gateway}"),
        format!("oifname \"{link}\" ip saddr @nodes snat to {gateway}"),
    ];
    chain("nat_post", &hook("nat", "postrouting", "srcnat"), &post);
    // Containers reach those of other nodes through published ports only, and nobody is forwarded beyond.
    let forward = [
        format!("oifname \"{link}\" ct status dnat accept"),
        format!("oifname \"{link}\" ct direction reply accept"),
        format!("oifname \"{link}\" drop"),
        format!("iifname \"{link}\" oifname != \"{bridge}\" ct direction original drop"),
    ];
    chain("forward", &hook("filter", "forward", "filter"), &forward);
    text
}

// === impl Mesh ===

impl Mesh {
    pub(crate) fn check(&self, errors: &mut Vec<DesiredError>) {
        let slices = self
            .peers
            .values()
            .map(|peer| peer.slice)
            .chain([self.slice]);
        let slices: Vec<IpNet> = slices.collect();
        let is_good = |net: &IpNet| net.addr().is_ipv4() && net.prefix_len() <= 30;
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
        for (port, backends) in &self.ports {
            if port.port == 0 || !backends.keys().all(is_inside) {
                errors.push(DesiredError::Published(port.port));
            }
        }
    }
}

// === impl Wish ===

impl Wish {
    pub(crate) fn new(desired: &Desired, mesh: &Arc<Mesh>, mtu: u32) -> Wish {
        let DataPath { address, port } = desired.data_path;
        let mut tables = Tables::default();
        let mut elements = Elements::new();
        for (&number, peer) in &mesh.peers {
            let (mac, gateway) = (mac(number), gateway(peer.slice));
            tables.forwarding.insert(mac, peer.node);
            tables.neighbours.insert(gateway, mac);
            tables.routes.insert(peer.slice.trunc(), gateway);
            tables.returns.insert(number, gateway);
            let zone = Data::Value(number.to_ne_bytes().to_vec());
            elements.insert(("zones", mac.0.to_vec()), zone);
            let mark = Data::Value((MARK | u32::from(number)).to_ne_bytes().to_vec());
            elements.insert(("marks", mac.0.to_vec()), mark);
            for address in peer.addresses.iter().filter(|ip| ip.is_ipv4()) {
                elements.insert(("nodes", octets(*address)), Data::Nothing);
            }
        }
        for (port, backends) in &mesh.ports {
            add_port(*port, backends, &mut elements);
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
            mtu,
            gateway: gateway(mesh.slice),
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

fn add_port(port: PublishedPort, backends: &Backends, elements: &mut Elements) {
    let ready: Vec<SocketAddr> = backends
        .iter()
        .filter(|(backend, health)| **health == Health::Ready && backend.is_ipv4())
        .map(|(&backend, _)| backend)
        .take(super::balance::BACKEND_COUNT_MAX)
        .collect();
    // Without a backend the node answers itself, that nobody listens.
    let count = slot_count(ready.len());
    if count == 0 {
        return;
    }
    let protocol = match port.protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => UDP,
        Protocol::Sctp => 132,
    };
    let [high, low] = port.port.to_be_bytes();
    let key = vec![protocol, 0, 0, 0, high, low, 0, 0];
    for (slot, backend) in (0u32..).zip(ready.iter().cycle()).take(count) {
        let slot = [key.as_slice(), &slot.to_ne_bytes()].concat();
        let [high, low] = backend.port().to_be_bytes();
        let data = [octets(backend.ip()).as_slice(), &[high, low, 0, 0]].concat();
        elements.insert(("slots", slot), Data::Value(data));
    }
    elements.insert(("ports", key), Data::Goto(format!("n{count}")));
}

/// The tunnel's Ethernet address on a node.
pub(crate) fn mac(number: u16) -> Mac {
    let [high, low] = number.to_be_bytes();
    Mac([0x02, 0x5b, 0, 0, high, low])
}

/// The address of a slice's bridge.
fn gateway(slice: IpNet) -> IpAddr {
    slice.hosts().next().unwrap_or(slice.addr())
}

/// The number of a node in a mark or a routing table's number.
pub(crate) fn number_in(mark: u32) -> Option<u16> {
    let number = mark ^ MARK;
    u16::try_from(number)
        .ok()
        .filter(|number| (1..=NUMBER_MAX).contains(number))
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
                    .try_for_each(|number| write!(f, " back to node {number};"))
            }
            Action::AddWays { routes, returns } => {
                write!(f, "add ways:")?;
                routes
                    .iter()
                    .try_for_each(|(net, ip)| write!(f, " to {net} via {ip};"))?;
                let mut returns = returns.iter();
                returns.try_for_each(|(number, ip)| write!(f, " back to node {number} via {ip};"))
            }
            Action::ReplaceRules => write!(f, "replace rules of the mesh"),
            Action::Balance { count } => write!(f, "change {count} elements of the mesh"),
        }
    }
}

#[cfg(test)]
mod tests;
