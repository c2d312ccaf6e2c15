//! Encrypted networks: what the tunnels' namespace should hold, and the steps that lead there. Pure.
//!
//! ```text
//! sandbox of an encrypted network   tunnels' namespace            node's namespace
//!   vx0 ──── packets leave in ────►   wg0, wg1 ── datagrams in ──►  UDP 4796, 4797
//! ```
//!
//! The namespace has no other way out, so nothing of an encrypted network leaves in clear, whatever is missing. Keys, devices and peers are
//! `crate::tunnel`'s; the design is in `docs/design/encryption.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;

use super::desired::{Desired, MTU_MIN};
use super::sandbox::LinkState;
use crate::tunnel::{
    self, Config, Device, DeviceState, PeerChanges, PublicKey, Slot, address, devices,
};

/// What WireGuard adds to a packet: over IPv6 40, UDP 8, its own 32. Over IPv4 it is 20 less, but a path may change its family.
pub(crate) const OVERHEAD: u32 = 80;

/// What VXLAN adds to a packet over IPv4.
const TUNNEL_OVERHEAD: u32 = 50;

/// Age of a handshake at which its session is dead (`REJECT_AFTER_TIME`).
const SESSION_AGE_MAX: Duration = Duration::from_secs(180);

/// What the namespace should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) devices: [Device; 2],
    /// Our inner addresses, by slot.
    pub(crate) addresses: [Ipv4Addr; 2],
    pub(crate) mtu: u32,
    /// Slot of our key in force: packets leave through its device.
    pub(crate) slot: Slot,
    /// Others' inner addresses, and whose they are.
    pub(crate) targets: BTreeMap<Ipv4Addr, PublicKey>,
}

/// What a node needs for its encrypted networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// It has none.
    Nothing,
    /// Only a place where their packets are lost: it does not know who it is.
    Namespace,
    /// Everything.
    Devices(Box<Wish>),
}

/// What does WireGuard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Kernel,
    Process,
}

/// What the namespace holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct State {
    pub(crate) has_namespace: bool,
    /// None while nothing does.
    pub(crate) kind: Option<Kind>,
    pub(crate) links: BTreeMap<Slot, (LinkState, BTreeSet<IpNet>)>,
    pub(crate) devices: BTreeMap<Slot, DeviceState>,
    pub(crate) routes: BTreeMap<Ipv4Addr, Slot>,
}

/// A change of the tunnels' namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Makes the namespace. Networks whose tunnels left in another one get new ones.
    CreateNamespace,
    /// Makes the devices in the kernel, or starts the process.
    Start,
    /// Gives a device its key, port and peers.
    Configure(Box<Configuration>),
    /// Gives a device's link its address and MTU, and puts it up.
    SetLink(Link),
    /// Changes which device leads to whom.
    ChangeRoutes(Routes),
    /// Removes everything.
    Remove,
}

/// A device, and what changes of its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    pub(crate) device: Device,
    pub(crate) changes: PeerChanges,
}

/// A device's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    pub(crate) slot: Slot,
    pub(crate) address: Ipv4Addr,
    pub(crate) mtu: u32,
}

/// Changes of routes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    pub(crate) set: BTreeMap<Ipv4Addr, Slot>,
    pub(crate) remove: BTreeMap<Ipv4Addr, Slot>,
}

