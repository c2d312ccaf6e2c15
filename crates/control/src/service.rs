//! A service as a whole: dispatches by mode, and ends the tasks of services that are gone.

use skep_model::{Endpoint, Rng, Service, ServiceId, ServiceMode, TaskState, Timestamp};
use skep_store::Store;

use crate::{
    global,
    plan::{Change, Plan, Wait},
    replicated,
    slot::desire,
};

pub(crate) fn reconcile(view: &Store, id: ServiceId, now: Timestamp, rng: &mut Rng) -> Plan {
    let Some(service) = view.service(id) else {
        return remove_tasks(view, id);
    };
    if let Some(change) = refresh_endpoint(service) {
        // Writing the service makes it dirty, so the rest follows.
        return Plan {
            changes: vec![change],
            ..Plan::default()
        };
    }
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

/// Copies the wanted ports to where allocated ones are shown; addresses stay.
fn refresh_endpoint(service: &Service) -> Option<Change> {
    let wanted = service.spec.endpoint.as_ref()?;
    let is_current = service
        .endpoint
        .as_ref()
        .is_some_and(|endpoint| endpoint.spec.as_ref() == Some(wanted));
    if is_current {
        return None;
    }
    let addresses = service.endpoint.as_ref().map(|e| e.virtual_ips.clone());
    let endpoint = Endpoint {
        spec: Some(wanted.clone()),
        ports: wanted.ports.clone(),
        virtual_ips: addresses.unwrap_or_default(),
    };
    Some(Change::UpdateService(Box::new(Service {
        endpoint: Some(endpoint),
        ..service.clone()
    })))
}
