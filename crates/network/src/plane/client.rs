//! One container's own rules: what its namespace's maps should hold, read and changed by netfilter sockets inside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use super::balance::{self, Backends, CONNECTIONS, Elements, SLOTS, TABLE, VIPS, Vips};
use super::desired::{Container, Desired, Overlay, Service};
use super::hands::{ActionError, Hands};
use crate::dns::{Sockets, View};
use crate::netns;
use crate::nfnl::elements::{Batches, Change};
use crate::nfnl::{Family, NetfilterSocket};
use crate::nft;

/// A change of a container's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Makes the rules of IPv4, or of IPv6, anew. The maps are empty then.
    ReplaceRules {
        /// Whether it is IPv6.
        is_v6: bool,
    },
    /// Changes where some virtual addresses lead.
    Balance {
        /// Which.
        vips: BTreeSet<IpAddr>,
    },
    /// Opens the name server's sockets.
    ServeNames,
}

/// What a container's namespace holds.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Whether the name server has sockets inside.
    pub(crate) is_served: bool,
    /// Families whose rules are whole.
    pub(crate) families: BTreeSet<Family>,
    pub(crate) elements: Elements,
}

/// What changed on a network: the same for each of its containers.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    pub(crate) vips: BTreeSet<IpAddr>,
    /// Transactions of each family.
    batches: BTreeMap<Family, Vec<Vec<u8>>>,
    /// Virtual addresses that may have flows to forget, and what they lead to now.
    pub(crate) doubtful: Vips,
}

/// Families a container needs rules for: IPv4 always, for names.
pub(crate) fn families(container: &Container) -> BTreeSet<Family> {
    let addresses = container
        .attachments
        .values()
        .flat_map(|place| &place.addresses);
    addresses
        .map(|&ip| balance::family(ip))
        .chain([Family::V4])
        .collect()
}

/// The virtual addresses of all networks of a container, of the families it speaks.
pub(crate) fn vips(desired: &Desired, container: &Container) -> Vips {
    let networks = container.attachments.keys();
    let networks = networks.filter_map(|id| desired.networks.get(id));
    let services = networks.flat_map(|network| network.services.values());
    let families = families(container);
    services
        .flat_map(|service| vips_of(service))
        .filter(|(vip, _)| families.contains(&balance::family(*vip)))
        .collect()
}

fn vips_of(service: &Service) -> impl Iterator<Item = (IpAddr, Backends)> {
    service.vips.iter().map(|&vip| (vip, service.backends()))
}

/// What a container can ask for: its networks in the order of its interfaces.
pub(crate) fn view(desired: &Desired, container: &Container) -> View {
    let mut places: Vec<_> = container.attachments.iter().collect();
    places.sort_by_key(|(_, place)| (place.interface.len(), &place.interface));
    let networks = places
        .iter()
        .filter_map(|(id, _)| desired.networks.get(*id));
    let names = networks.map(|network| Arc::clone(&network.names));
    View {
        zones: names.chain(container.zones.iter().cloned()).collect(),
        upstreams: container.upstreams.clone(),
    }
}

// === impl Delta ===

impl Delta {
    /// What leads from one value of a network to the next; none if its services are the same.
    pub(crate) fn between(old: &Arc<Overlay>, new: &Arc<Overlay>) -> Option<Delta> {
        if Arc::ptr_eq(old, new) {
            return None;
        }
        let (mut before, mut after) = (Vips::new(), Vips::new());
        let ids = old.services.keys().chain(new.services.keys());
        for id in ids.collect::<BTreeSet<_>>() {
            let (one, other) = (old.services.get(id), new.services.get(id));
            let is_same = match (one, other) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
                (None, _) | (_, None) => false,
            };
            if !is_same {
                before.extend(one.into_iter().flat_map(|service| vips_of(service)));
                after.extend(other.into_iter().flat_map(|service| vips_of(service)));
            }
        }
        if before == after {
            return None;
        }
        let changes = balance::changes(&Elements::of(&before), &Elements::of(&after));
        let all: BTreeSet<IpAddr> = before.keys().chain(after.keys()).copied().collect();
        let doubtful = all
            .iter()
            .filter(|vip| balance::leaves_flows(before.get(vip), after.get(vip)))
            .map(|vip| (*vip, after.get(vip).cloned().unwrap_or_default()));
        let doubtful = doubtful.collect();
        let of_family = |wanted: Family| {
            let changes = changes.iter();
            let changes = changes.filter(|(vip, _)| balance::family(**vip) == wanted);
            (wanted, batches(changes.map(|(_, changes)| changes)))
        };
        Some(Delta {
            vips: changes.keys().copied().collect(),
            batches: [Family::V4, Family::V6].map(of_family).into(),
            doubtful,
        })
    }
}

fn batches<'a>(changes: impl Iterator<Item = &'a Vec<Change>>) -> Vec<Vec<u8>> {
    let mut batches = Batches::default();
    for changes in changes {
        batches.add(TABLE, changes);
    }
    batches.finish()
}

// === impl Hands ===

impl Hands {
    /// What a container's namespace holds.
    pub(crate) fn observe_client(&mut self, id: &str, path: &Path) -> Result<State, ActionError> {
        // Another namespace may be mounted by now.
        self.clients.remove(id);
        self.generations.remove(id);
        let is_served = self.names.is_serving(id, path);
        let socket = self.client(id, path)?;
        let mut state = State {
            is_served,
            ..State::default()
        };
        for family in [Family::V4, Family::V6] {
            let (chains, rule_count) = socket.chains(family, TABLE)?;
            if balance::is_whole(family, &chains, rule_count) {
                state.families.insert(family);
                state
                    .elements
                    .read_vips(socket.elements(family, TABLE, VIPS)?);
                state
                    .elements
                    .read_slots(socket.elements(family, TABLE, SLOTS)?);
                let counted = socket.elements(family, TABLE, CONNECTIONS)?;
                state.elements.read_counted(&counted);
            }
        }
        Ok(state)
    }