/// The steps that give the namespace what it should have, in order.
pub(crate) fn plan(wanted: &Wanted, state: &State) -> Vec<Action> {
    if *wanted == Wanted::Nothing {
        let is_gone = !state.has_namespace && state.kind.is_none();
        return if is_gone {
            Vec::new()
        } else {
            vec![Action::Remove]
        };
    }
    let nothing = State::default();
    let mut state = state;
    let mut actions = Vec::new();
    if !state.has_namespace {
        actions.push(Action::CreateNamespace);
        state = &nothing;
    }
    let Wanted::Devices(wish) = wanted else {
        return actions;
    };
    let has_all_links = Slot::ALL.iter().all(|slot| state.links.contains_key(slot));
    // A device of the process whose link somebody deleted is good for nothing.
    let is_broken = match state.kind {
        None => true,
        Some(Kind::Kernel) => !has_all_links,
        Some(Kind::Process) => state
            .devices
            .keys()
            .any(|slot| !state.links.contains_key(slot)),
    };
    if is_broken {
        actions.push(Action::Start);
        if state.kind != Some(Kind::Kernel) {
            state = &nothing;
        }
    }
    for device in &wish.devices {
        plan_device(wish, device, state, &mut actions);
    }
    // The process makes a new link for another key, and routes go with the old one.
    let is_lost = |slot: Slot| {
        state.kind == Some(Kind::Process) && !is_same(&wish.devices[slot.index()], state)
    };
    let known: BTreeMap<Ipv4Addr, Slot> = state
        .routes
        .iter()
        .filter(|(_, slot)| !is_lost(**slot))
        .map(|(&ip, &slot)| (ip, slot))
        .collect();
    let routes = wish.routes(state, &known);
    let changes = Routes {
        set: routes
            .iter()
            .filter(|&(ip, slot)| known.get(ip) != Some(slot))
            .map(|(&ip, &slot)| (ip, slot))
            .collect(),
        remove: known
            .iter()
            .filter(|(ip, _)| !routes.contains_key(ip))
            .map(|(&ip, &slot)| (ip, slot))
            .collect(),
    };
    if changes != Routes::default() {
        actions.push(Action::ChangeRoutes(changes));
    }
    actions
}

fn plan_device(wish: &Wish, device: &Device, state: &State, actions: &mut Vec<Action>) {
    let slot = device.slot;
    let is_same = is_same(device, state);
    let changes = device.changes(state.devices.get(&slot));
    if !is_same || !changes.is_empty() {
        let device = device.clone();
        actions.push(Action::Configure(Box::new(Configuration {
            device,
            changes,
        })));
    }
    let address = wish.addresses[slot.index()];
    let ready = LinkState {
        mtu: wish.mtu,
        is_ready: true,
    };
    // The process makes a new link for another key.
    let is_kept = is_same || state.kind == Some(Kind::Kernel);
    let expect = (ready, [IpNet::from(IpAddr::V4(address))].into());
    if !is_kept || state.links.get(&slot) != Some(&expect) {
        let mtu = wish.mtu;
        actions.push(Action::SetLink(Link { slot, address, mtu }));
    }
}

/// Whether a device has its key and port.
fn is_same(device: &Device, state: &State) -> bool {
    state.devices.get(&device.slot).is_some_and(|known| {
        known.key == Some(device.key.public()) && known.port == device.endpoint.port()
    })
}

/// Nodes a value needs to reach encrypted: those with a container on an encrypted network of this one.
fn needed(desired: &Desired) -> BTreeSet<IpAddr> {
    let networks = desired.networks.values();
    let encrypted = networks.filter(|network| network.is_encrypted);
    encrypted
        .flat_map(|network| network.remotes.values().map(|remote| remote.node))
        .collect()
}

/// Other nodes' inner addresses, by data-path address: where packets of encrypted networks are sent.
pub(crate) fn inner_addresses(config: &Config) -> BTreeMap<IpAddr, Ipv4Addr> {
    let usable = tunnel::usable_keys(config);
    let addresses = usable.into_iter().filter_map(|(number, keys)| {
        let slot = keys.first()?.slot();
        Some((config.peers.get(&number)?.node, address(number, slot)))
    });
    addresses.collect()
}

/// What is known to be wrong without a look at the kernel.
pub(crate) fn warnings(desired: &Desired) -> Vec<String> {
    if !desired
        .networks
        .values()
        .any(|network| network.is_encrypted)
    {
        return Vec::new();
    }
    let Some(config) = &desired.tunnel else {
        return vec![
            "encrypted networks reach no other node: this one has no part of the node network"
                .to_owned(),
        ];
    };
    let known = inner_addresses(config);
    let keyless = needed(desired).into_iter();
    keyless
        .filter(|node| !known.contains_key(node))
        .map(|node| {
            format!("packets of encrypted networks to node {node} are dropped: it has told no usable key")
        })
        .collect()
}

// === impl Wanted ===

impl Wanted {
    /// What a node should have. `mtu` is that of its data path's interface.
    pub(crate) fn new(desired: &Desired, mtu: u32) -> Wanted {
        match &desired.tunnel {
            _ if !desired
                .networks
                .values()
                .any(|network| network.is_encrypted) =>
            {
                Wanted::Nothing
            }
            None => Wanted::Namespace,
            Some(config) => Wanted::Devices(Box::new(Wish::new(desired, config, mtu))),
        }
    }
}

