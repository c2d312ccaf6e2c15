//! One run of a job: what each of its places has come to, and what is done next.

use std::sync::Arc;

use skep_model::{
    Availability, Node, NodeId, NodeState, RestartCondition, Rng, Service, ServiceMode, Slot, Task,
    TaskState, Timestamp, Version,
    constraint::{self, Constraint},
    reserved::{self, service::schedule::EXPIRED_LABEL},
};
use skep_store::{RunRow, Stage, Store};

use super::{Job, JobWait, Runs};
use crate::{
    key::Key,
    plan::{Change, Plan, Report, Wait},
    replicated::CREATIONS_PER_PLAN_MAX,
    restart,
    revision::{is_gone, is_lost, node_of},
    slot::{count_failures, desire, exhausted, restart_wait},
};

/// One iteration, of which tasks are read only where there may be something to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run<'a> {
    view: &'a Store,
    service: &'a Service,
    pub(super) iteration: Version,
    /// `None`: there are no tasks yet.
    row: Option<&'a RunRow>,
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
pub(super) fn runs<'a>(view: &'a Store, service: &'a Service) -> Runs<'a> {
    let runs = view.jobs().runs(service.id);
    let runs = runs.map(|(iteration, row)| Run {
        row: Some(row),
        ..Run::empty(view, service, iteration)
    });
    runs.map(|run| (run.iteration, run)).collect()
}

