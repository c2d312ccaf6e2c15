//! A stack's revision and its objects are one: every committed state has all that the revision in force
//! says and no more, and a stack that lost all its objects one by one is none any more. And what waits for
//! others is not started before they were there.

use std::collections::BTreeMap;

use skep_control::{Violation, check_step};
use skep_manager::Standing;
use skep_model::{
    Annotations, Service, UpdateState,
    stack::{NAMESPACE_LABEL, StackRevision},
};
use skep_store::Store;

use crate::{
    client::{OUTSIDE, VARIANT},
    facts::{Applied, Facts, Observation},
    invariants::Invariant,
};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Stacks;

impl Invariant for Stacks {
    fn name(&self) -> &'static str {
        "stacks"
    }

    fn observe(&mut self, _: &Facts, observation: &Observation<'_>) -> Result<(), String> {
        let Some(Applied { before, after, .. }) = observation.committed() else {
            return Ok(());
        };
        for standing in skep_manager::stacks(after) {
            check(after, &standing)?;
        }
        let mut wrong = check_step(before, after).into_iter();
        let early = wrong.find(|found| matches!(found, Violation::StartedEarly { .. }));
        early.map_or(Ok(()), |found| Err(found.to_string()))
    }
}

fn check(store: &Store, standing: &Standing) -> Result<(), String> {
    let stack = &standing.stack;
    let is_of = |service: &&std::sync::Arc<Service>| {
        let labels = &service.spec.annotations.labels;
        labels.get(NAMESPACE_LABEL) == Some(&stack.name)
    };
    let services = store.services().filter(is_of);
    let services: BTreeMap<&str, &Service> = services
        .map(|service| (service.name(), &**service))
        .collect();
    let name = &stack.name;
    if stack.is_removed {
        return match services.len() {
            0 => Ok(()),
            count => Err(format!("{name} is removed and has {count} services")),
        };
    }
    let kept = skep_manager::stack_revisions(store, name);
    let current = kept.iter().find(|kept| kept.number == stack.revision);
    let Some(revision) = current else {
        return Err(format!("{name} has no revision {}", stack.revision));
    };
    if *name == OUTSIDE {
        return check_has_any(store, revision);
    }
    check_objects(store, revision)?;
    let wanted = revision.spec.services.iter();
    let wanted: Vec<&str> = wanted.map(|spec| spec.annotations.name.as_str()).collect();
    let there: Vec<&str> = services.keys().copied().collect();
    if wanted != there {
        return Err(format!("{name} shall have {wanted:?} and has {there:?}"));
    }
    for spec in &revision.spec.services {
        let service = services[spec.annotations.name.as_str()];
        let stored = service.spec.annotations.labels.get(VARIANT);
        let wanted = spec.annotations.labels.get(VARIANT);
        if stored != wanted && !is_rolled_back(service) {
            let number = revision.number;
            let service = service.name();
            return Err(format!(
                "{service} is of variant {stored:?}, revision {number} of {wanted:?}"
            ));
        }
    }
    Ok(())
}

/// Others take objects from it one by one; it goes with the last.
fn check_has_any(store: &Store, revision: &StackRevision) -> Result<(), String> {
    let name = &revision.spec.name;
    let is_of = |annotations: &Annotations| {
        let of = annotations.labels.get(NAMESPACE_LABEL);
        of.is_some_and(|stack| stack == name)
    };
    let mut services = store.services();
    let mut secrets = store.secrets().all();
    let mut networks = store.networks().all();
    let has_any = services.any(|service| is_of(&service.spec.annotations))
        || secrets.any(|secret| is_of(&secret.spec.annotations))
        || networks.any(|network| is_of(&network.spec.annotations));
    if has_any {
        return Ok(());
    }
    Err(format!("all of {name} is removed, and it is still there"))
}

fn check_objects(store: &Store, revision: &StackRevision) -> Result<(), String> {
    for network in &revision.spec.networks {
        let name = &network.annotations.name;
        if store.networks().by_name(name).is_none() {
            return Err(format!("network {name} is gone"));
        }
    }
    for name in revision.secrets.values() {
        if store.secrets().by_name(name).is_none() {
            return Err(format!("secret {name} is gone"));
        }
    }
    Ok(())
}

/// An update that failed goes back by itself.
fn is_rolled_back(service: &Service) -> bool {
    let state = service.update_status.as_ref().map(|status| status.state);
    matches!(
        state,
        Some(
            UpdateState::RollbackStarted
                | UpdateState::RollbackPaused
                | UpdateState::RollbackCompleted
        )
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use skep_model::{
        Rng, ServiceSpec, Timestamp, Version,
        id::{ExtensionId, ResourceId},
        stack::{Stack, StackSpec},
    };
    use skep_store::Transaction;
    use skep_wire::stack as wire;

    use super::*;

    #[test]
    fn half_a_stack_is_found() {
        let mut rng = Rng::from_seed(1);
        let mut tx = Transaction::new(&Store::default(), Version(1), Timestamp(1));
        let extension = wire::extension(ExtensionId::random(&mut rng));
        tx.create_extension(extension).unwrap();
        let stack = Stack {
            name: "app".to_owned(),
            revision: 1,
            ..Stack::default()
        };
        let stored = wire::resource(ResourceId::random(&mut rng), &stack);
        tx.create_resource(stored).unwrap();
        let verdict = |tx: &Transaction| {
            let standing = skep_manager::stack(tx.view(), "app").unwrap();
            check(tx.view(), &standing)
        };
        assert_eq!(verdict(&tx), Err("app has no revision 1".to_owned()));
        let mut spec = ServiceSpec::default();
        Arc::make_mut(&mut spec.annotations).name = "app_web".to_owned();
        let revision = StackRevision {
            number: 1,
            created_at: Timestamp(1),
            spec: Arc::new(StackSpec {
                name: "app".to_owned(),
                services: vec![spec],
                ..StackSpec::default()
            }),
            secrets: BTreeMap::new(),
            configs: BTreeMap::new(),
        };
        let stored = wire::revision_resource(ResourceId::random(&mut rng), &revision);
        tx.create_resource(stored).unwrap();
        let found = verdict(&tx).unwrap_err();
        assert_eq!(found, r#"app shall have ["app_web"] and has []"#);
    }

    #[test]
    fn a_stack_without_objects_is_found() {
        let revision = StackRevision {
            number: 1,
            created_at: Timestamp(1),
            spec: Arc::new(StackSpec {
                name: OUTSIDE.to_owned(),
                ..StackSpec::default()
            }),
            secrets: BTreeMap::new(),
            configs: BTreeMap::new(),
        };
        let found = check_has_any(&Store::default(), &revision).unwrap_err();
        assert_eq!(found, "all of stack-2 is removed, and it is still there");
    }
}
