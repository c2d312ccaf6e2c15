//! All nodes with what is left of them, as the scheduler's working copy.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use skep_model::{
    GenericResource, NetworkAttachment, Node, NodeId, Protocol, PublishMode, ServiceId,
    SpecVersion, Task, TaskState, Timestamp,
};
use skep_store::{NodeLoad, Store};

use super::filter::Needs;
use crate::{
    history,
    job::is_job,
    network::{self, NodeAddresses},
    placement::Pool,
    plan::Change,
    revision::status_time,
};

/// How far back failures of a revision on a node count against the node. As in Swarm.
const FAILURE_WINDOW: Duration = Duration::from_secs(5 * 60);
/// Failures of a job that are looked at, the latest. Enough for every node of a large cluster to be known as bad; a job
/// that fails much oftener than it is placed must not cost more with each failure.
const JOB_FAILURES_READ_MAX: usize = 10_000;
/// Failures within the window from which a node comes last. As in Swarm; but failures are counted
/// from stored tasks, and where fewer are kept per slot, fewer suffice.
const FAILURES_MAX: usize = 5;

/// The nodes, by id.
pub(super) struct Fleet<'a> {
    candidates: Vec<Candidate<'a>>,
    /// `None`: there is no node network.
    node_addresses: Option<NodeAddresses<'a>>,
}

/// One node and what is left of it.
pub(super) struct Candidate<'a> {
    pub(super) id: NodeId,
    pub(super) node: &'a Arc<Node>,
    /// It is up and may take tasks.
    pub(super) is_ready: bool,
    /// Tasks that shall run on it.
    pub(super) active_count: u32,
    pub(super) nano_cpus: i64,
    pub(super) memory_bytes: i64,
    /// Tasks whose ports or generic resources are not in the sums.
    special_count: u32,
    /// Read from the tasks only for groups that ask for ports or generic resources.
    /// Boxed: there are as many candidates as nodes, and few groups ask.
    pub(super) details: Option<Box<Details>>,
}

/// What the sums of a node do not tell.
#[derive(Default)]
pub(super) struct Details {
    pub(super) used_ports: BTreeSet<(Protocol, u16)>,
    pub(super) pool: Pool,
}

/// Per node: what matters for one revision of one service.
pub(super) struct Counts {
    /// Tasks of the service that shall run there.
    pub(super) of_service: Vec<u32>,
    /// Recent failures of the revision, if too many; else 0.
    pub(super) penalty: Vec<u32>,
}

/// Tasks of `service` that a plan places.
pub(super) fn planned(
    changes: &[Change],
    service: Option<ServiceId>,
) -> impl Iterator<Item = &Arc<Task>> {
    changes.iter().filter_map(move |change| {
        let Change::UpdateTask(task) = change else {
            return None;
        };
        let is_placed = task.status.state == TaskState::Assigned && task.service_id == service;
        is_placed.then_some(task)
    })
}

// === impl Fleet ===

impl<'a> Fleet<'a> {
    pub(super) fn read(view: &'a Store) -> Self {
        let mut loads = view.loads().peekable();
        let mut candidates = Vec::with_capacity(view.node_count());
        for (id, node, room) in view.nodes_with_room() {
            while loads.next_if(|(other, _)| *other < id).is_some() {}
            let load = loads.next_if(|(other, _)| *other == id);
            let load = load.map_or_else(NodeLoad::default, |(_, load)| load);
            candidates.push(Candidate {
                id,
                node,
                is_ready: room.is_ready,
                active_count: load.active_count,
                nano_cpus: room.nano_cpus.saturating_sub(load.nano_cpus),
                memory_bytes: room.memory_bytes.saturating_sub(load.memory_bytes),
                special_count: load.special_count,
                details: None,
            });
        }
        Self {
            candidates,
            node_addresses: NodeAddresses::of(view),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.candidates.len()
    }

    pub(super) fn get(&self, index: usize) -> &Candidate<'a> {
        &self.candidates[index]
    }

    pub(super) fn node_id(&self, index: usize) -> NodeId {
        self.candidates[index].id
    }

    pub(super) fn index_of(&self, node: NodeId) -> Option<usize> {
        self.candidates
            .binary_search_by_key(&node, |candidate| candidate.id)
            .ok()
    }

    /// Tasks of a service that shall run on one node.
    pub(super) fn count_on(&self, view: &Store, service: Option<ServiceId>, node: NodeId) -> u32 {
        let tasks = view
            .tasks_on_node(node)
            .filter(|task| task.service_id == service && counts_as_active(task));
        u32::try_from(tasks.count()).unwrap_or(u32::MAX)
    }

    /// Counts the tasks and failures of one revision of a service on every node.
    pub(super) fn counts(
        &self,
        view: &Store,
        service: Option<ServiceId>,
        version: Option<SpecVersion>,
        now: Timestamp,
    ) -> Counts {
        let mut counts = Counts {
            of_service: vec![0; self.len()],
            penalty: vec![0; self.len()],
        };
        let Some(service) = service else {
            return counts;
        };
        if view.service(service).is_some_and(|s| is_job(s.spec.mode)) {
            self.count_job(view, service, version, now, &mut counts);
        } else {
            self.count_tasks(view, service, version, now, &mut counts);
        }
        let kept = view.service(service).and_then(|s| history::limit(view, s));
        let ended = kept.map_or(usize::MAX, |kept| kept.saturating_sub(1));
        let threshold = u32::try_from(FAILURES_MAX.min(ended.max(1))).unwrap_or(u32::MAX);
        for penalty in &mut counts.penalty {
            if *penalty < threshold {
                *penalty = 0;
            }
        }
        counts
    }

