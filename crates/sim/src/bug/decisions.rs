//! Wrong decisions of a leader.

use std::sync::Arc;

use skep_model::{
    Availability, Node, NodeId, Rng, Service, ServiceMode, Task, TaskId, TaskState, UpdateState,
    Version,
};
use skep_store::{Action, ActionKind, Object, ObjectId, Store};

use super::Bug;

/// Changes what an entry says as a leader with the bug would have written it. `store` is what it is
/// applied to.
pub(crate) fn mislead(bug: Option<Bug>, store: &Store, actions: &mut Vec<Action>) {
    match bug {
        Some(Bug::CompleteEarly) => actions.iter_mut().for_each(complete),
        Some(Bug::RunAgain) => {
            let again: Vec<Action> = actions.iter().flat_map(run_again).collect();
            actions.extend(again);
        }
        Some(Bug::StopAll) => {
            let stopped = actions.iter().find_map(|action| stopped(store, action));
            if let Some((service, version)) = stopped {
                let tasks = store.tasks_of_service(service.id);
                let old = tasks.filter(|task| task.spec_version != Some(service.spec_version));
                stop(old, version, actions);
            }
        }
        Some(Bug::DrainAtOnce) => {
            let drained = actions.iter().find_map(|action| drained(store, action));
            if let Some((node, version)) = drained {
                stop(store.tasks_on_node(node), version, actions);
            }
        }
        Some(_) | None => {}
    }
}

/// An update that is under way is complete.
fn complete(action: &mut Action) {
    if let (ActionKind::Update, Object::Service(service)) = (action.kind, &mut action.object)
        && let Some(status) = &mut Arc::make_mut(service).update_status
        && status.state == UpdateState::Updating
    {
        status.state = UpdateState::Completed;
    }
}

/// Forgets that the place of this task is complete, and makes another for it.
fn run_again(action: &Action) -> Vec<Action> {
    let Object::Task(task) = &action.object else {
        return Vec::new();
    };
    if task.job_iteration.is_none() || task.status.state != TaskState::Complete {
        return Vec::new();
    }
    let mut again = Task::clone(task);
    again.id = TaskId::random(&mut Rng::from_seed(task.meta.version.0));
    again.status.state = TaskState::New;
    vec![
        Action {
            kind: ActionKind::Remove,
            object: Object::Task(Arc::clone(task)),
        },
        Action {
            kind: ActionKind::Create,
            object: Object::Task(Arc::new(again)),
        },
    ]
}

/// The service whose update tells a task to stop that runs, and the version of that write.
fn stopped<'a>(store: &'a Store, action: &Action) -> Option<(&'a Service, Version)> {
    let Object::Task(task) = &action.object else {
        return None;
    };
    let ran = store.task(task.id)?.desired_state == TaskState::Running;
    let service = store.service(task.service_id?)?;
    let is_updating = service.update_status.as_ref()?.state == UpdateState::Updating;
    let is_replicated = matches!(service.spec.mode, ServiceMode::Replicated { .. });
    let is_stopped = task.desired_state == TaskState::Shutdown;
    (ran && is_stopped && is_updating && is_replicated).then_some((service, task.meta.version))
}

/// The node that the action drains, and the version of that write.
fn drained(store: &Store, action: &Action) -> Option<(NodeId, Version)> {
    let Object::Node(node) = &action.object else {
        return None;
    };
    let is_drained = |node: &Node| node.spec.availability == Availability::Drain;
    let was = store.node(node.id)?;
    (is_drained(node) && !is_drained(was)).then_some((node.id, node.meta.version))
}

/// Tells those of `tasks` to stop that run and of which the entry says nothing else.
fn stop<'a>(
    tasks: impl Iterator<Item = &'a Arc<Task>>,
    version: Version,
    actions: &mut Vec<Action>,
) {
    for task in tasks {
        let is_written = actions
            .iter()
            .any(|action| action.object.id() == ObjectId::Task(task.id));
        let runs =
            task.desired_state == TaskState::Running && task.status.state == TaskState::Running;
        if !runs || is_written {
            continue;
        }
        let mut stopped = Task::clone(task);
        stopped.desired_state = TaskState::Shutdown;
        stopped.meta.version = version;
        actions.push(Action {
            kind: ActionKind::Update,
            object: Object::Task(Arc::new(stopped)),
        });
    }
}
