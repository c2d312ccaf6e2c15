//! A place of a run of a job, once complete, gets no further task; none is taken while as many are occupied as may be; and
//! no run begins twice for one instant, nor does one end that was begun.
//!
//! A node that is down is believed to run nothing. When it comes back there may be more, so places are counted when one is
//! taken.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::{
    NodeId, NodeState, Service, ServiceId, ServiceMode, Task, TaskState, Timestamp, Version,
};
use skep_store::{Object, Store};

use crate::{
    facts::{Applied, Facts, Observation},
    invariants::Invariant,
};

/// A run, and a slot or a node of it.
type Place = (Version, u64, Option<NodeId>);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    complete: BTreeMap<ServiceId, BTreeSet<Place>>,
    fired: BTreeMap<ServiceId, BTreeSet<Timestamp>>,
}

impl Invariant for Jobs {
    fn name(&self) -> &'static str {
        "jobs"
    }

    fn observe(&mut self, _: &Facts, observation: &Observation<'_>) -> Result<(), String> {
        let Some(Applied { changes, after, .. }) = observation.committed() else {
            return Ok(());
        };
        for change in changes {
            match (&change.old, &change.new) {
                (Some(Object::Service(old)), Some(Object::Service(new))) => self.run(old, new)?,
                (Some(Object::Service(old)), None) => {
                    self.complete.remove(&old.id);
                    self.fired.remove(&old.id);
                }
                (old, Some(Object::Task(task))) => {
                    let service = task.service_id.and_then(|id| after.service(id));
                    if let Some(service) = service.filter(|s| s.job_status.is_some()) {
                        self.task(after, service, task, old.is_none())?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Jobs {
    fn run(&mut self, old: &Service, new: &Service) -> Result<(), String> {
        let (Some(was), Some(is)) = (&old.job_status, &new.job_status) else {
            return Ok(());
        };
        let name = new.name();
        if is.job_iteration < was.job_iteration {
            return Err(format!(
                "job {name} went back to run {:?}",
                is.job_iteration
            ));
        }
        // Runs begun by commands come with a spec of their own.
        if is.job_iteration == was.job_iteration || new.spec_version != old.spec_version {
            return Ok(());
        }
        let at = is.last_execution.unwrap_or_default();
        let is_first = self.fired.entry(new.id).or_default().insert(at);
        if !is_first || was.last_execution.is_some_and(|last| last >= at) {
            return Err(format!("job {name} runs again for {at:?}"));
        }
        if at.0 % 60_000_000_000 != 0 {
            return Err(format!("job {name} runs at {at:?}, which is no instant"));
        }
        Ok(())
    }

    fn task(
        &mut self,
        store: &Store,
        service: &Service,
        task: &Task,
        is_new: bool,
    ) -> Result<(), String> {
        let place = place(service, task);
        let complete = self.complete.entry(service.id).or_default();
        if task.status.state == TaskState::Complete {
            complete.insert(place);
        }
        if !is_new {
            return Ok(());
        }
        if complete.contains(&place) {
            return Err(format!("task {} is for {place:?}, which is done", task.id));
        }
        check_room(store, service, task)
    }
}

fn place(service: &Service, task: &Task) -> Place {
    let is_global = service.spec.mode == ServiceMode::GlobalJob;
    let run = task.job_iteration.unwrap_or_default();
    (run, task.slot, task.node_id.filter(|_| is_global))
}

/// Counts the places with tasks that have not ended and are heard of.
fn check_room(store: &Store, service: &Service, created: &Task) -> Result<(), String> {
    let ServiceMode::ReplicatedJob { max_concurrent, .. } = service.spec.mode else {
        return Ok(());
    };
    let labels = &service.spec.annotations.labels;
    let is_allowed = labels.get("skep.job.concurrency").map(String::as_str) == Some("allow");
    let is_there = |task: &Task| {
        let node = task.node_id.and_then(|id| store.node(id));
        let is_heard = node.is_some_and(|node| node.status.state != NodeState::Down);
        !task.status.state.is_terminal() && (is_heard || task.desired_state <= TaskState::Complete)
    };
    let there: Vec<&Task> = store
        .tasks_of_service(service.id)
        .map(AsRef::as_ref)
        .filter(|task| is_there(task))
        .filter(|task| !is_allowed || task.job_iteration == created.job_iteration)
        .collect();
    // Those of an earlier spec were as many as that allowed.
    if there
        .iter()
        .any(|task| task.spec_version != created.spec_version)
    {
        return Ok(());
    }
    let own = place(service, created);
    let is_replacement = there
        .iter()
        .any(|task| task.id != created.id && place(service, task) == own);
    let places: BTreeSet<Place> = there.iter().map(|task| place(service, task)).collect();
    if is_replacement || places.len() as u64 <= max_concurrent {
        return Ok(());
    }
    let (name, count) = (service.name(), places.len());
    Err(format!("{count} places of job {name} are taken at once"))
}
