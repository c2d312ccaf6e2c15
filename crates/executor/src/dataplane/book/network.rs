//! One overlay network with containers of this node: the value the plane follows, and what of it is
//! out of date. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use skep_model::{
    Id, NetworkId, TaskId,
    directory::{ServiceEntry, ServicePlace, TaskEntry, TaskPlace},
};
use skep_network::{
    Mac, Protocol,
    dns::{PortName, ServiceNames, TaskNames, Zone},
    plane::{Health, Overlay, Remote, Service},
};

use super::{
    Whereabouts,
    directory::{Directory, Owner},
};
use crate::dataplane::container::NetworkFacts;

/// Digits of a container's id that are a name of it, as in Docker.
const SHORT_ID_DIGITS: usize = 12;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct NetworkState {
    id: NetworkId,
    facts: NetworkFacts,
    overlay: Arc<Overlay>,
    /// Who has which Ethernet address. Two may for a moment, while one ends and another begins.
    claims: BTreeSet<(Mac, TaskId)>,
    /// Ethernet addresses of this node's own containers.
    own: BTreeSet<Mac>,
    stale_owners: BTreeSet<Owner>,
    stale_macs: BTreeSet<Mac>,
}

/// A task within reach, its place on the network, and what it gets.
type Placed<'a> = (&'a TaskEntry, &'a TaskPlace, Health);

// === impl NetworkState ===

impl NetworkState {
    /// A network about which everything is still to be found out.
    pub(super) fn new(id: NetworkId, facts: NetworkFacts, directory: &Directory) -> Self {
        let mut state = Self {
            id,
            overlay: Arc::new(empty(&facts)),
            facts,
            claims: BTreeSet::new(),
            own: BTreeSet::new(),
            stale_owners: BTreeSet::new(),
            stale_macs: BTreeSet::new(),
        };
        for task in directory.tasks.values() {
            state.note_task(None, Some(task));
        }
        for service in directory.services.values() {
            if state.place_of_service(service).is_some() {
                state.note_owner(Owner::Service(service.id));
            }
        }
        state
    }

    /// The same network with other facts starts over.
    pub(super) fn has_facts(&self, facts: &NetworkFacts) -> bool {
        self.facts == *facts
    }

    /// The network's VXLAN id.
    pub(super) fn vxlan_id(&self) -> u32 {
        self.facts.vni
    }

    /// The network's name.
    pub(super) fn name(&self) -> &str {
        &self.facts.name
    }

    /// Whether an address is one of its own.
    pub(super) fn has(&self, address: &IpAddr) -> bool {
        self.facts.contains(address)
    }

    /// The MTU that the user wished it to have.
    pub(super) fn mtu(&self) -> Option<u32> {
        self.facts.mtu
    }

    /// The Ethernet addresses of this node's containers, which no other node's can have.
    pub(super) fn set_own(&mut self, own: BTreeSet<Mac>) {
        let changed = self.own.symmetric_difference(&own);
        self.stale_macs.extend(changed);
        self.own = own;
    }

    /// A task came, went or changed.
    pub(super) fn note_task(&mut self, old: Option<&TaskEntry>, new: Option<&TaskEntry>) {
        for (task, is_new) in [(old, false), (new, true)] {
            let Some(task) = task else { continue };
            let Some(mac) = self.place_of_task(task).and_then(mac) else {
                continue;
            };
            let claim = (mac, task.id);
            if is_new {
                self.claims.insert(claim);
            } else {
                self.claims.remove(&claim);
            }
            self.stale_macs.insert(mac);
            self.stale_owners.insert(Owner::of(task));
        }
    }

    /// A task's node came, went or changed.
    pub(super) fn note_whereabouts(&mut self, task: &TaskEntry) {
        if let Some(mac) = self.place_of_task(task).and_then(mac) {
            self.stale_macs.insert(mac);
            self.stale_owners.insert(Owner::of(task));
        }
    }

    /// A service came, went or changed.
    pub(super) fn note_owner(&mut self, owner: Owner) {
        self.stale_owners.insert(owner);
    }

    /// The network's value, after what is out of date was made anew.
    pub(super) fn overlay(&mut self, directory: &Directory, at: Whereabouts<'_>) -> &Arc<Overlay> {
        let owners = std::mem::take(&mut self.stale_owners);
        let macs = std::mem::take(&mut self.stale_macs);
        if owners.is_empty() && macs.is_empty() {
            return &self.overlay;
        }
        let remotes: Vec<_> = macs
            .into_iter()
            .map(|mac| (mac, self.remote(mac, directory, at)))
            .filter(|(mac, remote)| self.overlay.remotes.get(mac) != remote.as_ref())
            .collect();
        let parts: Vec<_> = owners
            .into_iter()
            .map(|owner| (owner.key(), self.part(owner, directory, at)))
            .collect();
        let overlay = Arc::make_mut(&mut self.overlay);
        for (mac, remote) in remotes {
            match remote {
                Some(remote) => overlay.remotes.insert(mac, remote),
                None => overlay.remotes.remove(&mac),
            };
        }
        let names = Arc::make_mut(&mut overlay.names);
        for (key, (service, called)) in parts {
            match called {
                Some(called) => names.put(&key, &called),
                None => names.remove(&key),
            }
            match service {
                Some(service)
                    if overlay
                        .services
                        .get(&key)
                        .is_some_and(|old| **old == service) => {}
                Some(service) => drop(overlay.services.insert(key, Arc::new(service))),
                None => drop(overlay.services.remove(&key)),
            }
        }
        &self.overlay
    }

