//! What commands make of a job's status: when a run begins, and since when a schedule counts.

use std::time::Duration;

use skep_model::{
    JobStatus, Service, ServiceMode, ServiceSpec, Timestamp, UpdateState, UpdateStatus,
    reserved::service::schedule::{JobPolicy, OF_SCHEDULE, scheduled_since},
};

/// A last execution further in the future than this is the work of a clock that was wrong; an update
/// puts it right. A smaller error must not let an instant run twice.
const CLOCK_ERROR_MAX: Duration = Duration::from_secs(3600);

/// Whether a service in this mode is a job.
pub fn is_job(mode: ServiceMode) -> bool {
    match mode {
        ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob => true,
        ServiceMode::Replicated { .. } | ServiceMode::Global => false,
    }
}

/// The status a new service begins with: a job runs at once, a scheduled one when its time comes.
pub fn begin(spec: &ServiceSpec, now: Timestamp) -> (Option<JobStatus>, Option<UpdateStatus>) {
    if !is_job(spec.mode) {
        return (None, None);
    }
    let is_scheduled = is_scheduled(spec);
    let status = JobStatus {
        last_execution: (!is_scheduled).then_some(now),
        ..JobStatus::default()
    };
    (Some(status), is_scheduled.then(|| since(now)))
}

/// Follows a change of the spec of `service`, which was `old` before: a job's next run begins, a
/// scheduled job's only if it is forced.
pub fn revise(service: &mut Service, old: &Service, now: Timestamp) {
    if !is_job(service.spec.mode) {
        return;
    }
    let is_scheduled = is_scheduled(&service.spec);
    let is_forced = old.spec.task.force_update != service.spec.task.force_update;
    let mut status = old.job_status.clone().unwrap_or_default();
    let latest = now + CLOCK_ERROR_MAX;
    if status.last_execution.is_some_and(|last| last > latest) {
        status.last_execution = Some(now);
    }
    if is_forced || !is_scheduled {
        status.job_iteration.0 += 1;
        status.last_execution = status.last_execution.max(Some(now));
    }
    service.job_status = Some(status);
    let label = |service: &Service, key| service.spec.annotations.labels.get(key).cloned();
    let is_new = OF_SCHEDULE
        .iter()
        .any(|key| label(old, *key) != label(service, *key));
    let kept = Some(scheduled_since(old)).filter(|at| !is_new && *at <= latest);
    service.update_status = is_scheduled.then(|| since(kept.unwrap_or(now)));
}

fn since(now: Timestamp) -> UpdateStatus {
    UpdateStatus {
        started_at: Some(now),
        message: "scheduled".to_owned(),
        state: UpdateState::Unknown,
        completed_at: None,
    }
}

fn is_scheduled(spec: &ServiceSpec) -> bool {
    JobPolicy::of(&spec.annotations.labels).schedule.is_some()
}
