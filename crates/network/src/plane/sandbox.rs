//! One overlay network on this node: what its sandbox namespace should hold, and the steps that lead there. Pure.
//!
//! ```text
//! sandbox namespace           container namespace
//!   vx0 ─┐                      eth1
//!        br0 ── p<hash> ═══veth═══┘
//! ```
//!
//! [`Wish`] is what should be, made of the node's value; [`State`] is what is, read from the kernel or believed after the
//! last success. Forwarding entries and neighbours are compared one by one, so a change touches nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::IpNet;

use super::desired::{DataPath, Desired, Overlay};
use super::encryption;
use crate::digest::fnv1a;
use crate::endpoint::Mac;

/// The bridge in every sandbox.
pub(crate) const BRIDGE: &str = "br0";

/// The tunnel in every sandbox.
pub(crate) const VXLAN: &str = "vx0";

/// First letter of ports' names.
const PORT_PREFIX: char = 'p';

/// What a sandbox should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) tunnel: Tunnel,
    pub(crate) mtu: u32,
    pub(crate) forwarding: BTreeMap<Mac, IpAddr>,
    pub(crate) neighbours: BTreeMap<IpAddr, Mac>,
    /// Ports by link name.
    pub(crate) ports: BTreeMap<String, Port>,
}

/// What a tunnel cannot change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    /// VXLAN id.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// Address of this node; unspecified for one that leaves in the tunnels' namespace, to be encrypted.
    pub local: IpAddr,
}

/// A container's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Endpoint id.
    pub container: String,
    /// The container's namespace.
    pub netns_path: PathBuf,
    /// Interface name in the container.
    pub interface: String,
    /// Ethernet address in the container.
    pub mac: Mac,
    /// Addresses in the container.
    pub addresses: BTreeSet<IpNet>,
    /// Subnets of the network none of the addresses lies in: reached directly all the same.
    pub routes: BTreeSet<IpNet>,
    /// MTU in bytes, on both sides.
    pub mtu: u32,
}

/// What a sandbox holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct State {
    pub(crate) bridge: Option<LinkState>,
    pub(crate) tunnel: Option<(Tunnel, LinkState)>,
    pub(crate) forwarding: BTreeMap<Mac, IpAddr>,
    pub(crate) neighbours: BTreeMap<IpAddr, Mac>,
    pub(crate) ports: BTreeMap<String, PortState>,
}

/// The state of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkState {
    pub(crate) mtu: u32,
    /// Up, and where it belongs: a port in the bridge.
    pub(crate) is_ready: bool,
}

/// The state of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortState {
    /// The alias, which says whose port it is once it is configured.
    pub(crate) alias: Option<String>,
    pub(crate) link: LinkState,
    /// Addresses and routes inside; none if the interface is not there or not up.
    pub(crate) inside: Option<(BTreeSet<IpNet>, BTreeSet<IpNet>)>,
}

/// One idempotent change of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Makes the sandbox namespace.
    CreateSandbox,
    /// Deletes the tunnel, then the namespace with all it holds.
    DeleteSandbox,
    /// Makes the bridge, or gives it its MTU, and puts it up.
    EnsureBridge {
        /// MTU in bytes.
        mtu: u32,
    },
    /// Makes the tunnel.
    CreateTunnel {
        /// What it is.
        tunnel: Tunnel,
        /// MTU in bytes.
        mtu: u32,
    },
    /// Gives the tunnel its MTU, makes it a port of the bridge and puts it up.
    SetTunnel {
        /// MTU in bytes.
        mtu: u32,
    },
    /// Deletes links by name.
    DeleteLinks(BTreeSet<String>),
    /// Deletes links nobody needs. Comes last of all.
    DeleteOrphans(BTreeSet<String>),
    /// Changes what the tunnel knows of containers on other nodes.
    ChangeRemotes(Remotes),
    /// Makes a port and the container's interface.
    CreatePort {
        /// Link name.
        link: String,
        /// What it is.
        port: Port,
    },
    /// Gives the container's interface its addresses, routes and MTU, and puts it up.
    ConfigurePort {
        /// Link name.
        link: String,
        /// What it is.
        port: Port,
    },
    /// Connects a port: forwarding entry, alias, up. The container is reachable.
    ActivatePort {
        /// Link name.
        link: String,
        /// What it is.
        port: Port,
    },
}