/// The place of a job's tasks that are told by `slot`: slots of replicated jobs count from 0, so that
/// a task alone does not tell its kind of place.
pub(super) fn place_of(mode: ServiceMode, slot: Slot) -> Slot {
    match (mode, slot) {
        (ServiceMode::Replicated { .. } | ServiceMode::ReplicatedJob { .. }, Slot::Node(_)) => {
            Slot::Number(0)
        }
        (ServiceMode::Replicated { .. } | ServiceMode::ReplicatedJob { .. }, Slot::Number(_))
        | (ServiceMode::Global | ServiceMode::GlobalJob, _) => slot,
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
        && is_heard(view, task.node_id)
}

/// Whether the end of a task there would be heard of.
fn is_heard(view: &Store, node: Option<NodeId>) -> bool {
    node.is_none_or(|id| !is_gone(view.node(id)))
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
    pub(super) fn empty(view: &'a Store, service: &'a Service, iteration: Version) -> Self {
        Self {
            view,
            service,
            iteration,
            row: None,
        }
    }

    /// The tasks in one place, oldest first.
    pub(super) fn tasks_in(&self, place: Slot) -> Vec<&'a Arc<Task>> {
        let tasks = self
            .view
            .tasks_in_place(self.service.id, self.iteration, place);
        let mut tasks: Vec<_> = tasks.collect();
        tasks.sort_by_key(|task| restart::order(task));
        tasks
    }

    /// The places in one stage.
    fn places_in(&self, stage: Stage) -> impl Iterator<Item = Slot> + use<'a> {
        let jobs = self.view.jobs();
        jobs.places_in(self.service.id, self.iteration, stage)
    }

    /// The places that have tasks, with how many.
    pub(super) fn places(&self) -> impl DoubleEndedIterator<Item = (Slot, usize)> + use<'a> {
        let places = self.view.jobs().places(self.service.id, self.iteration);
        places.map(|(place, row)| (place, row.task_count))
    }

    fn has_place(&self, place: Slot) -> bool {
        let jobs = self.view.jobs();
        jobs.place(self.service.id, self.iteration, place).is_some()
    }

    /// When the first task was made.
    pub(super) fn began_at(&self) -> Option<Timestamp> {
        self.view.jobs().began_at(self.service.id, self.iteration)
    }

    /// Whether nothing of it runs, as far as anybody knows.
    pub(super) fn has_ended(&self) -> bool {
        self.row.is_none_or(|row| row.open_count == 0)
    }

    pub(super) fn has_wanted(&self) -> bool {
        self.row.is_some_and(|row| row.wanted_count > 0)
    }

    /// How many places have a task that runs or may run. What still runs where another task is not wanted
    /// counts by task: one place may have two of them for a while.
    fn occupied_count(&self) -> usize {
        let Some(row) = self.row else { return 0 };
        let is_heard = |node| is_heard(self.view, node);
        let leaving = row.leaving.iter().filter(|(node, _)| is_heard(**node));
        row.wanted_count + leaving.map(|(_, count)| count).sum::<usize>()
    }

    fn is_occupied(&self, place: Slot) -> bool {
        let jobs = self.view.jobs();
        let row = jobs.place(self.service.id, self.iteration, place);
        row.is_some_and(|row| {
            let mut leaving = row.leaving.iter();
            row.is_wanted || leaving.any(|node| is_heard(self.view, *node))
        })
    }

    /// Tasks that are wanted.
    fn wanted(&self) -> impl Iterator<Item = &'a Arc<Task>> {
        let tasks = self
            .places_in(Stage::Open)
            .flat_map(|place| self.tasks_in(place));
        tasks.filter(|task| is_wanted(task))
    }

    /// Places in which all tasks have ended and a further one is wanted, lowest first.
    fn vacated(&self) -> impl Iterator<Item = Slot> {
        let is_vacant = |place: &Slot| {
            let tasks = self.tasks_in(*place);
            matches!(judge(self.view, &tasks), Verdict::Vacant)
        };
        let mut vacated: Vec<Slot> = self.places_in(Stage::Idle).filter(is_vacant).collect();
        // What runs on where nobody hears of it keeps no place. It is rare, so it is looked for only then.
        let is_unheard = |row: &RunRow| row.leaving.keys().any(|node| !is_heard(self.view, *node));
        if self.row.is_some_and(is_unheard) {
            let open = self.places_in(Stage::Open);
            let open = open.filter(|place| !self.is_occupied(*place));
            vacated.extend(open.filter(is_vacant));
        }
        vacated.sort_unstable();
        vacated.into_iter()
    }

    /// The numbers below `total` of places that never had a task, lowest first.
    fn untouched(&self, total: u64) -> impl Iterator<Item = Slot> {
        let last = self.places().next_back().map(|(place, _)| place);
        let count = self.row.map_or(0, |row| row.place_count as u64);
        // They are filled from the lowest, so that there is no gap; where there is one, each is looked for.
        let from = match last {
            Some(Slot::Number(last)) if last + 1 == count => count,
            Some(_) | None => 0,
        };
        let numbers = (from..total).map(Slot::Number);
        numbers.filter(|place| !self.has_place(*place))
    }

    /// Tells every task to stop, in as many plans as it takes.
    pub(super) fn stop(&self, plan: &mut Plan) {
        let stops = self.wanted().map(|task| desire(task, TaskState::Shutdown));
        self.stop_by(stops, plan);
    }

    fn stop_by(&self, stops: impl Iterator<Item = Change>, plan: &mut Plan) {
        let max = usize::try_from(CREATIONS_PER_PLAN_MAX).unwrap_or(usize::MAX);
        let from = plan.changes.len();
        plan.changes.extend(stops.take(max));
        if plan.changes.len() == from + max {
            plan.follow_up.push(Key::Service(self.service.id));
        }
    }
}

// === impl Job ===

