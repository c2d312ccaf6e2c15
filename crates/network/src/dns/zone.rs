//! The names of one network: what they lead to, and what addresses are called. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::ports::Protocol;

/// The names of one network, made by [`Zone::new`] and [`Zone::add`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// The network's name: `web` is also `web.<network>`.
    network: String,
    subnets: Vec<IpNet>,
    /// In lower case. A name without addresses exists all the same.
    names: BTreeMap<String, BTreeSet<IpAddr>>,
    reverse: BTreeMap<IpAddr, String>,
    /// `_http._tcp.web`: where its tasks listen, by task name.
    ports: BTreeMap<String, BTreeSet<(String, u16)>>,
}

/// What a service's names are made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceNames {
    /// The service's name.
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

// === impl Zone ===

impl Zone {
    /// A network without names.
    pub fn new(network: &str, subnets: Vec<IpNet>) -> Zone {
        Zone {
            network: fold(network),
            subnets,
            names: BTreeMap::new(),
            reverse: BTreeMap::new(),
            ports: BTreeMap::new(),
        }
    }

    /// Adds a service's names: the service, its aliases, `tasks.<service>`, `<slot>.<service>`, its tasks' own.
    pub fn add(&mut self, service: &ServiceNames) {
        let tasks: Vec<IpAddr> = service
            .tasks
            .iter()
            .flat_map(|task| task.addresses.iter().copied())
            .collect();
        let main = if service.vips.is_empty() {
            &tasks
        } else {
            &service.vips
        };
        for name in std::iter::once(&service.name).chain(&service.aliases) {
            self.insert(name, main);
        }
        self.insert(&format!("tasks.{}", service.name), &tasks);
        for &vip in &service.vips {
            self.reverse.insert(vip, fold(&service.name));
        }
        for task in &service.tasks {
            for name in &task.names {
                self.insert(name, &task.addresses);
            }
            if let Some(slot) = task.slot {
                self.insert(&format!("{slot}.{}", service.name), &task.addresses);
            }
            let Some(own) = task.names.first() else {
                continue;
            };
            for &address in &task.addresses {
                self.reverse.insert(address, fold(own));
            }
            for PortName {
                name,
                protocol,
                port,
            } in &service.ports
            {
                let key = fold(&format!("_{name}._{protocol}.{}", service.name));
                self.ports
                    .entry(key)
                    .or_default()
                    .insert((fold(own), *port));
            }
        }
    }

    fn insert(&mut self, name: &str, addresses: &[IpAddr]) {
        self.names.entry(fold(name)).or_default().extend(addresses);
    }

    /// The addresses of a name, in order; none if it has no such name.
    pub(crate) fn addresses(&self, name: &str) -> Option<&BTreeSet<IpAddr>> {
        let own = name
            .strip_suffix(self.network.as_str())
            .and_then(|rest| rest.strip_suffix('.'));
        let of_own = || own.and_then(|own| self.names.get(own));
        self.names.get(name).or_else(of_own)
    }

    /// What an address is called, with the network's name behind it.
    pub(crate) fn name_of(&self, address: IpAddr) -> Option<String> {
        let name = self.reverse.get(&address)?;
        Some(format!("{name}.{}", self.network))
    }

    /// Where the tasks behind a port's name listen.
    pub(crate) fn targets(&self, name: &str) -> Option<&BTreeSet<(String, u16)>> {
        let own = name
            .strip_suffix(self.network.as_str())
            .and_then(|rest| rest.strip_suffix('.'));
        let of_own = || own.and_then(|own| self.ports.get(own));
        self.ports.get(name).or_else(of_own)
    }

    /// Whether only this network can know what an address is called.
    pub(crate) fn owns(&self, address: IpAddr) -> bool {
        self.subnets.iter().any(|net| net.contains(&address))
    }
}

/// Names are compared without case.
pub(crate) fn fold(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}
