//! A container's places on networks that its node has for itself, carried out.

use std::path::Path;

use skep_network::{HostPort, Mac, local::LocalPlace};
use tracing::warn;

use super::{
    Engine,
    creation::CreateError,
    events::NetworkSubject,
    places::{LocalWish, NetworkPlan},
    record::{LocalPlaceRecord, Record},
};
use crate::{
    dataplane::LocalName,
    local_network::{Definition, Joined, Scope},
    runtime::ContainerId,
};

/// Digits of a container's id that are a name of it, as in Docker.
const SHORT_ID_DIGITS: usize = 12;

/// A wish and what it got.
pub(super) type Place<'a> = (&'a LocalWish, Joined);

/// Ports without an address of the node get the one the first network with such a wish wants.
pub(super) fn bound(ports: &[HostPort], joined: &[Place<'_>]) -> Vec<HostPort> {
    let mut ports = ports.to_vec();
    let binding = joined
        .iter()
        .find_map(|(_, joined)| joined.network.host_binding());
    if let Some(address) = binding {
        let open = ports
            .iter_mut()
            .filter(|port| port.host_ip.is_unspecified());
        open.for_each(|port| port.host_ip = address);
    }
    ports
}

impl Engine {
    /// Finds or makes the networks, and addresses on them.
    pub(super) async fn join_local<'a>(
        &self,
        id: &ContainerId,
        plan: &'a NetworkPlan,
    ) -> Result<Vec<Place<'a>>, CreateError> {
        let mut joined = Vec::new();
        for wish in &plan.local {
            let place = self
                .local_networks()
                .join(id.as_str(), &wish.network)
                .await?;
            joined.push((wish, place));
        }
        Ok(joined)
    }

    /// Puts the container on them.
    pub(super) async fn attach_local(
        &self,
        id: &ContainerId,
        netns_path: &Path,
        joined: Vec<Place<'_>>,
    ) -> Result<Vec<LocalPlaceRecord>, CreateError> {
        let mut records = Vec::new();
        for (wish, Joined { network, addresses }) in joined {
            let record = LocalPlaceRecord {
                network_id: network.id.clone(),
                network_name: network.name.clone(),
                driver: network.driver.clone(),
                subnets: network.subnets.iter().map(|one| one.subnet).collect(),
                gateways: network.gateways(),
                interface: wish.interface.clone(),
                addresses,
                aliases: wish.aliases.clone(),
                is_way_out: wish.is_way_out && !network.is_closed(),
            };
            if let Some(place) = record.to_kernel(netns_path) {
                let networks = self.local_networks();
                networks.attach(id.as_str(), &network, place).await?;
            }
            records.push(record);
        }
        Ok(records)
    }

    /// Takes up the places of a container that was found running.
    pub(super) async fn adopt_local(&self, record: &Record, netns_path: &Path) {
        let (networks, id) = (self.local_networks(), record.id.as_str());
        let all = networks.list().await;
        for place in &record.local_places {
            networks
                .adopt(id, &place.network_id, &place.addresses)
                .await;
            let network = all.iter().find(|network| network.id == place.network_id);
            let (Some(network), Some(kernel)) = (network, place.to_kernel(netns_path)) else {
                continue;
            };
            if let Err(error) = networks.attach(id, network, kernel).await {
                warn!(container.id = id, error = %error, "Container is not on its network");
            }
        }
    }

    /// Tells of a network of this node.
    pub fn note_local_network(&self, action: &str, network: &Definition) {
        if network.scope == Scope::Swarm {
            return;
        }
        let subject = NetworkSubject {
            id: &network.id,
            name: &network.name,
            driver: &network.driver,
        };
        self.note_network(action, subject, None);
    }
}

// === impl LocalPlaceRecord ===

impl LocalPlaceRecord {
    fn to_kernel(&self, netns_path: &Path) -> Option<LocalPlace> {
        let mac = self.addresses.first().map(|net| Mac::from_ip(net.addr()))?;
        Some(LocalPlace {
            netns_path: netns_path.to_owned(),
            interface: self.interface.clone(),
            mac,
            addresses: self.addresses.clone(),
            gateways: match self.is_way_out {
                true => self.gateways.clone(),
                false => Vec::new(),
            },
        })
    }

    /// What the container is called there: as in Docker by its name, its short id and its aliases.
    pub(super) fn names(&self, id: &str, name: &str) -> LocalName {
        let short_id: String = id.chars().take(SHORT_ID_DIGITS).collect();
        let mut names = vec![name.to_owned(), short_id];
        names.extend(self.aliases.iter().cloned());
        LocalName {
            network: self.network_id.clone(),
            network_name: self.network_name.clone(),
            subnets: self.subnets.clone(),
            names,
            addresses: self.addresses.iter().map(|net| net.addr()).collect(),
        }
    }
}
