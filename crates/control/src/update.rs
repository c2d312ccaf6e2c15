//! Rolling updates and rollbacks, told from stored tasks alone.
//!
//! Above 300 lines because the verdict on one slot and the verdict on all belong together.
//!
//! A slot is *touched* when the update has made a task in it, *waiting* when its task is dirty and
//! untouched. A touched slot occupies one of the `parallelism` workers until its first new task
//! has run or ended, and `delay` longer; so does one that an update cut short left without a task that
//! runs. The update fails when too many first new tasks end
//! early or have not run by the deadline (`deadline.rs`), and is complete when the last one was
//! watched for `monitor`. See `docs/design/orchestration.md`, "Updates", also for where this differs from Swarm.

mod deadline;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use skep_model::{
    DEFAULT_UPDATE_MONITOR, FailureAction, Rng, Service, ServiceId, Slot, Task, TaskState,
    Timestamp, UpdateConfig, UpdateOrder, UpdateState, UpdateStatus, validate,
};
use skep_store::Store;

use crate::{
    drain,
    key::Key,
    plan::{Change, Plan, Wait},
    restart,
    revision::{Template, has_ended_by_itself, is_dirty, is_live, status_time},
    slot::{Place, desire},
};

/// Label on a task of an update that says, in nanoseconds since the epoch, when it was first seen
/// running. A status holds only the last state, and whether an end is early depends on it.
pub(crate) const RUNNING_SINCE_LABEL: &str = "skep.running-since";

/// Added to a delay that is longer than the monitoring period, as in Swarm.
const MONITOR_MARGIN: Duration = Duration::from_secs(1);

/// How the message of a rollback begins that nobody asked for. Swarm's words.
const ROLLED_BACK: &str = "update rolled back";

/// Whether an update or rollback is under way.
pub(crate) fn is_active(service: &Service) -> bool {
    matches!(
        state(service),
        Some(UpdateState::Updating | UpdateState::RollbackStarted)
    )
}

/// Whether an update or rollback failed and waits for the next one.
pub(crate) fn is_paused(service: &Service) -> bool {
    matches!(
        state(service),
        Some(UpdateState::Paused | UpdateState::RollbackPaused)
    )
}

fn state(service: &Service) -> Option<UpdateState> {
    service.update_status.as_ref().map(|status| status.state)
}

/// Tasks the update made in a slot, oldest first; none when the slot is not touched.
fn new_tasks<'a>(service: &Service, place: &Place<'a>) -> Vec<&'a Arc<Task>> {
    let started_at = started_at(service);
    let version = Some(service.spec_version);
    // A slot without a task of another revision was filled by scaling, not by the update.
    if place.tasks.iter().all(|task| task.spec_version == version) {
        return Vec::new();
    }
    let mut tasks: Vec<_> = place
        .tasks
        .iter()
        .copied()
        .filter(|task| task.spec_version == version && task.meta.created_at >= started_at)
        .collect();
    tasks.sort_by_key(|task| restart::order(task));
    tasks
}

/// Ended tasks that tell how the update goes; the reaper leaves them while it is under way.
pub(crate) fn is_evidence(service: &Service, place: &Place<'_>, task: &Task) -> bool {
    if !is_active(service) {
        return false;
    }
    let others = || {
        let tasks = place.tasks.iter();
        tasks.filter(|task| task.spec_version != Some(service.spec_version))
    };
    let newest_old = others().max_by_key(|task| restart::order(task));
    // Tells that an update cut short was at work here.
    let dirty = others().filter(|task| is_dirty(place.view, service, task));
    let newest_dirty = dirty.max_by_key(|task| restart::order(task));
    let new = new_tasks(service, place);
    // The first tells whether the revision works, the first that ran or ended when its worker is
    // free.
    let has_reached = |task: &&&Arc<Task>| has_come_up(task);
    let kept = [
        newest_old,
        newest_dirty,
        new.first(),
        new.iter().find(has_reached),
    ];
    kept.into_iter().flatten().any(|kept| kept.id == task.id)
}

