//! What a client was told is done stays done, whatever crashes.
//!
//! Each command that writes a spec puts a number into it, higher than all before. The spec in force
//! or the one before it (after a rollback) must never show less than what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use skep_manager::command::{Answer, Command, ServiceChange};
use skep_model::{Annotations, Node, Service, ServiceId, UpdateState, reserved};
use skep_store::{Change, Object, ObjectId, Store};

use crate::{
    facts::{Applied, Facts, Observation},
    invariants::Invariant,
};

/// Label of a spec's number.
pub(crate) const MARKER: &str = "sim.marker";

/// The number in a spec's labels.
pub(crate) fn marker(annotations: &Annotations) -> u64 {
    let text = annotations.labels.get(MARKER);
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// What a request wants of which object.
#[derive(Debug)]
enum Wish {
    Create(u64),
    Show(ObjectId, u64),
    Remove(ObjectId),
    CreateNetwork,
    CreateSecret,
    CreateConfig,
    Certificate,
    Stack,
    Other,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Acknowledged {
    issued: BTreeMap<u64, Wish>,
    removals: BTreeSet<ObjectId>,
    /// Services that were to be rolled back, at some time.
    rollbacks: BTreeSet<ServiceId>,
    /// Nodes were to be removed after a while, at some time.
    has_ttl: bool,
    shown: BTreeMap<ObjectId, u64>,
}

impl Invariant for Acknowledged {
    fn name(&self) -> &'static str {
        "acknowledged"
    }

    fn observe(&mut self, facts: &Facts, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Issued { request, command } => {
                let wish = wish_of(command);
                if let Command::UpdateService { id, change, .. } = command
                    && !matches!(change, ServiceChange::Spec(_))
                {
                    self.rollbacks.insert(*id);
                }
                if let Wish::Remove(id) = &wish {
                    self.removals.insert(*id);
                }
                if let Command::UpdateCluster { spec, .. } = command {
                    let labels = &spec.annotations.labels;
                    self.has_ttl |= labels.contains_key(reserved::NODE_TTL);
                }
                self.issued.insert(*request, wish);
                Ok(())
            }
            Observation::Replied {
                request,
                result: Ok(answer),
                ..
            } => self.acknowledge(facts.store(), *request, answer.clone()),
            Observation::Committed(Applied { changes, after, .. }) => {
                for change in changes {
                    self.note_rollback(change);
                    if let Some(object) = change.new.as_ref().or(change.old.as_ref()) {
                        self.check(after, object.id())?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Acknowledged {
    fn acknowledge(&mut self, store: &Store, request: u64, answer: Answer) -> Result<(), String> {
        match (self.issued.remove(&request), answer) {
            (None, _) => Err(format!(
                "request {request} was answered twice, or never made"
            )),
            (Some(Wish::Create(marker)), Answer::Service(id)) => {
                self.show(store, ObjectId::Service(id), marker)
            }
            (Some(Wish::CreateNetwork), Answer::Network(id)) => {
                self.show(store, ObjectId::Network(id), 0)
            }
            (Some(Wish::CreateSecret), Answer::Secret(id)) => {
                self.show(store, ObjectId::Secret(id), 0)
            }
            (Some(Wish::CreateConfig), Answer::Config(id)) => {
                self.show(store, ObjectId::Config(id), 0)
            }
            (Some(Wish::Show(id, marker)), Answer::Done) => self.show(store, id, marker),
            (Some(Wish::Remove(id)), Answer::Done) if store.object(id).is_some() => {
                Err(format!("{id:?} is said to be removed and is there"))
            }
            (Some(Wish::Remove(_) | Wish::Other), Answer::Done) => Ok(()),
            (Some(Wish::Stack), Answer::Stack(_)) => Ok(()),
            (Some(Wish::Certificate), Answer::Certificate { node_id, .. }) => {
                self.show(store, ObjectId::Node(node_id), 0)
            }
            (Some(wish), answer) => Err(format!("{wish:?} was answered by {answer:?}")),
        }
    }

    fn show(&mut self, store: &Store, id: ObjectId, marker: u64) -> Result<(), String> {
        let shown = self.shown.entry(id).or_default();
        *shown = marker.max(*shown);
        self.check(store, id)
    }

    /// A failed update goes back to the spec before it by itself, and forgets the failed one; a client
    /// may ask for any that is kept.
    fn note_rollback(&mut self, change: &Change) {
        let (Some(Object::Service(old)), Some(Object::Service(new))) = (&change.old, &change.new)
        else {
            return;
        };
        let rolls_back = |service: &Service| {
            let status = service.update_status.as_ref();
            status.is_some_and(|status| status.state == UpdateState::RollbackStarted)
        };
        let is_by_itself = !rolls_back(old) && old.previous_spec.as_ref() == Some(&new.spec);
        // To a revision that is neither: what was in force before both may be forgotten.
        let is_to_kept = old.spec_version != new.spec_version;
        // A job has no update whose state would say so.
        let is_job = new.job_status.is_some() && self.rollbacks.contains(&new.id);
        if (rolls_back(new) && (is_by_itself || is_to_kept)) || (is_job && is_to_kept) {
            // Stacks' services were acknowledged with their stack, which may prune them.
            if let Some(shown) = self.shown.get_mut(&ObjectId::Service(new.id)) {
                *shown = service_marker(new);
            }
        }
    }

    fn check(&self, store: &Store, id: ObjectId) -> Result<(), String> {
        let Some(acknowledged) = self.shown.get(&id) else {
            return Ok(());
        };
        let stored = match store.object(id) {
            None if self.removals.contains(&id) => return Ok(()),
            // Removed because it was down for too long.
            None if matches!(id, ObjectId::Node(_)) && self.has_ttl => return Ok(()),
            None => return Err(format!("{id:?} was acknowledged and is gone")),
            Some(Object::Service(service)) => service_marker(&service),
            Some(Object::Node(node)) => node_marker(&node),
            Some(
                Object::Task(_)
                | Object::Network(_)
                | Object::Cluster(_)
                | Object::Extension(_)
                | Object::Resource(_)
                | Object::Secret(_)
                | Object::Config(_),
            ) => return Ok(()),
        };
        if stored < *acknowledged {
            return Err(format!(
                "{id:?} shows {stored}, though {acknowledged} was acknowledged"
            ));
        }
        Ok(())
    }
}

fn service_marker(service: &Service) -> u64 {
    let previous = service.previous_spec.as_ref();
    let previous = previous.map_or(0, |spec| marker(&spec.annotations));
    marker(&service.spec.annotations).max(previous)
}

fn node_marker(node: &Node) -> u64 {
    marker(&node.spec.annotations)
}

fn wish_of(command: &Command) -> Wish {
    match command {
        Command::CreateService { spec } => Wish::Create(marker(&spec.annotations)),
        Command::UpdateService { id, change, .. } => match change {
            ServiceChange::Spec(spec) => {
                Wish::Show(ObjectId::Service(*id), marker(&spec.annotations))
            }
            ServiceChange::Rollback | ServiceChange::RollbackTo(_) => Wish::Other,
        },
        Command::RemoveService { id } => Wish::Remove(ObjectId::Service(*id)),
        Command::UpdateNode { id, spec, .. } => {
            Wish::Show(ObjectId::Node(*id), marker(&spec.annotations))
        }
        Command::RemoveNode { id, .. } => Wish::Remove(ObjectId::Node(*id)),
        Command::IssueCertificate { .. } => Wish::Certificate,
        Command::CreateNetwork { .. } => Wish::CreateNetwork,
        Command::RemoveNetwork { id } => Wish::Remove(ObjectId::Network(*id)),
        Command::CreateSecret { .. } => Wish::CreateSecret,
        Command::RemoveSecret { id } => Wish::Remove(ObjectId::Secret(*id)),
        Command::CreateConfig { .. } => Wish::CreateConfig,
        Command::RemoveConfig { id } => Wish::Remove(ObjectId::Config(*id)),
        Command::ApplyStack { .. }
        | Command::RollBackStack { .. }
        | Command::RemoveStack { .. } => Wish::Stack,
        Command::UpdateSecret { .. }
        | Command::UpdateConfig { .. }
        | Command::UpdateCluster { .. }
        | Command::LeaveGroup { .. } => Wish::Other,
    }
}
