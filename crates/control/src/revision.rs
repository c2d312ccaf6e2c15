//! Making tasks from a service, and telling whether a task still is what the service wants.

use std::sync::{Arc, LazyLock};

use skep_model::{
    Annotations, Availability, ContainerSpec, Driver, Endpoint, Meta, Node, NodeId, NodeState, Rng,
    Service, ServiceId, Slot, SpecVersion, Task, TaskId, TaskSpec, TaskState, TaskStatus,
    Timestamp, constraint,
    reserved::service::{readiness::ReadinessPolicy, run::RunPolicy},
};
use skep_store::Store;

/// Message of a task nothing happened to yet; Swarm's text.
pub(crate) const CREATED_MESSAGE: &str = "created";

/// Tasks have no annotations of their own, so all share these.
static NO_ANNOTATIONS: LazyLock<Arc<Annotations>> = LazyLock::new(Arc::default);

/// What the tasks of one revision of a service have in common, shared between them.
#[derive(Debug)]
pub(crate) struct Template {
    service: ServiceId,
    spec: Arc<TaskSpec>,
    spec_version: SpecVersion,
    annotations: Arc<Annotations>,
    endpoint: Arc<Endpoint>,
    log_driver: Option<Driver>,
}

impl Template {
    pub(crate) fn new(view: &Store, service: &Service) -> Self {
        let task = &service.spec.task;
        let cluster_driver = || {
            let cluster = view.cluster()?;
            cluster.spec.default_log_driver.clone()
        };
        Self {
            service: service.id,
            spec: Arc::clone(task),
            spec_version: service.spec_version,
            annotations: Arc::clone(&service.spec.annotations),
            endpoint: Arc::new(task_endpoint(service)),
            log_driver: task.log_driver.clone().or_else(cluster_driver),
        }
    }

    /// A new task for `slot`.
    pub(crate) fn task(
        &self,
        slot: Slot,
        desired_state: TaskState,
        now: Timestamp,
        rng: &mut Rng,
    ) -> Task {
        let (number, node_id) = match slot {
            Slot::Number(number) => (number, None),
            Slot::Node(node) => (0, Some(node)),
        };
        Task {
            id: TaskId::random(rng),
            meta: Meta::default(),
            spec: Arc::clone(&self.spec),
            spec_version: Some(self.spec_version),
            service_id: Some(self.service),
            slot: number,
            node_id,
            annotations: Arc::clone(&NO_ANNOTATIONS),
            service_annotations: Arc::clone(&self.annotations),
            status: status(TaskState::New, CREATED_MESSAGE, now),
            desired_state,
            endpoint: Some(Arc::clone(&self.endpoint)),
            log_driver: self.log_driver.clone(),
            networks: Vec::new(),
            assigned_generic_resources: Vec::new(),
            job_iteration: None,
        }
    }
}

/// A status set by the control plane itself.
pub(crate) fn status(state: TaskState, message: &str, now: Timestamp) -> TaskStatus {
    TaskStatus {
        timestamp: now,
        state,
        message: message.to_owned(),
        ..TaskStatus::default()
    }
}

/// The endpoint a task carries: what was allocated for the service's present spec, else the spec's
/// ports as they are. A host-mode port without a number keeps none; the node chooses.
fn task_endpoint(service: &Service) -> Endpoint {
    let wanted = &service.spec.endpoint;
    match &service.endpoint {
        Some(endpoint) if endpoint.spec == *wanted => endpoint.clone(),
        Some(_) | None => Endpoint {
            spec: wanted.clone(),
            ports: wanted.iter().flat_map(|e| e.ports.clone()).collect(),
            virtual_ips: Vec::new(),
        },
    }
}

/// When the task's present status became known, by the most trustworthy clock there is.
pub(crate) fn status_time(task: &Task) -> Timestamp {
    task.status.applied_at.unwrap_or(task.status.timestamp)
}

/// Whether the orchestrator still wants the task to run, now or later.
pub(crate) fn is_live(task: &Task) -> bool {
    task.desired_state <= TaskState::Running
}

