//! Names on networks that this node has for itself: those of its own containers. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use skep_network::dns::{ServiceNames, TaskNames, Zone};

use crate::dataplane::container::{LocalContainer, LocalName};

/// The names of each network with a container, and the networks of each container.
#[derive(Debug, Default)]
pub(super) struct LocalZones {
    zones: BTreeMap<String, Arc<Zone>>,
    networks: BTreeMap<String, BTreeSet<String>>,
}

// === impl LocalZones ===

impl LocalZones {
    /// A container, new or otherwise than before. Returns the networks whose names changed.
    pub(super) fn put(&mut self, id: &str, container: &LocalContainer) -> BTreeSet<String> {
        let mut touched = self.remove(id);
        for name in &container.local {
            let zone = self.zones.entry(name.network.clone());
            let zone = zone
                .or_insert_with(|| Arc::new(Zone::new(&name.network_name, name.subnets.clone())));
            Arc::make_mut(zone).put(id, &names(name));
            touched.insert(name.network.clone());
        }
        let networks = container.local.iter().map(|name| name.network.clone());
        self.networks.insert(id.to_owned(), networks.collect());
        touched
    }

    /// A container is gone. Returns the networks whose names changed.
    pub(super) fn remove(&mut self, id: &str) -> BTreeSet<String> {
        let networks = self.networks.remove(id).unwrap_or_default();
        for network in &networks {
            if let Some(zone) = self.zones.get_mut(network) {
                Arc::make_mut(zone).remove(id);
            }
            let mut others = self.networks.values();
            if !others.any(|others| others.contains(network)) {
                self.zones.remove(network);
            }
        }
        networks
    }

    /// What a container can ask for.
    pub(super) fn of(&self, container: &LocalContainer) -> Vec<Arc<Zone>> {
        let networks = container.local.iter();
        let zones = networks.filter_map(|name| self.zones.get(&name.network));
        zones.cloned().collect()
    }
}

fn names(name: &LocalName) -> ServiceNames {
    let task = TaskNames {
        names: name.names.clone(),
        slot: None,
        addresses: name.addresses.clone(),
    };
    ServiceNames {
        tasks: vec![task],
        ..ServiceNames::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str, address: u8) -> LocalContainer {
        LocalContainer {
            netns_path: "/run/x".into(),
            places: Vec::new(),
            upstreams: Vec::new(),
            local: vec![LocalName {
                network: "n".to_owned(),
                network_name: "lan".to_owned(),
                subnets: Vec::new(),
                names: vec![name.to_owned(), "both".to_owned()],
                addresses: vec![[10, 0, 0, address].into()],
            }],
        }
    }

    #[test]
    fn containers_of_a_network_find_one_another() {
        let mut zones = LocalZones::default();
        let (a, b) = (container("a", 2), container("b", 3));
        assert_eq!(zones.put("1", &a), BTreeSet::from(["n".to_owned()]));
        zones.put("2", &b);
        let shared = zones.of(&a);
        assert_eq!(shared, zones.of(&b));
        let mut expected = Zone::new("lan", Vec::new());
        expected.put("1", &names(&a.local[0]));
        expected.put("2", &names(&b.local[0]));
        assert_eq!(*shared[0], expected);
        zones.remove("1");
        expected.remove("1");
        assert_eq!(*zones.of(&b)[0], expected);
        zones.remove("2");
        assert_eq!(zones.of(&b), Vec::new());
    }
}
