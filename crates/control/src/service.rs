//! A service as a whole: dispatches by mode, and ends the tasks of services that are gone.

use std::sync::Arc;

use skep_model::{
    Annotations, Rng, Service, ServiceId, ServiceMode, Task, TaskState, Timestamp,
    reserved::service::{DRAIN, ServicePolicy},
};
use skep_store::Store;

use crate::{
    global, job,
    key::Key,
    network,
    plan::{Change, Plan},
    replicated,
};

/// Tasks of a removed service that one plan ends. More than fit into an entry would be thrown away.
const REMOVALS_PER_PLAN_MAX: usize = 2000;

pub(crate) fn reconcile(view: &Store, id: ServiceId, now: Timestamp, rng: &mut Rng) -> Plan {
    let Some(service) = view.service(id) else {
        let mut plan = remove_tasks(view.tasks_of_service(id));
        if plan.changes.len() >= REMOVALS_PER_PLAN_MAX {
            plan.follow_up.push(Key::Service(id));
        }
        return plan;
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
            job::reconcile(view, service, now, rng)
        }
    }
}

/// Tasks of a removed service stop and are forgotten once they have. They wait for no connection:
/// who removes a service wants it gone. Of many tasks the first ones: the rest needs another entry.
pub(crate) fn remove_tasks<'a>(tasks: impl Iterator<Item = &'a Arc<Task>>) -> Plan {
    let has_drain = |task: &Task| !ServicePolicy::of(&task.service_annotations).drain.is_zero();
    let kept = tasks.filter(|task| {
        let is_live = !task.status.state.is_terminal();
        task.desired_state < TaskState::Remove || is_live && has_drain(task)
    });
    // Tasks of a service share one copy of its name and labels: so they do afterwards.
    let mut last: Option<(Arc<Annotations>, Arc<Annotations>)> = None;
    let changes = kept.map(|task| {
        let known = last
            .take()
            .filter(|(known, _)| Arc::ptr_eq(known, &task.service_annotations));
        let (known, undrained) = known.unwrap_or_else(|| {
            let mut annotations = Annotations::clone(&task.service_annotations);
            annotations.labels.insert(DRAIN.to_owned(), "0s".to_owned());
            (Arc::clone(&task.service_annotations), Arc::new(annotations))
        });
        let ended = Task {
            desired_state: TaskState::Remove,
            service_annotations: Arc::clone(&undrained),
            ..Task::clone(task)
        };
        last = Some((known, undrained));
        Change::UpdateTask(Arc::new(ended))
    });
    Plan {
        changes: changes.take(REMOVALS_PER_PLAN_MAX).collect(),
        ..Plan::default()
    }
}
