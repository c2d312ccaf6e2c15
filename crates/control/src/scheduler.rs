//! Chooses nodes for all tasks that wait for one.
//!
//! Tasks of one revision of a service are placed in bulk: nodes are filtered once, then each
//! decision takes the best node off a heap. Why a task is not placed is written into its status,
//! where `service ps` shows it. See `docs/design/scheduler.md`.

pub(crate) mod balance;
mod filter;
mod fleet;
mod relation;
mod spread;

use std::{collections::BTreeSet, sync::Arc};

use skep_model::{
    GenericResource, NodeId, ServiceId, SpecVersion, Task, TaskId, TaskState, Timestamp,
};
use skep_store::Store;

use self::{
    filter::{Needs, Tally},
    fleet::Fleet,
    relation::{Relations, Rivals},
    spread::Spread,
};
use crate::{
    depends,
    key::Key,
    plan::{Change, Plan, Wait},
    revision::status,
};

/// Decisions in one plan. More than fit into an entry would be thrown away.
const DECISIONS_PER_PLAN_MAX: usize = 2000;

const ASSIGNED_MESSAGE: &str = "scheduler assigned task to node";
const CONFIRMED_MESSAGE: &str = "scheduler confirmed task can run on preassigned node";

pub(crate) fn reconcile(view: &Store, now: Timestamp) -> Plan {
    let is_idle =
        view.tasks_to_place().next().is_none() && view.tasks_to_confirm().next().is_none();
    if is_idle {
        return Plan::default();
    }
    let mut scheduler = Scheduler {
        view,
        now,
        fleet: Fleet::read(view),
        rivals: Rivals::read(view),
        confirming: None,
        holding: None,
        has_assigned: false,
        has_lonely: false,
        plan: Plan::default(),
    };
    // Global tasks have no choice, so they go first.
    for task in view.tasks_to_confirm() {
        if scheduler.is_full() {
            break;
        }
        scheduler.confirm(task);
    }
    scheduler.place_all_of(None);
    let mut service = view.next_service_to_place(None);
    while service.is_some() && !scheduler.is_full() {
        scheduler.place_all_of(service);
        service = view.next_service_to_place(service);
    }
    if scheduler.is_full() {
        scheduler.plan.follow_up.push(Key::Scheduler);
    }
    if scheduler.has_lonely && scheduler.has_assigned {
        // Some found nobody to be near to, and others came.
        scheduler.plan.follow_up.push(Key::Scheduler);
    }
    scheduler.plan
}

/// Why no node takes the task, as `service ps` shows it; `None` when one does, or when the task
/// does not wait for a node.
pub fn explain(view: &Store, id: TaskId, now: Timestamp) -> Option<String> {
    let task = view.task(id)?;
    if task.status.state != TaskState::Pending || task.desired_state > TaskState::Complete {
        return None;
    }
    if let Some(reason) = task.service_id.and_then(|id| depends::held(view, id)) {
        return Some(reason);
    }
    let fleet = Fleet::read(view);
    let counts = fleet.counts(view, task.service_id, task.spec_version, now);
    let relations = Relations::read(view, &fleet, &Rivals::read(view), task, &[]);
    let needs = Needs::of(task, relations);
    let mut tally = Tally::default();
    if let Some(node) = task.node_id {
        let index = fleet.index_of(node)?;
        tally.add(needs.check(&fleet, index, counts.of_service[index])?);
        return Some(tally.explain());
    }
    for (index, count) in counts.of_service.iter().enumerate() {
        tally.add(needs.check(&fleet, index, *count)?);
    }
    Some(tally.no_suitable_node())
}

/// Whether filters and ranking cannot tell two tasks of one service apart. Tasks without a version
/// are compared by content.
fn is_alike(a: &Task, b: &Task) -> bool {
    if a.spec_version.is_some() || b.spec_version.is_some() {
        return a.spec_version == b.spec_version;
    }
    (Arc::ptr_eq(&a.spec, &b.spec) || a.spec == b.spec) && a.endpoint == b.endpoint
}

struct Scheduler<'a> {
    view: &'a Store,
    now: Timestamp,
    fleet: Fleet<'a>,
    rivals: Rivals,
    /// What the tasks confirmed last have to do with others: nearly always the same for the next.
    confirming: Option<(Option<ServiceId>, Relations)>,
    /// Whether the service looked at last waits for others, and for what.
    holding: Option<(ServiceId, Option<String>)>,
    has_assigned: bool,
    /// Some task is not placed as what it must be near to may be still to come.
    has_lonely: bool,
    plan: Plan,
}

// === impl Scheduler ===

