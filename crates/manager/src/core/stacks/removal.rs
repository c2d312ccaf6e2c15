//! A stack's end, and that of networks it has no use for any more.

use std::{collections::BTreeSet, sync::Arc};

use skep_control::{Dirty, Key, WRITES_PER_ENTRY_MAX, apply, reconcile};
use skep_model::{
    NetworkId, Rng, Service,
    stack::{NAMESPACE_LABEL, Stack, StackAction, StackChange, StackObject, StackOutcome},
};
use skep_store::{Change, Object, Store, Transaction};

use super::{
    super::{networks, services},
    check_size, is_of,
    kept::{self, Standing},
    not_found, services_of, standing_of,
};
use crate::command::{Answer, Code, CommandError};

/// What a stack has, in id order, by id and name.
struct Belongings {
    services: Vec<Arc<Service>>,
    networks: Vec<(NetworkId, String)>,
    secrets: Vec<(skep_model::SecretId, String)>,
    configs: Vec<(skep_model::ConfigId, String)>,
}

/// Removes all of a stack, unless others use some of it. Its networks follow when its tasks end.
pub(in crate::core) fn remove(
    tx: &mut Transaction,
    rng: &mut Rng,
    name: &str,
) -> Result<Answer, CommandError> {
    let standing = standing_of(tx.view(), name)?;
    let all = belongings(tx.view(), name);
    if standing.is_none() && all.is_empty() {
        return Err(not_found(name));
    }
    let users = foreign_users(tx.view(), name, &all);
    if !users.is_empty() {
        return Err(CommandError::new(
            Code::FailedPrecondition,
            users.join("\n"),
        ));
    }
    let mut trial = tx.clone();
    let mut changes = Vec::new();
    let mut note = |kind: StackObject, name: &str| {
        changes.push(StackChange {
            kind,
            name: name.to_owned(),
            stored_as: name.to_owned(),
            action: StackAction::Remove,
        });
    };
    for service in &all.services {
        services::remove(&mut trial, service.id)?;
        note(StackObject::Service, service.name());
    }
    let stack = Stack {
        name: name.to_owned(),
        revision: 0,
        leaving: all.networks.iter().map(|(id, _)| *id).collect(),
        is_removed: true,
        previous: 0,
    };
    kept::store(&mut trial, rng, standing.as_ref(), &stack);
    // What follows may be in entries of its own.
    for (id, name) in &all.secrets {
        trial.remove_secret(*id);
        note(StackObject::Secret, name);
    }
    for (id, name) in &all.configs {
        trial.remove_config(*id);
        note(StackObject::Config, name);
    }
    for (_, name) in &all.networks {
        note(StackObject::Network, name);
    }
    check_size(&trial)?;
    *tx = trial;
    let outcome = StackOutcome {
        revision: 0,
        changes,
    };
    Ok(Answer::Stack(Arc::new(outcome)))
}

/// Tells the tasks of services that were removed to end, as far as an entry holds; the rest follows
/// in the next, as in any removal.
pub(in crate::core) fn end_tasks(tx: &mut Transaction, rng: &mut Rng) {
    let removed = tx
        .changes()
        .iter()
        .filter_map(|change| match (&change.old, &change.new) {
            (Some(Object::Service(old)), None) => Some(Key::Service(old.id)),
            _ => None,
        });
    for key in removed.collect::<Vec<_>>() {
        let mut plan = reconcile(tx.view(), &key, tx.now(), rng);
        let room = WRITES_PER_ENTRY_MAX.saturating_sub(tx.actions().len());
        plan.changes.truncate(room);
        // What else it asks for is marked with all changes of the batch.
        apply(tx, key, plan, &mut Dirty::default());
    }
}

/// Removes networks that leave and are not used any more, and stacks that have none left. True while
/// there are more.
pub(in crate::core) fn sweep(tx: &mut Transaction, rng: &mut Rng) -> bool {
    let mut is_more = false;
    for standing in kept::list(tx.view()) {
        if standing.stack.leaving.is_empty() && !standing.stack.is_removed {
            continue;
        }
        let mut stack = standing.stack.clone();
        stack.leaving.retain(|id| {
            let is_there = tx.view().networks().get(*id).is_some();
            is_there && networks::remove(tx, *id).is_err()
        });
        is_more |= !stack.leaving.is_empty();
        if !stack.is_removed {
            kept::store(tx, rng, Some(&standing), &stack);
            continue;
        }
        kept::forget_revisions(tx, &stack.name);
        if stack.leaving.is_empty() {
            tx.remove_resource(standing.id);
        } else {
            kept::store(tx, rng, Some(&standing), &stack);
        }
    }
    is_more
}

