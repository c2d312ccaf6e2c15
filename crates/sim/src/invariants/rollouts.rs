//! Updates: as many slots at once as they may, paused until somebody acts, rolled back to the spec
//! before, complete when every task is of the new spec. Every spec is kept under one number.

use std::collections::BTreeMap;

use skep_model::{Service, ServiceId, ServiceMode, TaskState, UpdateState, Version};
use skep_store::{Change, Object, Store};

use crate::{
    facts::{Applied, Facts, Observation},
    invariants::Invariant,
};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Rollouts {
    /// What each number stood for.
    revisions: BTreeMap<(ServiceId, u64), Version>,
}

impl Invariant for Rollouts {
    fn name(&self) -> &'static str {
        "rollouts"
    }

    fn observe(&mut self, _: &Facts, observation: &Observation<'_>) -> Result<(), String> {
        let Some(Applied {
            changes,
            before,
            after,
            ..
        }) = observation.committed()
        else {
            return Ok(());
        };
        if let Some(violation) = skep_control::check_step(before, after).first() {
            return Err(violation.to_string());
        }
        for change in changes {
            check_step(change)?;
            if let Object::Service(service) = change.subject() {
                self.check_revisions(after, service.id)?;
            }
        }
        for change in changes {
            if let (Some(Object::Service(old)), Some(Object::Service(new))) =
                (&change.old, &change.new)
                && state(old) != state(new)
                && after.service(new.id) == Some(new)
            {
                check_complete(after, new)?;
            }
        }
        Ok(())
    }
}

impl Rollouts {
    /// The spec in force is kept, under a number that never stood for another; nothing is kept of a
    /// service that is gone.
    fn check_revisions(&mut self, store: &Store, id: ServiceId) -> Result<(), String> {
        let kept = skep_manager::revisions(store, id);
        let Some(service) = store.service(id) else {
            return match kept.len() {
                0 => Ok(()),
                count => Err(format!("{count} revisions are kept of {id}, which is gone")),
            };
        };
        for revision in &kept {
            let known = self.revisions.entry((id, revision.number));
            let known = known.or_insert(revision.spec_version);
            if *known != revision.spec_version {
                let number = revision.number;
                return Err(format!("revision {number} of {id} stood for another spec"));
            }
        }
        let mut in_force = kept.iter().filter(|revision| {
            revision.spec_version == service.spec_version && revision.spec == service.spec
        });
        match in_force.next() {
            Some(_) => Ok(()),
            None => Err(format!("the spec of {id} is not kept")),
        }
    }
}

fn state(service: &Service) -> Option<UpdateState> {
    service.update_status.as_ref().map(|status| status.state)
}

/// What one write may do to an update.
fn check_step(change: &Change) -> Result<(), String> {
    let (Some(Object::Service(old)), Some(Object::Service(new))) = (&change.old, &change.new)
    else {
        return Ok(());
    };
    let is_same_spec = old.spec_version == new.spec_version;
    let is_paused = matches!(
        state(old),
        Some(UpdateState::Paused | UpdateState::RollbackPaused)
    );
    if is_paused && is_same_spec && state(old) != state(new) {
        let (id, old, new) = (new.id, state(old), state(new));
        return Err(format!("{id} went from {old:?} to {new:?} by itself"));
    }
    let is_by_itself = new
        .update_status
        .as_ref()
        .is_some_and(|status| status.message.starts_with("update rolled back"));
    let rolls_back = state(new) == Some(UpdateState::RollbackStarted) && state(old) != state(new);
    if rolls_back && is_by_itself && old.previous_spec.as_ref() != Some(&new.spec) {
        return Err(format!("{} was not rolled back to the spec before", new.id));
    }
    let is_rolling_back = state(old) == Some(UpdateState::RollbackStarted);
    if is_rolling_back && is_same_spec && old.spec != new.spec {
        return Err(format!("{} changed its spec while rolled back", new.id));
    }
    Ok(())
}

/// When an update or rollback is complete, every task that shall run is of its spec.
fn check_complete(store: &Store, service: &Service) -> Result<(), String> {
    let is_complete = matches!(
        state(service),
        Some(UpdateState::Completed | UpdateState::RollbackCompleted)
    );
    let is_replicated = matches!(service.spec.mode, ServiceMode::Replicated { .. });
    if !is_complete || !is_replicated {
        return Ok(());
    }
    let wanted = &service.spec.task;
    let mut live = store
        .tasks_of_service(service.id)
        .filter(|task| task.desired_state <= TaskState::Running);
    let other = live.find(|task| {
        task.spec.force_update != wanted.force_update
            || task.spec.container != wanted.container
            || task.spec.restart != wanted.restart
            || task.spec.resources != wanted.resources
            || task.spec.networks != wanted.networks
    });
    match other {
        None => Ok(()),
        Some(task) => Err(format!(
            "{} is {:?}, and task {} is of another spec",
            service.id,
            state(service),
            task.id
        )),
    }
}
