//! What must be true some time after the last fault: the cluster is as its specs say, and reality
//! is as the cluster says.
//!
//! Written without the reconcilers' code: whether a task could be placed is found out by trying
//! every node.

mod balance;
mod jobs;
mod networks;

use std::collections::BTreeMap;

use skep_model::{
    Availability, Node, NodeState, Protocol, PublishMode, RestartCondition, Role, Service,
    ServiceMode, Slot, Task, TaskState, UpdateState, constraint,
    reserved::service::depends::dependencies,
};
use skep_store::Store;

use crate::{agent::Agent, executor::State, world::World};

/// All that is not as it should be.
pub(crate) fn unmet(world: &World) -> Vec<String> {
    let mut unmet = Vec::new();
    let Some(leader) = world.managers.iter().find(|manager| manager.is_leading()) else {
        unmet.push("nobody leads".to_owned());
        for (machine, manager) in world.managers.iter().enumerate() {
            let raft = manager.replica().map(skep_manager::Replica::raft);
            let id = manager.raft_id();
            unmet.push(format!("{machine}: member {id:x?}, {raft:x?}"));
        }
        return unmet;
    };
    let Some(store) = leader.store() else {
        return unmet;
    };
    check_managers(world, store, &mut unmet);
    networks::check(store, &mut unmet);
    balance::check(store, &mut unmet);
    for agent in &world.agents {
        check_agent(store, agent, &mut unmet);
    }
    for service in store.services() {
        check_service(store, service, &mut unmet);
    }
    for task in store.tasks() {
        check_task(store, task, &mut unmet);
    }
    unmet
}

/// The members of the group are the managers, all of them run, follow the leader and have applied
/// what it has.
fn check_managers(world: &World, store: &Store, unmet: &mut Vec<String>) {
    let index = world.ctx.facts.index();
    let Some(group) = world.ctx.facts.group_at(index) else {
        return;
    };
    for node in store.nodes() {
        let id = node.id;
        let is_member = group.members.values().any(|member| member.node_id == id);
        if node.role != node.spec.desired_role {
            let (is, wanted) = (node.role, node.spec.desired_role);
            unmet.push(format!("node {id} is {is:?} and shall be {wanted:?}"));
        }
        if is_member != (node.role == Role::Manager) {
            let role = node.role;
            unmet.push(format!("node {id} is {role:?}, member: {is_member}"));
        }
    }
    for (machine, manager) in world.managers.iter().enumerate() {
        let Some(raft_id) = manager.raft_id() else {
            continue;
        };
        if !group.members.contains_key(&raft_id) {
            unmet.push(format!("machine {machine} runs former member {raft_id:x}"));
            continue;
        }
        let Some(replica) = manager.replica() else {
            unmet.push(format!("manager {machine} is down"));
            continue;
        };
        if replica.core().index() != index {
            let at = replica.core().index();
            unmet.push(format!(
                "manager {machine} is at {at}, committed is {index}"
            ));
        }
        if replica.group().leader.is_none() {
            unmet.push(format!("manager {machine} knows no leader"));
        }
    }
    for raft_id in group.members.keys() {
        let mut managers = world.managers.iter();
        if !managers.any(|manager| manager.raft_id() == Some(*raft_id)) {
            unmet.push(format!("member {raft_id:x} runs nowhere"));
        }
    }
}

/// The node is ready, and what runs on it is what shall run, as the store says.
fn check_agent(store: &Store, agent: &Agent, unmet: &mut Vec<String>) {
    let Some(node) = store.node(agent.node_id) else {
        // Removed from the cluster: its agent finds no manager that wants it.
        return;
    };
    let name = agent.index;
    if node.status.state != NodeState::Ready {
        unmet.push(format!("node {name} is {:?}", node.status.state));
    }
    if node.description.as_ref() != Some(&agent.description) {
        unmet.push(format!("node {name} is described wrongly"));
    }
    let Some(core) = agent.core() else {
        unmet.push(format!("agent {name} is down"));
        return;
    };
    let machines: BTreeMap<_, _> = core
        .tasks()
        .map(|machine| (machine.id(), machine))
        .collect();
    for (id, machine) in &machines {
        match store.task(*id) {
            None => unmet.push(format!("agent {name} still has task {id}")),
            Some(task) if !is_same_end(task.status.state, machine.status().state) => {
                let (stored, real) = (task.status.state, machine.status().state);
                unmet.push(format!("task {id} is stored {stored} and is {real}"));
            }
            Some(_) => {}
        }
    }
    for task in store.tasks_on_node(agent.node_id) {
        let is_known = machines.contains_key(&task.id);
        if !is_known && task.status.state >= TaskState::Assigned {
            unmet.push(format!("agent {name} does not know task {}", task.id));
        }
        let container = agent.executor.containers().get(&task.id);
        let runs = container.is_some_and(|container| container.state == State::Running);
        if runs != (task.status.state == TaskState::Running) {
            let state = task.status.state;
            unmet.push(format!(
                "task {} is {state}, its container runs: {runs}",
                task.id
            ));
        }
    }
    for id in agent.executor.containers().keys() {
        if store.task(*id).is_none() {
            unmet.push(format!("agent {name} has a container of no task: {id}"));
        }
    }
}

