//! Leaders that decide wrongly: the real reconcilers, shown another state than there is.
//!
//! Each is what the leader's core calls instead of [`skep_control::reconcile`]. It gives that a copy of the store in
//! which services say something else, and takes what it says of services back into the plan's.

use std::sync::Arc;

use skep_control::{Change, Key, Plan};
use skep_manager::core::Reconcile;
use skep_model::{
    Rng, Service, ServiceMode, ServiceSpec, Timestamp, reserved::service::depends::DEPENDS_ON,
};
use skep_store::{Action, ActionKind, Object, Store};

use super::Bug;

/// Who decides for a leader with the bug.
pub(crate) fn reconcile_of(bug: Option<Bug>) -> Reconcile {
    match bug {
        Some(Bug::IgnoreParallelism) => ignore_parallelism,
        Some(Bug::IgnoreConcurrency) => ignore_concurrency,
        Some(Bug::CountJobTwice) => count_job_twice,
        Some(Bug::IgnoreDependencies) => ignore_dependencies,
        Some(_) | None => skep_control::reconcile,
    }
}

fn ignore_parallelism(view: &Store, key: &Key, now: Timestamp, rng: &mut Rng) -> Plan {
    deceive(view, key, (now, rng), |_, spec| {
        let mut update = spec.update.clone().unwrap_or_default();
        update.parallelism = 0;
        spec.update = Some(update);
    })
}

fn ignore_concurrency(view: &Store, key: &Key, now: Timestamp, rng: &mut Rng) -> Plan {
    deceive(view, key, (now, rng), |_, spec| {
        if let ServiceMode::ReplicatedJob { max_concurrent, .. } = &mut spec.mode {
            *max_concurrent = u64::MAX;
        }
    })
}

/// What is complete is counted for another place, too: so many fewer are wanted.
fn count_job_twice(view: &Store, key: &Key, now: Timestamp, rng: &mut Rng) -> Plan {
    deceive(view, key, (now, rng), |service, spec| {
        if let ServiceMode::ReplicatedJob {
            total_completions, ..
        } = &mut spec.mode
        {
            let run = service.job_status.clone().unwrap_or_default().job_iteration;
            let row = view.jobs().run(service.id, run);
            let complete = row.map_or(0, |row| row.complete_count);
            let complete = u64::try_from(complete).unwrap_or(u64::MAX);
            *total_completions = total_completions.saturating_sub(complete);
        }
    })
}

fn ignore_dependencies(view: &Store, key: &Key, now: Timestamp, rng: &mut Rng) -> Plan {
    deceive(view, key, (now, rng), |_, spec| {
        let labels = &spec.annotations.labels;
        if labels.contains_key(DEPENDS_ON) {
            let labels = &mut Arc::make_mut(&mut spec.annotations).labels;
            labels.remove(DEPENDS_ON);
        }
    })
}

/// What is decided about `key` where services are as `alter` has them.
fn deceive(
    view: &Store,
    key: &Key,
    (now, rng): (Timestamp, &mut Rng),
    alter: impl Fn(&Service, &mut ServiceSpec),
) -> Plan {
    let mut shown = view.clone();
    let services = view.services().filter(|service| concerns(key, service));
    for service in services {
        let mut spec = ServiceSpec::clone(&service.spec);
        alter(service, &mut spec);
        let service = Service {
            spec: Arc::new(spec),
            ..Service::clone(service)
        };
        let action = Action {
            kind: ActionKind::Update,
            object: Object::Service(Arc::new(service)),
        };
        let applied = shown.apply(&action);
        applied.expect("a service that is there can be updated");
    }
    let mut plan = skep_control::reconcile(&shown, key, now, rng);
    for change in &mut plan.changes {
        if let Change::UpdateService(service) = change
            && let (Some(told), Some(real)) = (shown.service(service.id), view.service(service.id))
        {
            let of = |spec: &Arc<ServiceSpec>| Arc::ptr_eq(spec, &told.spec);
            if of(&service.spec) {
                service.spec = Arc::clone(&real.spec);
            }
            if service.previous_spec.as_ref().is_some_and(of) {
                service.previous_spec = Some(Arc::clone(&real.spec));
            }
        }
    }
    plan
}

/// Whether what a service says may matter for the key.
fn concerns(key: &Key, service: &Service) -> bool {
    match key {
        Key::Service(id) | Key::Slot(id, _) => *id == service.id,
        Key::Scheduler | Key::Dependents => true,
        Key::Network(_)
        | Key::Slice(_)
        | Key::Node(_)
        | Key::Task(_)
        | Key::History(..)
        | Key::Rebalance
        | Key::Waiting
        | Key::Balancers(_) => false,
    }
}