/// Tasks as the spec wants them that an update cut short has made in a slot and that have yet to run,
/// oldest first: a spec may be written again (scaling) while the template of tasks stays.
fn carried_over<'a>(service: &Service, place: &Place<'a>) -> Vec<&'a Arc<Task>> {
    let is_clean = |task: &Task| !is_dirty(place.view, service, task);
    let (mut clean, dirty): (Vec<_>, Vec<_>) =
        place.tasks.iter().copied().partition(|task| is_clean(task));
    // Beside a task that was to go, those that ended say nothing: the slot has yet to change over.
    let has_old = dirty.iter().any(|task| is_live(task));
    let has_run = clean.iter().any(|task| match has_old {
        true => is_live(task) && task.status.state == TaskState::Running,
        false => task.status.state >= TaskState::Running,
    });
    if has_run || dirty.is_empty() {
        return Vec::new();
    }
    clean.retain(|task| is_live(task));
    clean.sort_by_key(|task| restart::order(task));
    clean
}

fn started_at(service: &Service) -> Timestamp {
    let status = service.update_status.as_ref();
    status
        .and_then(|status| status.started_at)
        .unwrap_or(Timestamp::ZERO)
}

/// What the update of `service` needs now. `places` are the slots that stay.
pub(crate) fn plan(
    view: &Store,
    service: &Service,
    places: &[Place<'_>],
    template: &Template,
    (now, rng): (Timestamp, &mut Rng),
) -> Plan {
    let mut plan = Plan::default();
    if is_paused(service) {
        plan.report.push(Wait::UpdatePaused);
        return plan;
    }
    if !is_active(service) {
        if places
            .iter()
            .any(|place| wants_update(view, service, place))
        {
            plan.changes.push(begin(service, now));
        }
        return plan;
    }
    let update = Update::read(view, service, places);
    update.record_running(&mut plan);
    update.fail_overdue(now, &mut plan);
    update.finish_touched(&mut plan);
    let is_idle = update.start_waiting(template, (now, rng), &mut plan);
    if !plan.changes.is_empty() {
        // What follows depends on how these changes leave the slots.
        plan.follow_up.push(Key::Service(service.id));
    } else if is_idle {
        update.complete(now, &mut plan);
    }
    plan
}

/// How many slots of the service may be without a settled task at once.
pub(crate) fn workers(service: &Service) -> usize {
    workers_of(&config(service))
}

/// Slots an update under way is at work on.
pub(crate) fn busy(service: &Service, places: &[Place<'_>], now: Timestamp) -> BTreeSet<Slot> {
    let Some(place) = places.first().filter(|_| is_active(service)) else {
        return BTreeSet::new();
    };
    let update = Update::read(place.view, service, places);
    let is_busy = |touched: &&Touched<'_>| {
        let released = update.released_at(touched);
        released.is_none_or(|until| now < until)
    };
    let busy = update.touched.iter().filter(is_busy);
    busy.map(|touched| touched.place.slot).collect()
}

fn config(service: &Service) -> UpdateConfig {
    let is_rollback = state(service) == Some(UpdateState::RollbackStarted);
    let config = if is_rollback {
        &service.spec.rollback
    } else {
        &service.spec.update
    };
    config.clone().unwrap_or_default()
}

fn workers_of(config: &UpdateConfig) -> usize {
    match config.parallelism {
        0 => usize::MAX,
        count => usize::try_from(count).unwrap_or(usize::MAX),
    }
}

/// What to do with an update under way that has failed. Asked before ended tasks are restarted, so
/// that no replacement of a revision is made that is given up in the same breath.
pub(crate) fn failure(view: &Store, service: &Service, places: &[Place<'_>]) -> Option<Change> {
    if !is_active(service) {
        return None;
    }
    Update::read(view, service, places).failure_verdict()
}

/// Whether a slot calls for a new update: it is dirty and no update has dealt with it already.
fn wants_update(view: &Store, service: &Service, place: &Place<'_>) -> bool {
    let updatable = place.updatable();
    let is_dirty = updatable.iter().any(|task| is_dirty(view, service, task));
    let was_dealt_with = service.update_status.is_some() && !new_tasks(service, place).is_empty();
    is_dirty && !was_dealt_with
}

fn begin(service: &Service, now: Timestamp) -> Change {
    with_status(
        service,
        UpdateStatus {
            state: UpdateState::Updating,
            started_at: Some(now),
            completed_at: None,
            message: "update in progress".to_owned(),
        },
    )
}

fn with_status(service: &Service, status: UpdateStatus) -> Change {
    Change::UpdateService(Box::new(Service {
        update_status: Some(status),
        ..service.clone()
    }))
}

/// An update under way.
struct Update<'a> {
    service: &'a Service,
    config: UpdateConfig,
    monitor: Duration,
    touched: Vec<Touched<'a>>,
    waiting: Vec<&'a Place<'a>>,
    /// Slots that are on their way off a drained node; they count like slots being updated.
    moving: BTreeSet<Slot>,
    view: &'a Store,
}

/// A slot in which the update has made a task.
struct Touched<'a> {
    place: &'a Place<'a>,
    /// Tells whether the new revision works; those after it are restarts.
    first: &'a Arc<Task>,
    /// All tasks the update made here, the first included.
    new: Vec<&'a Arc<Task>>,
}