/// Changes of a tunnel's tables. Additions come first, and an entry whose value changes is replaced, so nothing is missing in
/// between.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Remotes {
    /// Forwarding entries to add or replace: Ethernet address to node.
    pub forward: BTreeMap<Mac, IpAddr>,
    /// Neighbours to add or replace.
    pub resolve: BTreeMap<IpAddr, Mac>,
    /// Neighbours to remove.
    pub forget: BTreeSet<IpAddr>,
    /// Forwarding entries to remove, with their node.
    pub drop: BTreeMap<Mac, IpAddr>,
}

/// The steps that give a sandbox what it should have, in order. Without a state the sandbox does not exist.
pub(crate) fn plan(wish: &Wish, state: Option<&State>) -> Vec<Action> {
    let mut actions = Vec::new();
    let nothing = State::default();
    let state = state.unwrap_or_else(|| {
        actions.push(Action::CreateSandbox);
        &nothing
    });
    let ready = LinkState {
        mtu: wish.mtu,
        is_ready: true,
    };
    if state.bridge != Some(ready) {
        actions.push(Action::EnsureBridge { mtu: wish.mtu });
    }
    let tunnel = state
        .tunnel
        .filter(|(tunnel, _)| *tunnel == wish.tunnel)
        .map(|(_, link)| link);
    if tunnel.is_none() {
        if state.tunnel.is_some() {
            actions.push(Action::DeleteLinks([VXLAN.to_owned()].into()));
        }
        actions.push(Action::CreateTunnel {
            tunnel: wish.tunnel,
            mtu: wish.mtu,
        });
    }
    if tunnel != Some(ready) {
        actions.push(Action::SetTunnel { mtu: wish.mtu });
    }
    // A new tunnel knows nobody.
    let known = if tunnel.is_some() { state } else { &nothing };
    let remotes = Remotes::between(
        (&wish.forwarding, &wish.neighbours),
        (&known.forwarding, &known.neighbours),
    );
    if remotes != Remotes::default() {
        actions.push(Action::ChangeRemotes(remotes));
    }
    for (link, port) in &wish.ports {
        plan_port(link, port, state.ports.get(link), &mut actions);
    }
    let orphans: BTreeSet<String> = state
        .ports
        .keys()
        .filter(|link| !wish.ports.contains_key(*link))
        .cloned()
        .collect();
    if !orphans.is_empty() {
        actions.push(Action::DeleteOrphans(orphans));
    }
    actions
}

fn plan_port(link: &str, port: &Port, state: Option<&PortState>, actions: &mut Vec<Action>) {
    let (link, port) = (link.to_owned(), port.clone());
    let is_ours = |state: &&PortState| state.alias.as_ref() == Some(&port.alias());
    match state.filter(is_ours) {
        Some(state) => {
            let inside = state.inside.as_ref();
            let is_configured = inside.is_some_and(|(addresses, routes)| {
                *addresses == port.addresses && routes.is_superset(&port.routes)
            });
            if !is_configured || state.link.mtu != port.mtu {
                let (link, port) = (link.clone(), port.clone());
                actions.push(Action::ConfigurePort { link, port });
            }
            if !state.link.is_ready {
                actions.push(Action::ActivatePort { link, port });
            }
        }
        None => {
            // Half made, or another container's: its other end may be anywhere.
            if state.is_some() {
                actions.push(Action::DeleteLinks([link.clone()].into()));
            }
            let create = Action::CreatePort {
                link: link.clone(),
                port: port.clone(),
            };
            let configure = Action::ConfigurePort {
                link: link.clone(),
                port: port.clone(),
            };
            actions.extend([create, configure, Action::ActivatePort { link, port }]);
        }
    }
}

