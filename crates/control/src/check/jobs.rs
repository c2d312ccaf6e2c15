//! What must hold of the tasks of jobs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use skep_model::{
    Availability, NodeId, NodeState, Service, ServiceId, ServiceMode, Task, TaskId, TaskState,
    Version,
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
    /// A task is wanted on a node that is drained or gone.
    Stranded {
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
    /// A run began twice for one instant, or was taken back.
    RunTwice {
        /// The job.
        service: ServiceId,
    },
    /// The store's sums over the tasks of a job are not what its tasks come to.
    Miscounted {
        /// The job.
        service: ServiceId,
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
            check_sums(view, service, found);
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

/// What is wrong with the step from `before` to `after`: a run that begins twice, and a place that is
/// taken while as many are occupied as may be. Counted here, as a node that comes back from the dead
/// may bring more.
pub(super) fn check_step(before: &Store, after: &Store, found: &mut Vec<JobViolation>) {
    for service in after.services() {
        let Some(old) = before.service(service.id) else {
            continue;
        };
        if let (Some(old_status), Some(status)) = (&old.job_status, &service.job_status) {
            let is_fired = status.job_iteration > old_status.job_iteration
                && service.spec_version == old.spec_version;
            let is_later = status.last_execution > old_status.last_execution;
            if status.job_iteration < old_status.job_iteration || is_fired && !is_later {
                let service = service.id;
                found.push(JobViolation::RunTwice { service });
            }
        }
        let occupied = |view: &Store| -> BTreeSet<Place> {
            let tasks = view.tasks_of_service(service.id);
            let there = tasks.filter(|task| is_there(view, task));
            there.map(|task| place(service, task)).collect()
        };
        let (was, is) = (occupied(before), occupied(after));
        if is.iter().any(|place| !was.contains(place)) && is_of_now(after, service) {
            let tasks = after.tasks_of_service(service.id);
            let taken =
                tasks.filter(|task| is_wanted(task) && !was.contains(&place(service, task)));
            if taken.count() > 0 {
                check_counts(service, &is, found);
            }
        }
    }
}

fn check_job(view: &Store, service: &Service, found: &mut Vec<JobViolation>) {
    let current = service.job_status.as_ref().map(|s| s.job_iteration);
    let is_allowed = allows_two_runs(service);
    let tasks: Vec<&Task> = view
        .tasks_of_service(service.id)
        .map(AsRef::as_ref)
        .collect();
    let complete = |task: &&&Task| task.status.state == TaskState::Complete;
    let complete = tasks.iter().filter(complete);
    let done: BTreeSet<Place> = complete.map(|task| place(service, task)).collect();
    let mut wanted = BTreeSet::new();
    for task in tasks {
        let id = task.id;
        let run = task.job_iteration;
        if run.is_none() || run > current {
            found.push(JobViolation::UnknownRun { task: id });
        }
        if is_beyond(service, task) {
            found.push(JobViolation::Beyond { task: id });
        }
        if !is_wanted(task) {
            continue;
        }
        if done.contains(&place(service, task)) {
            found.push(JobViolation::DoneAgain { task: id });
        }
        if !wanted.insert(place(service, task)) {
            found.push(JobViolation::Twins { task: id });
        }
        let is_lost = |id| {
            view.node(id).is_none_or(|node| {
                node.status.state == NodeState::Down
                    || node.spec.availability == Availability::Drain
            })
        };
        if task.node_id.is_some_and(is_lost) {
            found.push(JobViolation::Stranded { task: id });
        }
        if run < current && !is_allowed {
            found.push(JobViolation::Outlived { task: id });
        }
        if task.status.state.is_terminal() && task.desired_state == TaskState::Complete {
            found.push(JobViolation::Unattended { task: id });
        }
    }
    if is_of_now(view, service) {
        check_counts(service, &wanted, found);
    }
}

/// Tasks, those not over, places, complete ones and such with a wanted task; of a run.
type Sums = [usize; 5];

/// The sums are added up anew, from all tasks.
fn check_sums(view: &Store, service: &Service, found: &mut Vec<JobViolation>) {
    let mut places: BTreeMap<Place, Vec<&Task>> = BTreeMap::new();
    let mut active: BTreeMap<NodeId, usize> = BTreeMap::new();
    for task in view.tasks_of_service(service.id) {
        places.entry(place(service, task)).or_default().push(task);
        let state = task.status.state;
        let is_placed = (TaskState::Assigned..=TaskState::Running).contains(&state);
        if let Some(node) = task.node_id
            && is_placed
            && task.desired_state <= TaskState::Complete
        {
            *active.entry(node).or_default() += 1;
        }
    }
    let mut runs: BTreeMap<Version, Sums> = BTreeMap::new();
    for ((run, _), tasks) in places {
        let count = |is: &dyn Fn(&Task) -> bool| tasks.iter().filter(|task| is(task)).count();
        let is_complete = |task: &Task| task.status.state == TaskState::Complete;
        let has = |is: &dyn Fn(&Task) -> bool| usize::from(count(is) > 0);
        let is_over = |task: &Task| !is_wanted(task) && task.status.state.is_terminal();
        let open_count = tasks.len() - count(&is_over);
        let of_place = [
            tasks.len(),
            open_count,
            1,
            has(&is_complete),
            has(&is_wanted),
        ];
        let sums = runs.entry(run).or_default();
        sums.iter_mut()
            .zip(of_place)
            .for_each(|(sum, one)| *sum += one);
    }
    let counted = view.jobs().runs(service.id).map(|(run, row)| {
        let tasks = row.specs.values().sum();
        let (places, complete) = (row.place_count, row.complete_count);
        (
            run,
            [tasks, row.open_count, places, complete, row.wanted_count],
        )
    });
    let is_right = counted.collect::<BTreeMap<_, _>>() == runs
        && view.jobs().active(service.id).collect::<BTreeMap<_, _>>() == active;
    if !is_right {
        let service = service.id;
        found.push(JobViolation::Miscounted { service });
    }
}

fn place(service: &Service, task: &Task) -> Place {
    let node = task.node_id.map(|id| id.to_string());
    let place = match service.spec.mode {
        ServiceMode::GlobalJob | ServiceMode::Global => node.unwrap_or_default(),
        ServiceMode::ReplicatedJob { .. } | ServiceMode::Replicated { .. } => task.slot.to_string(),
    };
    (task.job_iteration.unwrap_or_default(), place)
}

fn allows_two_runs(service: &Service) -> bool {
    let policy = JobPolicy::of(&service.spec.annotations.labels);
    policy.concurrency == Concurrency::Allow
}

/// Runs of an earlier spec had other counts.
fn is_of_now(view: &Store, service: &Service) -> bool {
    let mut there = view
        .tasks_of_service(service.id)
        .filter(|task| is_there(view, task));
    there.all(|task| task.spec_version == Some(service.spec_version))
}

fn is_beyond(service: &Service, task: &Task) -> bool {
    match service.spec.mode {
        ServiceMode::ReplicatedJob {
            total_completions, ..
        } => task.spec_version == Some(service.spec_version) && task.slot >= total_completions,
        ServiceMode::Replicated { .. } | ServiceMode::Global | ServiceMode::GlobalJob => false,
    }
}

/// Runs that may be beside each other are counted apart.
fn check_counts(service: &Service, places: &BTreeSet<Place>, found: &mut Vec<JobViolation>) {
    let ServiceMode::ReplicatedJob { max_concurrent, .. } = service.spec.mode else {
        return;
    };
    let is_allowed = allows_two_runs(service);
    let mut counts: BTreeMap<Option<Version>, usize> = BTreeMap::new();
    for (run, _) in places {
        *counts.entry(Some(*run).filter(|_| is_allowed)).or_default() += 1;
    }
    for count in counts.into_values() {
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
            Self::RunTwice { service } => write!(f, "job {service} runs twice for one instant"),
            Self::Miscounted { service } => {
                write!(f, "sums of job {service} are not those of its tasks")
            }
            Self::Outlived { task } => write!(f, "task {task} is of an earlier run of its job"),
            Self::Stranded { task } => {
                write!(f, "task {task} of a job is wanted where nothing shall run")
            }
            Self::UnknownRun { task } => write!(f, "task {task} is of no run of its job"),
            Self::Unattended { task } => write!(f, "task {task} of a job has failed unnoticed"),
            Self::Beyond { task } => write!(f, "task {task} is beyond the completions of its job"),
        }
    }
}
