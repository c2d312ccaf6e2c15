//! What a deploy did or would do, object by object and field by field.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};
use skep_compose::diff;
use skep_model::{
    Redacted, ServiceSpec,
    stack::{StackAction, StackChange, StackObject, StackOutcome, StackRevision},
};

use super::document;
use crate::{
    backend::{ClusterView, PlannedPlacement},
    dto::service as dto,
    http::base64,
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
    let old = value(before, change.kind, was);
    let new = value(after, change.kind, &change.stored_as);
    let (Some(old), Some(new)) = (old, new) else {
        return Vec::new();
    };
    let kind = match change.kind {
        StackObject::Network => diff::Kind::Network,
        StackObject::Secret => diff::Kind::Secret,
        StackObject::Config => diff::Kind::Config,
        StackObject::Service => diff::Kind::Service,
    };
    let found = diff::fields(kind, &old, &new).into_iter();
    let found = found.map(|field| Field {
        path: field.path,
        old: field.old,
        new: field.new,
    });
    found.collect()
}

/// An object as the API shows its spec.
fn value(view: &dyn ClusterView, kind: StackObject, name: &str) -> Option<Value> {
    match kind {
        StackObject::Network => {
            let found = view.network_by_name(name)?;
            Some(document::network(&found.spec))
        }
        StackObject::Secret => {
            let all = view.secrets();
            let found = all.iter().find(|secret| secret.name() == name)?;
            Some(document::secret_value(&found.spec))
        }
        StackObject::Config => {
            let all = view.configs();
            let found = all.iter().find(|config| config.name() == name)?;
            let mut value = document::config_value(&found.spec);
            value["Data"] = json!(base64::encode(&found.spec.data.0));
            Some(value)
        }
        StackObject::Service => {
            let found = view.service_by_name(name)?;
            serde_json::to_value(dto::ServiceSpec::from(&*found.spec)).ok()
        }
    }
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
            let container = &mut std::sync::Arc::make_mut(&mut spec.task).container;
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
