//! One slot of a service: replaces what ended, starts what waited, ends what was superseded.

use std::{sync::Arc, time::Duration};

use skep_model::{
    Rng, Service, ServiceId, ServiceMode, Slot, Task, TaskId, TaskState, Timestamp, UpdateOrder,
    UpdateState,
    reserved::service::rollout::{
        self, ATTEMPT_LABEL, CAUSE_LABEL, EXHAUSTED_LABEL, FAILURES_LABEL,
    },
    reserved::task::moved_by,
};
use skep_store::Store;

use crate::{
    drain, global, job,
    key::Key,
    plan::{Change, Plan, Wait},
    restart::{self, Start},
    revision::{Template, is_dirty, is_live, is_lost, node_of, repeats, status_time},
    service, update,
};

/// How long a replacement that moves a task may be without a node: it was made for one that had room a moment before.
const MOVE_PLACED_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take to run: long enough for a large image. The task it is to move serves on meanwhile.
const MOVE_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Reconciles one slot. While an update is under way the whole service is looked at instead,
/// because slots then depend on each other.
pub(crate) fn reconcile(
    view: &Store,
    id: ServiceId,
    slot: Slot,
    now: Timestamp,
    rng: &mut Rng,
) -> Plan {
    let to_service = Plan {
        follow_up: vec![Key::Service(id)],
        ..Plan::default()
    };
    let Some(service) = view.service(id) else {
        return service::remove_tasks(view.tasks_in_slot(id, slot));
    };
    if job::is_job(service.spec.mode) {
        return job::reconcile_slot(view, service, slot, now, rng);
    }
    if update::is_active(service) {
        return to_service;
    }
    match (service.spec.mode, slot) {
        (ServiceMode::Replicated { .. }, Slot::Number(number)) => {
            let template = Template::new(view, service);
            let place = Place::read(view, service, slot);
            if place.has_leaving() {
                return to_service;
            }
            let mut plan = place.plan(&template, now, rng);
            // A vacant slot, or one beyond the number of replicas, is the service's business. So
            // is what comes next in a drain, when this slot has made a step.
            let has_stepped = !plan.changes.is_empty() || !place.needs_attention();
            if place.updatable().is_empty()
                || number == 0
                || has_stepped && drain::has_waiting(view, id)
            {
                plan.follow_up.push(Key::Service(id));
            }
            plan
        }
        (ServiceMode::Global, Slot::Node(node)) => {
            global::reconcile_node(view, service, node, now, rng)
        }
        (ServiceMode::Replicated { .. }, Slot::Node(_))
        | (ServiceMode::Global, Slot::Number(_))
        | (ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob, _) => to_service,
    }
}

/// A slot with all its tasks, ended ones included.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) view: &'a Store,
    pub(crate) service: &'a Service,
    pub(crate) slot: Slot,
    pub(crate) tasks: Vec<&'a Arc<Task>>,
}

impl<'a> Place<'a> {
    pub(crate) fn read(view: &'a Store, service: &'a Service, slot: Slot) -> Self {
        Self {
            view,
            service,
            slot,
            tasks: view.tasks_in_slot(service.id, slot).collect(),
        }
    }

