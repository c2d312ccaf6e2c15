//! Untagging, deleting and pruning, with the conflicts of Docker's engine.

use super::{
    Error, Filters, ImageId, ImageStore, Reference,
    error::Result,
    metadata::Snapshot,
    store::{resolve, stored_form},
};

/// One step of a removal, as the API reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A familiar reference.
    Untagged(String),
    /// An image id, or a layer's diff id.
    Deleted(String),
}

/// What a prune did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// In order.
    pub removed: Vec<Removed>,
    /// Bytes of files deleted.
    pub reclaimed_bytes: u64,
}

/// What stands against deleting an image.
#[derive(Clone, Copy)]
struct Strictness {
    /// Names and stopped containers do, too.
    is_soft: bool,
    /// Names do not although containers do.
    ignore_names: bool,
}

// === impl ImageStore ===

impl ImageStore {
    /// Removes a name, or an image with its names if it is given by id, as `docker rmi`. `is_running` tells of a lease's owner whether it
    /// runs. Images here have no parents, so there is nothing `noprune` could keep. Blocks on deletion.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::ReferenceInUse`], [`Error::DeleteConflict`]; disk errors.
    pub fn remove(
        &self,
        text: &str,
        force: bool,
        is_running: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<Removed>> {
        let removed = {
            let _guard = self.decide();
            self.remove_names(text, force, is_running)?
        };
        self.finish_removal(removed).map(|pruned| pruned.removed)
    }

    /// Deletes unused images: those without a tag, or with `all` every one no container uses. Blocks on deletion.
    ///
    /// # Errors
    /// Disk errors. Conflicts are skipped.
    pub fn prune(&self, all: bool, filters: &Filters) -> Result<Pruned> {
        let mut removed = Vec::new();
        {
            let _guard = self.decide();
            let snapshot = self.inner.metadata.snapshot()?;
            for id in snapshot.images.keys() {
                let references = snapshot.references_of(*id);
                let is_wanted = all || references.iter().all(|r| r.tag().is_none());
                if !is_wanted
                    || snapshot.owners_of(*id).next().is_some()
                    || !filters.accept_image(&references, &self.document(*id)?)
                {
                    continue;
                }
                self.delete(*id, &references, &mut removed)?;
            }
        }
        self.finish_removal(removed)
    }

    fn remove_names(
        &self,
        text: &str,
        force: bool,
        is_running: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<Removed>> {
        let snapshot = self.inner.metadata.snapshot()?;
        let id = resolve(&snapshot, text)?;
        let references = snapshot.references_of(id);
        let mut removed = Vec::new();
        // A name wins over an id that begins alike.
        let name = text
            .parse::<Reference>()
            .ok()
            .map(|reference| stored_form(&reference));
        let name = name.filter(|name| references.contains(name));
        let Some(reference) = name else {
            let mut strictness = Strictness {
                is_soft: !force,
                ignore_names: false,
            };
            if is_single(&references) {
                strictness.ignore_names = true;
            }
            check_conflicts(&snapshot, id, &references, strictness, is_running)?;
            self.delete(id, &references, &mut removed)?;
            return Ok(removed);
        };
        if !force
            && is_single(&references)
            && let Some(owner) = snapshot.owners_of(id).next()
        {
            return Err(Error::ReferenceInUse {
                reference: text.to_owned(),
                container: short(owner),
                image: id.short(),
            });
        }
        let (gone, remaining) = untag(&reference, references);
        let is_kept = !remaining.is_empty()
            || check_conflicts(
                &snapshot,
                id,
                &remaining,
                Strictness { is_soft: !force, ignore_names: false },
                is_running,
            )
            // An image without a name that a container uses simply becomes dangling.
            .is_err();
        if is_kept {
            let keys: Vec<String> = gone.iter().map(Reference::to_string).collect();
            self.inner.metadata.remove(&keys, None)?;
            removed.extend(gone.iter().map(|r| Removed::Untagged(r.familiar())));
        } else {
            self.delete(id, &gone, &mut removed)?;
        }
        Ok(removed)
    }

    /// Removes the record and names of an image; its files go with the next collection.
    fn delete(
        &self,
        id: ImageId,
        references: &[Reference],
        removed: &mut Vec<Removed>,
    ) -> Result<()> {
        self.inner.disk.step("delete image")?;
        let keys: Vec<String> = references.iter().map(Reference::to_string).collect();
        self.inner.metadata.remove(&keys, Some(id))?;
        removed.extend(references.iter().map(|r| Removed::Untagged(r.familiar())));
        removed.push(Removed::Deleted(id.to_string()));
        Ok(())
    }

    /// Collects if an image went, and reports its layers that went, too.
    fn finish_removal(&self, mut removed: Vec<Removed>) -> Result<Pruned> {
        if !removed
            .iter()
            .any(|step| matches!(step, Removed::Deleted(_)))
        {
            return Ok(Pruned {
                removed,
                reclaimed_bytes: 0,
            });
        }
        let before = self.inner.disk.layers()?;
        let reclaimed_bytes = self.collect()?;
        let gone = before
            .into_iter()
            .filter(|diff_id| !self.inner.disk.has_layer(*diff_id));
        removed.extend(gone.map(|diff_id| Removed::Deleted(diff_id.to_string())));
        Ok(Pruned {
            removed,
            reclaimed_bytes,
        })
    }
}

/// Takes `reference` away, and with a repository's last tag its digests. Returns what goes and what stays.
fn untag(reference: &Reference, references: Vec<Reference>) -> (Vec<Reference>, Vec<Reference>) {
    let rest: Vec<Reference> = references
        .into_iter()
        .filter(|other| other != reference)
        .collect();
    let is_sibling = |other: &Reference| other.name() == reference.name();
    let mut gone = vec![reference.clone()];
    if reference.digest().is_some() || rest.iter().any(|r| is_sibling(r) && r.digest().is_none()) {
        return (gone, rest);
    }
    let (siblings, rest) = rest.into_iter().partition::<Vec<_>, _>(is_sibling);
    gone.extend(siblings);
    (gone, rest)
}

/// Whether the names are one, or one tag and digests of the same repository.
fn is_single(references: &[Reference]) -> bool {
    let tag_count = references.iter().filter(|r| r.digest().is_none()).count();
    let mut names: Vec<String> = references.iter().map(Reference::name).collect();
    names.dedup();
    references.len() <= 1 || (tag_count <= 1 && names.len() == 1)
}

fn check_conflicts(
    snapshot: &Snapshot,
    id: ImageId,
    references: &[Reference],
    strictness: Strictness,
    is_running: &dyn Fn(&str) -> bool,
) -> Result<()> {
    let conflict = |advice, reason| Error::DeleteConflict {
        image: id.short(),
        advice,
        reason,
    };
    if let Some(owner) = snapshot.owners_of(id).find(|owner| is_running(owner)) {
        let reason = format!("image is being used by running container {}", short(owner));
        return Err(conflict("cannot be forced", reason));
    }
    if !strictness.is_soft {
        return Ok(());
    }
    if !strictness.ignore_names && !references.is_empty() {
        return Err(conflict(
            "must be forced",
            "image is referenced in multiple repositories".to_owned(),
        ));
    }
    if let Some(owner) = snapshot.owners_of(id).next() {
        let reason = format!("image is being used by stopped container {}", short(owner));
        return Err(conflict("must be forced", reason));
    }
    Ok(())
}

/// As Docker abbreviates container ids.
fn short(owner: &str) -> String {
    owner.chars().take(12).collect()
}
