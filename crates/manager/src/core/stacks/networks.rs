//! A stack's networks: made, labelled anew, or taken leave of. What they are does not change.

use skep_model::{
    Network, NetworkSpec,
    stack::{StackAction, StackObject, StackSpec},
};

use super::{super::networks, deploy::Deploy, is_of};

impl Deploy<'_> {
    pub(super) fn deploy_networks(&mut self, spec: &StackSpec) {
        for wanted in &spec.networks {
            self.deploy_network(wanted);
        }
        for name in &spec.external.networks {
            let found = self
                .tx
                .view()
                .networks()
                .by_name(name)
                .map(|found| found.id);
            match found {
                Some(id) => {
                    self.networks.insert(name.clone(), id);
                }
                None => self.fail(
                    StackObject::Network,
                    name,
                    "it is external and does not exist",
                ),
            }
        }
    }

    fn deploy_network(&mut self, wanted: &NetworkSpec) {
        const KIND: StackObject = StackObject::Network;
        let name = &wanted.annotations.name;
        let Some(stored) = self.tx.view().networks().by_name(name).cloned() else {
            match networks::create(self.tx, self.rng, wanted.clone()) {
                Ok(_) => {
                    let made = self.tx.view().networks().by_name(name);
                    let id = made.expect("a network just made is there").id;
                    self.networks.insert(name.clone(), id);
                    self.change(KIND, name, StackAction::Create);
                }
                Err(error) => self.fail(KIND, name, &error.message),
            }
            return;
        };
        if !is_of(&stored.spec.annotations.labels, &self.name) {
            return self.fail_as_foreign(KIND, name);
        }
        if let Some(what) = difference(&stored.spec, wanted) {
            let why = format!(
                "{what} of a network cannot be changed: remove it, or give the new one another name"
            );
            return self.fail(KIND, name, &why);
        }
        self.networks.insert(name.clone(), stored.id);
        self.leaving.retain(|leaving| *leaving != stored.id);
        if stored.spec.annotations.labels == wanted.annotations.labels {
            return self.change(KIND, name, StackAction::Unchanged);
        }
        let mut network = Network::clone(&stored);
        network
            .spec
            .annotations
            .labels
            .clone_from(&wanted.annotations.labels);
        self.tx
            .update_network(network)
            .expect("a network just read can be written");
        self.change(KIND, name, StackAction::Update);
    }

    /// Networks the document has not leave, as soon as nothing uses them.
    pub(super) fn prune_networks(&mut self, spec: &StackSpec) {
        let wanted = |network: &Network| {
            let mut names = spec.networks.iter().map(|wanted| &wanted.annotations.name);
            names.any(|name| name.eq_ignore_ascii_case(network.name()))
        };
        let all = self.tx.view().networks().all();
        let gone: Vec<_> = all
            .filter(|network| is_of(&network.spec.annotations.labels, &self.name))
            .filter(|network| !wanted(network) && !self.leaving.contains(&network.id))
            .map(|network| (network.id, network.name().to_owned()))
            .collect();
        for (id, name) in gone {
            self.leaving.push(id);
            self.change(StackObject::Network, &name, StackAction::Remove);
        }
    }
}

/// What of two networks differs, beside their labels.
fn difference(stored: &NetworkSpec, wanted: &NetworkSpec) -> Option<&'static str> {
    let options = |spec: &NetworkSpec| {
        let driver = spec.driver.as_ref();
        driver
            .map(|driver| driver.options.clone())
            .unwrap_or_default()
    };
    let addresses = |spec: &NetworkSpec| {
        let ipam = spec.ipam.as_ref();
        ipam.map(|ipam| ipam.configs.clone()).unwrap_or_default()
    };
    let checks = [
        (stored.driver_name() != wanted.driver_name(), "the driver"),
        (options(stored) != options(wanted), "the driver's options"),
        (addresses(stored) != addresses(wanted), "the addresses"),
        (stored.has_ipv6 != wanted.has_ipv6, "IPv6"),
        (stored.is_internal != wanted.is_internal, "`internal`"),
        (stored.is_attachable != wanted.is_attachable, "`attachable`"),
        (stored.is_ingress != wanted.is_ingress, "`ingress`"),
        (stored.config_from != wanted.config_from, "`config_from`"),
    ];
    checks
        .iter()
        .find_map(|(differs, what)| differs.then_some(*what))
}