/// Forgets stacks of which the last object was removed one by one, as `docker stack rm` does: those that
/// the transaction took something from, or, with `is_all`, any. Asks the store alone, so that a leader
/// that is lost between the last removal and this changes nothing.
pub(in crate::core) fn forget_emptied(tx: &mut Transaction, is_all: bool) {
    let standing: Vec<Standing> = if is_all {
        kept::list(tx.view())
    } else {
        let names: BTreeSet<&str> = tx.changes().iter().filter_map(bereft).collect();
        let names = names.into_iter();
        names
            .filter_map(|name| kept::find(tx.view(), name))
            .collect()
    };
    for standing in standing {
        if is_emptied(tx.view(), &standing.stack) {
            kept::forget_revisions(tx, &standing.stack.name);
            tx.remove_resource(standing.id);
        }
    }
}

/// The stack that an object was of and is not any more.
fn bereft(change: &Change) -> Option<&str> {
    let old = stack_of(change.old.as_ref()?)?;
    let new = change.new.as_ref().and_then(stack_of);
    (new != Some(old)).then_some(old)
}

fn stack_of(object: &Object) -> Option<&str> {
    let labels = match object {
        Object::Service(service) => &service.spec.annotations.labels,
        Object::Network(network) => &network.spec.annotations.labels,
        Object::Secret(secret) => &secret.spec.annotations.labels,
        Object::Config(config) => &config.spec.annotations.labels,
        _ => return None,
    };
    labels.get(NAMESPACE_LABEL).map(String::as_str)
}

/// Whether the stack has none of the objects it was given. A deploy makes all that its document names,
/// in one entry with the revision; a document that names none leaves a stack without any.
fn is_emptied(view: &Store, stack: &Stack) -> bool {
    if stack.is_removed || has_any(view, &stack.name) {
        return false;
    }
    let kept = kept::revisions(view, &stack.name);
    let current = kept.iter().find(|kept| kept.number == stack.revision);
    current.is_some_and(|current| current.spec.object_count() > 0)
}

fn has_any(view: &Store, stack: &str) -> bool {
    let mut networks = view.networks().all();
    let mut secrets = view.secrets().all();
    let mut configs = view.configs().all();
    services_of(view, stack).next().is_some()
        || networks.any(|network| is_of(&network.spec.annotations.labels, stack))
        || secrets.any(|secret| is_of(&secret.spec.annotations.labels, stack))
        || configs.any(|config| is_of(&config.spec.annotations.labels, stack))
}

impl Belongings {
    fn is_empty(&self) -> bool {
        self.services.is_empty()
            && self.networks.is_empty()
            && self.secrets.is_empty()
            && self.configs.is_empty()
    }
}

fn belongings(view: &Store, name: &str) -> Belongings {
    let networks = view.networks().all();
    let networks = networks.filter(|network| is_of(&network.spec.annotations.labels, name));
    let secrets = view.secrets().all();
    let secrets = secrets.filter(|secret| is_of(&secret.spec.annotations.labels, name));
    let configs = view.configs().all();
    let configs = configs.filter(|config| is_of(&config.spec.annotations.labels, name));
    Belongings {
        services: services_of(view, name).cloned().collect(),
        networks: networks
            .map(|network| (network.id, network.name().to_owned()))
            .collect(),
        secrets: secrets
            .map(|secret| (secret.id, secret.name().to_owned()))
            .collect(),
        configs: configs
            .map(|config| (config.id, config.name().to_owned()))
            .collect(),
    }
}

/// Why the stack cannot go: services of others that use something of it.
fn foreign_users(view: &Store, name: &str, all: &Belongings) -> Vec<String> {
    let mut found = Vec::new();
    let others = view.services();
    let others = others.filter(|service| !is_of(&service.spec.annotations.labels, name));
    for service in others {
        let user = service.name();
        let task = &service.spec.task;
        let targets = task.networks.iter().chain(&service.spec.networks);
        let targets: Vec<&str> = targets.map(|network| network.target.as_str()).collect();
        for (id, network) in &all.networks {
            if targets.contains(&id.as_str()) {
                found.push(format!("network {network} is in use by service {user}"));
            }
        }
        let container = &task.container;
        for (id, secret) in &all.secrets {
            let mut used = container.secrets.iter();
            if used.any(|reference| reference.secret_id == id.as_str()) {
                found.push(format!("secret {secret} is in use by service {user}"));
            }
        }
        for (id, config) in &all.configs {
            let mut used = container.configs.iter();
            if used.any(|reference| reference.config_id == id.as_str()) {
                found.push(format!("config {config} is in use by service {user}"));
            }
        }
    }
    found
}