// === impl Update ===

impl<'a> Update<'a> {
    fn read(view: &'a Store, service: &'a Service, places: &'a [Place<'a>]) -> Self {
        let config = config(service);
        let mut touched = Vec::new();
        let mut waiting = Vec::new();
        for place in places {
            let mut new = new_tasks(service, place);
            if new.is_empty() {
                new = carried_over(service, place);
            }
            if let Some(first) = new.first().copied() {
                touched.push(Touched { place, first, new });
                continue;
            }
            let updatable = place.updatable();
            let is_double = updatable.len() > 1 && !place.has_leaving();
            if is_double || updatable.iter().any(|task| is_dirty(view, service, task)) {
                waiting.push(place);
            }
        }
        Self {
            service,
            monitor: config.monitor.unwrap_or(DEFAULT_UPDATE_MONITOR),
            config,
            touched,
            waiting,
            moving: drain::moving(view, places),
            view,
        }
    }

    /// Notes when first tasks came up, while it can still be seen.
    fn record_running(&self, plan: &mut Plan) {
        if self.config.failure_action == FailureAction::Continue {
            return;
        }
        for Touched { first, .. } in &self.touched {
            if first.status.state == TaskState::Running && running_since(first).is_none() {
                let mut task = Task::clone(first);
                let annotations = Arc::make_mut(&mut task.annotations);
                let since = status_time(first).0.to_string();
                annotations
                    .labels
                    .insert(RUNNING_SINCE_LABEL.to_owned(), since);
                plan.changes.push(Change::UpdateTask(Arc::new(task)));
            }
        }
    }

    /// What to do when too many first tasks ended early.
    fn failure_verdict(&self) -> Option<Change> {
        let failed: Vec<&Arc<Task>> = self
            .touched
            .iter()
            .filter_map(|touched| touched.failed(self.monitor))
            .collect();
        let culprit = failed
            .iter()
            .max_by_key(|task| (status_time(task), task.id))?;
        let ratio = share(failed.len(), self.touched.len() + self.waiting.len());
        if ratio <= self.config.max_failure_ratio {
            return None;
        }
        let is_rollback = state(self.service) == Some(UpdateState::RollbackStarted);
        let because = deadline::because(culprit);
        match self.config.failure_action {
            FailureAction::Continue => None,
            FailureAction::Pause => Some(self.pause(format!("update paused {because}"))),
            // A rollback is never rolled back.
            FailureAction::Rollback if is_rollback => {
                Some(self.pause(format!("rollback paused {because}")))
            }
            FailureAction::Rollback => Some(match self.port_taken() {
                Some(taken) => self.pause(format!(
                    "update paused {because}; not rolled back, as {taken}"
                )),
                None => self
                    .roll_back(format!("{ROLLED_BACK} {because}"))
                    .unwrap_or_else(|| self.pause(format!("update paused {because}"))),
            }),
        }
    }

    fn pause(&self, message: String) -> Change {
        let status = self.service.update_status.clone();
        let mut status = status.expect("an active update has a status");
        status.state = if status.state == UpdateState::RollbackStarted {
            UpdateState::RollbackPaused
        } else {
            UpdateState::Paused
        };
        status.message = message;
        with_status(self.service, status)
    }

    /// Who has got a port meanwhile that the previous spec publishes.
    fn port_taken(&self) -> Option<String> {
        let spec = self.service.previous_spec.as_ref()?;
        let tables = self.view.networks();
        let ports = spec.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
        let ports = ports.filter(|port| port.published_port != 0);
        let holders: BTreeSet<ServiceId> = ports
            .flat_map(|port| tables.services_with_port(port.protocol, port.published_port))
            .map(|(_, id)| id)
            .collect();
        let holders = holders.into_iter().filter_map(|id| self.view.service(id));
        let own = Some(self.service.id);
        let problems = validate::port_conflicts(spec, own, holders.map(|holder| &**holder));
        problems.first().map(ToString::to_string)
    }

    /// Returns to the previous spec; `None` when there is none.
    fn roll_back(&self, message: String) -> Option<Change> {
        let status = self.service.update_status.clone();
        let mut status = status.expect("an active update has a status");
        status.state = UpdateState::RollbackStarted;
        status.message = message;
        let spec = self.service.previous_spec.clone()?;
        Some(Change::UpdateService(Box::new(Service {
            spec,
            spec_version: self.service.previous_spec_version.unwrap_or_default(),
            previous_spec: None,
            previous_spec_version: None,
            update_status: Some(status),
            ..self.service.clone()
        })))
    }

    /// Stops old tasks beside new ones: when the new one runs, or has ended and is not to be replaced.
    /// The last is how the slot shall be by the new spec, when the update goes on in spite of it. In a
    /// slot that a start-first update before this one has left with both, the old one may stop first if
    /// that is the order now, as far as workers are free.
    fn finish_touched(&self, plan: &mut Plan) {
        let is_down =
            |touched: &&Touched<'_>| self.released_at(touched).is_none() && !touched.place.serves();
        let down = self.touched.iter().filter(is_down);
        let mut occupied = self.moving.clone();
        occupied.extend(down.map(|touched| touched.place.slot));
        let mut free = workers_of(&self.config).saturating_sub(occupied.len());
        for touched in &self.touched {
            let (old, new) = self.live_of(touched);
            let is_up = new
                .iter()
                .any(|task| task.status.state == TaskState::Running);
            let takes_away = !(old.is_empty() || new.is_empty() || is_up) && touched.place.serves();
            let may_stop = match self.config.order {
                UpdateOrder::StopFirst => !takes_away || free > 0,
                UpdateOrder::StartFirst => is_up || new.is_empty(),
            };
            if may_stop {
                free = free.saturating_sub(usize::from(takes_away));
                let stops = old.iter().map(|task| desire(task, TaskState::Shutdown));
                plan.changes.extend(stops);
            }
        }
    }

    /// Tasks that shall run in a slot: old ones, and those that are as the new spec wants them.
    fn live_of(&self, touched: &Touched<'a>) -> (Vec<&'a Arc<Task>>, Vec<&'a Arc<Task>>) {
        let live = touched.place.live().into_iter();
        live.partition(|task| is_dirty(self.view, self.service, task))
    }

    /// Gives free workers their next slots. True when no slot is waiting, no worker is busy and no old
    /// task serves because the new one beside it has yet to run: it may be tried many times.
    fn start_waiting(
        &self,
        template: &Template,
        (now, rng): (Timestamp, &mut Rng),
        plan: &mut Plan,
    ) -> bool {
        let (mut is_busy, mut has_old) = (false, false);
        let mut occupied = self.moving.clone();
        for touched in &self.touched {
            match self.released_at(touched) {
                None => {
                    plan.report.push(Wait::UpdatedTask {
                        task: touched.first.id,
                        until: self.due(touched),
                    });
                }
                Some(until) if now < until => {
                    plan.report.push(Wait::UpdateDelay { until });
                    plan.wake_by(until);
                }
                Some(_) => {
                    let (old, new) = self.live_of(touched);
                    if let (false, Some(new)) = (old.is_empty(), new.last()) {
                        has_old = true;
                        let (task, until) = (new.id, None);
                        plan.report.push(Wait::UpdatedTask { task, until });
                    }
                    continue;
                }
            }
            is_busy = true;
            occupied.insert(touched.place.slot);
        }
        let free = workers_of(&self.config).saturating_sub(occupied.len());
        // A slot that waits and moves has its worker already. Of the others those are first in which
        // nothing serves, whatever the reason: others then go on serving meanwhile.
        let waiting = self.waiting.iter().copied();
        let (moving, mut others): (Vec<_>, Vec<_>) =
            waiting.partition(|place| self.moving.contains(&place.slot));
        others.sort_by_key(|place| place.serves());
        for place in moving.into_iter().chain(others.into_iter().take(free)) {
            plan.changes.push(self.start(place, template, now, rng));
        }
        !is_busy && !has_old && self.waiting.is_empty()
    }

    /// When the worker that updates this slot is free again; `None` while no new task of it has
    /// come up or ended by itself. One that is stopped or lost before is made up for by its replacement.
    fn released_at(&self, touched: &Touched<'_>) -> Option<Timestamp> {
        let new = touched.new.iter();
        // Without a replacement (restart condition none) that was all.
        let is_over = !new.clone().any(|task| is_live(task));
        let reached = new
            .filter(|task| has_come_up(task) || is_over && task.status.state >= TaskState::Running)
            .map(|task| running_since(task).unwrap_or_else(|| status_time(task)))
            .min()?;
        Some(reached + self.config.delay)
    }

    /// Begins the update of one slot.
    fn start(
        &self,
        place: &Place<'_>,
        template: &Template,
        now: Timestamp,
        rng: &mut Rng,
    ) -> Change {
        let live = place.live();
        let current = live
            .iter()
            .rev()
            .find(|task| !is_dirty(self.view, self.service, task));
        let stop_all_but = |keeper: Option<&Arc<Task>>| -> Vec<Change> {
            live.iter()
                .filter(|task| keeper.is_none_or(|keeper| keeper.id != task.id))
                .map(|task| desire(task, TaskState::Shutdown))
                .collect()
        };
        // The slot has a task of the new revision already: only the others must go.
        if let Some(current) = current {
            return Change::Together(stop_all_but(Some(current)));
        }
        let make = |desired_state, rng: &mut Rng| {
            Change::CreateTask(Arc::new(template.task(place.slot, desired_state, now, rng)))
        };
        match self.config.order {
            UpdateOrder::StartFirst => {
                // One old task goes on serving; others, left by an update cut short, do not.
                let is_running = |task: &&&Arc<Task>| task.status.state == TaskState::Running;
                let mut changes = stop_all_but(live.iter().find(is_running).copied());
                changes.push(make(TaskState::Running, rng));
                Change::Together(changes)
            }
            UpdateOrder::StopFirst => {
                let mut changes = stop_all_but(None);
                changes.push(make(TaskState::Ready, rng));
                Change::Together(changes)
            }
        }
    }

    /// Declares the update complete once the last new task was watched long enough.
    fn complete(&self, now: Timestamp, plan: &mut Plan) {
        let watch = if self.config.delay >= self.monitor {
            self.config.delay + MONITOR_MARGIN
        } else {
            self.monitor
        };
        let released = self
            .touched
            .iter()
            .filter_map(|touched| self.released_at(touched))
            .max();
        let until = released.map_or(now, |released| released + watch);
        if now < until {
            plan.report.push(Wait::UpdateMonitor { until });
            plan.wake_by(until);
            return;
        }
        let status = self.service.update_status.clone();
        let mut status = status.expect("an active update has a status");
        (status.state, status.message) = if status.state == UpdateState::RollbackStarted {
            // What made it necessary would be forgotten otherwise.
            let message = match status.message.starts_with(ROLLED_BACK) {
                true => format!("rollback completed: {}", status.message),
                false => "rollback completed".to_owned(),
            };
            (UpdateState::RollbackCompleted, message)
        } else {
            (UpdateState::Completed, "update completed".to_owned())
        };
        status.completed_at = Some(now);
        plan.changes.push(with_status(self.service, status));
    }
}