    /// Gives a container's namespace the rules and elements it should have, whatever it had, and says what was done.
    pub(crate) fn repair_client(
        &mut self,
        id: &str,
        container: &Container,
        vips: &Vips,
    ) -> Result<Vec<Action>, ActionError> {
        let path = &container.netns_path;
        let state = self.observe_client(id, path)?;
        let actions = plan(&state, &families(container), vips);
        for action in &actions {
            self.count_action()?;
            match action {
                Action::ReplaceRules { is_v6 } => {
                    let script = balance::script(if *is_v6 { Family::V6 } else { Family::V4 });
                    self.netns.inside(path, move || nft::run(&script))??;
                }
                Action::Balance { .. } => {
                    let changes = balance::changes(&state.elements, &Elements::of(vips));
                    self.client(id, path)?.commit(&batches(changes.values()))?;
                }
                Action::ServeNames => {
                    let opened = self.netns.inside(path, Sockets::open)?;
                    let sockets = opened.map_err(ActionError::Names)?;
                    self.names.add(id, path, sockets);
                }
            }
        }
        Ok(actions)
    }

    /// Changes elements of a container that is as it should be but for them.
    pub(crate) fn change_client(
        &mut self,
        id: &str,
        container: &Container,
        delta: &Delta,
    ) -> Result<(), ActionError> {
        self.count_action()?;
        self.generations.remove(id);
        for family in families(container) {
            let batches = delta.batches.get(&family).map_or(&[][..], Vec::as_slice);
            self.client(id, &container.netns_path)?.commit(batches)?;
        }
        Ok(())
    }

    /// Deletes flows to virtual addresses whose backend is gone, and says how many there were.
    pub(crate) fn forget_flows(
        &mut self,
        id: &str,
        container: &Container,
        vips: &Vips,
    ) -> Result<usize, ActionError> {
        let mut count = 0;
        for family in families(container) {
            if vips.keys().any(|&vip| balance::family(vip) == family) {
                let socket = self.client(id, &container.netns_path)?;
                count += socket.forget_flows(family, |flow| balance::is_doomed(flow, vips))?;
            }
        }
        Ok(count)
    }

    /// How many connections a container's counters say there were to each virtual address. Nothing of a container that was not
    /// entered yet.
    pub(crate) fn count_client(&mut self, id: &str) -> Result<BTreeMap<IpAddr, u64>, ActionError> {
        let mut counts = BTreeMap::new();
        let Some(socket) = self.clients.get_mut(id) else {
            return Ok(counts);
        };
        for family in [Family::V4, Family::V6] {
            let tallies = socket.tallies(family, TABLE, CONNECTIONS)?.into_iter();
            counts
                .extend(tallies.filter_map(|(key, count)| Some((balance::address(&key)?, count))));
        }
        Ok(counts)
    }

    /// Notes the last transaction inside each container that had one of ours.
    pub(crate) fn note_generations(&mut self) {
        for (id, socket) in &mut self.clients {
            if !self.generations.contains_key(id)
                && let Ok(generation) = socket.generation()
            {
                self.generations.insert(id.clone(), generation);
            }
        }
    }

    /// Containers whose tables somebody else changed since.
    pub(crate) fn changed_clients(&mut self) -> Vec<String> {
        let known = self.clients.iter_mut().filter_map(|(id, socket)| {
            let noted = self.generations.get(id)?;
            let is_same = socket.generation().is_ok_and(|now| now == *noted);
            (!is_same).then(|| id.clone())
        });
        known.collect()
    }

    /// The socket inside a container.
    fn client(&mut self, id: &str, path: &Path) -> Result<&mut NetfilterSocket, ActionError> {
        if !self.clients.contains_key(id) {
            if !netns::is_mounted(path) {
                return Err(ActionError::NoNetns(path.to_owned()));
            }
            let socket = self.netns.inside(path, NetfilterSocket::open)??;
            self.clients.insert(id.to_owned(), socket);
        }
        let socket = self.clients.get_mut(id);
        Ok(socket.expect("a socket was inserted if there was none"))
    }
}

/// What a container's namespace lacks. Pure.
pub(crate) fn plan(state: &State, families: &BTreeSet<Family>, vips: &Vips) -> Vec<Action> {
    let missing = families.difference(&state.families);
    let mut actions: Vec<Action> = missing
        .map(|&family| Action::ReplaceRules {
            is_v6: family == Family::V6,
        })
        .collect();
    let changes = balance::changes(&state.elements, &Elements::of(vips));
    let vips: BTreeSet<IpAddr> = changes.into_keys().collect();
    if !vips.is_empty() {
        actions.push(Action::Balance { vips });
    }
    if !state.is_served {
        actions.push(Action::ServeNames);
    }
    actions
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::ReplaceRules { is_v6 } => {
                write!(f, "replace rules of IPv{}", if *is_v6 { 6 } else { 4 })
            }
            Action::Balance { vips } => {
                write!(f, "balance")?;
                vips.iter().try_for_each(|vip| write!(f, " {vip}"))
            }
            Action::ServeNames => write!(f, "serve names"),
        }
    }
}
