//! The names of one network: what they lead to, and what addresses are called. Pure.
//!
//! Made of parts, one per service, over persistent maps: a copy costs nothing, and a change of one service costs what
//! that service has, whatever the size of the network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;

use crate::ports::Protocol;

/// The names of one network, made by [`Zone::new`] and [`Zone::put`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// The network's name: `web` is also `web.<network>`.
    network: String,
    subnets: Vec<IpNet>,
    /// What each service has. The rest follows from it.
    parts: OrdMap<Arc<str>, Arc<Part>>,
    /// In lower case. A name without addresses exists all the same.
    names: Index<Arc<str>, BTreeSet<IpAddr>>,
    reverse: Index<IpAddr, String>,
    /// `_http._tcp.web`: where its tasks listen, by task name.
    ports: Index<Arc<str>, BTreeSet<(String, u16)>>,
}

/// What a service's names are made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceNames {
    /// The service's name; empty for tasks that belong to none and have names of their own only.
    pub name: String,
    /// Other names for it on this network.
    pub aliases: Vec<String>,
    /// Virtual addresses; with none (`dnsrr`) the name leads to all tasks, in turn.
    pub vips: Vec<IpAddr>,
    /// Tasks that may be found: those that are ready.
    pub tasks: Vec<TaskNames>,
    /// Ports with a name, for SRV queries.
    pub ports: Vec<PortName>,
}

/// What a task's names are made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskNames {
    /// Names of its own, the first of which its addresses are called by: `web.1.<task id>`, the container's id, aliases.
    pub names: Vec<String>,
    /// Its place in a replicated service: `<slot>.<service>` leads to it.
    pub slot: Option<u64>,
    /// Its addresses on this network.
    pub addresses: Vec<IpAddr>,
}

/// A port with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortName {
    /// `http`.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// The port tasks listen on.
    pub port: u16,
}

/// What one service has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Part {
    names: BTreeMap<Arc<str>, Arc<BTreeSet<IpAddr>>>,
    reverse: BTreeMap<IpAddr, Arc<String>>,
    ports: BTreeMap<Arc<str>, Arc<BTreeSet<(String, u16)>>>,
}

/// What all parts have, by key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Index<K: Ord + Clone, T: Clone>(OrdMap<K, Claims<T>>);

/// What several parts have under one key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Claims<T> {
    /// By part, in their order; never empty.
    of: Vec<(Arc<str>, Arc<T>)>,
    all: Arc<T>,
}

/// Values that several parts may have under one key.
trait Union: Clone + PartialEq {
    fn union(values: &[(Arc<str>, Arc<Self>)]) -> Self;
}

// === impl Zone ===

impl Zone {
    /// A network without names.
    pub fn new(network: &str, subnets: Vec<IpNet>) -> Zone {
        Zone {
            network: fold(network),
            subnets,
            parts: OrdMap::new(),
            names: Index(OrdMap::new()),
            reverse: Index(OrdMap::new()),
            ports: Index(OrdMap::new()),
        }
    }

    /// The same network without names.
    pub fn emptied(&self) -> Zone {
        Zone::new(&self.network, self.subnets.clone())
    }

    /// Gives a service, by a key of the caller's choice, these names instead of those it had: the service, its aliases,
    /// `tasks.<service>` and `tasks.<alias>`, `<slot>.<service>` and `<slot>.<alias>`, its tasks' own.
    pub fn put(&mut self, key: &str, service: &ServiceNames) {
        self.replace(key, Some(Part::of(service)));
    }

    /// Takes a service's names away.
    pub fn remove(&mut self, key: &str) {
        self.replace(key, None);
    }

    /// [`Zone::put`] by the service's name.
    pub fn add(&mut self, service: &ServiceNames) {
        self.put(&service.name, service);
    }

