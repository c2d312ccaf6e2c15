//! What a deploy did or would do, object by object and field by field.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Serialize;
use serde_json::Value;
use skep_compose::diff;
use skep_model::{
    Redacted, ServiceSpec,
    stack::{StackAction, StackChange, StackObject, StackOutcome, StackRevision},
};

use super::document;
use crate::{
    backend::{ClusterView, PlannedPlacement},
    dto::service as dto,
};

/// The answer to a plan and to commands.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Changed {
    name: String,
    pub(super) revision: u64,
    warnings: Vec<String>,
    changes: Vec<Change>,
}

/// What is done about one object.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Change {
    kind: &'static str,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored_as: Option<String>,
    action: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<Field>,
    #[serde(skip_serializing_if = "Option::is_none")]
    placement: Option<Placement>,
}

/// A field that becomes different.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Field {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    old: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new: Option<Value>,
    /// Of a text: what becomes different, line by line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lines: Vec<String>,
}

/// Where a service's tasks would be.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Placement {
    nodes: Vec<Place>,
    pending: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
}

/// Tasks on a node.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Place {
    name: String,
    count: u64,
}

impl Changed {
    /// `views` are the states before and after.
    pub(super) fn new(
        name: &str,
        outcome: &StackOutcome,
        views: (&dyn ClusterView, &dyn ClusterView),
    ) -> Self {
        let (before, after) = views;
        let in_force = super::state::revision_in_force(before, name);
        let kept = before.revisions_of_stack(name);
        let current = kept.into_iter().find(|kept| kept.number == in_force);
        let changes = outcome.changes.iter().map(|change| Change {
            kind: change.kind.noun(),
            name: change.name.clone(),
            stored_as: Some(change.stored_as.clone()).filter(|stored| *stored != change.name),
            action: change.action.verb(),
            fields: fields(change, current.as_ref(), before, after),
            placement: None,
        });
        Self {
            name: name.to_owned(),
            revision: outcome.revision,
            warnings: Vec::new(),
            changes: changes.collect(),
        }
    }

    /// Adds where tasks would be.
    pub(super) fn place(&mut self, view: &dyn ClusterView, placements: Vec<PlannedPlacement>) {
        let placements = placements.into_iter().map(|planned| {
            let nodes = planned.nodes.into_iter().map(|(id, count)| Place {
                name: view
                    .node(id)
                    .map_or(id.to_string(), |node| node.hostname().to_owned()),
                count,
            });
            let placement = Placement {
                nodes: nodes.collect(),
                pending: planned.pending,
                reason: planned.reason,
            };
            (planned.service, placement)
        });
        let mut placements: BTreeMap<String, Placement> = placements.collect();
        let services = self.changes.iter_mut();
        for change in services.filter(|change| change.kind == StackObject::Service.noun()) {
            change.placement = placements.remove(&change.name);
        }
    }
}

/// What becomes different in an object that is changed.
fn fields(
    change: &StackChange,
    current: Option<&StackRevision>,
    before: &dyn ClusterView,
    after: &dyn ClusterView,
) -> Vec<Field> {
    if change.action != StackAction::Update {
        return Vec::new();
    }
    let was = match (change.kind, current) {
        (StackObject::Secret, Some(current)) => current.secrets.get(&change.name),
        (StackObject::Config, Some(current)) => current.configs.get(&change.name),
        _ => None,
    };
    let was = was.unwrap_or(&change.name);
    let found = compared(change.kind, (before, was), (after, &change.stored_as));
    let found = found.unwrap_or_default().into_iter().map(|field| Field {
        path: field.path,
        old: field.old,
        new: field.new,
        lines: field.lines,
    });
    found.collect()
}

/// The differences of an object between two states, each with its name there. None when it is missing.
fn compared(
    kind: StackObject,
    (before, was): (&dyn ClusterView, &str),
    (after, is): (&dyn ClusterView, &str),
) -> Option<Vec<diff::Field>> {
    Some(match kind {
        StackObject::Network => {
            let (old, new) = (before.network_by_name(was)?, after.network_by_name(is)?);
            let (old, new) = (document::network(&old.spec), document::network(&new.spec));
            diff::fields(diff::Kind::Network, &old, &new)
        }
        StackObject::Secret => {
            let find = |view: &dyn ClusterView, name: &str| {
                let mut all = view.secrets().into_iter();
                all.find(|secret| secret.name() == name)
            };
            let (old, new) = (find(before, was)?, find(after, is)?);
            let values = [&old, &new].map(|secret| document::secret_value(&secret.spec));
            let mut found = diff::fields(diff::Kind::Secret, &values[0], &values[1]);
            if old.spec.data != new.spec.data {
                found.push(diff::Field::hidden());
            }
            found
        }
        StackObject::Config => {
            let find = |view: &dyn ClusterView, name: &str| {
                let mut all = view.configs().into_iter();
                all.find(|config| config.name() == name)
            };
            let (old, new) = (find(before, was)?, find(after, is)?);
            let values = [&old, &new].map(|config| document::config_value(&config.spec));
            let mut found = diff::fields(diff::Kind::Config, &values[0], &values[1]);
            found.extend(diff::content(&old.spec.data.0, &new.spec.data.0));
            found
        }
        StackObject::Service => {
            let (old, new) = (before.service_by_name(was)?, after.service_by_name(is)?);
            let (old, new) = named((before, &old.spec), (after, &new.spec));
            diff::fields(diff::Kind::Service, &value(&old)?, &value(&new)?)
        }
    })
}