/// A task the manager rejected or gave up may have ended otherwise on its node.
fn is_same_end(stored: TaskState, real: TaskState) -> bool {
    stored == real || (real.is_terminal() && stored > real)
}

fn check_task(store: &Store, task: &Task, unmet: &mut Vec<String>) {
    let id = task.id;
    let service = task.service_id.and_then(|id| store.service(id));
    if service.is_none() {
        unmet.push(format!("task {id} belongs to no service"));
    }
    let state = task.status.state;
    if task.desired_state > TaskState::Complete && !state.is_terminal() {
        unmet.push(format!("task {id} shall stop and is {state}"));
    }
    // A task stays on a drained node while there is no other for it, or for one that goes first.
    let has_homeless = service.is_some_and(|service| {
        let mut tasks = store.tasks_of_service(service.id);
        tasks.any(|task| {
            task.desired_state <= TaskState::Running && task.status.state <= TaskState::Pending
        })
    });
    if task.desired_state <= TaskState::Running
        && let Some(node) = task.node_id.and_then(|id| store.node(id))
        && node.spec.availability == Availability::Drain
        && !has_homeless
    {
        unmet.push(format!("task {id} shall run on a drained node"));
    }
}

fn check_service(store: &Store, service: &Service, unmet: &mut Vec<String>) {
    if service.job_status.is_some() {
        return jobs::check(store, service, unmet);
    }
    let name = service.name();
    let mut slots: BTreeMap<Slot, Vec<&Task>> = BTreeMap::new();
    for task in store.tasks_of_service(service.id) {
        if let Some(slot) = task.slot() {
            slots.entry(slot).or_default().push(task);
        }
    }
    let mut is_waiting = false;
    let mut filled_count = 0;
    for (slot, tasks) in &slots {
        match slot_state(store, is_paused(service), tasks) {
            SlotState::Runs | SlotState::Ended => filled_count += 1,
            SlotState::Homeless => {
                filled_count += 1;
                is_waiting = true;
            }
            SlotState::Empty => {}
            SlotState::Wrong(_) if !is_wanted(store, service, *slot) => {}
            SlotState::Wrong(problem) => unmet.push(format!("{name} {slot:?}: {problem}")),
        }
    }
    match service.spec.mode {
        ServiceMode::Replicated { replicas } if filled_count != replicas => {
            unmet.push(format!("{name} has {filled_count} of {replicas} slots"));
        }
        ServiceMode::Global => check_global(store, service, &slots, unmet),
        ServiceMode::Replicated { .. }
        | ServiceMode::ReplicatedJob { .. }
        | ServiceMode::GlobalJob => {}
    }
    let update = service.update_status.as_ref().map(|status| status.state);
    let is_updating = matches!(
        update,
        Some(UpdateState::Updating | UpdateState::RollbackStarted)
    );
    // An update cannot end while one of its tasks has nowhere to run.
    if is_updating && !is_waiting {
        unmet.push(format!("{name} is {update:?}"));
    }
}

/// Whether a slot shall be filled at all; a global service leaves history on nodes it left.
fn is_wanted(store: &Store, service: &Service, slot: Slot) -> bool {
    match slot {
        Slot::Number(_) => true,
        Slot::Node(id) => store.node(id).is_some_and(|node| {
            let constraints = &service.spec.task.placement.constraints;
            node.spec.availability == Availability::Active && matches_constraints(constraints, node)
        }),
    }
}

/// Every node a global service wants has its task, and no other has one.
fn check_global(
    store: &Store,
    service: &Service,
    slots: &BTreeMap<Slot, Vec<&Task>>,
    unmet: &mut Vec<String>,
) {
    let name = service.name();
    for node in store.nodes() {
        let has_constraints = matches_constraints(&service.spec.task.placement.constraints, node);
        let tasks = slots
            .get(&Slot::Node(node.id))
            .map_or(&[][..], Vec::as_slice);
        let state = slot_state(store, is_paused(service), tasks);
        match (node.spec.availability, has_constraints, state) {
            (Availability::Active, true, SlotState::Empty) => {
                unmet.push(format!("{name} has no task on {}", node.id));
            }
            (Availability::Active, false, SlotState::Runs) => {
                unmet.push(format!("{name} has a task on {}", node.id));
            }
            _ => {}
        }
    }
}

/// A failed start-first update may leave old and new tasks side by side until somebody acts.
fn is_paused(service: &Service) -> bool {
    let state = service.update_status.as_ref().map(|status| status.state);
    matches!(
        state,
        Some(UpdateState::Paused | UpdateState::RollbackPaused)
    )
}