impl Job<'_> {
    /// Whether something of the run is still to come.
    pub(super) fn is_under_way(&self, run: &Run<'_>) -> bool {
        if run.occupied_count() > 0 {
            return true;
        }
        match self.service.spec.mode {
            ServiceMode::ReplicatedJob {
                max_concurrent,
                total_completions,
            } => {
                self.is_open(run)
                    && max_concurrent > 0
                    && self.decided_count(run) < total_completions
            }
            // Before its first task nothing can be said against the next run.
            ServiceMode::GlobalJob | ServiceMode::Replicated { .. } | ServiceMode::Global => false,
        }
    }

    /// Places that are complete or given up.
    fn decided_count(&self, run: &Run<'_>) -> u64 {
        let Some(row) = run.row else { return 0 };
        let is_given_up = |place: &Slot| {
            let tasks = run.tasks_in(*place);
            matches!(judge(self.view, &tasks), Verdict::GivenUp)
        };
        let others = run.places_in(Stage::Idle).chain(run.places_in(Stage::Open));
        let given_up = row.spent_count + others.filter(is_given_up).count();
        (row.complete_count + given_up) as u64
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
            ServiceMode::ReplicatedJob { .. } => run.has_place(Slot::Number(0)),
            ServiceMode::GlobalJob | ServiceMode::Replicated { .. } | ServiceMode::Global => true,
        };
        let is_whole = has_first || Some(run.iteration) == current.or(Some(Version(0)));
        let mut specs = run.row.iter().flat_map(|row| row.specs.keys());
        let is_current = specs.all(|spec| *spec == Some(self.service.spec_version));
        let is_expired = self.expires_at(run).is_some_and(|at| at <= self.now);
        is_whole && !is_expired && is_current
    }

    /// What is next in a run: in all places where something may be, or in one and in what it makes room for.
    /// `others` are runs whose tasks must have stopped before.
    pub(super) fn step<'b>(
        &self,
        run: &Run<'_>,
        others: impl Iterator<Item = &'b Run<'b>>,
        only: Option<Slot>,
        rng: &mut Rng,
        plan: &mut Plan,
    ) {
        if let Some(until) = self.expires_at(run).filter(|_| run.has_wanted()) {
            if until <= self.now && only.is_some() {
                plan.follow_up.push(Key::Service(self.service.id));
                return;
            }
            if until <= self.now {
                plan.report.push(Wait::Job(JobWait::Expired { at: until }));
                self.stop_expired(run, plan);
                return;
            }
            if only.is_none() {
                plan.report.push(Wait::Job(JobWait::Deadline { until }));
                plan.wake_by(until);
            }
        }
        let is_open = self.is_open(run);
        let places: Vec<Slot> = match only {
            Some(place) => vec![place],
            None => {
                let spent = run.places_in(Stage::Spent).take(Report::WAITS_MAX);
                let live = run.places_in(Stage::Open).chain(run.places_in(Stage::Idle));
                live.chain(spent).collect()
            }
        };
        for place in places {
            self.look(run, place, is_open, rng, plan);
        }
        if is_open {
            self.fill(run, &others.collect::<Vec<_>>(), only, rng, plan);
        }
    }

    /// What is next in one place that has tasks.
    fn look(&self, run: &Run<'_>, place: Slot, is_open: bool, rng: &mut Rng, plan: &mut Plan) {
        let tasks = run.tasks_in(place);
        match judge(self.view, &tasks) {
            // A task that was given up may complete all the same.
            Verdict::Done => {
                let twins = tasks.iter().filter(|task| is_wanted(task));
                plan.changes
                    .extend(twins.map(|task| desire(task, TaskState::Shutdown)));
            }
            Verdict::Live(task) => {
                self.attend(run, (place, &tasks), task, is_open, rng, plan);
            }
            Verdict::GivenUp => {
                let last = tasks.last().map(|task| task.id);
                let waits = last.map(|task| Wait::RestartPolicy { task });
                waits.into_iter().for_each(|wait| plan.report.push(wait));
            }
            Verdict::Stopping | Verdict::Vacant => {}
        }
    }

    /// Tells every task to stop, and people why.
    fn stop_expired(&self, run: &Run<'_>, plan: &mut Plan) {
        let deadline = self.policy.deadline.map(reserved::go_duration_text);
        let stops = run.wanted().map(|task| {
            let mut task = Task::clone(task);
            task.desired_state = TaskState::Shutdown;
            let labels = &mut Arc::make_mut(&mut task.annotations).labels;
            let label = |text| (EXPIRED_LABEL.to_owned(), text);
            labels.extend(deadline.clone().map(label));
            Change::UpdateTask(Arc::new(task))
        });
        run.stop_by(stops, plan);
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
                count_failures(task, tasks, &mut replacement);
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

    /// Fills vacant places, lowest first, while places are free. Of a global job's places only `only`.
    fn fill(
        &self,
        run: &Run<'_>,
        others: &[&Run<'_>],
        only: Option<Slot>,
        rng: &mut Rng,
        plan: &mut Plan,
    ) {
        let places = match self.service.spec.mode {
            ServiceMode::ReplicatedJob {
                max_concurrent,
                total_completions,
            } => {
                let elsewhere = others.iter().map(|other| other.occupied_count());
                let taken = run.occupied_count() + elsewhere.sum::<usize>();
                let free = max_concurrent.saturating_sub(taken as u64);
                let free = free.min(CREATIONS_PER_PLAN_MAX + 1);
                let free = usize::try_from(free).unwrap_or(usize::MAX);
                lowest_vacant(run, total_completions, free)
            }
            ServiceMode::GlobalJob => self.vacant_nodes(run, others, only),
            ServiceMode::Replicated { .. } | ServiceMode::Global => Vec::new(),
        };
        let max = usize::try_from(CREATIONS_PER_PLAN_MAX).unwrap_or(usize::MAX);
        if let Some(next) = places.get(max) {
            plan.follow_up.push(Key::Slot(self.service.id, *next));
        }
        if let Some(deadline) = self.policy.deadline.filter(|_| !places.is_empty()) {
            match only {
                None => plan.wake_by(run.began_at().unwrap_or(self.now) + deadline),
                // Its own key keeps the deadline.
                Some(_) if run.has_wanted() => {}
                Some(_) => plan.follow_up.push(Key::Service(self.service.id)),
            }
        }
        for place in places.into_iter().take(max) {
            let task = self.task(run, place, TaskState::Complete, rng);
            plan.changes.push(Change::CreateTask(Arc::new(task)));
        }
    }

    /// The nodes on which a task of a global job's run is to be made.
    fn vacant_nodes(&self, run: &Run<'_>, others: &[&Run<'_>], only: Option<Slot>) -> Vec<Slot> {
        // The nodes of a scheduled run are those there are while it is under way.
        let has_begun = run.row.is_some_and(|row| row.place_count > 0);
        if self.policy.schedule.is_some() && has_begun && run.occupied_count() == 0 {
            return Vec::new();
        }
        let one = match only {
            Some(Slot::Node(id)) => self.view.node(id),
            Some(Slot::Number(_)) | None => None,
        };
        let all = only.is_none().then(|| self.view.nodes());
        let nodes = one.into_iter().chain(all.into_iter().flatten());
        let constraints = self.constraints();
        let takers = nodes.filter(|node| self.takes(node, &constraints));
        let places = takers.map(|node| Slot::Node(node.id));
        let is_free = |place: &Slot| {
            let tasks = run.tasks_in(*place);
            matches!(judge(self.view, &tasks), Verdict::Vacant)
                && !others.iter().any(|other| other.is_occupied(*place))
        };
        places.filter(is_free).collect()
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

/// The lowest places of a replicated job in which a task is to be made, as many as are free.
fn lowest_vacant(run: &Run<'_>, total: u64, free: usize) -> Vec<Slot> {
    if free == 0 {
        return Vec::new();
    }
    let is_within = |place: &Slot| matches!(place, Slot::Number(number) if *number < total);
    let mut vacated = run.vacated().filter(is_within).peekable();
    let mut untouched = run.untouched(total).peekable();
    let next = || match (vacated.peek(), untouched.peek()) {
        (Some(old), Some(new)) if new < old => untouched.next(),
        (Some(_), _) => vacated.next(),
        (None, _) => untouched.next(),
    };
    std::iter::from_fn(next).take(free).collect()
}