    /// Tasks that shall run, oldest first.
    pub(crate) fn live(&self) -> Vec<&'a Arc<Task>> {
        let mut live: Vec<_> = self.tasks.iter().copied().filter(|t| is_live(t)).collect();
        live.sort_by_key(|task| restart::order(task));
        live
    }

    /// What an update has to look at: the tasks that shall run or, when there is none, the last
    /// one if the restart policy leaves it ended. Empty: the slot is vacant.
    pub(crate) fn updatable(&self) -> Vec<&'a Arc<Task>> {
        let live = self.live();
        if !live.is_empty() {
            return live;
        }
        // A rollback must reach a converged state, so ended tasks do not fill slots then.
        let state = self
            .service
            .update_status
            .as_ref()
            .map(|status| status.state);
        if state == Some(UpdateState::RollbackStarted) {
            return Vec::new();
        }
        // One of another revision was told to make way: its end says nothing of the slot.
        let is_current = |task: &Task| task.spec_version == Some(self.service.spec_version);
        let newest = self
            .tasks
            .iter()
            .max_by_key(|task| (is_current(task), status_time(task), restart::order(task)));
        newest
            .filter(|task| task.desired_state < TaskState::Remove)
            .filter(|task| !restart::should_restart(task, &self.tasks))
            .map(|task| vec![*task])
            .unwrap_or_default()
    }

    /// The last task of a slot that the restart policy leaves ended.
    pub(crate) fn left_ended(&self) -> Option<TaskId> {
        let updatable = self.updatable();
        let ended = updatable.first().filter(|task| !is_live(task));
        ended.map(|task| task.id)
    }

    /// Whether the task cannot go on where it is. One that serves on a node being drained can,
    /// until its replacement is there.
    pub(crate) fn has_failed(&self, task: &Task) -> bool {
        task.status.state.is_terminal()
            || task.node_id.is_some()
                && is_lost(node_of(self.view, task))
                && !drain::is_leaving(self.view, task)
    }

    /// Whether a task that shall run does.
    pub(crate) fn serves(&self) -> bool {
        let mut tasks = self.tasks.iter();
        tasks.any(|task| {
            is_live(task) && task.status.state == TaskState::Running && !self.has_failed(task)
        })
    }

    /// Whether a task serves on a node that is being drained, or is being moved off its node.
    pub(crate) fn has_leaving(&self) -> bool {
        let mut tasks = self.tasks.iter();
        (drain::has_draining_node(self.view) || self.has_mover())
            && tasks.any(|task| drain::is_leaving(self.view, task))
    }

    /// Whether a task that shall run was made to move another one.
    pub(crate) fn has_mover(&self) -> bool {
        let mut tasks = self.tasks.iter();
        tasks.any(|task| is_live(task) && moved_by(task).is_some())
    }

    /// True when [`Place::plan`] could have something to do.
    pub(crate) fn needs_attention(&self) -> bool {
        let live = self.live();
        live.len() > 1
            || live
                .iter()
                .any(|task| self.has_failed(task) || task.desired_state < TaskState::Running)
    }

    /// Restarts what failed, starts what has waited long enough, stops what was superseded.
    pub(crate) fn plan(&self, template: &Template, now: Timestamp, rng: &mut Rng) -> Plan {
        let mut plan = Plan::default();
        let live = self.live();
        self.plan_twins(&live, &mut plan);
        if !plan.changes.is_empty() {
            return plan;
        }
        for (index, task) in live.iter().enumerate() {
            let is_waiting = task.desired_state < TaskState::Running;
            let start = if is_waiting {
                restart::start_of(self.view, task, &self.tasks, now)
            } else {
                Start::Now
            };
            match (self.has_failed(task), start) {
                // Even a replacement that failed at once waits out its delay, so that an image
                // that does not exist leads to no tight loop.
                (_, Start::AfterDelay(until)) => {
                    plan.report.push(restart_wait(task, until));
                    plan.wake_by(until);
                }
                (false, Start::AfterStop(old, until)) => {
                    let task = task.id;
                    plan.report.push(Wait::OldTask { task, old, until });
                    plan.wake_by(until);
                }
                (true, Start::AfterStop(..) | Start::Now) => {
                    let has_newer = index + 1 < live.len() || is_spare(task, &live);
                    let change = self.restart(task, has_newer, template, (now, rng), &mut plan);
                    plan.changes.push(change);
                }
                (false, Start::Now)
                    if is_spare(task, &live) && self.gives_up(task, now, &mut plan) =>
                {
                    plan.changes.push(desire(task, TaskState::Shutdown));
                }
                (false, Start::Now) => {
                    if is_waiting {
                        self.plan_start(task, &live[..index], &mut plan);
                    }
                }
            }
        }
        if plan.changes.is_empty() {
            self.plan_superseded(&live, &mut plan);
        }
        plan
    }

    /// Whether a replacement made to move a task that serves elsewhere is not worth waiting for any more: no node takes
    /// it, it does not come up, or the service has become another.
    fn gives_up(&self, task: &Task, now: Timestamp, plan: &mut Plan) -> bool {
        if task.status.state >= TaskState::Running {
            return false;
        }
        let patience = if task.status.state < TaskState::Assigned {
            MOVE_PLACED_TIMEOUT
        } else {
            MOVE_TIMEOUT
        };
        let due = task.meta.created_at + patience;
        let is_outdated = update::is_active(self.service)
            || update::is_paused(self.service)
            || is_dirty(self.view, self.service, task);
        if is_outdated || now >= due {
            return true;
        }
        plan.wake_by(due);
        false
    }

    /// Lets a task that waited run. Beside an older one that serves on a node being drained, it
    /// takes over as the service's update order wants.
    fn plan_start(&self, task: &Task, older: &[&Arc<Task>], plan: &mut Plan) {
        let is_leaving = |task: &&&Arc<Task>| drain::is_leaving(self.view, task);
        let mut leaving = older.iter().filter(is_leaving).peekable();
        if leaving.peek().is_none() || drain::order(self.service) == UpdateOrder::StartFirst {
            plan.changes.push(desire(task, TaskState::Running));
        } else if task.status.state >= TaskState::Ready {
            let stops = leaving.map(|old| drain::stop(self.view, old));
            plan.changes.extend(stops);
        }
    }

    /// Two tasks of one revision are in a slot only while one of them leaves its node. That one
    /// goes when the other runs, and the other if the first may stay after all.
    fn plan_twins(&self, live: &[&Arc<Task>], plan: &mut Plan) {
        for task in live {
            let twins = || live.iter().filter(|t| t.spec_version == task.spec_version);
            let running = || {
                let running = twins().filter(|t| t.status.state == TaskState::Running);
                running.filter(|t| !self.has_failed(t))
            };
            let is_leaving = |task: &Task| drain::is_leaving(self.view, task);
            let keeper = running().max_by_key(|t| (!is_leaving(t), restart::order(t)));
            let is_superseded = keeper.is_some_and(|keeper| {
                keeper.id != task.id && (!is_leaving(keeper) || running().count() > 1)
            });
            if is_superseded {
                plan.changes.push(drain::stop(self.view, task));
            }
        }
    }

    /// Stops `task` and, if the policy says so, makes its replacement.
    fn restart(
        &self,
        task: &Task,
        has_newer: bool,
        template: &Template,
        (now, rng): (Timestamp, &mut Rng),
        plan: &mut Plan,
    ) -> Change {
        let stop = desire(task, TaskState::Shutdown);
        if has_newer {
            return stop;
        }
        if !restart::should_restart(task, &self.tasks) {
            plan.report.push(Wait::RestartPolicy { task: task.id });
            return exhausted(task, &self.tasks).unwrap_or(stop);
        }
        let mut replacement = template.task(self.slot, TaskState::Ready, now, rng);
        count_failures(task, &self.tasks, &mut replacement);
        Change::Together(vec![stop, Change::CreateTask(Arc::new(replacement))])
    }

    /// After a start-first update that ended early, an old task may still run beside the new one. While
    /// the update is paused both stay, but neither on a node being drained: the other serves.
    fn plan_superseded(&self, live: &[&Arc<Task>], plan: &mut Plan) {
        if live.len() < 2 {
            return;
        }
        let is_leaving = |task: &Task| drain::is_leaving(self.view, task);
        let is_clean = |task: &Task| !is_dirty(self.view, self.service, task);
        let running = live
            .iter()
            .filter(|task| task.status.state == TaskState::Running && !self.has_failed(task));
        let keeper =
            running.max_by_key(|task| (!is_leaving(task), is_clean(task), restart::order(task)));
        let Some(keeper) = keeper else { return };
        let may_stay = !is_leaving(keeper) && is_clean(keeper);
        let is_paused = update::is_paused(self.service);
        let others = live.iter().filter(|task| {
            let is_superseded = may_stay && !is_paused;
            let must_go = is_leaving(task) && (may_stay || !update::is_active(self.service));
            task.id != keeper.id && (is_superseded || must_go)
        });
        plan.changes
            .extend(others.map(|task| drain::stop(self.view, task)));
    }
}

