//! Jobs: services whose tasks run to completion, at once or on a schedule.
//!
//! A service is always looked at as a whole: its tasks are grouped by run (`run`), the schedule says
//! whether the next run begins (`schedule`), and each run under way makes its next step. What
//! commands do to a job's status is in [`begin`] and [`revise`]; which tasks are kept in `history`.
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
    JobStatus, Rng, Service, Timestamp, Version,
    reserved::service::schedule::{Concurrency, JobPolicy},
};
use skep_store::Store;

use self::{
    run::{Run, runs},
    schedule::Due,
};
use crate::{
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

pub(crate) fn reconcile(view: &Store, service: &Service, now: Timestamp, rng: &mut Rng) -> Plan {
    let job = Job {
        view,
        service,
        policy: JobPolicy::of(&service.spec.annotations.labels),
        template: Template::new(view, service),
        now,
    };
    let mut plan = Plan::default();
    let status = service.job_status.clone().unwrap_or_default();
    let mut runs = runs(view, service);
    let has_begun = job.policy.schedule.is_none() || status.last_execution.is_some();
    if has_begun {
        runs.entry(status.job_iteration)
            .or_insert_with(|| Run::empty(status.job_iteration));
    }
    let begins = job.policy.schedule.is_some() && job.plan_begin(&status, &runs, &mut plan);
    if begins {
        return plan;
    }
    let is_allowed = job.policy.concurrency == Concurrency::Allow;
    for run in runs.values() {
        if run.iteration == status.job_iteration || is_allowed {
            let others = runs
                .values()
                .filter(|other| !is_allowed && other.iteration != run.iteration);
            job.step(run, others, rng, &mut plan);
        } else {
            run.stop(&mut plan);
        }
    }
    plan
}

type Runs<'a> = std::collections::BTreeMap<Version, Run<'a>>;

// === impl Job ===

impl Job<'_> {
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