impl<'a> Touched<'a> {
    /// The new task that says the revision does not work: the first, or one that came too late.
    fn failed(&self, monitor: Duration) -> Option<&'a Arc<Task>> {
        let mut overdue = self.new.iter().filter(|task| deadline::is_overdue(task));
        let first = Some(self.first).filter(|task| ended_early(task, monitor));
        first.or_else(|| overdue.next().copied())
    }
}

/// Whether the task runs, has run, or has ended by itself. One that was told to stop may say late that
/// it ran.
fn has_come_up(task: &Task) -> bool {
    is_live(task) && task.status.state == TaskState::Running
        || has_ended_by_itself(task)
        || running_since(task).is_some()
}

/// When a task of an update was first seen running.
fn running_since(task: &Task) -> Option<Timestamp> {
    let label = task.annotations.labels.get(RUNNING_SINCE_LABEL)?;
    label.parse().ok().map(Timestamp)
}

/// Whether the task ended by itself before it ran, or within `monitor` of that. A task that was
/// stopped, or lost with its node, says nothing about the new revision.
fn ended_early(task: &Task, monitor: Duration) -> bool {
    has_ended_by_itself(task)
        && running_since(task).is_none_or(|since| status_time(task).since(since) <= monitor)
}

fn share(part: usize, whole: usize) -> f32 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a ratio that users give as a float"
    )]
    let share = part as f32 / whole as f32;
    share
}
