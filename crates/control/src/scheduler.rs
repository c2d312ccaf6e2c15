//! Chooses nodes for all tasks that wait for one.
//!
//! Tasks of one revision of a service are placed in bulk: nodes are filtered once, then each
//! decision takes the best node off a heap. Why a task is not placed is written into its status,
//! where `service ps` shows it. See `docs/design/scheduler.md`.

mod filter;
mod fleet;
mod spread;

use std::{collections::BTreeMap, sync::Arc};

use skep_model::{
    GenericResource, NodeId, ServiceId, SpecVersion, Task, TaskId, TaskState, Timestamp,
};
use skep_store::Store;

use self::{
    filter::{Needs, Tally},
    fleet::Fleet,
    spread::Spread,
};
use crate::{
    key::Key,
    plan::{Change, Plan, Wait},
    revision::status,
};

/// Decisions in one plan. More than fit into an entry would be thrown away.
const DECISIONS_PER_PLAN_MAX: usize = 2000;

const ASSIGNED_MESSAGE: &str = "scheduler assigned task to node";
const CONFIRMED_MESSAGE: &str = "scheduler confirmed task can run on preassigned node";

pub(crate) fn reconcile(view: &Store, now: Timestamp) -> Plan {
    let mut tasks = view.tasks_to_place().peekable();
    if tasks.peek().is_none() {
        return Plan::default();
    }
    let mut scheduler = Scheduler {
        view,
        now,
        fleet: Fleet::read(view),
        plan: Plan::default(),
    };
    let (preassigned, free): (Vec<_>, Vec<_>) = tasks.partition(|task| task.node_id.is_some());
    // Global tasks have no choice, so they go first.
    for task in preassigned {
        if scheduler.is_full() {
            break;
        }
        scheduler.confirm(task);
    }
    for group in groups(&free) {
        if scheduler.is_full() {
            break;
        }
        scheduler.place(&group);
    }
    if scheduler.is_full() {
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
    let fleet = Fleet::read(view);
    let counts = fleet.counts(view, task.service_id, task.spec_version, now);
    let needs = Needs::of(task);
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

/// Tasks that filters and ranking cannot tell apart.
struct Group<'a> {
    service: Option<ServiceId>,
    spec_version: Option<SpecVersion>,
    tasks: Vec<&'a Arc<Task>>,
}

/// Groups tasks, which come ordered by service. Tasks without a version are compared by content.
fn groups<'a>(tasks: &[&'a Arc<Task>]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for of_service in tasks.chunk_by(|a, b| a.service_id == b.service_id) {
        let service = of_service[0].service_id;
        let mut by_version: BTreeMap<SpecVersion, Vec<&Arc<Task>>> = BTreeMap::new();
        let from = groups.len();
        for task in of_service {
            if let Some(version) = task.spec_version {
                by_version.entry(version).or_default().push(task);
                continue;
            }
            match groups[from..].last_mut() {
                Some(group) if is_alike(group.tasks[0], task) => group.tasks.push(task),
                Some(_) | None => groups.push(Group {
                    service,
                    spec_version: None,
                    tasks: vec![task],
                }),
            }
        }
        for (version, mut tasks) in by_version {
            tasks.sort_by_key(|task| (task.slot, task.id));
            groups.push(Group {
                service,
                spec_version: Some(version),
                tasks,
            });
        }
    }
    groups
}

fn is_alike(a: &Task, b: &Task) -> bool {
    (Arc::ptr_eq(&a.spec, &b.spec) || a.spec == b.spec) && a.endpoint == b.endpoint
}

struct Scheduler<'a> {
    view: &'a Store,
    now: Timestamp,
    fleet: Fleet<'a>,
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
        let needs = Needs::of(task);
        self.fleet.detail(self.view, &needs, index);
        let count = if needs.counts_replicas() {
            let node = self.fleet.node_id(index);
            self.fleet.count_on(self.view, task.service_id, node)
        } else {
            0
        };
        match needs.check(&self.fleet, index, count) {
            None => self.assign(task, index, CONFIRMED_MESSAGE),
            Some(failed) => {
                let mut tally = Tally::default();
                tally.add(failed);
                self.postpone(task, tally.explain());
            }
        }
    }

    /// Places as many tasks of a group as nodes take.
    fn place(&mut self, group: &Group<'_>) {
        let first = group.tasks[0];
        let needs = Needs::of(first);
        self.fleet.detail_all(self.view, &needs);
        let counts = self
            .fleet
            .counts(self.view, group.service, group.spec_version, self.now);
        let mut spread = Spread::new(&self.fleet, &needs, counts);
        let mut tasks = group.tasks.iter();
        while !self.is_full() && tasks.len() > 0 {
            let Some(index) = spread.choose(&self.fleet, &needs) else {
                break;
            };
            let task = tasks.next().expect("there are tasks left");
            self.assign(task, index, ASSIGNED_MESSAGE);
        }
        if self.is_full() || tasks.len() == 0 {
            return;
        }
        let explanation = spread.tally(&self.fleet, &needs).no_suitable_node();
        for task in tasks {
            if self.is_full() {
                return;
            }
            self.postpone(task, explanation.clone());
        }
    }

    fn assign(&mut self, task: &Arc<Task>, index: usize, message: &str) {
        let generic: Vec<GenericResource> = self.fleet.take(index, task);
        let node: NodeId = self.fleet.node_id(index);
        let assigned = Task {
            node_id: Some(node),
            status: status(TaskState::Assigned, message, self.now),
            assigned_generic_resources: generic,
            ..Task::clone(task)
        };
        self.plan
            .changes
            .push(Change::UpdateTask(Box::new(assigned)));
    }

    /// Writes the explanation unless it stands there already.
    fn postpone(&mut self, task: &Arc<Task>, explanation: String) {
        self.plan.report.push(Wait::NoNode {
            task: task.id,
            explanation: explanation.clone(),
        });
        if task.status.err == explanation {
            return;
        }
        let mut task = Task::clone(task);
        task.status.timestamp = self.now;
        task.status.err = explanation;
        self.plan.changes.push(Change::UpdateTask(Box::new(task)));
    }
}