    fn count_tasks(
        &self,
        view: &Store,
        service: ServiceId,
        version: Option<SpecVersion>,
        now: Timestamp,
        counts: &mut Counts,
    ) {
        for task in view.tasks_with_node_of_service(service) {
            let is_failure = task.spec_version == version
                && matches!(task.status.state, TaskState::Failed | TaskState::Rejected)
                && now.since(status_time(task)) < FAILURE_WINDOW;
            let is_active = counts_as_active(task);
            if !is_failure && !is_active {
                continue;
            }
            if let Some(index) = task.node_id.and_then(|node| self.index_of(node)) {
                counts.of_service[index] += u32::from(is_active);
                counts.penalty[index] += u32::from(is_failure);
            }
        }
    }

    /// The same for a job, of whose tasks nearly all have ended and are kept.
    fn count_job(
        &self,
        view: &Store,
        service: ServiceId,
        version: Option<SpecVersion>,
        now: Timestamp,
        counts: &mut Counts,
    ) {
        for (node, count) in view.jobs().active(service) {
            if let Some(index) = self.index_of(node) {
                counts.of_service[index] = u32::try_from(count).unwrap_or(u32::MAX);
            }
        }
        let window = i64::try_from(FAILURE_WINDOW.as_nanos()).unwrap_or(i64::MAX);
        let since = Timestamp(now.0.saturating_sub(window).saturating_add(1));
        let failures = view.jobs().failures_since(service, since);
        let failures = failures.take(JOB_FAILURES_READ_MAX);
        let failures = failures.filter_map(|id| view.task(id));
        for task in failures.filter(|task| task.spec_version == version) {
            if let Some(index) = task.node_id.and_then(|node| self.index_of(node)) {
                counts.penalty[index] += 1;
            }
        }
    }

    /// Adds tasks of the service that the plan has just placed.
    pub(super) fn count_planned<'b>(
        &self,
        planned: impl Iterator<Item = &'b Arc<Task>>,
        counts: &mut Counts,
    ) {
        for task in planned {
            if let Some(index) = task.node_id.and_then(|node| self.index_of(node)) {
                counts.of_service[index] += 1;
            }
        }
    }

    /// Reads ports and generic resources of all nodes, if the group asks for them.
    pub(super) fn detail_all(&mut self, view: &Store, needs: &Needs<'_>) {
        if needs.wants_details() {
            for candidate in &mut self.candidates {
                candidate.read_details(view);
            }
        }
    }

    /// Reads ports and generic resources of one node, if the task asks for them.
    pub(super) fn detail(&mut self, view: &Store, needs: &Needs<'_>, index: usize) {
        if needs.wants_details() {
            self.candidates[index].read_details(view);
        }
    }

    /// Whether a node has what one more task with published ports needs. One without a slice has:
    /// published ports do not lead through it.
    pub(super) fn has_node_address(&self, index: usize) -> bool {
        let Some(addresses) = &self.node_addresses else {
            return true;
        };
        let slice = network::slice_for_tasks(self.candidates[index].node);
        slice.is_none_or(|slice| addresses.has_room(&slice))
    }

    /// The task's places, with one in the slice of its node if published ports are to lead there.
    pub(super) fn places(&mut self, index: usize, task: &Task) -> Vec<NetworkAttachment> {
        let mut places = task.networks.clone();
        if network::wants_address(task)
            && let Some(addresses) = &mut self.node_addresses
            && let Some(slice) = network::slice_for_tasks(self.candidates[index].node)
        {
            places.extend(addresses.take(&slice, task.id));
        }
        places
    }

    /// Takes what `task` needs from a node; returns the generic resources chosen.
    pub(super) fn take(&mut self, index: usize, task: &Task) -> Vec<GenericResource> {
        let candidate = &mut self.candidates[index];
        let reserved = &task.spec.resources.reservations;
        candidate.active_count += u32::from(task.desired_state <= TaskState::Complete);
        candidate.nano_cpus = candidate.nano_cpus.saturating_sub(reserved.nano_cpus);
        candidate.memory_bytes = candidate.memory_bytes.saturating_sub(reserved.memory_bytes);
        match &mut candidate.details {
            Some(details) => {
                details.used_ports.extend(host_ports(task));
                details.pool.claim(reserved)
            }
            None => Vec::new(),
        }
    }
}

// === impl Candidate ===

impl Candidate<'_> {
    fn read_details(&mut self, view: &Store) {
        if self.details.is_some() {
            return;
        }
        let mut details = Details {
            used_ports: BTreeSet::new(),
            pool: Pool::whole(self.node),
        };
        if self.special_count > 0 {
            let tasks = view
                .tasks_on_node(self.id)
                .filter(|task| NodeLoad::of(task).is_some());
            for task in tasks {
                details.used_ports.extend(host_ports(task));
                details.pool.take(task);
            }
        }
        self.details = Some(Box::new(details));
    }
}

/// Whether a task counts when tasks are spread: placed, not ended, and not told to stop.
pub(super) fn counts_as_active(task: &Task) -> bool {
    (TaskState::Assigned..=TaskState::Running).contains(&task.status.state)
        && task.desired_state <= TaskState::Complete
}

/// Host-mode ports of a task with a number of their own.
pub(crate) fn host_ports(task: &Task) -> impl Iterator<Item = (Protocol, u16)> {
    let ports = task.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    ports
        .filter(|port| port.publish_mode == PublishMode::Host && port.published_port != 0)
        .map(|port| (port.protocol, port.published_port))
}
