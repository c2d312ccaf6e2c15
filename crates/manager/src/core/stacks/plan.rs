//! What a deploy would do, by doing it to a copy that is thrown away.

use std::{collections::BTreeMap, sync::Arc};

use skep_control::{Dirty, Wakes, drive};
use skep_model::{
    NodeId, Rng, Service, ServiceId, TaskState, Timestamp, Version,
    reserved::service::depends::DEPENDS_ON,
    stack::{ApplyOptions, StackAction, StackObject, StackOutcome, StackSpec},
};
use skep_store::{Store, Transaction};

use super::{super::lead::last_write, deploy::Deploy, kept, try_apply};
use crate::{command::CommandError, group::Group};

/// Any: ids of a plan are seen by nobody.
const SEED: u64 = 0x0070_6c61_6e00;
/// Writes of a plan. A service of a hundred thousand tasks is planned in part.
const WRITES_MAX: usize = 50_000;

/// What a deploy would do.
#[derive(Debug, Clone)]
pub struct StackPlan {
    /// The changes.
    pub outcome: StackOutcome,
    /// Where the tasks of its services would be, in the order of the changes.
    pub services: Vec<PlannedService>,
    /// The state after the deploy itself.
    pub store: Store,
}

/// Where a service's tasks would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedService {
    /// Its name.
    pub name: String,
    /// Tasks on each node.
    pub nodes: BTreeMap<NodeId, u64>,
    /// Tasks that no node would take now.
    pub pending: u64,
    /// Why.
    pub reason: String,
}

/// Plans a deploy on `view`, the state as of entry `index`.
pub(crate) fn plan(
    (view, index): (&Store, u64),
    group: &Group,
    (spec, options): (StackSpec, ApplyOptions),
    now: Timestamp,
) -> Result<StackPlan, CommandError> {
    let now = now.max(Timestamp(last_write(view).0.saturating_add(1)));
    let mut rng = Rng::from_seed(SEED);
    let mut tx = Transaction::new(view, Version(index), now);
    let outcome = try_apply(&mut tx, (&mut rng, group), spec, options)?;
    let store = tx.view().clone();
    let changed = outcome.changes.iter().filter(|change| {
        change.kind == StackObject::Service
            && matches!(change.action, StackAction::Create | StackAction::Update)
    });
    for change in changed {
        begin_anew(&mut tx, &change.name);
    }
    let mut dirty = Dirty::default();
    for change in tx.changes() {
        dirty.mark(change);
    }
    let budget = tx.actions().len() + WRITES_MAX;
    drive(&mut tx, &mut dirty, &mut Wakes::default(), &mut rng, budget);
    let wanted = outcome.changes.iter().filter(|change| {
        change.kind == StackObject::Service && change.action != StackAction::Remove
    });
    let services = wanted.filter_map(|change| placement(tx.view(), &change.name));
    Ok(StackPlan {
        services: services.collect(),
        outcome,
        store,
    })
}

/// Services that are not as the stack's revision in force says, in the order of its document. None are
/// told of a stack whose revision cannot be deployed any more.
pub(crate) fn astray((view, index): (&Store, u64), group: &Group, name: &str) -> Vec<String> {
    let Some(standing) = kept::find(view, name) else {
        return Vec::new();
    };
    let kept = kept::revisions(view, &standing.stack.name);
    let current = kept
        .iter()
        .find(|kept| kept.number == standing.stack.revision);
    let Some(current) = current else {
        return Vec::new();
    };
    let now = Timestamp(last_write(view).0.saturating_add(1));
    let mut tx = Transaction::new(view, Version(index), now);
    let mut rng = Rng::from_seed(SEED);
    let means = (&mut rng, group);
    let deploy = Deploy::new(&mut tx, means, Some(standing), ApplyOptions::default());
    let Ok(outcome) = deploy.back_to(current) else {
        return Vec::new();
    };
    let services = outcome.changes.into_iter().filter(|change| {
        change.kind == StackObject::Service && change.action == StackAction::Update
    });
    services.map(|change| change.name).collect()
}

/// A service as if it had no tasks yet and waited for nobody: the question is where its tasks will
/// be in the end.
fn begin_anew(tx: &mut Transaction, name: &str) {
    let Some(stored) = tx.view().service_by_name(name).cloned() else {
        return;
    };
    let tasks = tx.view().tasks_of_service(stored.id);
    let tasks: Vec<_> = tasks.map(|task| task.id).collect();
    for id in tasks {
        tx.remove_task(id);
    }
    let mut service = Service::clone(&stored);
    let spec = Arc::make_mut(&mut service.spec);
    let annotations = Arc::make_mut(&mut spec.annotations);
    annotations.labels.remove(DEPENDS_ON);
    service.update_status = None;
    tx.update_service(service)
        .expect("a service just read can be written");
}

fn placement(view: &Store, name: &str) -> Option<PlannedService> {
    let service: ServiceId = view.service_by_name(name)?.id;
    let mut planned = PlannedService {
        name: name.to_owned(),
        nodes: BTreeMap::new(),
        pending: 0,
        reason: String::new(),
    };
    for task in view.tasks_of_service(service) {
        let is_wanted =
            task.desired_state <= TaskState::Complete && !task.status.state.is_terminal();
        if !is_wanted {
            continue;
        }
        match task
            .node_id
            .filter(|_| task.status.state >= TaskState::Assigned)
        {
            Some(node) => *planned.nodes.entry(node).or_default() += 1,
            None => {
                planned.pending += 1;
                if planned.reason.is_empty() {
                    planned.reason.clone_from(&task.status.err);
                }
            }
        }
    }
    Some(planned)
}
