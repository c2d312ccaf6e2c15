//! What must always hold of stored state once [`crate::drive()`] has settled.
//!
//! Stated without the reconcilers' own functions where possible, so that a mistake there shows
//! here. Each invariant is one function.

mod depends;
mod jobs;
mod moves;
mod network;
mod slices;
mod updates;

pub use self::{jobs::JobViolation, network::NetworkViolation};

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use skep_model::{
    Availability, GenericResource, Node, NodeId, NodeState, Protocol, PublishMode, ServiceId,
    ServiceMode, Slot, Task, TaskId, TaskState, constraint, reserved::task::moved_by,
};
use skep_store::{NodeLoad, Store};

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// A task between ASSIGNED and RUNNING that names no node.
    AssignedNowhere {
        /// The task.
        task: TaskId,
    },
    /// A task that shall run on a node that does not exist.
    UnknownNode {
        /// The task.
        task: TaskId,
        /// The node.
        node: NodeId,
    },
    /// A task of a service that does not exist, not told to stop.
    UnknownService {
        /// The task.
        task: TaskId,
        /// The service.
        service: ServiceId,
    },
    /// More than one task that shall run in a slot, outside a start-first update.
    CrowdedSlot {
        /// The service.
        service: ServiceId,
        /// The slot.
        slot: Slot,
        /// How many.
        count: usize,
    },
    /// Tasks that shall run reserve more than their node has.
    Overcommitted {
        /// The node.
        node: NodeId,
    },
    /// Tasks that shall run were given more generic resources of a kind than their node has, or one
    /// item twice.
    GivenTwice {
        /// The node.
        node: NodeId,
        /// The kind.
        kind: String,
    },
    /// A task placed on a node that does not satisfy its constraints.
    Misplaced {
        /// The task.
        task: TaskId,
        /// The node.
        node: NodeId,
    },
    /// Two tasks that shall run hold one host-mode port of a node.
    PortConflict {
        /// The node.
        node: NodeId,
        /// The port.
        port: u16,
    },
    /// An agent went further than it was told to.
    AheadOfDesire {
        /// The task.
        task: TaskId,
    },
    /// A slot of a replicated service without a number, or one of a global service or job with one.
    WrongSlot {
        /// The task.
        task: TaskId,
    },
    /// The counted load of a node is not the sum of its tasks.
    MiscountedLoad {
        /// The node.
        node: NodeId,
    },
    /// A task of a removed node that is still believed to run.
    Unorphaned {
        /// The task.
        task: TaskId,
        /// The node.
        node: NodeId,
    },
    /// A task that shall run on a drained node, though nothing is done about it.
    Stranded {
        /// The task.
        task: TaskId,
        /// The node.
        node: NodeId,
    },
    /// The tasks of a job are not in order.
    Job(JobViolation),
    /// What networks hand out is not in order.
    Network(NetworkViolation),
    /// An update stopped a task that served, and works on more slots than it may.
    OverParallel {
        /// The service.
        service: ServiceId,
        /// Slots it works on.
        count: usize,
    },
    /// A service that waits for others has a task on a node, and they were not there.
    StartedEarly {
        /// The service.
        service: ServiceId,
        /// What was missing.
        reason: String,
    },
    /// A task was told to stop for a move before its replacement could take over.
    MovedTooEarly {
        /// The task.
        task: TaskId,
    },
    /// An ended task that the orchestrator has not looked at.
    Unattended {
        /// The task.
        task: TaskId,
    },
}

/// Everything that is wrong with `view`; empty when all is well.
pub fn check(view: &Store) -> Vec<Violation> {
    let mut found = Vec::new();
    for task in view.tasks() {
        check_placed(view, task, &mut found);
        check_service_exists(view, task, &mut found);
        check_desire(task, &mut found);
        check_slot_kind(view, task, &mut found);
        check_attended(view, task, &mut found);
        check_constraints(view, task, &mut found);
    }
    check_slots(view, &mut found);
    check_drained(view, &mut found);
    check_nodes(view, &mut found);
    let mut of_jobs = Vec::new();
    jobs::check(view, &mut of_jobs);
    found.extend(of_jobs.into_iter().map(Violation::Job));
    let mut of_networks = Vec::new();
    network::check(view, &mut of_networks);
    found.extend(of_networks.into_iter().map(Violation::Network));
    found
}

