//! Stacks and revisions as stored: found, written, and forgotten beyond what is kept.

use skep_model::{
    Rng,
    id::{ExtensionId, ResourceId},
    object::Resource,
    stack::{REVISIONS_KEPT, Stack, StackRevision},
};
use skep_store::{Store, Transaction};
use skep_wire::stack as wire;

/// A stack as stored, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// Its resource.
    pub id: ResourceId,
    /// The stack.
    pub stack: Stack,
}

/// The stack of this name, without regard to case.
pub fn find(view: &Store, name: &str) -> Option<Standing> {
    let wanted = wire::resource_name(name);
    let mut named = view.resources_by_name_prefix(wanted.clone());
    let found = named.find(|resource| resource.annotations.name.eq_ignore_ascii_case(&wanted))?;
    standing(found)
}

/// All stacks that are stored, by name. Those of Docker's CLI are not.
pub fn list(view: &Store) -> Vec<Standing> {
    let all = view.resources_by_name_prefix(wire::NAME_PREFIX.to_owned());
    all.filter(|resource| wire::is_stack(resource))
        .filter_map(|resource| standing(resource))
        .collect()
}

fn standing(resource: &Resource) -> Option<Standing> {
    let stack = wire::stack(resource).ok()?;
    let id = resource.id;
    Some(Standing { id, stack })
}

/// The revisions kept of a stack, oldest first. One that cannot be read is left out: it was
/// written by a later version.
pub fn revisions(view: &Store, name: &str) -> Vec<StackRevision> {
    let named = view.resources_by_name_prefix(wire::revision_prefix(name));
    named
        .filter_map(|resource| wire::revision(resource).ok())
        .collect()
}

/// Writes the stack, if it is not stored like that.
pub(super) fn store(
    tx: &mut Transaction,
    rng: &mut Rng,
    standing: Option<&Standing>,
    stack: &Stack,
) {
    let Some(standing) = standing else {
        declare(tx, rng);
        let resource = wire::resource(ResourceId::random(rng), stack);
        tx.create_resource(resource)
            .expect("the name of a stack was looked for");
        return;
    };
    if standing.stack == *stack {
        return;
    }
    let stored = tx.view().resource(standing.id);
    let meta = stored.expect("a stack that was found is stored").meta;
    let resource = Resource {
        meta,
        ..wire::resource(standing.id, stack)
    };
    tx.update_resource(resource)
        .expect("a stack just read can be written");
}

/// Adds a revision.
pub(super) fn note(tx: &mut Transaction, rng: &mut Rng, revision: &StackRevision) {
    declare(tx, rng);
    let resource = wire::revision_resource(ResourceId::random(rng), revision);
    tx.create_resource(resource)
        .expect("numbers of revisions are used once");
}

/// Forgets the oldest revisions beyond what is kept, but not the one in force nor the one before it.
/// Returns them.
pub(super) fn forget_old(tx: &mut Transaction, stack: &Stack) -> Vec<StackRevision> {
    let prefix = wire::revision_prefix(&stack.name);
    let named = tx.view().resources_by_name_prefix(prefix);
    let kept: Vec<(ResourceId, Option<StackRevision>)> = named
        .map(|resource| (resource.id, wire::revision(resource).ok()))
        .collect();
    let excess = kept.len().saturating_sub(REVISIONS_KEPT);
    let is_in_force = |revision: &Option<StackRevision>| {
        let number = revision.as_ref().map(|revision| revision.number);
        number.is_some_and(|number| [stack.revision, stack.previous].contains(&number))
    };
    let old = kept.into_iter().filter(|(_, old)| !is_in_force(old));
    let mut forgotten = Vec::new();
    for (id, revision) in old.take(excess) {
        tx.remove_resource(id);
        forgotten.extend(revision);
    }
    forgotten
}

/// Forgets all revisions of a stack.
pub(super) fn forget_revisions(tx: &mut Transaction, name: &str) {
    let named = tx
        .view()
        .resources_by_name_prefix(wire::revision_prefix(name));
    let ids: Vec<ResourceId> = named.map(|resource| resource.id).collect();
    for id in ids {
        tx.remove_resource(id);
    }
}

/// Swarm has no resource without an extension that names its kind.
fn declare(tx: &mut Transaction, rng: &mut Rng) {
    let is_missing = tx
        .view()
        .extensions()
        .all(|extension| extension.annotations.name != wire::KIND);
    if is_missing {
        let extension = wire::extension(ExtensionId::random(rng));
        tx.create_extension(extension)
            .expect("no extension has the name");
    }
}
