//! A stack's services: references filled in, made in the order of what they wait for, and written only
//! when they differ from what is stored.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use skep_model::{
    Service, ServiceSpec, UpdateState, UpdateStatus,
    reserved::service::depends,
    stack::{IMAGE_LABEL, StackAction, StackObject, StackSpec},
};
use skep_wire::stack as wire;

use super::{
    super::{revisions, services},
    deploy::Deploy,
    is_of, services_of,
};
use crate::command::{CommandError, ServiceChange};

const KIND: StackObject = StackObject::Service;

impl Deploy<'_> {
    pub(super) fn deploy_services(&mut self, spec: &StackSpec) {
        for wanted in self.in_order(&spec.services) {
            if let Some(resolved) = self.resolve(wanted) {
                self.deploy_service(resolved);
            }
        }
    }

    /// Services after those they wait for, else in the order of the document.
    fn in_order<'s>(&mut self, all: &'s [ServiceSpec]) -> Vec<&'s ServiceSpec> {
        let names = all.iter().map(|spec| name(spec).to_lowercase());
        let at: BTreeMap<String, usize> = names.zip(0..).collect();
        let mut waiters: Vec<Vec<usize>> = vec![Vec::new(); all.len()];
        let mut left: Vec<usize> = vec![0; all.len()];
        for (waiter, spec) in all.iter().enumerate() {
            for on in depends::dependencies(&spec.annotations.labels).keys() {
                // One that waits for itself is told so with the others that are wrong.
                let on = at.get(&on.to_lowercase());
                if let Some(on) = on.filter(|on| **on != waiter) {
                    waiters[*on].push(waiter);
                    left[waiter] += 1;
                }
            }
        }
        let mut ready: BTreeSet<usize> = (0..all.len()).filter(|i| left[*i] == 0).collect();
        let mut ordered = Vec::new();
        while !ready.is_empty() {
            // By rounds: who waits for one of a round is of a later one.
            for done in std::mem::take(&mut ready) {
                ordered.push(&all[done]);
                for waiter in &waiters[done] {
                    left[*waiter] -= 1;
                    if left[*waiter] == 0 {
                        ready.insert(*waiter);
                    }
                }
            }
        }
        if ordered.len() < all.len() {
            let waiting = all.iter().zip(&left).filter(|(_, left)| **left > 0);
            let names: BTreeSet<&str> = waiting.map(|(spec, _)| name(spec)).collect();
            let names: Vec<&str> = names.into_iter().collect();
            let names = names.join(", ");
            self.problem(format!("services wait for each other: {names}"));
        }
        ordered
    }

    /// The spec with ids in place of names.
    fn resolve(&mut self, wanted: &ServiceSpec) -> Option<ServiceSpec> {
        let mut spec = wanted.clone();
        let (mut missing, mut is_doomed) = (Vec::new(), false);
        let task = Arc::make_mut(&mut spec.task);
        for network in task.networks.iter_mut().chain(&mut spec.networks) {
            let target = &network.target;
            let known = self.networks.get(target).copied();
            let found = known.or_else(|| {
                let tables = self.tx.view().networks();
                tables.by_name(target).map(|found| found.id)
            });
            match found {
                Some(id) => network.target = id.to_string(),
                None if self.has_failed(StackObject::Network, target) => is_doomed = true,
                None => missing.push(format!("network {target} not found")),
            }
        }
        let container = &mut task.container;
        let secrets = container.secrets.iter_mut();
        let secrets = secrets.map(|one| (&mut one.secret_name, &mut one.secret_id));
        let configs = container.configs.iter_mut();
        let configs = configs.map(|one| (&mut one.config_name, &mut one.config_id));
        let secrets = secrets.map(|reference| (StackObject::Secret, reference));
        let configs = configs.map(|reference| (StackObject::Config, reference));
        for (kind, (name, id)) in secrets.chain(configs) {
            match self.supply(kind, name) {
                Some(found) => (*id, *name) = found,
                None if self.has_failed(kind, name) => is_doomed = true,
                None => missing.push(format!("{} {name} not found", kind.noun())),
            }
        }
        if !missing.is_empty() {
            self.fail(KIND, name(wanted), &missing.join("; "));
        }
        (missing.is_empty() && !is_doomed).then_some(spec)
    }

    fn has_failed(&self, kind: StackObject, name: &str) -> bool {
        self.failed.contains(&(kind, name.to_owned()))
    }

    fn deploy_service(&mut self, mut spec: ServiceSpec) {
        let name = name(&spec).to_owned();
        let Some(stored) = self.tx.view().service_by_name(&name).cloned() else {
            return match services::create(self.tx, self.group, self.rng, spec) {
                Ok(_) => self.change(KIND, &name, StackAction::Create),
                Err(error) => self.fail(KIND, &name, &error.message),
            };
        };
        if !is_of(&stored.spec.annotations.labels, &self.name) {
            return self.fail_as_foreign(KIND, &name);
        }
        adopt(&mut spec, &stored.spec);
        if self.options.force {
            Arc::make_mut(&mut spec.task).force_update += 1;
        }
        if wire::is_same_service(&spec, &stored.spec) {
            return self.change(KIND, &name, StackAction::Unchanged);
        }
        let written = if self.going_back_to.is_some() {
            self.return_service(&stored, spec)
        } else {
            self.write_service(&stored, ServiceChange::Spec(Box::new(spec)))
        };
        match written {
            Ok(()) => self.change(KIND, &name, StackAction::Update),
            Err(error) => self.fail(KIND, &name, &error.message),
        }
    }

    fn write_service(
        &mut self,
        stored: &Service,
        change: ServiceChange,
    ) -> Result<(), CommandError> {
        let change = (stored.meta.version, change);
        services::update(self.tx, (self.rng, self.group), stored.id, change).map(drop)
    }

    /// Goes back to a spec by the rollback settings, and under its old number if that is kept.
    fn return_service(&mut self, stored: &Service, spec: ServiceSpec) -> Result<(), CommandError> {
        let kept = revisions::list(self.tx.view(), stored.id);
        let known = kept.iter().find(|revision| {
            revision.spec_version != stored.spec_version
                && wire::is_same_service(&revision.spec, &spec)
        });
        if let Some(revision) = known {
            return self.write_service(stored, ServiceChange::RollbackTo(revision.number));
        }
        self.write_service(stored, ServiceChange::Spec(Box::new(spec)))?;
        let written = self.tx.view().service(stored.id);
        let mut service = Service::clone(written.expect("a service just written is there"));
        if service.job_status.is_none() {
            service.update_status = Some(UpdateStatus {
                state: UpdateState::RollbackStarted,
                started_at: Some(self.tx.now()),
                completed_at: None,
                message: format!("rollback of stack {}", self.name),
            });
            self.tx
                .update_service(service)
                .expect("a service just read can be written");
        }
        Ok(())
    }

    /// Removes services the document has not.
    pub(super) fn prune_services(&mut self, spec: &StackSpec) {
        let wanted = |service: &Service| {
            let mut names = spec.services.iter().map(name);
            names.any(|name| name.eq_ignore_ascii_case(service.name()))
        };
        let gone: Vec<_> = services_of(self.tx.view(), &self.name)
            .filter(|service| !wanted(service))
            .map(|service| (service.id, service.name().to_owned()))
            .collect();
        for (id, name) in gone {
            match services::remove(self.tx, id) {
                Ok(_) => self.change(KIND, &name, StackAction::Remove),
                Err(error) => self.fail(KIND, &name, &error.message),
            }
        }
    }
}

fn name(spec: &ServiceSpec) -> &str {
    &spec.annotations.name
}

/// Takes over what a document does not say: how often the service was forced, credentials, and the
/// digest of an image that is still called the same.
fn adopt(spec: &mut ServiceSpec, stored: &ServiceSpec) {
    let label = |spec: &ServiceSpec| spec.annotations.labels.get(IMAGE_LABEL).cloned();
    let is_called_alike = label(spec) == label(stored);
    let task = Arc::make_mut(&mut spec.task);
    task.force_update = stored.task.force_update;
    let (container, old) = (&mut task.container, &stored.task.container);
    if container.registry_auth.0.is_empty() {
        container.registry_auth = old.registry_auth.clone();
    }
    let name_of_old = old.image.split_once('@').map(|(name, _)| name);
    if is_called_alike && name_of_old == Some(container.image.as_str()) {
        container.image.clone_from(&old.image);
    }
}