    fn replace(&mut self, key: &str, part: Option<Part>) {
        let key = match self.parts.get_key_value(key) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::from(key),
        };
        let nothing = Part::default();
        let old = self.parts.get(&key).cloned().unwrap_or_default();
        let new = part.as_ref().unwrap_or(&nothing);
        self.names.change(&key, &old.names, &new.names);
        self.reverse.change(&key, &old.reverse, &new.reverse);
        self.ports.change(&key, &old.ports, &new.ports);
        match part {
            Some(part) => self.parts.insert(key, Arc::new(part)),
            None => self.parts.remove(&key),
        };
    }

    /// The addresses of a name, in order; none if it has no such name.
    pub(crate) fn addresses(&self, name: &str) -> Option<&BTreeSet<IpAddr>> {
        let of_own = || self.own(name).and_then(|own| self.names.get(own));
        self.names.get(name).or_else(of_own)
    }

    /// What an address is called, with the network's name behind it.
    pub(crate) fn name_of(&self, address: IpAddr) -> Option<String> {
        let name = self.reverse.get(&address)?;
        Some(format!("{name}.{}", self.network))
    }

    /// Where the tasks behind a port's name listen.
    pub(crate) fn targets(&self, name: &str) -> Option<&BTreeSet<(String, u16)>> {
        let of_own = || self.own(name).and_then(|own| self.ports.get(own));
        self.ports.get(name).or_else(of_own)
    }

    /// Whether only this network can know what an address is called.
    pub(crate) fn owns(&self, address: IpAddr) -> bool {
        self.subnets.iter().any(|net| net.contains(&address))
    }

    /// `web` of `web.<network>`.
    fn own<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_suffix(self.network.as_str())?.strip_suffix('.')
    }
}

// === impl Part ===

impl Part {
    fn of(service: &ServiceNames) -> Part {
        let mut names: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
        let mut insert = |name: &str, addresses: &[IpAddr]| {
            names.entry(fold(name)).or_default().extend(addresses);
        };
        let mut reverse = BTreeMap::new();
        let mut ports: BTreeMap<String, BTreeSet<(String, u16)>> = BTreeMap::new();
        let has_name = !service.name.is_empty();
        if has_name {
            let tasks = service.tasks.iter();
            let tasks: Vec<IpAddr> = tasks.flat_map(|task| &task.addresses).copied().collect();
            let main = if service.vips.is_empty() {
                &tasks
            } else {
                &service.vips
            };
            for name in std::iter::once(&service.name).chain(&service.aliases) {
                insert(name, main);
                insert(&format!("tasks.{name}"), &tasks);
            }
        }
        for &vip in &service.vips {
            reverse.insert(vip, Arc::new(fold(&service.name)));
        }
        for task in &service.tasks {
            for name in &task.names {
                insert(name, &task.addresses);
            }
            if let Some(slot) = task.slot.filter(|_| has_name) {
                for name in std::iter::once(&service.name).chain(&service.aliases) {
                    insert(&format!("{slot}.{name}"), &task.addresses);
                }
            }
            let Some(own) = task.names.first() else {
                continue;
            };
            for &address in &task.addresses {
                reverse.insert(address, Arc::new(fold(own)));
            }
            for PortName {
                name,
                protocol,
                port,
            } in &service.ports
            {
                let key = fold(&format!("_{name}._{protocol}.{}", service.name));
                ports.entry(key).or_default().insert((fold(own), *port));
            }
        }
        Part {
            names: shared(names),
            reverse,
            ports: shared(ports),
        }
    }
}

fn shared<T>(map: BTreeMap<String, T>) -> BTreeMap<Arc<str>, Arc<T>> {
    let entries = map.into_iter();
    entries
        .map(|(key, value)| (Arc::from(key), Arc::new(value)))
        .collect()
}

// === impl Index ===

