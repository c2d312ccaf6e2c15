//! Jobs: services whose tasks run to completion, at once or on a schedule.
//!
//! The store groups tasks by run and place (`skep_store::JobTables`). A service is looked at as a whole when it
//! or the time says so: the schedule tells whether the next run begins (`schedule`), and each run under way makes
//! its next step (`run`). Events of tasks and nodes are looked at in their own place. What commands do to a job's
//! status is in [`begin`] and [`revise`]; which tasks are kept in `history`.
//! See `docs/design/jobs.md`.

pub(crate) mod history;
mod run;
mod schedule;
mod status;
mod wait;

pub use self::{
    status::{begin, is_job, revise},
    wait::JobWait,
};

use skep_model::{
    JobStatus, Rng, Service, Slot, Timestamp, Version,
    reserved::service::schedule::{Concurrency, JobPolicy},
};
use skep_store::Store;

use self::{
    run::{Run, place_of, runs},
    schedule::Due,
};
use crate::{
    key::Key,
    plan::{Change, Plan, Wait},
    revision::Template,
};

/// Runs beside each other where the policy allows them. A job that never ends, or finds no node, would
/// else grow with every instant.
const RUNS_AT_ONCE_MAX: usize = 10;

/// What all runs of a job share.
struct Job<'a> {
    view: &'a Store,
    service: &'a Service,
    policy: JobPolicy,
    template: Template,
    now: Timestamp,
}

/// Looks at all places where something may be to do.
pub(crate) fn reconcile(view: &Store, service: &Service, now: Timestamp, rng: &mut Rng) -> Plan {
    let job = Job::new(view, service, now);
    let mut plan = Plan::default();
    let status = service.job_status.clone().unwrap_or_default();
    let runs = job.runs(&status);
    let begins = job.policy.schedule.is_some() && job.plan_begin(&status, &runs, &mut plan);
    if !begins {
        job.step_all(&status, &runs, None, rng, &mut plan);
    }
    plan
}

/// Looks at the places told by `slot`, and at what they make room for: its cost does not grow with the number
/// of completions.
pub(crate) fn reconcile_slot(
    view: &Store,
    service: &Service,
    slot: Slot,
    now: Timestamp,
    rng: &mut Rng,
) -> Plan {
    let job = Job::new(view, service, now);
    let mut plan = Plan::default();
    let status = service.job_status.clone().unwrap_or_default();
    let runs = job.runs(&status);
    let place = place_of(service.spec.mode, slot);
    job.step_all(&status, &runs, Some(place), rng, &mut plan);
    // The next run may have waited for the end of one.
    let has_ended = |run: &Run<'_>| !run.tasks_in(place).is_empty() && !job.is_under_way(run);
    if job.policy.schedule.is_some() && runs.values().any(has_ended) {
        plan.follow_up.push(Key::Service(service.id));
    }
    plan
}

type Runs<'a> = std::collections::BTreeMap<Version, Run<'a>>;

// === impl Job ===

impl<'a> Job<'a> {
    fn new(view: &'a Store, service: &'a Service, now: Timestamp) -> Self {
        Self {
            view,
            service,
            policy: JobPolicy::of(&service.spec.annotations.labels),
            template: Template::new(view, service),
            now,
        }
    }

    /// The runs of which there are tasks, and the current one.
    fn runs(&self, status: &JobStatus) -> Runs<'a> {
        let mut runs = runs(self.view, self.service);
        if self.policy.schedule.is_none() || status.last_execution.is_some() {
            let current = status.job_iteration;
            runs.entry(current)
                .or_insert_with(|| Run::empty(self.view, self.service, current));
        }
        runs
    }

    /// The next step of each run under way, and the end of the others.
    fn step_all(
        &self,
        status: &JobStatus,
        runs: &Runs<'_>,
        only: Option<Slot>,
        rng: &mut Rng,
        plan: &mut Plan,
    ) {
        let is_allowed = self.policy.concurrency == Concurrency::Allow;
        for run in runs.values() {
            if run.iteration == status.job_iteration || is_allowed {
                let others = runs
                    .values()
                    .filter(|other| !is_allowed && other.iteration != run.iteration);
                self.step(run, others, only, rng, plan);
            } else if run.has_wanted() {
                match only {
                    None => run.stop(plan),
                    Some(_) => plan.follow_up.push(Key::Service(self.service.id)),
                }
            }
        }
    }

    /// Begins the next run if its time has come and the run under way lets it.
    fn plan_begin(&self, status: &JobStatus, runs: &Runs<'_>, plan: &mut Plan) -> bool {
        let at = match schedule::due(self.service, &self.policy, self.now) {
            Due::Suspended => {
                plan.report.push(Wait::Job(JobWait::Suspended));
                return false;
            }
            Due::Never => return false,
            Due::Later(until) => {
                plan.report.push(Wait::Job(JobWait::NextRun { until }));
                plan.wake_by(until);
                return false;
            }
            Due::Now(at) => at,
        };
        let under_way = runs.values().filter(|run| self.is_under_way(run)).count();
        let runs_max = match self.policy.concurrency {
            Concurrency::Forbid => 1,
            Concurrency::Allow => RUNS_AT_ONCE_MAX,
            Concurrency::Replace => usize::MAX,
        };
        if under_way >= runs_max {
            // Its end brings us back. Should the instant be too late then, the one after it counts.
            plan.report.push(Wait::Job(JobWait::RunUnderWay));
            return false;
        }
        let service = Service {
            job_status: Some(JobStatus {
                job_iteration: Version(status.job_iteration.0 + 1),
                last_execution: Some(at),
            }),
            ..Service::clone(self.service)
        };
        plan.changes.push(Change::UpdateService(Box::new(service)));
        true
    }
}