/// Whether a task was made to move another, which is there still.
fn is_spare(task: &Task, live: &[&Arc<Task>]) -> bool {
    moved_by(task).is_some_and(|old| live.iter().any(|task| task.id == old))
}

/// Why a task that shall run waits until then.
pub(crate) fn restart_wait(task: &Task, until: Timestamp) -> Wait {
    let failures = rollout::failures_before(task);
    let is_looping = rollout::is_crash_looping(task);
    let cause = rollout::cause_before(task).to_owned();
    let task = task.id;
    match is_looping {
        true => Wait::CrashLoop {
            task,
            failures,
            cause,
            until,
        },
        false => Wait::RestartDelay { task, until },
    }
}

/// Stops `task`, one of `slot`, for good and notes that its policy has no attempt left; `None` if
/// it has.
pub(crate) fn exhausted(task: &Task, slot: &[&Arc<Task>]) -> Option<Change> {
    if !restart::is_exhausted(task, slot) {
        return None;
    }
    let mut task = Task {
        desired_state: TaskState::Shutdown,
        ..task.clone()
    };
    let attempts = task.spec.restart.max_attempts;
    note(&mut task, EXHAUSTED_LABEL, attempts.to_string());
    Some(Change::UpdateTask(Arc::new(task)))
}

/// Notes on the task that follows `old` which attempt it is, how many in a row have failed quickly, and why the last one did.
pub(crate) fn count_failures(old: &Task, slot: &[&Arc<Task>], replacement: &mut Task) {
    if let Some(attempt) = restart::attempt_after(old, slot, replacement) {
        note(replacement, ATTEMPT_LABEL, attempt.to_string());
    }
    let failures = restart::failures_after(old);
    if failures > 0 && repeats(old, replacement) {
        note(replacement, FAILURES_LABEL, failures.to_string());
        note(replacement, CAUSE_LABEL, rollout::cause(old));
    }
}

/// Keeps something with the task.
fn note(task: &mut Task, label: &str, value: String) {
    let annotations = Arc::make_mut(&mut task.annotations);
    annotations.labels.insert(label.to_owned(), value);
}

/// The task with another desired state.
pub(crate) fn desire(task: &Task, desired_state: TaskState) -> Change {
    Change::UpdateTask(Arc::new(Task {
        desired_state,
        ..task.clone()
    }))
}