impl Scheduler<'_> {
    fn is_full(&self) -> bool {
        self.plan.changes.len() >= DECISIONS_PER_PLAN_MAX
    }

    /// Confirms that a task bound to its node fits there, or says why not.
    fn confirm(&mut self, task: &Arc<Task>) {
        let Some(index) = task.node_id.and_then(|node| self.fleet.index_of(node)) else {
            // The node is gone; the orchestrator takes the task away.
            return;
        };
        if let Some(reason) = self.held(task.service_id) {
            return self.postpone(task, &reason);
        }
        let known = self.confirming.take();
        let known = known.filter(|(service, _)| *service == task.service_id);
        let relations = match known {
            Some((_, relations)) => relations,
            None => self.relations(task),
        };
        let mut needs = Needs::of(task, relations);
        self.fleet.detail(self.view, &needs, index);
        let count = if needs.counts_replicas() {
            let node = self.fleet.node_id(index);
            let planned = fleet::planned(&self.plan.changes, task.service_id);
            let planned = planned.filter(|task| task.node_id == Some(node)).count();
            let stored = self.fleet.count_on(self.view, task.service_id, node);
            stored.saturating_add(u32::try_from(planned).unwrap_or(u32::MAX))
        } else {
            0
        };
        match needs.check(&self.fleet, index, count) {
            None => {
                self.assign(task, index, CONFIRMED_MESSAGE);
                needs.relations.note(index);
            }
            Some(failed) => {
                let mut tally = Tally::default();
                tally.add(failed);
                self.postpone(task, &tally.explain());
                self.has_lonely |= needs.relations.wants_company();
            }
        }
        self.confirming = Some((task.service_id, needs.relations));
    }

    fn relations(&self, task: &Task) -> Relations {
        let planned = &self.plan.changes;
        Relations::read(self.view, &self.fleet, &self.rivals, task, planned)
    }

    /// What the service waits for, if it does.
    fn held(&mut self, service: Option<ServiceId>) -> Option<String> {
        let id = service?;
        if let Some((known, reason)) = &self.holding
            && *known == id
        {
            return reason.clone();
        }
        let reason = depends::held(self.view, id);
        self.holding = Some((id, reason.clone()));
        reason
    }

    /// Places the tasks of one service, or of none, one revision after the other.
    fn place_all_of(&mut self, service: Option<ServiceId>) {
        if let Some(reason) = self.held(service) {
            for task in self.view.tasks_to_place_of(service) {
                if self.is_full() {
                    return;
                }
                self.postpone(task, &reason);
            }
            return;
        }
        let mut placed: BTreeSet<Option<SpecVersion>> = BTreeSet::new();
        let from = self.plan.changes.len();
        loop {
            let mut rest = self
                .view
                .tasks_to_place_of(service)
                .skip_while(|task| placed.contains(&task.spec_version));
            let Some(first) = rest.next() else { return };
            if first.spec_version.is_none() {
                self.place_unversioned(from, service);
            } else {
                let tasks = self.view.tasks_to_place_of(service);
                self.place(from, tasks.filter(|task| is_alike(first, task)));
            }
            if self.is_full() {
                return;
            }
            placed.insert(first.spec_version);
        }
    }

    /// Places tasks that have no revision in runs of equal content.
    fn place_unversioned(&mut self, from: usize, service: Option<ServiceId>) {
        let tasks = self.view.tasks_to_place_of(service);
        let mut tasks = tasks.filter(|task| task.spec_version.is_none()).peekable();
        while let Some(first) = tasks.peek().copied() {
            let run = std::iter::from_fn(|| tasks.next_if(|task| is_alike(first, task)));
            self.place(from, run);
            if self.is_full() {
                return;
            }
        }
    }

    /// Places as many of a run of equal tasks as nodes take and a plan holds. The plan's changes
    /// `from` on are of the same service: what they place counts, too.
    fn place<'b>(&mut self, from: usize, tasks: impl Iterator<Item = &'b Arc<Task>>) {
        let mut tasks = tasks.peekable();
        let Some(first) = tasks.peek().copied() else {
            return;
        };
        let mut needs = Needs::of(first, self.relations(first));
        self.fleet.detail_all(self.view, &needs);
        let mut counts =
            self.fleet
                .counts(self.view, first.service_id, first.spec_version, self.now);
        // Tasks bound to their nodes were confirmed before all others.
        let from = if needs.counts_replicas() { 0 } else { from };
        let planned = fleet::planned(&self.plan.changes[from..], first.service_id);
        self.fleet.count_planned(planned, &mut counts);
        let mut spread = Spread::new(&self.fleet, &needs, counts);
        let mut explanation: Option<String> = None;
        for task in tasks {
            if self.is_full() {
                return;
            }
            // Tasks are equal: when one finds no node, those after it do not either.
            let choice = match explanation {
                None => spread.choose(&self.fleet, &mut needs),
                Some(_) => None,
            };
            if let Some(index) = choice {
                self.assign(task, index, ASSIGNED_MESSAGE);
                continue;
            }
            self.has_lonely |= needs.relations.wants_company();
            let explanation = explanation
                .get_or_insert_with(|| spread.tally(&self.fleet, &needs).no_suitable_node());
            self.postpone(task, explanation);
        }
    }

    fn assign(&mut self, task: &Arc<Task>, index: usize, message: &str) {
        self.has_assigned = true;
        let generic: Vec<GenericResource> = self.fleet.take(index, task);
        let networks = self.fleet.places(index, task);
        let node: NodeId = self.fleet.node_id(index);
        // Field by field: cloning the whole task would copy a status that is replaced.
        let assigned = Task {
            id: task.id,
            meta: task.meta,
            spec: Arc::clone(&task.spec),
            spec_version: task.spec_version,
            service_id: task.service_id,
            slot: task.slot,
            node_id: Some(node),
            annotations: Arc::clone(&task.annotations),
            service_annotations: Arc::clone(&task.service_annotations),
            status: status(TaskState::Assigned, message, self.now),
            desired_state: task.desired_state,
            endpoint: task.endpoint.clone(),
            log_driver: task.log_driver.clone(),
            networks,
            assigned_generic_resources: generic,
            job_iteration: task.job_iteration,
        };
        self.plan
            .changes
            .push(Change::UpdateTask(Arc::new(assigned)));
    }

    /// Writes the explanation unless it stands there already.
    fn postpone(&mut self, task: &Arc<Task>, explanation: &str) {
        self.plan.report.push_with(|| Wait::NoNode {
            task: task.id,
            explanation: explanation.to_owned(),
        });
        if task.status.err == explanation {
            return;
        }
        let mut task = Task::clone(task);
        task.status.timestamp = self.now;
        explanation.clone_into(&mut task.status.err);
        self.plan.changes.push(Change::UpdateTask(Arc::new(task)));
    }
}
