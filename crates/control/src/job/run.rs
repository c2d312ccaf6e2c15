//! One run of a job: what each of its places has come to, and what is done next.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use skep_model::{
    Availability, Node, NodeState, RestartCondition, Rng, Service, ServiceMode, Slot, Task,
    TaskState, Timestamp, Version,
    constraint::{self, Constraint},
    reserved::{self, service::schedule::EXPIRED_LABEL},
};
use skep_store::Store;

use super::{Job, JobWait, Runs};
use crate::{
    plan::{Change, Plan, Wait},
    replicated::CREATIONS_PER_PLAN_MAX,
    restart,
    revision::{is_gone, is_lost, node_of},
    slot::{count_failures, desire, exhausted, restart_wait},
};

/// The tasks of one iteration, by place, oldest first.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) iteration: Version,
    pub(super) places: BTreeMap<Slot, Vec<&'a Arc<Task>>>,
}

/// What a place has come to.
#[derive(Debug, Clone, Copy)]
enum Verdict<'a> {
    /// A task is complete.
    Done,
    /// This task is wanted. It may have failed.
    Live(&'a Arc<Task>),
    /// A task that was told to stop may still run.
    Stopping,
    /// The restart policy wants no further task.
    GivenUp,
    /// Waits for a task.
    Vacant,
}

/// All runs of which there are tasks.
pub(super) fn runs<'a>(view: &'a Store, service: &Service) -> Runs<'a> {
    let mut runs = Runs::new();
    for task in view.tasks_of_service(service.id) {
        let Some(place) = place_of(service.spec.mode, task) else {
            continue;
        };
        let iteration = task.job_iteration.unwrap_or_default();
        let run = runs
            .entry(iteration)
            .or_insert_with(|| Run::empty(iteration));
        run.places.entry(place).or_default().push(task);
    }
    for run in runs.values_mut() {
        for tasks in run.places.values_mut() {
            tasks.sort_by_key(|task| restart::order(task));
        }
    }
    runs
}

/// Slots of replicated jobs count from 0, so that a task alone does not tell its kind of place.
fn place_of(mode: ServiceMode, task: &Task) -> Option<Slot> {
    match mode {
        ServiceMode::Replicated { .. } | ServiceMode::ReplicatedJob { .. } => {
            Some(Slot::Number(task.slot))
        }
        ServiceMode::Global | ServiceMode::GlobalJob => task.node_id.map(Slot::Node),
    }
}

/// Whether the task shall come to its own end.
pub(super) fn is_wanted(task: &Task) -> bool {
    task.desired_state <= TaskState::Complete && task.status.state != TaskState::Complete
}

/// Whether a task that was told to stop may still run somewhere it is heard of.
fn is_stopping(view: &Store, task: &Task) -> bool {
    task.desired_state > TaskState::Complete
        && !task.status.state.is_terminal()
        && (task.node_id.is_none() || !is_gone(node_of(view, task)))
}

fn judge<'a>(view: &Store, tasks: &[&'a Arc<Task>]) -> Verdict<'a> {
    let is_complete = |task: &&Arc<Task>| task.status.state == TaskState::Complete;
    if tasks.iter().any(is_complete) {
        return Verdict::Done;
    }
    if let Some(task) = tasks.iter().rev().find(|task| is_wanted(task)) {
        return Verdict::Live(task);
    }
    if tasks.iter().any(|task| is_stopping(view, task)) {
        return Verdict::Stopping;
    }
    match tasks.last() {
        Some(last) if !restart::should_restart(last, tasks) => Verdict::GivenUp,
        Some(_) | None => Verdict::Vacant,
    }
}

// === impl Run ===

impl<'a> Run<'a> {
    pub(super) fn empty(iteration: Version) -> Self {
        Self {
            iteration,
            places: BTreeMap::new(),
        }
    }

    fn tasks(&self) -> impl Iterator<Item = &'a Arc<Task>> {
        self.places.values().flatten().copied()
    }

    /// When the first task was made.
    pub(super) fn began_at(&self) -> Option<Timestamp> {
        self.tasks().map(|task| task.meta.created_at).min()
    }

    /// Whether nothing of it runs, as far as anybody knows.
    pub(super) fn has_ended(&self) -> bool {
        self.tasks().all(|task| task.status.state.is_terminal()) && !self.has_wanted()
    }

    pub(super) fn has_wanted(&self) -> bool {
        self.tasks().any(|task| is_wanted(task))
    }

    /// Places with a task that runs or may run.
    fn occupied(&self, view: &Store) -> BTreeSet<Slot> {
        let is_occupied = |task: &Arc<Task>| is_wanted(task) || is_stopping(view, task);
        let places = self.places.iter();
        places
            .filter(|(_, tasks)| tasks.iter().any(|task| is_occupied(task)))
            .map(|(place, _)| *place)
            .collect()
    }

    /// Tells every task to stop.
    pub(super) fn stop(&self, plan: &mut Plan) {
        let wanted = self.tasks().filter(|task| is_wanted(task));
        plan.changes
            .extend(wanted.map(|task| desire(task, TaskState::Shutdown)));
    }
}

