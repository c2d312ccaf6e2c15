//! What must hold of the tasks of jobs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use skep_model::{
    NodeState, Service, ServiceId, ServiceMode, Task, TaskId, TaskState, Version,
    reserved::service::schedule::{Concurrency, JobPolicy},
};
use skep_store::Store;

/// A broken invariant of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobViolation {
    /// Two tasks of a run are wanted in one place.
    Twins {
        /// The later one.
        task: TaskId,
    },
    /// A task is wanted in a place that is complete.
    DoneAgain {
        /// The task.
        task: TaskId,
    },
    /// More places are taken than may be at once.
    TooManyAtOnce {
        /// The job.
        service: ServiceId,
        /// How many.
        count: usize,
    },
    /// A task of an earlier run is still wanted.
    Outlived {
        /// The task.
        task: TaskId,
    },
    /// A task of no run of its service, or of a run to come.
    UnknownRun {
        /// The task.
        task: TaskId,
    },
    /// A task has failed and nobody noticed.
    Unattended {
        /// The task.
        task: TaskId,
    },
    /// A task of a slot beyond the completions wanted.
    Beyond {
        /// The task.
        task: TaskId,
    },
}

/// A run, and a place in it: a slot, or a node's id.
type Place = (Version, String);

pub(super) fn check(view: &Store, found: &mut Vec<JobViolation>) {
    for service in view.services() {
        if crate::job::is_job(service.spec.mode) {
            check_job(view, service, found);
        }
    }
}

fn is_wanted(task: &Task) -> bool {
    task.desired_state <= TaskState::Complete && task.status.state != TaskState::Complete
}

/// Wanted, or still running as far as anybody can know.
fn is_there(view: &Store, task: &Task) -> bool {
    let node = task.node_id.and_then(|id| view.node(id));
    let is_heard = node.is_some_and(|node| node.status.state != NodeState::Down);
    is_wanted(task) || is_heard && !task.status.state.is_terminal()
}

fn check_job(view: &Store, service: &Service, found: &mut Vec<JobViolation>) {
    let current = service.job_status.as_ref().map(|s| s.job_iteration);
    let policy = JobPolicy::of(&service.spec.annotations.labels);
    let is_allowed = policy.concurrency == Concurrency::Allow;
    let tasks: Vec<&Task> = view
        .tasks_of_service(service.id)
        .map(AsRef::as_ref)
        .collect();
    let place = |task: &Task| -> Place {
        let node = task.node_id.map(|id| id.to_string());
        let place = match service.spec.mode {
            ServiceMode::GlobalJob | ServiceMode::Global => node.unwrap_or_default(),
            ServiceMode::ReplicatedJob { .. } | ServiceMode::Replicated { .. } => {
                task.slot.to_string()
            }
        };
        let run = task.job_iteration.unwrap_or_default();
        (run, place)
    };
    let complete = |task: &&&Task| task.status.state == TaskState::Complete;
    let done: BTreeSet<Place> = tasks.iter().filter(complete).map(|t| place(t)).collect();
    let mut wanted = BTreeSet::new();
    let mut at_once: BTreeMap<Version, BTreeSet<Place>> = BTreeMap::new();
    for task in tasks {
        let id = task.id;
        let run = task.job_iteration;
        if run.is_none() || run > current {
            found.push(JobViolation::UnknownRun { task: id });
        }
        if is_there(view, task) {
            let run = run.filter(|_| is_allowed).unwrap_or_default();
            at_once.entry(run).or_default().insert(place(task));
        }
        if !is_wanted(task) {
            continue;
        }
        if done.contains(&place(task)) {
            found.push(JobViolation::DoneAgain { task: id });
        }
        if !wanted.insert(place(task)) {
            found.push(JobViolation::Twins { task: id });
        }
        if run < current && !is_allowed {
            found.push(JobViolation::Outlived { task: id });
        }
        if task.status.state.is_terminal() && task.desired_state == TaskState::Complete {
            found.push(JobViolation::Unattended { task: id });
        }
    }
    check_counts(view, service, &at_once, found);
}

/// Runs of an earlier spec had other counts.
fn check_counts(
    view: &Store,
    service: &Service,
    at_once: &BTreeMap<Version, BTreeSet<Place>>,
    found: &mut Vec<JobViolation>,
) {
    let ServiceMode::ReplicatedJob {
        max_concurrent,
        total_completions,
    } = service.spec.mode
    else {
        return;
    };
    let of_now = |task: &&Task| task.spec_version == Some(service.spec_version);
    let tasks = || view.tasks_of_service(service.id).map(AsRef::as_ref);
    for task in tasks()
        .filter(of_now)
        .filter(|t| t.slot >= total_completions)
    {
        found.push(JobViolation::Beyond { task: task.id });
    }
    if !tasks().all(|task| of_now(&task) || !is_there(view, task)) {
        return;
    }
    for places in at_once.values() {
        let count = places.len();
        if count as u64 > max_concurrent {
            let service = service.id;
            found.push(JobViolation::TooManyAtOnce { service, count });
        }
    }
}

impl fmt::Display for JobViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Twins { task } => write!(f, "task {task} is not alone in its place of a job"),
            Self::DoneAgain { task } => {
                write!(f, "task {task} is wanted in a place of a job that is done")
            }
            Self::TooManyAtOnce { service, count } => {
                write!(f, "{count} tasks of job {service} may run at once")
            }
            Self::Outlived { task } => write!(f, "task {task} is of an earlier run of its job"),
            Self::UnknownRun { task } => write!(f, "task {task} is of no run of its job"),
            Self::Unattended { task } => write!(f, "task {task} of a job has failed unnoticed"),
            Self::Beyond { task } => write!(f, "task {task} is beyond the completions of its job"),
        }
    }
}