impl<K: Ord + Clone, T: Union> Index<K, T> {
    fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&T>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.0.get(key).map(|claims| &*claims.all)
    }

    /// Follows what a part had and has.
    fn change(&mut self, part: &Arc<str>, old: &BTreeMap<K, Arc<T>>, new: &BTreeMap<K, Arc<T>>) {
        for key in old.keys().filter(|key| !new.contains_key(key)) {
            self.claim(part, key, None);
        }
        for (key, value) in new
            .iter()
            .filter(|(key, value)| old.get(key) != Some(value))
        {
            self.claim(part, key, Some(value));
        }
    }

    fn claim(&mut self, part: &Arc<str>, key: &K, value: Option<&Arc<T>>) {
        let mut of = self
            .0
            .get(key)
            .map_or_else(Vec::new, |claims| claims.of.clone());
        match (of.binary_search_by(|(other, _)| other.cmp(part)), value) {
            (Ok(at), Some(value)) => of[at].1 = Arc::clone(value),
            (Ok(at), None) => drop(of.remove(at)),
            (Err(at), Some(value)) => of.insert(at, (Arc::clone(part), Arc::clone(value))),
            (Err(_), None) => {}
        }
        let all = match of.as_slice() {
            [] => {
                self.0.remove(key);
                return;
            }
            [(_, only)] => Arc::clone(only),
            several => Arc::new(T::union(several)),
        };
        self.0.insert(key.clone(), Claims { of, all });
    }
}

impl<E: Ord + Clone> Union for BTreeSet<E> {
    fn union(values: &[(Arc<str>, Arc<Self>)]) -> Self {
        values
            .iter()
            .flat_map(|(_, set)| set.iter().cloned())
            .collect()
    }
}

/// An address has one name: the last part's.
impl Union for String {
    fn union(values: &[(Arc<str>, Arc<Self>)]) -> Self {
        values
            .last()
            .map(|(_, name)| String::clone(name))
            .unwrap_or_default()
    }
}

/// Names are compared without case.
pub(crate) fn fold(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, aliases: &[&str], task: u8) -> ServiceNames {
        ServiceNames {
            name: name.to_owned(),
            aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
            tasks: vec![TaskNames {
                names: vec![format!("{name}.1.x")],
                slot: Some(1),
                addresses: vec![[10, 0, 1, task].into()],
            }],
            ..ServiceNames::default()
        }
    }

    fn found(zone: &Zone, name: &str) -> Option<Vec<String>> {
        let addresses = zone.addresses(name)?;
        Some(addresses.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_name_of_two_services_leads_to_both_until_one_is_gone() {
        let mut zone = Zone::new("net", Vec::new());
        zone.put("a", &service("web", &["both"], 2));
        zone.put("b", &service("api", &["both"], 3));
        assert_eq!(found(&zone, "both.net").unwrap(), ["10.0.1.2", "10.0.1.3"]);
        zone.remove("a");
        assert_eq!(found(&zone, "both").unwrap(), ["10.0.1.3"]);
        assert_eq!(found(&zone, "web"), None);
        assert_eq!(zone.name_of([10, 0, 1, 2].into()), None);
    }

    #[test]
    fn what_is_put_again_replaces_what_was_there() {
        let mut zone = Zone::new("net", Vec::new());
        zone.put("a", &service("web", &["www"], 2));
        assert_eq!(found(&zone, "1.www").unwrap(), ["10.0.1.2"]);
        let before = zone.clone();
        zone.put("a", &service("web", &[], 3));
        assert_eq!(found(&zone, "www"), None);
        assert_eq!(found(&zone, "1.web").unwrap(), ["10.0.1.3"]);
        zone.put("a", &service("web", &["www"], 2));
        assert_eq!(zone, before);
        zone.remove("a");
        zone.remove("a");
        assert_eq!(zone, before.emptied());
    }

    #[test]
    fn tasks_without_service_have_their_own_names_only() {
        let mut zone = Zone::new("net", Vec::new());
        let mut alone = service("", &["x"], 2);
        alone.tasks[0].names = vec!["lone".to_owned()];
        zone.put("t", &alone);
        assert_eq!(found(&zone, "lone").unwrap(), ["10.0.1.2"]);
        for name in ["", "x", "tasks.", "1."] {
            assert_eq!(found(&zone, name), None, "{name}");
        }
    }
}