// === impl Job ===

impl Job<'_> {
    /// Whether something of the run is still to come.
    pub(super) fn is_under_way(&self, run: &Run<'_>) -> bool {
        if !run.occupied(self.view).is_empty() {
            return true;
        }
        match self.service.spec.mode {
            ServiceMode::ReplicatedJob {
                max_concurrent,
                total_completions,
            } => {
                let is_decided = |tasks: &&Vec<&Arc<Task>>| match judge(self.view, tasks) {
                    Verdict::Done | Verdict::GivenUp => true,
                    Verdict::Live(_) | Verdict::Stopping | Verdict::Vacant => false,
                };
                let decided = run.places.values().filter(is_decided).count() as u64;
                self.is_open(run) && max_concurrent > 0 && decided < total_completions
            }
            // Before its first task nothing can be said against the next run.
            ServiceMode::GlobalJob | ServiceMode::Replicated { .. } | ServiceMode::Global => false,
        }
    }

    fn expires_at(&self, run: &Run<'_>) -> Option<Timestamp> {
        let deadline = self.policy.deadline?;
        run.began_at().map(|began| began + deadline)
    }

    /// Whether the run still gets new tasks: its time is not over, it is of the present spec, and it is
    /// not being forgotten, which an earlier run is lowest slot first.
    fn is_open(&self, run: &Run<'_>) -> bool {
        let current = self.service.job_status.as_ref().map(|s| s.job_iteration);
        let has_first = match self.service.spec.mode {
            ServiceMode::ReplicatedJob { .. } => run.places.contains_key(&Slot::Number(0)),
            ServiceMode::GlobalJob | ServiceMode::Replicated { .. } | ServiceMode::Global => true,
        };
        let is_whole = has_first || Some(run.iteration) == current.or(Some(Version(0)));
        let is_current = |task: &Task| task.spec_version == Some(self.service.spec_version);
        let is_expired = self.expires_at(run).is_some_and(|at| at <= self.now);
        is_whole && !is_expired && run.tasks().all(|task| is_current(task))
    }

    /// What is next in a run. `others` are runs whose tasks must have stopped before.
    pub(super) fn step<'b>(
        &self,
        run: &Run<'_>,
        others: impl Iterator<Item = &'b Run<'b>>,
        rng: &mut Rng,
        plan: &mut Plan,
    ) {
        if let Some(until) = self.expires_at(run).filter(|_| run.has_wanted()) {
            if until <= self.now {
                plan.report.push(Wait::Job(JobWait::Expired { at: until }));
                self.stop_expired(run, plan);
                return;
            }
            plan.report.push(Wait::Job(JobWait::Deadline { until }));
            plan.wake_by(until);
        }
        let is_open = self.is_open(run);
        for (place, tasks) in &run.places {
            match judge(self.view, tasks) {
                // A task that was given up may complete all the same.
                Verdict::Done => {
                    let twins = tasks.iter().filter(|task| is_wanted(task));
                    plan.changes
                        .extend(twins.map(|task| desire(task, TaskState::Shutdown)));
                }
                Verdict::Live(task) => {
                    self.attend(run, (*place, tasks), task, is_open, rng, plan);
                }
                Verdict::GivenUp => {
                    let last = tasks.last().map(|task| task.id);
                    plan.report
                        .waits
                        .extend(last.map(|task| Wait::RestartPolicy { task }));
                }
                Verdict::Stopping | Verdict::Vacant => {}
            }
        }
        if is_open {
            let elsewhere = others.map(|other| other.occupied(self.view)).collect();
            self.fill(run, elsewhere, rng, plan);
        }
    }

    /// Tells every task to stop, and people why.
    fn stop_expired(&self, run: &Run<'_>, plan: &mut Plan) {
        let deadline = self.policy.deadline.map(reserved::go_duration_text);
        for task in run.tasks().filter(|task| is_wanted(task)) {
            let mut task = Task::clone(task);
            task.desired_state = TaskState::Shutdown;
            let labels = &mut Arc::make_mut(&mut task.annotations).labels;
            labels.extend(
                deadline
                    .clone()
                    .map(|text| (EXPIRED_LABEL.to_owned(), text)),
            );
            plan.changes.push(Change::UpdateTask(Arc::new(task)));
        }
    }

    /// A task that is wanted: replaced when it failed or its node is lost, started when it waited.
    fn attend(
        &self,
        run: &Run<'_>,
        (place, tasks): (Slot, &[&Arc<Task>]),
        task: &Arc<Task>,
        is_open: bool,
        rng: &mut Rng,
        plan: &mut Plan,
    ) {
        let node = node_of(self.view, task);
        let is_lost = task.node_id.is_some() && is_lost(node);
        let has_ended = task.status.state.is_terminal();
        let is_waiting = task.desired_state == TaskState::Ready;
        let delay = self.delay_of(task, tasks).filter(|_| is_waiting);
        if let Some(until) = delay.filter(|_| !is_lost) {
            plan.report.push(restart_wait(task, until));
            plan.wake_by(until);
        } else if is_lost || has_ended {
            let is_wished = match has_ended {
                true => restart::should_restart(task, tasks),
                false => task.spec.restart.condition != RestartCondition::None,
            };
            let can_stay = match place {
                Slot::Number(_) => true,
                Slot::Node(_) => node.is_some_and(|node| self.takes(node, &self.constraints())),
            };
            let stop = desire(task, TaskState::Shutdown);
            let change = if is_wished && is_open && can_stay {
                let mut replacement = self.task(run, place, TaskState::Ready, rng);
                count_failures(task, &mut replacement);
                Change::Together(vec![stop, Change::CreateTask(Arc::new(replacement))])
            } else {
                exhausted(task, tasks).filter(|_| has_ended).unwrap_or(stop)
            };
            plan.changes.push(change);
        } else if is_waiting {
            match tasks.iter().find(|old| is_stopping(self.view, old)) {
                Some(old) => plan.report.push(Wait::Job(JobWait::Predecessor {
                    task: task.id,
                    old: old.id,
                })),
                None => plan.changes.push(desire(task, TaskState::Complete)),
            }
        }
    }

    /// Until when a replacement waits, if it still does.
    fn delay_of(&self, task: &Task, tasks: &[&Arc<Task>]) -> Option<Timestamp> {
        let before = tasks.iter().rev().find(|old| old.id != task.id)?;
        let due = task.meta.created_at + restart::delay_after(self.view, before, task);
        (self.now < due).then_some(due)
    }

    /// Fills vacant places, lowest first, while places are free.
    fn fill(&self, run: &Run<'_>, elsewhere: Vec<BTreeSet<Slot>>, rng: &mut Rng, plan: &mut Plan) {
        let is_vacant = |place: &Slot| {
            let tasks = run.places.get(place);
            tasks.is_none_or(|tasks| matches!(judge(self.view, tasks), Verdict::Vacant))
        };
        let occupied = run.occupied(self.view);
        let places: Vec<Slot> = match self.service.spec.mode {
            ServiceMode::ReplicatedJob {
                max_concurrent,
                total_completions,
            } => {
                let taken = occupied.len() + elsewhere.iter().map(BTreeSet::len).sum::<usize>();
                let free = max_concurrent.saturating_sub(taken as u64);
                let numbers = (0..total_completions).map(Slot::Number);
                let free = free.min(CREATIONS_PER_PLAN_MAX + 1);
                let free = usize::try_from(free).unwrap_or(usize::MAX);
                numbers.filter(is_vacant).take(free).collect()
            }
            ServiceMode::GlobalJob => {
                // The nodes of a scheduled run are those there are while it is under way.
                let is_over =
                    self.policy.schedule.is_some() && !run.places.is_empty() && occupied.is_empty();
                let constraints = self.constraints();
                let nodes = self
                    .view
                    .nodes()
                    .filter(|node| self.takes(node, &constraints));
                let places = nodes.map(|node| Slot::Node(node.id)).filter(is_vacant);
                places
                    .filter(|place| !is_over && !elsewhere.iter().any(|o| o.contains(place)))
                    .collect()
            }
            ServiceMode::Replicated { .. } | ServiceMode::Global => Vec::new(),
        };
        let max = usize::try_from(CREATIONS_PER_PLAN_MAX).unwrap_or(usize::MAX);
        if places.len() > max {
            plan.follow_up
                .push(crate::key::Key::Service(self.service.id));
        }
        for place in places.into_iter().take(max) {
            let task = self.task(run, place, TaskState::Complete, rng);
            plan.changes.push(Change::CreateTask(Arc::new(task)));
        }
    }

    fn task(&self, run: &Run<'_>, place: Slot, desired: TaskState, rng: &mut Rng) -> Task {
        Task {
            job_iteration: Some(run.iteration),
            ..self.template.task(place, desired, self.now, rng)
        }
    }

    fn constraints(&self) -> Vec<Constraint> {
        constraint::parse(&self.service.spec.task.placement.constraints).unwrap_or_default()
    }

    /// Whether a global job has a place on the node.
    fn takes(&self, node: &Node, constraints: &[Constraint]) -> bool {
        node.spec.availability == Availability::Active
            && node.status.state == NodeState::Ready
            && constraint::matches(constraints, node)
    }
}
