//! `/skep/v1/jobs`: services in a job mode, what their last run came to, and when the next one is.
//!
//! Decisions about runs are the leader's (`docs/design/jobs.md`); here they are only told, from the same tasks.

use std::{collections::BTreeSet, sync::Arc};

use serde::Serialize;
use skep_model::{
    Service, ServiceMode, Slot, Task, TaskState,
    reserved::service::schedule::{Concurrency, JobPolicy, NextRun, SCHEDULE, TIMEZONE},
};

use crate::{
    backend::{ClusterView, ServiceUpdate},
    error::{ApiError, Result},
    http::{
        response::{self, Response},
        server::Context,
        timestamp::rfc3339_nano,
    },
    routes::lookup,
};

/// A job.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Job {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<String>,
    is_suspended: bool,
    /// Number of the last run.
    run: u64,
    /// The instant it began for.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_run: Option<String>,
    /// `running`, `complete`, `failed` or `none`.
    result: &'static str,
    running: u64,
    completed: u64,
    wanted: u64,
    /// In the schedule's time zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_run: Option<String>,
}

/// What is known of a job's last run.
pub(crate) struct Run {
    running: u64,
    pub(crate) completed: u64,
    pub(crate) wanted: u64,
    pub(crate) is_under_way: bool,
}

/// `GET /skep/v1/jobs`
pub(crate) async fn list(context: &Context) -> Result<Response> {
    let view = lookup::view(context).await?;
    let services = view.services();
    let jobs = services.iter().filter(|service| is_job(service));
    let mut jobs: Vec<Job> = jobs.map(|service| job(&*view, service)).collect();
    jobs.sort_by(|a, b| a.name.cmp(&b.name));
    response::json(&jobs)
}

/// `POST /skep/v1/jobs/{name}/run`: a run now, as a forced update begins one.
pub(crate) async fn run(context: &Context, name: &str) -> Result<Response> {
    lookup::check_manager(context)?;
    let view = lookup::view(context).await?;
    let service = lookup::service(&*view, name)?;
    if !is_job(&service) {
        let name = service.name();
        return Err(ApiError::invalid(format!("service {name} is not a job")));
    }
    let policy = JobPolicy::of(&service.spec.annotations.labels);
    if policy.concurrency == Concurrency::Forbid && last_run(&*view, &service).is_under_way {
        let name = service.name();
        return Err(ApiError::conflict(format!(
            "job {name} is running, and its concurrency policy forbids a second run"
        )));
    }
    let mut spec = (*service.spec).clone();
    let task = Arc::make_mut(&mut spec.task);
    task.force_update = task.force_update.wrapping_add(1);
    let update = ServiceUpdate::Set(spec);
    let cluster = &context.backends.cluster;
    cluster
        .update_service(service.id, service.meta.version, update)
        .await?;
    Ok(response::empty(hyper::StatusCode::NO_CONTENT))
}

/// Places of a run with a complete task: two that completed in one place count once.
pub(crate) fn completed(service: &Service, tasks: &[Arc<Task>]) -> u64 {
    let complete = tasks.iter().filter(|task| is_complete(task));
    let places: BTreeSet<_> = complete.filter_map(|task| place(service, task)).collect();
    places.len() as u64
}

/// A slot, from 0 on, or a node. Services that are no jobs have none.
fn place(service: &Service, task: &Task) -> Option<Slot> {
    match service.spec.mode {
        ServiceMode::ReplicatedJob { .. } => Some(Slot::Number(task.slot)),
        ServiceMode::GlobalJob => task.node_id.map(Slot::Node),
        ServiceMode::Replicated { .. } | ServiceMode::Global => None,
    }
}

fn is_complete(task: &Task) -> bool {
    task.status.state == TaskState::Complete
}

pub(crate) fn last_run(view: &dyn ClusterView, service: &Service) -> Run {
    let iteration = service.job_status.as_ref().map(|s| s.job_iteration);
    let all = view.tasks_of_service(service.id);
    let is_of_run = |task: &Task| task.job_iteration == iteration;
    let (tasks, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|task| is_of_run(task));
    let places: BTreeSet<_> = tasks.iter().filter_map(|t| place(service, t)).collect();
    let wanted = match service.spec.mode {
        ServiceMode::ReplicatedJob {
            total_completions, ..
        } => total_completions,
        ServiceMode::GlobalJob | ServiceMode::Replicated { .. } | ServiceMode::Global => {
            places.len() as u64
        }
    };
    // One that failed and waits for its replacement is wanted, too.
    let is_wanted = |task: &Task| task.desired_state <= TaskState::Complete && !is_complete(task);
    let is_running = |task: &Task| task.status.state == TaskState::Running;
    Run {
        running: tasks.iter().filter(|task| is_running(task)).count() as u64,
        completed: completed(service, &tasks),
        wanted,
        // It begins when the run that it replaces has stopped.
        is_under_way: tasks.iter().any(|t| is_wanted(t) || is_running(t))
            || tasks.is_empty() && others.iter().any(|task| is_running(task)),
    }
}

fn job(view: &dyn ClusterView, service: &Service) -> Job {
    let labels = &service.spec.annotations.labels;
    let policy = JobPolicy::of(labels);
    let run = last_run(view, service);
    let status = service.job_status.clone().unwrap_or_default();
    let result = match status.last_execution {
        None => "none",
        Some(_) if run.is_under_way => "running",
        Some(_) if run.completed >= run.wanted => "complete",
        Some(_) => "failed",
    };
    Job {
        id: service.id.to_string(),
        name: service.name().to_owned(),
        mode: match service.spec.mode {
            ServiceMode::GlobalJob => "global-job",
            ServiceMode::ReplicatedJob { .. }
            | ServiceMode::Replicated { .. }
            | ServiceMode::Global => "replicated-job",
        },
        schedule: labels.get(SCHEDULE).cloned(),
        time_zone: labels.get(TIMEZONE).cloned(),
        is_suspended: policy.is_suspended,
        run: status.job_iteration.0,
        last_run: status.last_execution.map(rfc3339_nano),
        result,
        running: run.running,
        completed: run.completed,
        wanted: run.wanted,
        next_run: match policy.next_run(service) {
            NextRun::At(at, schedule) => Some(schedule.local(at)),
            NextRun::Unscheduled | NextRun::Suspended | NextRun::Never => None,
        },
    }
}

pub(crate) fn is_job(service: &Service) -> bool {
    match service.spec.mode {
        ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob => true,
        ServiceMode::Replicated { .. } | ServiceMode::Global => false,
    }
}
