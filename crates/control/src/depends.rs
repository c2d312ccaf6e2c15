//! Services that wait for others before their first tasks are given to nodes.
//!
//! Pure reading of the store: a service of which some task was given to a node waits no more, whatever
//! becomes of those it waited for. The scheduler asks [`held`]; [`reconcile`] calls it when an answer
//! may have changed. Design: `docs/design/stacks.md`.

use std::collections::BTreeSet;

use skep_model::{
    RestartCondition, Service, ServiceId, ServiceMode, ServiceSpec, Task, TaskState, Timestamp,
    Version,
    reserved::service::depends::{Condition, DEPENDS_ON, dependencies},
};
use skep_store::{Stage, Store};

use crate::{
    job::is_job,
    key::Key,
    plan::Plan,
    revision::{is_live, status_time},
};

/// Characters of a failed task's error that are repeated to who waits for it.
const ERROR_LENGTH_MAX: usize = 100;

/// Looks again at those who wait, when what they wait for may have come.
pub(crate) fn reconcile(view: &Store) -> Plan {
    let mut plan = Plan::default();
    let mut waiting: BTreeSet<ServiceId> = BTreeSet::new();
    let confirming = view.tasks_to_confirm();
    waiting.extend(confirming.filter_map(|task| task.service_id));
    let mut service = view.next_service_to_place(None);
    while let Some(id) = service {
        waiting.insert(id);
        service = view.next_service_to_place(service);
    }
    let is_waiting = |id: &ServiceId| {
        let service = view.service(*id);
        service.is_some_and(|service| is_yet_to_start(view, service))
    };
    if waiting.iter().any(is_waiting) {
        plan.follow_up.push(Key::Scheduler);
    }
    plan
}

/// Why no task of the service may be given to a node yet; `None`: they may.
pub(crate) fn held(view: &Store, id: ServiceId) -> Option<String> {
    let service = view.service(id)?;
    if !is_yet_to_start(view, service) {
        return None;
    }
    unmet_of(view, service)
}