/// What is wrong with the step of one transaction from `before` to `after`.
pub fn check_step(before: &Store, after: &Store) -> Vec<Violation> {
    let mut found = Vec::new();
    updates::check_step(before, after, &mut found);
    depends::check_step(before, after, &mut found);
    moves::check_step(before, after, &mut found);
    let mut of_jobs = Vec::new();
    jobs::check_step(before, after, &mut of_jobs);
    found.extend(of_jobs.into_iter().map(Violation::Job));
    found
}

fn is_live(task: &Task) -> bool {
    task.desired_state <= TaskState::Running && task.status.state <= TaskState::Running
}

fn is_placed(task: &Task) -> bool {
    (TaskState::Assigned..=TaskState::Running).contains(&task.status.state)
}

fn check_placed(view: &Store, task: &Task, found: &mut Vec<Violation>) {
    match task.node_id {
        None if is_placed(task) => found.push(Violation::AssignedNowhere { task: task.id }),
        Some(node) if is_live(task) && view.node(node).is_none() => {
            let task = task.id;
            found.push(Violation::UnknownNode { task, node });
        }
        Some(node) if is_placed(task) && view.node(node).is_none() => {
            let task = task.id;
            found.push(Violation::Unorphaned { task, node });
        }
        None | Some(_) => {}
    }
}

fn check_service_exists(view: &Store, task: &Task, found: &mut Vec<Violation>) {
    if let Some(service) = task.service_id
        && view.service(service).is_none()
        && task.desired_state < TaskState::Shutdown
    {
        let task = task.id;
        found.push(Violation::UnknownService { task, service });
    }
}

/// A task told to get READY must not start.
fn check_desire(task: &Task, found: &mut Vec<Violation>) {
    if task.desired_state == TaskState::Ready
        && (TaskState::Starting..=TaskState::Running).contains(&task.status.state)
    {
        found.push(Violation::AheadOfDesire { task: task.id });
    }
}

fn check_slot_kind(view: &Store, task: &Task, found: &mut Vec<Violation>) {
    let Some(service) = task.service_id.and_then(|id| view.service(id)) else {
        return;
    };
    let is_right = match service.spec.mode {
        ServiceMode::Replicated { .. } => task.slot > 0,
        // Counted from 0.
        ServiceMode::ReplicatedJob { .. } => true,
        ServiceMode::Global | ServiceMode::GlobalJob => task.slot == 0 && task.node_id.is_some(),
    };
    if !is_right {
        found.push(Violation::WrongSlot { task: task.id });
    }
}

/// An ended task with desired state RUNNING would be restarted by nobody. One that waits for its
/// restart delay (desired READY) is looked at when the delay is over.
fn check_attended(view: &Store, task: &Task, found: &mut Vec<Violation>) {
    let mode = task
        .service_id
        .and_then(|id| view.service(id))
        .map(|s| s.spec.mode);
    let is_ours = matches!(
        mode,
        Some(ServiceMode::Replicated { .. } | ServiceMode::Global)
    );
    if is_ours && task.desired_state == TaskState::Running && task.status.state.is_terminal() {
        found.push(Violation::Unattended { task: task.id });
    }
}

/// Tasks of an older revision may sit on nodes the new constraints exclude until they are updated;
/// nodes that are not active are left alone.
fn check_constraints(view: &Store, task: &Task, found: &mut Vec<Violation>) {
    let Some(node) = task.node_id.and_then(|id| view.node(id)) else {
        return;
    };
    let service = task.service_id.and_then(|id| view.service(id));
    let is_current = service.is_some_and(|s| task.spec_version == Some(s.spec_version));
    let is_judged = is_live(task)
        && is_placed(task)
        && is_current
        && node.spec.availability == Availability::Active
        && node.status.state != NodeState::Down;
    if is_judged
        && !constraint::parse(&task.spec.placement.constraints)
            .is_ok_and(|constraints| constraint::matches(&constraints, node))
    {
        let (task, node) = (task.id, node.id);
        found.push(Violation::Misplaced { task, node });
    }
}

type LiveSlots<'a> = BTreeMap<(ServiceId, Slot), Vec<&'a Task>>;

