//! Runs reconcilers over dirty keys and applies their plans to a transaction.

use std::sync::Arc;

use skep_model::{Rng, TaskSpec, Timestamp};
use skep_store::{Object, Store, Transaction};

use crate::{
    depends,
    dirty::Dirty,
    history,
    key::Key,
    network, node,
    plan::{Change, Plan},
    rebalance, scheduler, service, slot, task,
    wakes::Wakes,
};

/// Writes per raft entry the manager should ask of [`drive()`]. SwarmKit's limit is 200. More
/// writes per entry mean fewer fsyncs, and a longer wait for other commands.
pub const WRITES_PER_ENTRY_MAX: usize = 2000;

/// Estimated bytes of an entry after which [`drive()`] stops. SwarmKit refuses entries above
/// 1.5 MiB; the estimate may be off by protobuf's overhead, hence the margin.
pub const ENTRY_BYTES_MAX: usize = 1024 * 1024;

/// Activations in one [`drive()`]. Reaching it means two reconcilers disagree for ever, or a very
/// large backlog; either way the rest stays dirty and other work gets its turn.
pub const ACTIVATIONS_MAX: usize = 200_000;

/// Bytes of a task on the wire besides its spec: ids, timestamps, states, names.
const TASK_BYTES_BASE: usize = 320;

/// Bytes of a place on a network on the wire: it holds the whole network.
const PLACE_BYTES: usize = 400;

/// How a [`drive`] ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Driven {
    /// Nothing is dirty any more; else there is more to do in the next entry.
    pub is_settled: bool,
    /// Activations run.
    pub activation_count: usize,
    /// Changes dropped because their object was written since they were computed.
    pub stale_count: usize,
}

/// Says what should be done about a key: [`reconcile`], or something around it.
pub type Reconcile = fn(&Store, &Key, Timestamp, &mut Rng) -> Plan;

/// Reconciles dirty keys, and keys whose deadline has come, to a fixpoint, or until `tx` holds
/// `budget` writes or about [`ENTRY_BYTES_MAX`] bytes. What was not done stays dirty.
pub fn drive(
    tx: &mut Transaction,
    dirty: &mut Dirty,
    wakes: &mut Wakes,
    rng: &mut Rng,
    budget: usize,
) -> Driven {
    drive_by(reconcile, tx, (dirty, wakes), rng, budget)
}

/// The same with the plans that `reconcile` makes.
pub fn drive_by(
    reconcile: Reconcile,
    tx: &mut Transaction,
    (dirty, wakes): (&mut Dirty, &mut Wakes),
    rng: &mut Rng,
    budget: usize,
) -> Driven {
    let now = tx.now();
    while let Some(key) = wakes.pop_due(now) {
        dirty.insert(key);
    }
    let mut limit = Limit::new(budget);
    let mut driven = Driven::default();
    while !limit.is_reached(tx) && driven.activation_count < ACTIVATIONS_MAX {
        let Some(key) = dirty.pop(tx.view()) else {
            driven.is_settled = true;
            break;
        };
        driven.activation_count += 1;
        let plan = reconcile(tx.view(), &key, now, rng);
        wakes.set(key, plan.wake_at);
        driven.stale_count += apply_within(tx, key, plan, dirty, &mut limit);
    }
    driven
}

/// What should be done about `key`: a pure function of its arguments.
pub fn reconcile(view: &Store, key: &Key, now: Timestamp, rng: &mut Rng) -> Plan {
    match *key {
        Key::Network(id) => network::reconcile(view, id),
        Key::Slice(id) => network::slice(view, id),
        Key::Node(id) => node::reconcile(view, id, now),
        Key::Slot(id, slot) => slot::reconcile(view, id, slot, now, rng),
        Key::Service(id) => service::reconcile(view, id, now, rng),
        Key::Task(id) => task::reconcile(view, id, now),
        Key::History(id, slot) => history::reconcile(view, id, slot),
        Key::Dependents => depends::reconcile(view),
        Key::Scheduler => scheduler::reconcile(view, now),
        Key::Rebalance => rebalance::reconcile(view, now, rng),
        Key::Waiting => network::retry(view),
        Key::Balancers(id) => network::balance(view, id),
    }
}

/// Applies a plan made for `key` to `tx` and marks what it changed. A change whose object was
/// written since is dropped and `key` is dirty again. Returns how many were dropped.
pub fn apply(tx: &mut Transaction, key: Key, plan: Plan, dirty: &mut Dirty) -> usize {
    apply_within(tx, key, plan, dirty, &mut Limit::new(usize::MAX))
}

fn apply_within(
    tx: &mut Transaction,
    key: Key,
    plan: Plan,
    dirty: &mut Dirty,
    limit: &mut Limit,
) -> usize {
    let mut stale_count = 0;
    for key in plan.follow_up {
        dirty.insert(key);
    }
    for change in plan.changes {
        if limit.is_reached(tx) {
            dirty.insert(key);
            break;
        }
        let from = tx.changes().len();
        if !write_unless_stale(tx, change) {
            stale_count += 1;
            dirty.insert(key);
            continue;
        }
        for change in &tx.changes()[from..] {
            limit.count(change.subject());
            dirty.mark(change);
        }
    }
    stale_count
}

/// Writes the change if it is not stale; false when it is.
fn write_unless_stale(tx: &mut Transaction, change: Change) -> bool {
    if let Change::UpdateTask(task) = change {
        // By far the most frequent change: the transaction compares versions anyway, so the task
        // is looked up once.
        return tx.update_task(task).is_ok();
    }
    let is_fresh = !is_stale(tx.view(), &change);
    if is_fresh {
        write(tx, change);
    }
    is_fresh
}

