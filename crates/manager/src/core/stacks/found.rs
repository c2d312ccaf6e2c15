//! What others made of a stack, as a document: Docker's command labels its objects and keeps no more.
//!
//! It becomes the first revision when the stack is taken over, so that one can return to it.

use std::{collections::BTreeMap, sync::Arc};

use skep_model::{
    ConfigSpec, NetworkAttachmentConfig, Redacted, SecretSpec, ServiceSpec, Timestamp,
    stack::{FOUND_SOURCE, StackRevision, StackSpec},
};
use skep_store::Store;

use super::{is_of, services_of};

/// The objects labelled as of the stack, without data and credentials; `None` when it has no services,
/// without which Docker's command knows no stack either. The number is to be chosen.
pub(super) fn read(view: &Store, stack: &str) -> Option<StackRevision> {
    let services = services_of(view, stack).map(|service| service_spec(view, &service.spec));
    let mut services: Vec<ServiceSpec> = services.collect();
    if services.is_empty() {
        return None;
    }
    services.sort_by(|a, b| a.annotations.name.cmp(&b.annotations.name));
    let networks = view.networks().all().map(|network| &network.spec);
    let networks = networks.filter(|spec| is_of(&spec.annotations.labels, stack));
    let secrets = view.secrets().all().map(|secret| &secret.spec);
    let secrets = secrets.filter(|spec| is_of(&spec.annotations.labels, stack));
    let secrets = secrets.map(|spec| SecretSpec {
        data: Redacted::default(),
        ..spec.clone()
    });
    let configs = view.configs().all().map(|config| &config.spec);
    let configs = configs.filter(|spec| is_of(&spec.annotations.labels, stack));
    let configs = configs.map(|spec| ConfigSpec {
        data: Redacted::default(),
        ..spec.clone()
    });
    let spec = StackSpec {
        name: stack.to_owned(),
        networks: networks.cloned().collect(),
        secrets: secrets.collect(),
        configs: configs.collect(),
        services,
        source: FOUND_SOURCE.to_owned(),
        ..StackSpec::default()
    };
    let own = |names: Vec<&String>| -> BTreeMap<String, String> {
        let names = names.into_iter();
        names.map(|name| (name.clone(), name.clone())).collect()
    };
    let secrets = spec.secrets.iter().map(|one| &one.annotations.name);
    let configs = spec.configs.iter().map(|one| &one.annotations.name);
    Some(StackRevision {
        number: 0,
        created_at: Timestamp::ZERO,
        secrets: own(secrets.collect()),
        configs: own(configs.collect()),
        spec: Arc::new(spec),
    })
}

/// A service as a document has it: by names, not by ids.
fn service_spec(view: &Store, stored: &ServiceSpec) -> ServiceSpec {
    let mut spec = stored.clone();
    let task = Arc::make_mut(&mut spec.task);
    let name = |network: &mut NetworkAttachmentConfig| {
        let id = network.target.parse().ok();
        if let Some(found) = id.and_then(|id| view.networks().get(id)) {
            found.name().clone_into(&mut network.target);
        }
    };
    task.networks
        .iter_mut()
        .chain(&mut spec.networks)
        .for_each(name);
    let container = &mut task.container;
    container.registry_auth = Redacted::default();
    for secret in &mut container.secrets {
        secret.secret_id.clear();
    }
    for config in &mut container.configs {
        config.config_id.clear();
    }
    spec
}