/// Whether the node takes part at all. A node that is merely unknown or disconnected does.
pub(crate) fn is_lost(node: Option<&Arc<Node>>) -> bool {
    is_gone(node) || is_draining(node)
}

/// Whether the node is removed or silent: what ran there runs no more, as far as anybody knows.
pub(crate) fn is_gone(node: Option<&Arc<Node>>) -> bool {
    node.is_none_or(|node| node.status.state == NodeState::Down)
}

/// Whether the node is there and shall give its tasks away.
pub(crate) fn is_draining(node: Option<&Arc<Node>>) -> bool {
    node.is_some_and(|node| {
        node.spec.availability == Availability::Drain && node.status.state != NodeState::Down
    })
}

/// Whether the task came to its end without being told to, and not because of its node.
pub(crate) fn has_ended_by_itself(task: &Task) -> bool {
    matches!(
        task.status.state,
        TaskState::Complete | TaskState::Failed | TaskState::Rejected
    )
}

/// The node a task is on, if both are known.
pub(crate) fn node_of<'a>(view: &'a Store, task: &Task) -> Option<&'a Arc<Node>> {
    let id: NodeId = task.node_id?;
    view.node(id)
}

/// Whether the task must be replaced to become what the service wants.
///
/// The version only says that the spec was written again. A task stays when nothing in its own
/// template, endpoint or run options changed, or when just its placement did and its node still fits, or when
/// just the pull credentials did and it has its image already.
pub(crate) fn is_dirty(view: &Store, service: &Service, task: &Task) -> bool {
    if task.spec_version == Some(service.spec_version) {
        return false;
    }
    let wanted = &service.spec.task;
    let (made_with, labels) = (&task.service_annotations, &service.spec.annotations);
    if RunPolicy::differs(&made_with.labels, &labels.labels)
        || ReadinessPolicy::differs(&made_with.labels, &labels.labels)
    {
        return true;
    }
    if let Some(endpoint) = &task.endpoint
        && endpoint.spec != service.spec.endpoint
    {
        return true;
    }
    if Arc::ptr_eq(wanted, &task.spec) {
        return false;
    }
    if differs_beside_placement(wanted, task) {
        return true;
    }
    wanted.placement != task.spec.placement
        && !node_of(view, task).is_some_and(|node| {
            // A constraint that does not parse was never accepted; it excludes nothing.
            constraint::parse(&wanted.placement.constraints)
                .is_ok_and(|constraints| constraint::matches(&constraints, node))
        })
}

/// Whether one task repeats the other: it was made of the same template, endpoint and run options.
pub(crate) fn repeats(old: &Task, new: &Task) -> bool {
    let (one, other) = (
        &old.service_annotations.labels,
        &new.service_annotations.labels,
    );
    let ports = |endpoint: Option<&Arc<Endpoint>>| endpoint.and_then(|made| made.spec.clone());
    old.spec == new.spec
        && ports(old.endpoint.as_ref()) == ports(new.endpoint.as_ref())
        && !RunPolicy::differs(one, other)
        && !ReadinessPolicy::differs(one, other)
}

fn differs_beside_placement(wanted: &TaskSpec, task: &Task) -> bool {
    let TaskSpec {
        container,
        resources,
        restart,
        placement: _,
        log_driver,
        networks,
        force_update,
    } = wanted;
    let actual = &task.spec;
    let has_image =
        is_live(task) && (TaskState::Ready..=TaskState::Running).contains(&task.status.state);
    *resources != actual.resources
        || *restart != actual.restart
        || *log_driver != actual.log_driver
        || *networks != actual.networks
        || *force_update != actual.force_update
        || container_differs(container, &actual.container, has_image)
}

fn container_differs(
    wanted: &ContainerSpec,
    actual: &ContainerSpec,
    ignore_credentials: bool,
) -> bool {
    if wanted.registry_auth == actual.registry_auth || !ignore_credentials {
        return wanted != actual;
    }
    let with_credentials = ContainerSpec {
        registry_auth: actual.registry_auth.clone(),
        ..wanted.clone()
    };
    with_credentials != *actual
}
