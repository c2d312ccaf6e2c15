//! Which keys a change of the store dirties.

use std::collections::BTreeSet;

use skep_model::{
    Cluster, Network, Node, Service, Slot, Task, TaskState,
    reserved::{self, rebalance::RebalancePolicy},
};
use skep_store::{Change, Object, Store};

use crate::key::Key;

/// Keys to reconcile. Bounded by the number of objects: a key is in it once.
#[derive(Debug, Clone, Default)]
pub struct Dirty {
    keys: BTreeSet<Key>,
    /// Everything must be looked at; filled in by the next `drive`, which has a view.
    is_all: bool,
}

impl Dirty {
    /// Marks what a change of the store makes worth looking at.
    pub fn mark(&mut self, change: &Change) {
        match (&change.old, &change.new) {
            (None, None) => {}
            (old, Some(Object::Node(new))) => self.mark_node(node_of(old.as_ref()), Some(new)),
            (Some(Object::Node(old)), _) => self.mark_node(Some(old), None),
            (old, Some(Object::Service(new))) => self.mark_service(service_of(old.as_ref()), new),
            (Some(Object::Service(old)), _) => {
                self.insert(Key::Service(old.id));
                self.insert(Key::Dependents);
                self.insert(Key::Waiting);
            }
            (old, Some(Object::Network(new))) => {
                self.mark_network(network_of(old.as_ref()), Some(new));
            }
            (Some(Object::Network(old)), _) => self.mark_network(Some(old), None),
            (old, Some(Object::Task(new))) => self.mark_task(task_of(old.as_ref()), new),
            (Some(Object::Task(old)), _) => self.mark_removed_task(old),
            (Some(Object::Cluster(old)), Some(Object::Cluster(new))) => {
                let ttl = |cluster: &Cluster| {
                    let labels = &cluster.spec.annotations.labels;
                    labels.get(reserved::NODE_TTL).cloned()
                };
                if old.spec.task_history_limit != new.spec.task_history_limit
                    || ttl(old) != ttl(new)
                {
                    self.is_all = true;
                }
                let rebalance =
                    |cluster: &Cluster| RebalancePolicy::of(&cluster.spec.annotations.labels);
                if rebalance(old) != rebalance(new) {
                    self.insert(Key::Rebalance);
                }
            }
            // Tasks that use a secret or config are there before and after it.
            (
                _,
                Some(
                    Object::Cluster(_)
                    | Object::Extension(_)
                    | Object::Resource(_)
                    | Object::Secret(_)
                    | Object::Config(_),
                ),
            )
            | (
                Some(
                    Object::Cluster(_)
                    | Object::Extension(_)
                    | Object::Resource(_)
                    | Object::Secret(_)
                    | Object::Config(_),
                ),
                _,
            ) => {}
        }
    }

    /// Marks every key of `view`; on winning leadership and now and then, as a safety net.
    pub fn mark_all(&mut self, view: &Store) {
        self.is_all = false;
        for network in view.networks().all().filter(|n| !n.is_complete()) {
            self.insert(Key::Network(network.id));
        }
        self.insert(Key::Slice(None));
        for node in view.nodes() {
            self.insert(Key::Node(node.id));
            if node.needs_load_balancers() || !node.attachments.is_empty() {
                self.insert(Key::Balancers(node.id));
            }
        }
        for service in view.services() {
            self.insert(Key::Service(service.id));
            self.insert(Key::History(service.id, None));
        }
        for task in view.tasks() {
            if needs_own_look(task) {
                self.insert(Key::Task(task.id));
            }
            // Also finds tasks whose service or node is gone.
            if let Some(service) = task.service_id.filter(|id| view.service(*id).is_none()) {
                self.insert(Key::Service(service));
            }
            if let Some(node) = task.node_id.filter(|id| view.node(*id).is_none()) {
                self.insert(Key::Node(node));
            }
        }
        self.insert(Key::Scheduler);
        self.insert(Key::Rebalance);
    }

    /// Marks one key.
    pub fn insert(&mut self, key: Key) {
        self.keys.insert(key);
    }