fn live_slots(view: &Store) -> LiveSlots<'_> {
    let mut slots = LiveSlots::new();
    // Places of jobs are counted otherwise.
    let tasks = view.tasks().filter(|task| task.job_iteration.is_none());
    for task in tasks.filter(|task| is_live(task)) {
        if let Some(key) = task.service_id.zip(task.slot()) {
            slots.entry(key).or_default().push(task);
        }
    }
    slots
}

fn is_drained(view: &Store, task: &Task) -> bool {
    let node = task.node_id.and_then(|id| view.node(id));
    node.is_some_and(|node| node.spec.availability == Availability::Drain)
}

/// A slot has one task that shall run. During a start-first update it has one of each of two
/// revisions; an update that is replaced by the next leaves them for a while. While a task leaves
/// a drained node, or is moved for balance, its replacement is there already.
fn check_slots(view: &Store, found: &mut Vec<Violation>) {
    for ((service, slot), tasks) in live_slots(view) {
        let count = tasks.len();
        let is_crowded = match tasks.as_slice() {
            [] | [_] => false,
            [first, second] => {
                first.spec_version == second.spec_version
                    && !is_drained(view, first)
                    && !is_drained(view, second)
                    && moved_by(first) != Some(second.id)
                    && moved_by(second) != Some(first.id)
            }
            [_, _, _, ..] => true,
        };
        if is_crowded {
            found.push(Violation::CrowdedSlot {
                service,
                slot,
                count,
            });
        }
    }
}

/// A drained node empties. Tasks of global services are told to stop at once; of a replicated
/// service some slot is always between two nodes, unless an update moves them in its own time.
fn check_drained(view: &Store, found: &mut Vec<Violation>) {
    let slots = live_slots(view);
    // One that failed and waits out its delay is on its way, too.
    let is_coming =
        |t: &Task| t.desired_state <= TaskState::Running && t.status.state != TaskState::Running;
    let has_gap = |key: &(ServiceId, Slot)| {
        let all = || view.tasks_in_slot(key.0, key.1);
        // A slot that moves for balance holds the turn of the service's others, too.
        let is_mover = |task: &Task| is_coming(task) && moved_by(task).is_some();
        let is_left = all().any(|task| is_drained(view, task));
        all().any(|task| is_coming(task)) && is_left || all().any(|task| is_mover(task))
    };
    let moving: BTreeSet<ServiceId> = slots
        .keys()
        .filter(|key| has_gap(key))
        .map(|(service, _)| *service)
        .collect();
    for ((service, _), tasks) in &slots {
        let Some(service) = view.service(*service) else {
            continue;
        };
        let is_excused = match service.spec.mode {
            ServiceMode::Replicated { .. } => {
                moving.contains(&service.id) || crate::update::is_active(service)
            }
            ServiceMode::Global => false,
            // `jobs` looks at their tasks.
            ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob => true,
        };
        for task in tasks.iter().filter(|task| is_drained(view, task)) {
            if let (false, Some(node)) = (is_excused, task.node_id) {
                let task = task.id;
                found.push(Violation::Stranded { task, node });
            }
        }
    }
}

fn check_nodes(view: &Store, found: &mut Vec<Violation>) {
    for node in view.nodes() {
        let mut summed = NodeLoad::default();
        let mut live = NodeLoad::default();
        let mut ports: BTreeSet<(Protocol, u16)> = BTreeSet::new();
        for task in view.tasks_on_node(node.id).filter(|task| is_placed(task)) {
            let reserved = &task.spec.resources.reservations;
            summed.held_count += 1;
            summed.active_count += u32::from(task.desired_state <= TaskState::Complete);
            summed.nano_cpus = summed.nano_cpus.wrapping_add(reserved.nano_cpus);
            summed.memory_bytes = summed.memory_bytes.wrapping_add(reserved.memory_bytes);
            if !is_live(task) {
                continue;
            }
            live.nano_cpus = live.nano_cpus.saturating_add(reserved.nano_cpus);
            live.memory_bytes = live.memory_bytes.saturating_add(reserved.memory_bytes);
            check_ports(node.id, task, &mut ports, found);
        }
        let counted = view.load_of_node(node.id);
        summed.special_count = counted.special_count;
        if counted != summed {
            found.push(Violation::MiscountedLoad { node: node.id });
        }
        let resources = node.description.as_ref().map(|d| &d.resources);
        let is_over = match resources {
            Some(resources) => {
                live.nano_cpus > resources.nano_cpus.max(0)
                    || live.memory_bytes > resources.memory_bytes.max(0)
            }
            None => live.nano_cpus > 0 || live.memory_bytes > 0,
        };
        // Only active nodes are relieved when they shrink.
        let is_relieved =
            node.spec.availability == Availability::Active && node.status.state != NodeState::Down;
        if is_relieved {
            check_generic(view, node, found);
        }
        if is_over && is_relieved {
            found.push(Violation::Overcommitted { node: node.id });
        }
    }
}

