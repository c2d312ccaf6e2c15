//! A service as a whole: dispatches by mode, and ends the tasks of services that are gone.

use std::sync::Arc;

use skep_model::{Rng, Service, ServiceId, ServiceMode, TaskState, Timestamp};
use skep_store::Store;

use crate::{
    global, network,
    plan::{Change, Plan, Wait},
    replicated,
    slot::desire,
};

pub(crate) fn reconcile(view: &Store, id: ServiceId, now: Timestamp, rng: &mut Rng) -> Plan {
    let Some(service) = view.service(id) else {
        return remove_tasks(view, id);
    };
    let (endpoint, waits) = network::endpoint(view, service);
    if endpoint != service.endpoint {
        // Writing the service makes it dirty, so the rest follows.
        let service = Service {
            endpoint,
            ..Service::clone(service)
        };
        return Plan {
            changes: vec![Change::UpdateService(Box::new(service))],
            ..Plan::default()
        };
    }
    let mut plan = reconcile_tasks(view, service, now, rng);
    for wait in waits {
        plan.report.push(wait);
    }
    plan
}

fn reconcile_tasks(view: &Store, service: &Arc<Service>, now: Timestamp, rng: &mut Rng) -> Plan {
    match service.spec.mode {
        ServiceMode::Replicated { replicas } => {
            replicated::reconcile(view, service, replicas, now, rng)
        }
        ServiceMode::Global => global::reconcile(view, service, now, rng),
        ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob => {
            let mut plan = Plan::default();
            plan.report.push(Wait::Mode);
            plan
        }
    }
}

/// Tasks of a removed service stop and are forgotten once they have.
fn remove_tasks(view: &Store, id: ServiceId) -> Plan {
    let tasks = view.tasks_of_service(id);
    let kept = tasks.filter(|task| task.desired_state < TaskState::Remove);
    Plan {
        changes: kept.map(|task| desire(task, TaskState::Remove)).collect(),
        ..Plan::default()
    }
}