    /// True when there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && !self.is_all
    }

    /// Number of marked keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Takes the key to work on next.
    pub(crate) fn pop(&mut self, view: &Store) -> Option<Key> {
        if self.is_all {
            self.mark_all(view);
        }
        self.keys.pop_first()
    }

    fn mark_node(&mut self, old: Option<&Node>, new: Option<&Node>) {
        if let (Some(old), Some(new)) = (old, new)
            && old.spec == new.spec
            && old.description == new.description
            && old.status.state == new.status.state
            && old.status.addr == new.status.addr
            && old.role == new.role
        {
            return;
        }
        if let Some(node) = new.or(old) {
            self.insert(Key::Slice(Some(node.id)));
            self.insert(Key::Node(node.id));
            self.insert(Key::Scheduler);
            self.insert(Key::Rebalance);
            self.insert(Key::Balancers(node.id));
        }
        let places = |node: Option<&Node>| node.map_or(0, |node| node.attachments.len());
        if places(new) < places(old) {
            self.insert(Key::Waiting);
        }
    }

    fn mark_network(&mut self, old: Option<&Network>, new: Option<&Network>) {
        let network = new.or(old).expect("a change has an object on one side");
        self.insert(Key::Waiting);
        if network.spec.is_ingress {
            // Every node has a place on it, and services may have waited for it.
            self.is_all = true;
        }
        if network.spec.is_node_network() {
            self.insert(Key::Slice(None));
        }
        if !network.is_complete() {
            self.insert(Key::Network(network.id));
        }
    }

    fn mark_service(&mut self, old: Option<&Service>, new: &Service) {
        self.insert(Key::Dependents);
        self.insert(Key::Service(new.id));
        self.insert(Key::Rebalance);
        // Placement reads constraints from the tasks, but explains itself by the service.
        if let Some(old) = old {
            if old.spec_version != new.spec_version {
                self.insert(Key::Scheduler);
            }
            if old.endpoint != new.endpoint {
                self.insert(Key::Waiting);
            }
            let state = |service: &Service| service.update_status.as_ref().map(|s| s.state);
            if state(old) != state(new) || old.job_status != new.job_status {
                self.insert(Key::History(new.id, None));
            }
        }
    }

    fn mark_task(&mut self, old: Option<&Task>, new: &Task) {
        let is_new = old.is_none();
        let state_changed = old.is_none_or(|old| old.status.state != new.status.state);
        let desire_changed = old.is_none_or(|old| old.desired_state != new.desired_state);
        if (state_changed || desire_changed) && needs_own_look(new) {
            self.insert(Key::Task(new.id));
        }
        if state_changed && new.status.state == TaskState::Pending {
            self.insert(Key::Scheduler);
        }
        // A task that ended frees what it held; one that shall end no longer counts.
        if !is_new && (desire_changed || (state_changed && new.status.state.is_terminal())) {
            self.insert(Key::Scheduler);
        }
        self.mark_places(old, new);
        // Tasks that move, or are moved, are labelled: a step of theirs may be what the next move waits for.
        if (state_changed || desire_changed) && !new.annotations.labels.is_empty() {
            self.insert(Key::Rebalance);
        }
        let Some(service) = new.service_id else {
            return;
        };
        let came_up_or_ended = state_changed && new.status.state >= TaskState::Running;
        if came_up_or_ended {
            self.insert(Key::Dependents);
        }
        let starts_later = is_new && new.desired_state < TaskState::Running;
        // The task it replaces may have waited for that.
        let is_prepared = state_changed
            && new.status.state == TaskState::Ready
            && new.desired_state == TaskState::Ready;
        if came_up_or_ended || is_prepared || starts_later || (desire_changed && !is_new) {
            self.mark_slot(service, new.slot(), false);
        }
        if is_new || came_up_or_ended {
            self.insert(Key::History(service, new.slot()));
        }
    }

    /// A task on networks that came to a node or ended: the node's load balancers follow, and an
    /// address went back.
    fn mark_places(&mut self, old: Option<&Task>, new: &Task) {
        if new.networks.is_empty() {
            return;
        }
        let has_places = |task: &Task| task.holds_addresses() && !task.networks.is_empty();
        let holds = |task: &Task| task.node_id.filter(|_| has_places(task));
        let (before, after) = (old.and_then(holds), holds(new));
        if before != after {
            self.keys.extend(before.map(Key::Balancers));
            self.keys.extend(after.map(Key::Balancers));
        }
        if old.is_some_and(Task::holds_addresses) && !new.holds_addresses() {
            self.insert(Key::Waiting);
        }
    }

    fn mark_removed_task(&mut self, old: &Task) {
        if !old.networks.is_empty() {
            self.insert(Key::Waiting);
            self.keys.extend(old.node_id.map(Key::Balancers));
        }
        if old.holds_resources() {
            self.insert(Key::Scheduler);
        }
        if let Some(service) = old.service_id {
            self.mark_slot(service, old.slot(), old.desired_state <= TaskState::Running);
        }
    }

    fn mark_slot(&mut self, service: skep_model::ServiceId, slot: Option<Slot>, is_gone: bool) {
        match slot {
            Some(slot) if !is_gone => self.insert(Key::Slot(service, slot)),
            Some(_) | None => self.insert(Key::Service(service)),
        }
    }
}

/// Whether `Key::Task` has something to do for a task in this state.
fn needs_own_look(task: &Task) -> bool {
    task.status.state == TaskState::New
        || task.desired_state >= TaskState::Shutdown && task.status.state < TaskState::Assigned
        || task.desired_state >= TaskState::Remove && task.status.state.is_terminal()
        || task.service_id.is_none() && task.status.state == TaskState::Orphaned
}

fn node_of(object: Option<&Object>) -> Option<&Node> {
    match object {
        Some(Object::Node(node)) => Some(node),
        Some(_) | None => None,
    }
}

fn service_of(object: Option<&Object>) -> Option<&Service> {
    match object {
        Some(Object::Service(service)) => Some(service),
        Some(_) | None => None,
    }
}

fn network_of(object: Option<&Object>) -> Option<&Network> {
    match object {
        Some(Object::Network(network)) => Some(network),
        Some(_) | None => None,
    }
}

fn task_of(object: Option<&Object>) -> Option<&Task> {
    match object {
        Some(Object::Task(task)) => Some(task),
        Some(_) | None => None,
    }
}