fn check_generic(view: &Store, node: &Node, found: &mut Vec<Violation>) {
    let has: &[GenericResource] = match &node.description {
        Some(description) => &description.resources.generic,
        None => &[],
    };
    let live = view.tasks_on_node(node.id).filter(|task| is_live(task));
    let live = live.filter(|task| is_placed(task));
    let mut counted: BTreeMap<&str, i64> = BTreeMap::new();
    let mut items: BTreeSet<&GenericResource> = BTreeSet::new();
    for given in live.flat_map(|task| &task.assigned_generic_resources) {
        let is_there = match given {
            GenericResource::Named { .. } => items.insert(given) && has.contains(given),
            GenericResource::Discrete { kind, value } => {
                let sum = counted.entry(kind).or_default();
                *sum = sum.saturating_add(*value);
                has.iter().any(|has| match has {
                    GenericResource::Discrete { kind: had, value } => had == kind && *sum <= *value,
                    GenericResource::Named { .. } => false,
                })
            }
        };
        if !is_there {
            found.push(Violation::GivenTwice {
                node: node.id,
                kind: given.kind().to_owned(),
            });
        }
    }
}

fn check_ports(
    node: NodeId,
    task: &Task,
    taken: &mut BTreeSet<(Protocol, u16)>,
    found: &mut Vec<Violation>,
) {
    let ports = task.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    for port in ports.filter(|port| port.publish_mode == PublishMode::Host) {
        let number = port.published_port;
        if number != 0 && !taken.insert((port.protocol, number)) {
            found.push(Violation::PortConflict { node, port: number });
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AssignedNowhere { task } => write!(f, "task {task} is assigned to no node"),
            Self::UnknownNode { task, node } => {
                write!(
                    f,
                    "task {task} shall run on node {node}, which does not exist"
                )
            }
            Self::UnknownService { task, service } => {
                write!(
                    f,
                    "task {task} belongs to service {service}, which does not exist"
                )
            }
            Self::CrowdedSlot {
                service,
                slot,
                count,
            } => write!(
                f,
                "{count} tasks of service {service} shall run in {slot:?}"
            ),
            Self::Overcommitted { node } => {
                write!(f, "tasks on node {node} reserve more than it has")
            }
            Self::GivenTwice { node, kind } => {
                write!(
                    f,
                    "tasks on node {node} were given more of {kind} than it has"
                )
            }
            Self::Misplaced { task, node } => {
                write!(f, "node {node} does not satisfy constraints of task {task}")
            }
            Self::PortConflict { node, port } => {
                write!(f, "two tasks hold port {port} of node {node}")
            }
            Self::AheadOfDesire { task } => {
                write!(f, "task {task} started before it was told to")
            }
            Self::WrongSlot { task } => write!(f, "slot of task {task} does not fit its service"),
            Self::MiscountedLoad { node } => {
                write!(f, "load of node {node} is not the sum of its tasks")
            }
            Self::Unorphaned { task, node } => write!(
                f,
                "task {task} is believed to run on node {node}, which does not exist"
            ),
            Self::Stranded { task, node } => {
                write!(f, "task {task} stays on node {node}, which is drained")
            }
            Self::OverParallel { service, count } => {
                write!(f, "{count} slots of service {service} are updated at once")
            }
            Self::StartedEarly { service, reason } => {
                write!(f, "service {service} was started too early: {reason}")
            }
            Self::Job(violation) => violation.fmt(f),
            Self::MovedTooEarly { task } => {
                write!(
                    f,
                    "task {task} was stopped before its replacement could take over"
                )
            }
            Self::Network(violation) => violation.fmt(f),
            Self::Unattended { task } => write!(f, "task {task} has ended and nobody noticed"),
        }
    }
}
