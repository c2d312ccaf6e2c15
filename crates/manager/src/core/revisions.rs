//! Keeps the specs a service had, in the transaction that changes it, and finds them again.
//!
//! A revision is known by the version of its spec: a rollback brings the version back, and with it
//! the revision, so that control may roll back without a word to us. Design:
//! `docs/design/revisions.md`.

use std::sync::Arc;

use skep_model::{
    Rng, Service, ServiceId,
    id::{ExtensionId, ResourceId},
    object::{Resource, ServiceRevision},
    reserved::service::rollout::RolloutPolicy,
};
use skep_store::{Store, Transaction};
use skep_wire::revision::{self, RevisionKey};

/// The revisions kept of a service, oldest first. One that cannot be read is left out: it was
/// written by a later version.
pub fn list(view: &Store, service: ServiceId) -> Vec<ServiceRevision> {
    let kept = resources(view, service);
    kept.filter_map(|(_, resource)| revision::revision(resource).ok())
        .collect()
}

/// Notes the specs of a service that were not noted yet, and forgets the oldest beyond what it
/// wants kept. The spec it has, the one before it and the newest always stay: the last because
/// numbers are counted from it.
pub(super) fn record(tx: &mut Transaction, rng: &mut Rng, service: &Service) {
    let previous = service.previous_spec.as_ref();
    let previous = previous.zip(service.previous_spec_version);
    let current = Some((&service.spec, service.spec_version));
    for (spec, spec_version) in previous.into_iter().chain(current) {
        let keys = keys(tx.view(), service.id);
        if keys.iter().any(|(key, _)| key.spec_version == spec_version) {
            continue;
        }
        let number = keys.iter().map(|(key, _)| key.number).max().unwrap_or(0);
        let before = service.previous_spec_version;
        let before = before.filter(|version| *version != spec_version);
        let before = keys
            .iter()
            .find(|(key, _)| Some(key.spec_version) == before);
        let revision = ServiceRevision {
            service: service.id,
            number: number.saturating_add(1),
            spec_version,
            created_at: tx.now(),
            previous: before.map(|(key, _)| key.number),
            spec: spec.clone(),
        };
        declare(tx, rng);
        tx.create_resource(revision::resource(ResourceId::random(rng), &revision))
            .expect("names of revisions are of their own");
    }
    prune(tx, service);
}

/// Forgets all revisions of a service that is removed.
pub(super) fn forget(tx: &mut Transaction, service: ServiceId) {
    for (_, id) in keys(tx.view(), service) {
        tx.remove_resource(id);
    }
}

fn prune(tx: &mut Transaction, service: &Service) {
    let labels = &service.spec.annotations.labels;
    let count_max = RolloutPolicy::of(labels).revision_count_max.max(1);
    let is_needed = |key: &RevisionKey| {
        key.spec_version == service.spec_version
            || Some(key.spec_version) == service.previous_spec_version
    };
    if let [.., (_, before), (old, id), _, _] = keys(tx.view(), service.id).as_slice()
        && !is_needed(old)
        && is_forced_again(tx.view(), *before, *id)
    {
        tx.remove_resource(*id);
    }
    let keys = keys(tx.view(), service.id);
    let excess = keys.len().saturating_sub(count_max);
    let newest = keys.last().map(|(_, id)| *id);
    let mut old = keys.iter().filter(|(key, _)| !is_needed(key));
    for (_, id) in old.by_ref().take(excess) {
        if Some(*id) != newest {
            tx.remove_resource(*id);
        }
    }
}

/// Whether a revision is the one before it, only forced to start again: runs of a job by hand are such. Of those in a row
/// the first and the last two stay, so that they do not push out what can be returned to.
fn is_forced_again(view: &Store, old: ResourceId, next: ResourceId) -> bool {
    let spec = |id| {
        revision::revision(view.resource(id)?)
            .ok()
            .map(|kept| kept.spec)
    };
    let Some((old, mut next)) = spec(old).zip(spec(next)) else {
        return false;
    };
    let task = &mut Arc::make_mut(&mut next).task;
    Arc::make_mut(task).force_update = old.task.force_update;
    old == next
}

/// Swarm has no resource without an extension that names its kind.
fn declare(tx: &mut Transaction, rng: &mut Rng) {
    let is_missing = tx
        .view()
        .extensions()
        .all(|extension| extension.annotations.name != revision::KIND);
    if is_missing {
        let extension = revision::extension(ExtensionId::random(rng));
        tx.create_extension(extension)
            .expect("no extension has the name");
    }
}

/// Kept revisions of a service, oldest first.
fn keys(view: &Store, service: ServiceId) -> Vec<(RevisionKey, ResourceId)> {
    let kept = resources(view, service);
    let mut keys: Vec<_> = kept.map(|(key, resource)| (key, resource.id)).collect();
    keys.sort_by_key(|(key, _)| key.number);
    keys
}

fn resources(view: &Store, service: ServiceId) -> impl Iterator<Item = (RevisionKey, &Resource)> {
    let named = view.resources_by_name_prefix(revision::name_prefix(service));
    named.filter_map(|resource| Some((revision::key(resource)?, &**resource)))
}