// === impl Wish ===

impl Wish {
    /// What the sandbox of a network should hold. `mtu_max` is what the data path carries.
    pub(crate) fn new(desired: &Desired, id: &str, network: &Overlay, mtu_max: u32) -> Wish {
        let mtu = network.mtu.unwrap_or(mtu_max).min(mtu_max);
        let ports = desired.places(id).map(|(container, owner, place)| {
            let addresses: BTreeSet<IpNet> = place
                .addresses
                .iter()
                .map(|&address| network.in_subnet(address))
                .collect();
            let is_reached = |net: &IpNet| addresses.iter().any(|ip| net.contains(&ip.addr()));
            let routes = network
                .subnets
                .iter()
                .filter(|net| !is_reached(net))
                .map(IpNet::trunc)
                // A family the container has no address of cannot be spoken.
                .filter(|net| {
                    addresses
                        .iter()
                        .any(|ip| ip.addr().is_ipv4() == net.addr().is_ipv4())
                })
                .collect();
            let port = Port {
                container: container.clone(),
                netns_path: owner.netns_path.clone(),
                interface: place.interface.clone(),
                mac: place.mac,
                addresses,
                routes,
                mtu,
            };
            (link_name(container), port)
        });
        Wish {
            tunnel: Tunnel::new(network, desired.data_path),
            mtu,
            ports: ports.collect(),
            forwarding: forwarding(desired, network),
            neighbours: network
                .remotes
                .iter()
                .flat_map(|(&mac, remote)| remote.addresses.iter().map(move |&ip| (ip, mac)))
                .collect(),
        }
    }

    /// The state in which nothing is left to do.
    pub(crate) fn fulfilled(self) -> State {
        let link = LinkState {
            mtu: self.mtu,
            is_ready: true,
        };
        let ports = self.ports.into_iter().map(|(name, port)| {
            let state = PortState {
                alias: Some(port.alias()),
                link,
                inside: Some((port.addresses, port.routes)),
            };
            (name, state)
        });
        State {
            bridge: Some(link),
            tunnel: Some((self.tunnel, link)),
            ports: ports.collect(),
            forwarding: self.forwarding,
            neighbours: self.neighbours,
        }
    }
}

/// Where packets for containers of other nodes go. On an encrypted network that is their node's inner address; those of a node without
/// one are dropped.
fn forwarding(desired: &Desired, network: &Overlay) -> BTreeMap<Mac, IpAddr> {
    let remotes = network.remotes.iter();
    if !network.is_encrypted {
        return remotes.map(|(&mac, remote)| (mac, remote.node)).collect();
    }
    let config = desired.tunnel.as_deref();
    let inner = config.map(encryption::inner_addresses).unwrap_or_default();
    remotes
        .filter_map(|(&mac, remote)| Some((mac, IpAddr::V4(*inner.get(&remote.node)?))))
        .collect()
}

/// The name of a container's port: a hash, because ids are too long. Two with one hash are refused by the kernel.
fn link_name(container: &str) -> String {
    let hash = fnv1a(container.as_bytes()) & 0xffff_ffff_ffff;
    format!("{PORT_PREFIX}{hash:012x}")
}

/// Whether a link of a sandbox is a container's port.
pub(crate) fn is_port_name(name: &str) -> bool {
    name.starts_with(PORT_PREFIX)
}

// === impl Remotes ===

impl Remotes {
    /// What leads from tables that are to those that should be.
    pub(crate) fn between(wish: NodeTables<'_>, state: NodeTables<'_>) -> Remotes {
        Remotes {
            forward: missing(wish.0, state.0),
            resolve: missing(wish.1, state.1),
            forget: state
                .1
                .keys()
                .filter(|ip| !wish.1.contains_key(ip))
                .copied()
                .collect(),
            drop: state
                .0
                .iter()
                .filter(|(mac, _)| !wish.0.contains_key(mac))
                .map(|(&mac, &node)| (mac, node))
                .collect(),
        }
    }
}

