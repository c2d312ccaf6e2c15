//! A document that is deployed again when all is calm makes the stack what it says, whatever became of it before: deploys
//! that were interrupted or answered to nobody, rollbacks, removals.

use std::collections::BTreeMap;

use skep_model::{
    Service, ServiceSpec,
    stack::{NAMESPACE_LABEL, StackSpec},
};
use skep_store::Store;

use crate::{
    client::VARIANT,
    facts::{Facts, Observation},
    invariants::Invariant,
};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Redeploys;

impl Invariant for Redeploys {
    fn name(&self) -> &'static str {
        "redeploys"
    }

    fn observe(&mut self, _: &Facts, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Redeployed { spec, store } => check(store, spec),
            _ => Ok(()),
        }
    }
}

fn check(store: &Store, spec: &StackSpec) -> Result<(), String> {
    let name = &spec.name;
    let standing = skep_manager::stack(store, name);
    if standing.is_none_or(|standing| standing.stack.is_removed) {
        return Err(format!("{name} was deployed and is not there"));
    }
    for network in &spec.networks {
        let network = &network.annotations.name;
        if store.networks().by_name(network).is_none() {
            return Err(format!("{name} has no network {network}"));
        }
    }
    let is_of = |service: &Service| {
        let labels = &service.spec.annotations.labels;
        labels.get(NAMESPACE_LABEL) == Some(name)
    };
    let services = store.services().filter(|service| is_of(service));
    let mut services: BTreeMap<&str, &Service> = services
        .map(|service| (service.name(), &**service))
        .collect();
    for wanted in &spec.services {
        let wanted_name = wanted.annotations.name.as_str();
        let Some(service) = services.remove(wanted_name) else {
            return Err(format!("{name} has no service {wanted_name}"));
        };
        check_service(store, spec, service, wanted)?;
    }
    match services.keys().next() {
        None => Ok(()),
        Some(other) => Err(format!("{name} has service {other}, which it shall not")),
    }
}

fn check_service(
    store: &Store,
    document: &StackSpec,
    service: &Service,
    wanted: &ServiceSpec,
) -> Result<(), String> {
    let (name, spec) = (service.name(), &service.spec);
    let variant = |spec: &ServiceSpec| spec.annotations.labels.get(VARIANT).cloned();
    let (is, shall) = (&spec.task.container, &wanted.task.container);
    if variant(spec) != variant(wanted) || spec.mode != wanted.mode || is.env != shall.env {
        let (is, shall) = (variant(spec), variant(wanted));
        return Err(format!(
            "{name} is of variant {is:?}, deployed was {shall:?}"
        ));
    }
    // Under whatever name it is stored: what the service reads is what the document says.
    for (index, reference) in shall.secrets.iter().enumerate() {
        let mut all = document.secrets.iter();
        let meant = all.find(|secret| secret.annotations.name == reference.secret_name);
        let id = is
            .secrets
            .get(index)
            .and_then(|is| is.secret_id.parse().ok());
        let stored = id.and_then(|id| store.secrets().get(id));
        let is_right = match (meant, stored) {
            (Some(meant), Some(stored)) => meant.data == stored.spec.data,
            _ => false,
        };
        if !is_right {
            let secret = &reference.secret_name;
            return Err(format!("{name} reads another {secret} than was deployed"));
        }
    }
    Ok(())
}
