//! What the thread remembers and decides: networks, places, and whether the kernel still has them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tracing::{debug, info, warn};

use super::hands::Hands;
use super::rules::{Rules, TABLE};
use super::{Job, Kind, LocalError, LocalNetwork, LocalPlace};
use crate::error::ErrorChain;
use crate::nft;

/// How often the thread looks whether something is broken: a few system calls and one run of `nft`.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// A container and a network.
type Key = (String, String);

/// See the module's documentation.
pub(super) struct Owner {
    hands: Hands,
    networks: BTreeMap<String, LocalNetwork>,
    places: BTreeMap<Key, LocalPlace>,
}

// === impl Owner ===

impl Owner {
    pub(super) fn open() -> Result<Owner, LocalError> {
        Ok(Owner {
            hands: Hands::open()?,
            networks: BTreeMap::new(),
            places: BTreeMap::new(),
        })
    }

    /// Works until nobody can ask any more.
    pub(super) fn run(&mut self, inbox: &Receiver<Job>) {
        loop {
            match inbox.recv_timeout(LOOK_INTERVAL) {
                Ok(job) => job(self),
                Err(RecvTimeoutError::Timeout) => self.heal(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    pub(super) fn begin(
        &mut self,
        networks: BTreeMap<String, LocalNetwork>,
    ) -> BTreeMap<String, LocalError> {
        self.networks = networks;
        if let Err(error) = self.hands.sweep(&self.networks) {
            warn!(error = %ErrorChain(&error), "Links of former networks not removed");
        }
        let mut failures = BTreeMap::new();
        for (id, network) in &self.networks {
            if let Err(error) = self.hands.ensure_network(id, network) {
                failures.insert(id.clone(), error);
            }
        }
        if let Err(error) = self.set_rules() {
            warn!(error = %ErrorChain(&error), "Rules of this node's networks not set");
        }
        failures
    }

    pub(super) fn set_network(
        &mut self,
        id: &str,
        network: LocalNetwork,
    ) -> Result<(), LocalError> {
        let old = self.networks.insert(id.to_owned(), network.clone());
        // Rules first: a bridge without them would be open.
        let made = self
            .set_rules()
            .and_then(|()| self.hands.ensure_network(id, &network));
        if made.is_err() && old.is_none() {
            self.networks.remove(id);
            let undone = self.hands.remove_network(id, &network);
            if let Err(error) = undone.and_then(|()| self.set_rules()) {
                debug!(error = %ErrorChain(&error), "Failed network not removed");
            }
        }
        made
    }

    pub(super) fn remove_network(&mut self, id: &str) -> Result<(), LocalError> {
        self.places.retain(|(_, network), _| network != id);
        let Some(network) = self.networks.remove(id) else {
            return Ok(());
        };
        self.hands.remove_network(id, &network)?;
        self.set_rules()
    }

    pub(super) fn attach(&mut self, key: Key, place: LocalPlace) -> Result<(), LocalError> {
        let network = self.networks.get(&key.1);
        let network = network.ok_or_else(|| LocalError::NoNetwork(key.1.clone()))?;
        self.hands.ensure_network(&key.1, network)?;
        self.hands.ensure_place(&key.0, network, &place)?;
        self.places.insert(key, place);
        Ok(())
    }

    pub(super) fn detach(&mut self, container: &str) -> Result<(), LocalError> {
        let keys = self.places.keys().filter(|(of, _)| of == container);
        let mut first = Ok(());
        for key in keys.cloned().collect::<Vec<_>>() {
            let place = self.places.remove(&key);
            let network = self.networks.get(&key.1);
            if let (Some(place), Some(network)) = (place, network)
                && let Err(error) = self.hands.remove_place(container, network, &place)
            {
                first = Err(error);
            }
        }
        first
    }

    /// What differs, in words.
    pub(super) fn examine(&mut self) -> Vec<String> {
        let mut findings = Vec::new();
        let rules = Rules::new(&self.networks);
        if !rules.is_empty()
            && !nft::is_whole(TABLE, &rules.digest(), rules.rule_count()).unwrap_or(false)
        {
            findings.push(format!(
                "the rules of this node's networks (table {TABLE}) are not whole"
            ));
        }
        for (id, network) in &self.networks {
            findings.extend(self.hands.examine_network(id, network));
        }
        for ((container, id), place) in &self.places {
            if let Some(network) = self.networks.get(id) {
                findings.extend(self.hands.examine_place((container, id), network, place));
            }
        }
        findings
    }

    /// Repairs what differs. What cannot be repaired is tried again at the next look.
    pub(super) fn heal(&mut self) {
        if self.networks.is_empty() {
            return;
        }
        let findings = self.examine();
        if findings.is_empty() {
            return;
        }
        info!(findings = ?findings, "Repairing networks of this node");
        let mut failures = BTreeSet::new();
        if let Err(error) = self.set_rules() {
            failures.insert(ErrorChain(&error).to_string());
        }
        for (id, network) in &self.networks {
            if let Err(error) = self.hands.ensure_network(id, network) {
                failures.insert(ErrorChain(&error).to_string());
            }
        }
        for ((container, id), place) in &self.places {
            let Some(network) = self.networks.get(id) else {
                continue;
            };
            if let Err(error) = self.hands.ensure_place(container, network, place) {
                failures.insert(ErrorChain(&error).to_string());
            }
        }
        for failure in failures {
            debug!(error = failure, "Network of this node not repaired");
        }
    }

    fn set_rules(&mut self) -> Result<(), LocalError> {
        let rules = Rules::new(&self.networks);
        let has_way_out = |network: &LocalNetwork| {
            matches!(network.kind, Kind::Bridge { .. }) && !network.is_internal
        };
        if self.networks.values().any(has_way_out) {
            let has_v6 = self
                .networks
                .values()
                .filter(|network| has_way_out(network))
                .flat_map(|network| &network.subnets)
                .any(|(subnet, _)| subnet.addr().is_ipv6());
            Hands::forward(has_v6)?;
        }
        let is_there = !rules.is_empty()
            && nft::is_whole(TABLE, &rules.digest(), rules.rule_count()).unwrap_or(false);
        if !is_there {
            nft::run(&rules.script())?;
        }
        Ok(())
    }
}