/// Forwarding entries and neighbours of a tunnel.
pub(crate) type NodeTables<'a> = (&'a BTreeMap<Mac, IpAddr>, &'a BTreeMap<IpAddr, Mac>);

/// Entries of `wish` that `state` lacks or has with another value.
fn missing<K: Ord + Copy, V: PartialEq + Copy>(
    wish: &BTreeMap<K, V>,
    state: &BTreeMap<K, V>,
) -> BTreeMap<K, V> {
    wish.iter()
        .filter(|(key, value)| state.get(key) != Some(value))
        .map(|(&key, &value)| (key, value))
        .collect()
}

// === impl Tunnel ===

impl Tunnel {
    pub(crate) fn new(network: &Overlay, data_path: DataPath) -> Tunnel {
        let local = if network.is_encrypted {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            data_path.address
        };
        Tunnel {
            vni: network.vni,
            port: data_path.port,
            local,
        }
    }

    /// Whether its packets leave in the tunnels' namespace.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.local.is_unspecified()
    }
}

// === impl Port ===

impl Port {
    /// Says whose port it is, and that it is complete.
    pub(crate) fn alias(&self) -> String {
        format!("skep:{}/{}/{}", self.container, self.interface, self.mac)
    }
}

// === impl Action ===

impl Action {
    /// The container an action is for, if it is for one.
    pub(crate) fn container(&self) -> Option<&str> {
        match self {
            Action::CreatePort { port, .. }
            | Action::ConfigurePort { port, .. }
            | Action::ActivatePort { port, .. } => Some(&port.container),
            Action::CreateSandbox
            | Action::DeleteSandbox
            | Action::EnsureBridge { .. }
            | Action::CreateTunnel { .. }
            | Action::SetTunnel { .. }
            | Action::DeleteLinks(_)
            | Action::DeleteOrphans(_)
            | Action::ChangeRemotes(_) => None,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::CreateSandbox => write!(f, "create sandbox"),
            Action::DeleteSandbox => write!(f, "delete sandbox"),
            Action::EnsureBridge { mtu } => write!(f, "ensure bridge {BRIDGE} mtu {mtu}"),
            Action::CreateTunnel { tunnel, mtu } => {
                let Tunnel { vni, port, local } = tunnel;
                write!(
                    f,
                    "create tunnel {VXLAN} id {vni} from {local} port {port} mtu {mtu}"
                )
            }
            Action::SetTunnel { mtu } => write!(f, "bridge tunnel {VXLAN} mtu {mtu}"),
            Action::DeleteLinks(names) | Action::DeleteOrphans(names) => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                write!(f, "delete links [{}]", names.join(", "))
            }
            Action::ChangeRemotes(remotes) => fmt::Display::fmt(remotes, f),
            Action::CreatePort { link, port } => write!(
                f,
                "create port {link} to {} of {} mac {} mtu {}",
                port.interface, port.container, port.mac, port.mtu
            ),
            Action::ConfigurePort { port, .. } => {
                write!(f, "configure {} of {}", port.interface, port.container)?;
                for address in &port.addresses {
                    write!(f, " address {address}")?;
                }
                for route in &port.routes {
                    write!(f, " route {route}")?;
                }
                Ok(())
            }
            Action::ActivatePort { link, port } => {
                write!(f, "activate port {link} of {}", port.container)
            }
        }
    }
}

impl fmt::Display for Remotes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "change remotes:")?;
        for (mac, node) in &self.forward {
            write!(f, " {mac} at {node};")?;
        }
        for (ip, mac) in &self.resolve {
            write!(f, " {ip} is {mac};")?;
        }
        for ip in &self.forget {
            write!(f, " forget {ip};")?;
        }
        for mac in self.drop.keys() {
            write!(f, " drop {mac};")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