/// How a slot is.
enum SlotState {
    /// Its task runs.
    Runs,
    /// Its last task ended, and its policy does not ask for another.
    Ended,
    /// Its task waits, and there is no node for it.
    Homeless,
    /// Nothing in it counts.
    Empty,
    /// It should be otherwise.
    Wrong(String),
}

fn slot_state(store: &Store, is_paused: bool, tasks: &[&Task]) -> SlotState {
    let live: Vec<&&Task> = tasks
        .iter()
        .filter(|task| task.desired_state <= TaskState::Running && !task.status.state.is_terminal())
        .collect();
    let Some(first) = live.first() else {
        let newest = tasks
            .iter()
            .max_by_key(|task| (task.meta.created_at, task.id));
        let may_end = newest.is_some_and(|task| may_stay_ended(task));
        let is_kept = tasks
            .iter()
            .any(|task| task.desired_state < TaskState::Remove);
        return if may_end && is_kept {
            SlotState::Ended
        } else if is_kept {
            SlotState::Wrong("ended and is not restarted".to_owned())
        } else {
            SlotState::Empty
        };
    };
    let waiting = live
        .iter()
        .find(|task| task.status.state < TaskState::Assigned);
    if let Some(task) = waiting
        && task.status.state == TaskState::New
    {
        return if networks::is_starved(store, task) {
            SlotState::Homeless
        } else {
            let (id, err) = (task.id, &task.status.err);
            SlotState::Wrong(format!("task {id} waits for addresses: {err}"))
        };
    }
    if let Some(task) = waiting
        && let Some(service) = task.service_id.and_then(|id| store.service(id))
        && waits_for_missing(store, service.name())
    {
        return SlotState::Homeless;
    }
    if let Some(task) = waiting {
        let found = store.nodes().find(|node| fits(store, node, task));
        return match found {
            None => SlotState::Homeless,
            Some(node) => {
                let (task, node) = (task.id, node.id);
                SlotState::Wrong(format!("task {task} waits and fits {node}"))
            }
        };
    }
    if live.len() > 1 && !is_paused {
        return SlotState::Wrong(format!("{} tasks", live.len()));
    }
    if first.status.state == TaskState::Running && first.desired_state == TaskState::Running {
        SlotState::Runs
    } else {
        let (state, desired) = (first.status.state, first.desired_state);
        SlotState::Wrong(format!(
            "task {} is {state} and shall be {desired}",
            first.id
        ))
    }
}

/// Whether the service waits for one that is gone, or for one that does. There are no circles.
fn waits_for_missing(store: &Store, name: &str) -> bool {
    let Some(service) = store.service_by_name(name) else {
        return true;
    };
    let labels = &service.spec.annotations.labels;
    let mut wanted = dependencies(labels).into_iter();
    wanted.any(|(name, _)| waits_for_missing(store, &name))
}

fn may_stay_ended(task: &Task) -> bool {
    let policy = &task.spec.restart;
    policy.max_attempts > 0
        || match policy.condition {
            RestartCondition::None => true,
            RestartCondition::OnFailure => task.status.state == TaskState::Complete,
            RestartCondition::Any => false,
        }
}

/// Whether the task could be placed on the node.
fn fits(store: &Store, node: &Node, task: &Task) -> bool {
    let held: Vec<_> = store
        .tasks_on_node(node.id)
        .filter(|task| (TaskState::Assigned..=TaskState::Running).contains(&task.status.state))
        .collect();
    let wanted = &task.spec.resources.reservations;
    let taken = |amount: fn(&skep_model::Resources) -> i64| {
        let reserved = held
            .iter()
            .map(|task| amount(&task.spec.resources.reservations));
        reserved.sum::<i64>() + amount(wanted)
    };
    let has = node.description.as_ref().map(|d| &d.resources);
    let has_room = has.is_some_and(|has| {
        taken(|r| r.nano_cpus) <= has.nano_cpus && taken(|r| r.memory_bytes) <= has.memory_bytes
    });
    let siblings = held
        .iter()
        .filter(|other| other.service_id == task.service_id)
        .count();
    let max = usize::try_from(task.spec.placement.max_replicas).unwrap_or(usize::MAX);
    let ports = host_ports(task);
    let has_ports = !held
        .iter()
        .any(|other| host_ports(other).iter().any(|port| ports.contains(port)));
    node.spec.availability == Availability::Active
        && node.status.state == NodeState::Ready
        && task.node_id.is_none_or(|id| id == node.id)
        && matches_constraints(&task.spec.placement.constraints, node)
        && has_room
        && has_ports
        && networks::fits(store, node, task)
        && (max == 0 || siblings < max)
}

fn host_ports(task: &Task) -> Vec<(Protocol, u16)> {
    let ports = task.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    ports
        .filter(|port| port.publish_mode == PublishMode::Host && port.published_port != 0)
        .map(|port| (port.protocol, port.published_port))
        .collect()
}

fn matches_constraints(constraints: &[String], node: &Node) -> bool {
    constraint::parse(constraints).is_ok_and(|constraints| constraint::matches(&constraints, node))
}