/// True when the change was computed from another version of its object than the stored one.
fn is_stale(view: &Store, change: &Change) -> bool {
    match change {
        Change::CreateTask(task) => {
            view.task(task.id).is_some()
                || task.service_id.is_some_and(|id| view.service(id).is_none())
        }
        Change::UpdateTask(task) => view
            .task(task.id)
            .is_none_or(|stored| stored.meta.version != task.meta.version),
        Change::RemoveTask(id, version) => view
            .task(*id)
            .is_none_or(|stored| stored.meta.version != *version),
        Change::UpdateService(service) => view
            .service(service.id)
            .is_none_or(|stored| stored.meta.version != service.meta.version),
        Change::UpdateNetwork(network) => view
            .networks()
            .get(network.id)
            .is_none_or(|stored| stored.meta.version != network.meta.version),
        Change::UpdateNode(node) => view
            .node(node.id)
            .is_none_or(|stored| stored.meta.version != node.meta.version),
        Change::RemoveNode(id, version) => view
            .node(*id)
            .is_none_or(|stored| stored.meta.version != *version),
        Change::UpdateCluster(cluster) => view
            .cluster()
            .is_none_or(|stored| stored.meta.version != cluster.meta.version),
        Change::Together(changes) => changes.iter().any(|change| is_stale(view, change)),
    }
}

fn write(tx: &mut Transaction, change: Change) {
    const FRESH: &str = "a change that is not stale can be written";
    match change {
        Change::CreateTask(task) => tx.create_task(task).expect(FRESH),
        Change::UpdateTask(task) => tx.update_task(task).expect(FRESH),
        Change::UpdateService(service) => tx.update_service(*service).expect(FRESH),
        Change::UpdateNetwork(network) => tx.update_network(*network).expect(FRESH),
        Change::UpdateNode(node) => tx.update_node(*node).expect(FRESH),
        Change::UpdateCluster(cluster) => tx.update_cluster(*cluster).expect(FRESH),
        Change::RemoveTask(id, _) => {
            tx.remove_task(id);
        }
        Change::RemoveNode(id, _) => {
            tx.remove_node(id);
        }
        Change::Together(changes) => {
            for change in changes {
                write(tx, change);
            }
        }
    }
}

/// How full the entry is.
struct Limit {
    writes_max: usize,
    bytes: usize,
    /// Specs are shared, so the size of the last one is nearly always the size of the next.
    last_spec: Option<(Arc<TaskSpec>, usize)>,
}

impl Limit {
    fn new(writes_max: usize) -> Self {
        Self {
            writes_max,
            bytes: 0,
            last_spec: None,
        }
    }

    fn is_reached(&self, tx: &Transaction) -> bool {
        tx.actions().len() >= self.writes_max
            || (self.bytes >= ENTRY_BYTES_MAX && self.writes_max != usize::MAX)
    }

    fn count(&mut self, object: &Object) {
        self.bytes += match object {
            Object::Task(task) => {
                TASK_BYTES_BASE + self.spec_bytes(&task.spec) + PLACE_BYTES * task.networks.len()
            }
            Object::Service(service) => 2 * (TASK_BYTES_BASE + self.spec_bytes(&service.spec.task)),
            Object::Node(node) => TASK_BYTES_BASE + PLACE_BYTES * node.attachments.len(),
            Object::Resource(resource) => {
                let payload = resource.payload.as_ref();
                TASK_BYTES_BASE + payload.map_or(0, |payload| payload.value.len())
            }
            // No reconciler writes the last two.
            Object::Network(_)
            | Object::Cluster(_)
            | Object::Extension(_)
            | Object::Secret(_)
            | Object::Config(_) => TASK_BYTES_BASE,
        };
    }

    fn spec_bytes(&mut self, spec: &Arc<TaskSpec>) -> usize {
        if let Some((last, bytes)) = &self.last_spec
            && Arc::ptr_eq(last, spec)
        {
            return *bytes;
        }
        let bytes = estimate_bytes(spec);
        self.last_spec = Some((Arc::clone(spec), bytes));
        bytes
    }
}

/// Bytes of a spec on the wire, within a few dozen: the strings of which users write long ones.
fn estimate_bytes(spec: &TaskSpec) -> usize {
    const STRING_OVERHEAD: usize = 4;
    const BASE: usize = 80;
    let text =
        |strings: &[String]| -> usize { strings.iter().map(|s| s.len() + STRING_OVERHEAD).sum() };
    let map = |pairs: &std::collections::BTreeMap<String, String>| -> usize {
        pairs
            .iter()
            .map(|(key, value)| key.len() + value.len() + 3 * STRING_OVERHEAD)
            .sum()
    };
    let container = &spec.container;
    let mounts: usize = container
        .mounts
        .iter()
        .map(|mount| mount.source.len() + mount.target.len() + 64)
        .sum();
    let references = 128 * (container.secrets.len() + container.configs.len());
    let seccomp = container
        .privileges
        .as_ref()
        .and_then(|privileges| privileges.seccomp.as_ref())
        .map_or(0, |seccomp| seccomp.profile.len());
    let log_options = spec.log_driver.as_ref().map_or(0, |d| map(&d.options));
    BASE + container.image.len()
        + container.registry_auth.0.len()
        + text(&container.command)
        + text(&container.args)
        + text(&container.env)
        + text(&container.hosts)
        + text(&container.groups)
        + text(&spec.placement.constraints)
        + map(&container.labels)
        + map(&container.sysctls)
        + container.health.as_ref().map_or(0, |h| text(&h.test) + 64)
        + mounts
        + references
        + seccomp
        + log_options
        + 128 * spec.networks.len()
}