/// What the service waits for and is not there, whether it still waits or not.
pub(crate) fn unmet_of(view: &Store, service: &Service) -> Option<String> {
    let wanted = dependencies(&service.spec.annotations.labels);
    let reasons: Vec<String> = wanted
        .iter()
        .filter_map(|(name, condition)| unmet(view, name, *condition))
        .collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// Whether the service names others, and no task of it was given to a node yet.
pub(crate) fn is_yet_to_start(view: &Store, service: &Service) -> bool {
    waits(&service.spec) && !has_passed(view, service.id)
}

/// Whether the service's spec names others to wait for.
pub(crate) fn waits(spec: &ServiceSpec) -> bool {
    spec.annotations.labels.contains_key(DEPENDS_ON)
}

/// Whether some task of the service was given to a node: it waits no more.
pub(crate) fn has_passed(view: &Store, id: ServiceId) -> bool {
    view.tasks_with_node_of_service(id).any(was_given)
}

/// Whether an agent was told of the task. One that was bound to a node and told to end before that is
/// in a state of the control plane's making.
fn was_given(task: &std::sync::Arc<Task>) -> bool {
    let status = &task.status;
    let is_agents = matches!(status.state, TaskState::Complete | TaskState::Failed);
    let is_known = if status.state.is_terminal() {
        is_agents || status.applied_by.is_some() || status.container.is_some()
    } else {
        status.state >= TaskState::Assigned
    };
    task.node_id.is_some() && is_known
}

/// What of a condition is missing, for people.
fn unmet(view: &Store, name: &str, condition: Condition) -> Option<String> {
    let verb = condition.name();
    let Some(service) = view.service_by_name(name) else {
        return Some(format!(
            "waiting for service {name} to be {verb}, but it does not exist"
        ));
    };
    let is_met = match condition {
        Condition::Started | Condition::Healthy => has_started(view, service),
        Condition::Completed => has_completed(view, service),
    };
    if is_met {
        return None;
    }
    let failure = last_failure(view, service);
    let failure = failure.map(|error| format!(" (a task of it failed: {error})"));
    let failure = failure.unwrap_or_default();
    Some(format!("waiting for service {name} to be {verb}{failure}"))
}

/// As many tasks run as are wanted. A task with a health check runs only once it is healthy. A job
/// has started when a task of its present run has.
fn has_started(view: &Store, service: &Service) -> bool {
    let is_live_and_runs = |task: &Task| is_live(task) && task.status.state == TaskState::Running;
    let tasks = view.tasks_of_service(service.id);
    match service.spec.mode {
        ServiceMode::Replicated { replicas } => {
            let running = tasks.filter(|task| is_live_and_runs(task));
            let slots: BTreeSet<u64> = running.map(|task| task.slot).collect();
            slots.len() as u64 >= replicas.max(1)
        }
        ServiceMode::Global => {
            let mut live = tasks.filter(|task| is_live(task)).peekable();
            live.peek().is_some() && live.all(|task| is_live_and_runs(task))
        }
        ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob => {
            has_started_job(view, service)
        }
    }
}

fn has_started_job(view: &Store, service: &Service) -> bool {
    let run = run_of(service);
    let row = view.jobs().run(service.id, run);
    let mut open = view.jobs().places_in(service.id, run, Stage::Open);
    let is_running = |task: &Task| {
        task.desired_state <= TaskState::Complete && task.status.state == TaskState::Running
    };
    row.is_some_and(|row| row.complete_count > 0)
        || open.any(|place| {
            let mut tasks = view.tasks_in_place(service.id, run, place);
            tasks.any(|task| is_running(task))
        })
}

/// The job's present run is complete. A service that is no job is complete when a task of each slot
/// has ended well and is not started again.
fn has_completed(view: &Store, service: &Service) -> bool {
    let row = || view.jobs().run(service.id, run_of(service));
    match service.spec.mode {
        ServiceMode::ReplicatedJob {
            total_completions, ..
        } => {
            let complete = row().map_or(0, |row| row.complete_count as u64);
            has_begun(service) && complete >= total_completions
        }
        ServiceMode::GlobalJob => {
            row().is_some_and(|row| row.complete_count > 0 && row.wanted_count == 0)
        }
        ServiceMode::Replicated { replicas } => {
            let is_left = service.spec.task.restart.condition != RestartCondition::Any;
            let complete = view.tasks_of_service(service.id).filter(|task| {
                task.status.state == TaskState::Complete
                    && task.spec_version == Some(service.spec_version)
            });
            let slots: BTreeSet<u64> = complete.map(|task| task.slot).collect();
            is_left && slots.len() as u64 >= replicas.max(1)
        }
        ServiceMode::Global => false,
    }
}

fn has_begun(service: &Service) -> bool {
    let status = service.job_status.as_ref();
    status.is_some_and(|status| status.last_execution.is_some())
}

/// The job's present run.
fn run_of(service: &Service) -> Version {
    let status = service.job_status.as_ref();
    status.map_or(Version(0), |status| status.job_iteration)
}

/// The error of the task that failed last.
fn last_failure(view: &Store, service: &Service) -> Option<String> {
    let last = if is_job(service.spec.mode) {
        let mut failed = view.jobs().failures_since(service.id, Timestamp::ZERO);
        failed.next().and_then(|id| view.task(id))?
    } else {
        let tasks = view.tasks_of_service(service.id);
        let is_failed =
            |task: &Task| matches!(task.status.state, TaskState::Failed | TaskState::Rejected);
        let failed = tasks.filter(|task| is_failed(task));
        failed.max_by_key(|task| (status_time(task), task.id))?
    };
    let error = last.status.err.chars().take(ERROR_LENGTH_MAX);
    Some(error.collect::<String>()).filter(|error| !error.is_empty())
}