    /// The container of another node that has an Ethernet address.
    fn remote(&self, mac: Mac, directory: &Directory, at: Whereabouts<'_>) -> Option<Remote> {
        if self.own.contains(&mac) {
            return None;
        }
        let bounds = (mac, TaskId(Id::LOWEST))..=(mac, TaskId(Id::HIGHEST));
        let tasks = self.claims.range(bounds).rev();
        let mut tasks = tasks.filter_map(|(_, id)| directory.tasks.get(id));
        tasks.find_map(|task| {
            Some(Remote {
                node: at.tunnel_to(task)?,
                addresses: self.addresses(self.place_of_task(task)?).collect(),
            })
        })
    }

    /// What an owner has on this network: shares of load, names.
    fn part(
        &self,
        owner: Owner,
        directory: &Directory,
        at: Whereabouts<'_>,
    ) -> (Option<Service>, Option<ServiceNames>) {
        let tasks = directory.tasks_of(owner);
        let places = tasks.filter_map(|task| {
            let health = at.health(task)?;
            Some((&**task, self.place_of_task(task)?, health))
        });
        let places: Vec<Placed<'_>> = places.collect();
        let Owner::Service(id) = owner else {
            let tasks = self.task_names(&places);
            let names = ServiceNames {
                tasks,
                ..ServiceNames::default()
            };
            return (None, Some(names).filter(|names| !names.tasks.is_empty()));
        };
        let Some(service) = directory.services.get(&id) else {
            return (None, None);
        };
        let Some(place) = self.place_of_service(service) else {
            return (None, None);
        };
        let vips = place.vips.iter().copied();
        let vips: Vec<IpAddr> = vips.filter(|ip| self.facts.contains(ip)).collect();
        let names = ServiceNames {
            name: service.name.clone(),
            aliases: place.aliases.clone(),
            vips: vips.clone(),
            tasks: self.task_names(&places),
            ports: port_names(service),
        };
        let balanced = (!vips.is_empty()).then(|| Service {
            vips,
            backends: self.backends(&places),
        });
        (balanced, Some(names))
    }

    fn backends(&self, places: &[Placed<'_>]) -> BTreeMap<IpAddr, Health> {
        let mut backends = BTreeMap::new();
        for (_, place, health) in places {
            for address in self.addresses(place) {
                let known = backends.entry(address).or_insert(*health);
                *known = (*known).max(*health);
            }
        }
        backends
    }

    fn task_names(&self, places: &[Placed<'_>]) -> Vec<TaskNames> {
        let ready = places
            .iter()
            .filter(|(_, _, health)| *health == Health::Ready);
        let names = ready.map(|(task, place, _)| {
            let mut names = vec![task.name.clone()];
            names.extend(task.container_id.get(..SHORT_ID_DIGITS).map(str::to_owned));
            TaskNames {
                names,
                slot: (task.slot > 0).then_some(task.slot),
                addresses: self.addresses(place).collect(),
            }
        });
        names.collect()
    }

    /// A task's addresses that can be this network's.
    fn addresses(&self, place: &TaskPlace) -> impl Iterator<Item = IpAddr> {
        let addresses = place.addresses.iter().copied();
        addresses.filter(|ip| self.facts.contains(ip))
    }

    fn place_of_task<'a>(&self, task: &'a TaskEntry) -> Option<&'a TaskPlace> {
        task.places.iter().find(|place| place.network == self.id)
    }

    fn place_of_service<'a>(&self, service: &'a ServiceEntry) -> Option<&'a ServicePlace> {
        let mut places = service.networks.iter();
        places.find(|place| place.network == self.id)
    }
}

pub(super) fn protocol(protocol: skep_model::Protocol) -> Protocol {
    match protocol {
        skep_model::Protocol::Tcp => Protocol::Tcp,
        skep_model::Protocol::Udp => Protocol::Udp,
        skep_model::Protocol::Sctp => Protocol::Sctp,
    }
}

fn empty(facts: &NetworkFacts) -> Overlay {
    Overlay {
        vni: facts.vni,
        mtu: facts.mtu,
        is_encrypted: facts.is_encrypted,
        subnets: facts.subnets.clone(),
        remotes: BTreeMap::new(),
        services: BTreeMap::new(),
        names: Arc::new(Zone::new(&facts.name, facts.subnets.clone())),
    }
}

fn mac(place: &TaskPlace) -> Option<Mac> {
    place.addresses.first().copied().map(Mac::from_ip)
}

fn port_names(service: &ServiceEntry) -> Vec<PortName> {
    let named = service.ports.iter().filter(|port| !port.name.is_empty());
    let names = named.map(|port| PortName {
        name: port.name.clone(),
        protocol: protocol(port.protocol),
        port: port.target_port,
    });
    names.collect()
}