/// A service as the API has it, without ids that were taken out.
fn value(spec: &ServiceSpec) -> Option<Value> {
    let mut value = serde_json::to_value(dto::ServiceSpec::from(spec)).ok()?;
    let container = &mut value["TaskTemplate"]["ContainerSpec"];
    for (list, id) in [("Secrets", "SecretID"), ("Configs", "ConfigID")] {
        let references = container[list].as_array_mut().into_iter().flatten();
        for reference in references.filter_map(Value::as_object_mut) {
            reference.retain(|key, value| key != id || *value != "");
        }
    }
    Some(value)
}

/// Two specs of a service with names in place of ids: those of a plan exist nowhere. An id stays where
/// what it means has gone, and where another object of the same name takes its place.
fn named(
    (before, old): (&dyn ClusterView, &ServiceSpec),
    (after, new): (&dyn ClusterView, &ServiceSpec),
) -> (ServiceSpec, ServiceSpec) {
    let (mut old, mut new) = (old.clone(), new.clone());
    for (view, spec) in [(before, &mut old), (after, &mut new)] {
        let task = Arc::make_mut(&mut spec.task);
        for network in task.networks.iter_mut().chain(&mut spec.networks) {
            let id = network.target.parse().ok();
            if let Some(found) = id.and_then(|id| view.network(id)) {
                found.name().clone_into(&mut network.target);
            }
        }
    }
    let (old_task, new_task) = (Arc::make_mut(&mut old.task), Arc::make_mut(&mut new.task));
    let (ours, theirs) = (&mut old_task.container, &mut new_task.container);
    for one in &mut ours.secrets {
        let mut others = theirs.secrets.iter();
        if !others.any(|other| {
            is_replaced(
                [&one.secret_name, &one.secret_id],
                [&other.secret_name, &other.secret_id],
            )
        }) {
            one.secret_id.clear();
        }
    }
    for one in &mut ours.configs {
        let mut others = theirs.configs.iter();
        if !others.any(|other| {
            is_replaced(
                [&one.config_name, &one.config_id],
                [&other.config_name, &other.config_id],
            )
        }) {
            one.config_id.clear();
        }
    }
    theirs
        .secrets
        .iter_mut()
        .for_each(|one| one.secret_id.clear());
    theirs
        .configs
        .iter_mut()
        .for_each(|one| one.config_id.clear());
    (old, new)
}

fn is_replaced([name, id]: [&String; 2], [other_name, other_id]: [&String; 2]) -> bool {
    name == other_name && id != other_id
}

/// The objects in which a revision differs from the one before it.
pub(super) fn changed(before: &StackRevision, after: &StackRevision) -> Vec<String> {
    let networks = |of: &StackRevision| {
        let all = of.spec.networks.iter();
        all.map(|spec| (spec.annotations.name.clone(), spec.clone()))
            .collect()
    };
    let services = |of: &StackRevision| -> BTreeMap<String, ServiceSpec> {
        let all = of.spec.services.iter();
        all.map(|spec| {
            let mut spec = spec.clone();
            let container = &mut Arc::make_mut(&mut spec.task).container;
            container.registry_auth = Redacted::default();
            (spec.annotations.name.clone(), spec)
        })
        .collect()
    };
    let mut found = Vec::new();
    let mut note = |kind: StackObject, names: BTreeSet<String>| {
        let texts = names.into_iter();
        found.extend(texts.map(|name| format!("{} {name}", kind.noun())));
    };
    note(
        StackObject::Network,
        differing(&networks(before), &networks(after)),
    );
    note(
        StackObject::Secret,
        differing(&before.secrets, &after.secrets),
    );
    note(
        StackObject::Config,
        differing(&before.configs, &after.configs),
    );
    note(
        StackObject::Service,
        differing(&services(before), &services(after)),
    );
    found
}

fn differing<T: PartialEq>(
    before: &BTreeMap<String, T>,
    after: &BTreeMap<String, T>,
) -> BTreeSet<String> {
    let names = before.keys().chain(after.keys());
    names
        .filter(|name| before.get(*name) != after.get(*name))
        .cloned()
        .collect()
}
