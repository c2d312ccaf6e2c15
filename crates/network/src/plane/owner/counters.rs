//! The owner's reading of counters: when asked, and before a container's go with it.

use std::collections::{BTreeMap, BTreeSet};

use tracing::debug;

use super::Owner;
use crate::error::ErrorChain;
use crate::nfnl::Family;
use crate::plane::Error;
use crate::plane::counters::{self, Counters, Traffic};
use crate::plane::desired::{Container, Desired};
use crate::plane::mesh::PublishedPort;

// === impl Owner ===

impl Owner {
    /// What was carried up to now. What cannot be read keeps what was read before.
    pub(super) fn counters(&mut self) -> Result<Counters, Error> {
        let Some(desired) = self.desired.clone() else {
            return Ok(Counters::default());
        };
        let networks: BTreeSet<String> = desired.networks.keys().cloned().collect();
        for network in &networks {
            self.read_network(network);
        }
        for (id, container) in &desired.containers {
            self.read_client(id, container, &desired);
        }
        self.read_ports();
        let overlays = desired.networks.iter();
        let services: BTreeSet<_> = overlays
            .flat_map(|(network, overlay)| {
                let services = overlay.services.keys();
                services.map(|service| (network.clone(), service.clone()))
            })
            .collect();
        let ports = desired.mesh.iter().flat_map(|mesh| mesh.ports.keys());
        let ports = ports.copied().collect();
        let carried = self.ledgers.networks.sums(&networks).into_iter();
        let asked = self.ledgers.services.sums(&services).into_iter();
        let answered = self.ledgers.ports.sums(&ports).into_iter();
        Ok(Counters {
            networks: carried
                .map(|(network, counts)| (network, Traffic::from(counts)))
                .collect(),
            services: asked.map(|(service, [count])| (service, count)).collect(),
            ports: answered.map(|(port, [count])| (port, count)).collect(),
        })
    }

    /// Reads the counters of containers that `new` has no more, while their namespaces are still held by our sockets.
    pub(super) fn read_leaving(&mut self, old: &Desired, new: &Desired) {
        let leaving = old.containers.iter();
        let leaving = leaving.filter(|(id, _)| !new.containers.contains_key(*id));
        let mut networks = BTreeSet::new();
        for (id, container) in leaving {
            self.read_client(id, container, old);
            networks.extend(container.attachments.keys());
        }
        for network in networks {
            self.read_network(network);
        }
        let is_there = |id: &String| new.containers.contains_key(id);
        self.ledgers.services.keep_sources(is_there);
    }

    fn read_network(&mut self, network: &str) {
        let counts = match self.hands.count_ports_of(network) {
            Ok(counts) => counts,
            Err(error) => {
                debug!(network.id = %network, error = %ErrorChain(&error), "Counters not read");
                return;
            }
        };
        let ledger = &mut self.ledgers.networks;
        ledger.keep_sources(|(of, port)| of != network || counts.contains_key(port));
        for (port, counts) in counts {
            let source = (network.to_owned(), port);
            ledger.note(source, [(network.to_owned(), counts)].into());
        }
    }

    fn read_client(&mut self, id: &str, container: &Container, desired: &Desired) {
        let counts = match self.hands.count_client(id) {
            Ok(counts) => counts,
            Err(error) => {
                debug!(endpoint.id = %id, error = %ErrorChain(&error), "Counters not read");
                return;
            }
        };
        let owners = counters::owners(desired, container);
        let mut of_service: BTreeMap<_, [u64; 1]> = BTreeMap::new();
        for (vip, count) in counts {
            if let Some(owner) = owners.get(&vip) {
                let [sum] = of_service.entry(owner.clone()).or_default();
                *sum += count;
            }
        }
        self.ledgers.services.note(id.to_owned(), of_service);
    }

    fn read_ports(&mut self) {
        let counts = match self.hands.count_ports() {
            Ok(counts) => counts,
            Err(error) => {
                debug!(error = %ErrorChain(&error), "Counters of ports not read");
                return;
            }
        };
        let mut of_family: BTreeMap<Family, BTreeMap<PublishedPort, [u64; 1]>> = BTreeMap::new();
        for ((family, port), count) in counts {
            of_family.entry(family).or_default().insert(port, [count]);
        }
        for (family, counts) in of_family {
            self.ledgers.ports.note(family, counts);
        }
    }
}