// === impl Wish ===

impl Wish {
    fn new(desired: &Desired, config: &Config, mtu: u32) -> Wish {
        let devices = devices(config, desired.data_path.address, &needed(desired));
        let targets = devices
            .iter()
            .flat_map(|device| &device.peers)
            .map(|(&key, peer)| (peer.address, key));
        Wish {
            addresses: Slot::ALL.map(|slot| address(config.number, slot)),
            // Enough for what networks may have at least.
            mtu: mtu.saturating_sub(OVERHEAD).max(MTU_MIN + TUNNEL_OVERHEAD),
            slot: config.keys.slot(),
            targets: targets.collect(),
            devices,
        }
    }

    /// Which device leads to whom: that of the key in force, once it has been answered. Until then the one that is in use, if it works.
    fn routes(&self, state: &State, known: &BTreeMap<Ipv4Addr, Slot>) -> BTreeMap<Ipv4Addr, Slot> {
        let choose = |ip, key| {
            let works = |slot: Slot| {
                let peer = state
                    .devices
                    .get(&slot)
                    .and_then(|device| device.peers.get(key));
                let age = peer.and_then(|peer| peer.handshake);
                age.is_some_and(|age| age < SESSION_AGE_MAX)
            };
            let used = known.get(ip).copied();
            let candidates = [Some(self.slot), used, Some(self.slot.other())];
            let working = candidates.into_iter().flatten().find(|&slot| works(slot));
            working.or(used).unwrap_or(self.slot)
        };
        let targets = self.targets.iter();
        targets.map(|(ip, key)| (*ip, choose(ip, key))).collect()
    }

    /// Nodes that should have a session with us and have none.
    pub(crate) fn silent(&self, state: &State) -> BTreeSet<IpAddr> {
        let mut silent = BTreeSet::new();
        let device = &self.devices[self.slot.index()];
        let known = state.devices.get(&self.slot);
        for (key, peer) in device.peers.iter().filter(|(_, peer)| peer.is_kept_alive) {
            let state = known.and_then(|device| device.peers.get(key));
            let age = state.and_then(|peer| peer.handshake);
            if age.is_none_or(|age| age >= SESSION_AGE_MAX) {
                silent.insert(peer.endpoint.ip());
            }
        }
        silent
    }
}

// === impl Action ===

impl Action {
    /// What is wrong when it is needed.
    pub(crate) fn findings(&self) -> Vec<String> {
        let one = |text: String| vec![text];
        match self {
            Action::CreateNamespace => one("their namespace is missing".to_owned()),
            Action::Start => one("their devices are missing, or the process is dead".to_owned()),
            Action::Configure(configuration) => one(format!(
                "device {} has another key, other peers or another port",
                configuration.device.slot.link()
            )),
            Action::SetLink(Link { slot, address, mtu }) => one(format!(
                "device {} is down, or has not address {address} or MTU {mtu}",
                slot.link()
            )),
            Action::ChangeRoutes(routes) => {
                let missing = routes.set.iter();
                let missing = missing
                    .map(|(ip, slot)| format!("packets to {ip} do not go through {}", slot.link()));
                let stale = routes.remove.keys();
                let stale = stale.map(|ip| format!("{ip} is routed, but nobody has it"));
                missing.chain(stale).collect()
            }
            Action::Remove => one("they are there, but no network needs them".to_owned()),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::CreateNamespace => write!(f, "create namespace"),
            Action::Start => write!(f, "start"),
            Action::Configure(configuration) => {
                let Configuration { device, changes } = &**configuration;
                let (link, key) = (device.slot.link(), device.key.public());
                let (set, remove) = (changes.set.len(), changes.remove.len());
                write!(
                    f,
                    "configure {link} key {key} at {}: set {set} peers, remove {remove}",
                    device.endpoint
                )
            }
            Action::SetLink(Link { slot, address, mtu }) => {
                write!(f, "set link {} address {address} mtu {mtu}", slot.link())
            }
            Action::ChangeRoutes(routes) => {
                write!(f, "change routes:")?;
                for (ip, slot) in &routes.set {
                    write!(f, " {ip} through {};", slot.link())?;
                }
                for ip in routes.remove.keys() {
                    write!(f, " forget {ip};")?;
                }
                Ok(())
            }
            Action::Remove => write!(f, "remove"),
        }
    }
}

#[cfg(test)]
mod tests;
