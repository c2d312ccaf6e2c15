//! What the runs of jobs and their places have come to, counted as tasks come and change.
//!
//! A job may have a hundred thousand places, and each of their tasks ends in an event of its own: who looks after the
//! job must not look at all of them each time. A *run* is one iteration of a job, a *place* a slot of a replicated
//! one or a node of a global one (`docs/design/jobs.md`). Everything here follows from tasks and services.

use std::ops::RangeInclusive;

use imbl::{OrdMap, OrdSet};
use skep_model::{
    Id, NodeId, RestartCondition, Service, ServiceId, ServiceMode, Slot, SpecVersion, Task, TaskId,
    TaskState, Timestamp, Version, reserved::service::rollout::EXHAUSTED_LABEL,
};

/// A place of a run.
type PlaceKey = (ServiceId, Version, Slot);

/// See the module's documentation. `clone` is O(1).
#[derive(Debug, Clone, Default)]
pub struct JobTables {
    runs: OrdMap<(ServiceId, Version), RunRow>,
    places: OrdMap<PlaceKey, PlaceRow>,
    /// Places that are not complete and over, by what they have come to.
    by_stage: OrdSet<(ServiceId, Version, Stage, Slot)>,
    /// Tasks by age.
    ages: OrdSet<(ServiceId, Version, Timestamp, TaskId)>,
    /// Tasks that failed, by when that became known.
    failures: OrdSet<(ServiceId, Timestamp, TaskId)>,
    /// Tasks that are placed, have not ended and shall not be stopped.
    active: OrdMap<(ServiceId, NodeId), usize>,
}

/// Sums over the tasks and places of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunRow {
    /// Tasks by version of the spec they were made of.
    pub specs: OrdMap<Option<SpecVersion>, usize>,
    /// Tasks that are wanted or have not ended.
    pub open_count: usize,
    /// Places that have tasks.
    pub place_count: usize,
    /// Places with a task that is complete.
    pub complete_count: usize,
    /// Places with a task that is wanted.
    pub wanted_count: usize,
    /// Places in [`Stage::Spent`].
    pub spent_count: usize,
    /// Tasks told to stop that have not ended, in places where none is wanted, by node.
    pub leaving: OrdMap<Option<NodeId>, usize>,
}

/// What the tasks of a place come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlaceRow {
    /// How many there are.
    pub task_count: usize,
    /// Those that are wanted or have not ended.
    pub open_count: usize,
    /// Some task is complete.
    pub is_complete: bool,
    /// Some task shall come to its own end.
    pub is_wanted: bool,
    /// The newest task says of itself that none shall follow it.
    pub is_last: bool,
    /// Nodes of the tasks told to stop that have not ended, if none is wanted.
    pub leaving: Vec<Option<NodeId>>,
}

/// How far a place has come that is not complete and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// A task is wanted or has not ended.
    Open,
    /// All tasks have ended, and another may be wanted.
    Idle,
    /// All tasks have ended, and no other is wanted.
    Spent,
}

/// What the tasks of a service have places in; `None` if it is no job.
pub(crate) fn kind_of(service: Option<&Service>) -> Option<Kind> {
    match service?.spec.mode {
        ServiceMode::ReplicatedJob { .. } => Some(Kind::Numbers),
        ServiceMode::GlobalJob => Some(Kind::Nodes),
        ServiceMode::Replicated { .. } | ServiceMode::Global => None,
    }
}

/// What places are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Numbers,
    Nodes,
}

/// Whether the task shall come to its own end.
fn is_wanted(task: &Task) -> bool {
    task.desired_state <= TaskState::Complete && task.status.state != TaskState::Complete
}

fn is_open(task: &Task) -> bool {
    is_wanted(task) || !task.status.state.is_terminal()
}

fn add<K: Ord + Clone>(sums: &mut OrdMap<K, usize>, key: K) {
    *sums.entry(key).or_default() += 1;
}

/// Takes away what was added before.
fn subtract<K: Ord + Clone>(sums: &mut OrdMap<K, usize>, key: &K) {
    let sum = sums.get_mut(key).expect("what is taken away was counted");
    *sum -= 1;
    if *sum == 0 {
        sums.remove(key);
    }
}

const LOWEST_SLOT: Slot = Slot::Number(0);
const HIGHEST_SLOT: Slot = Slot::Node(NodeId(Id::HIGHEST));

fn all_places(service: ServiceId, run: Version) -> RangeInclusive<PlaceKey> {
    (service, run, LOWEST_SLOT)..=(service, run, HIGHEST_SLOT)
}

// === reading ===

impl JobTables {
    /// The runs of a job of which there are tasks, oldest first.
    pub fn runs(&self, service: ServiceId) -> impl DoubleEndedIterator<Item = (Version, &RunRow)> {
        let range = (service, Version(0))..=(service, Version(u64::MAX));
        self.runs.range(range).map(|((_, run), row)| (*run, row))
    }

    /// One run, if there are tasks of it.
    pub fn run(&self, service: ServiceId, run: Version) -> Option<&RunRow> {
        self.runs.get(&(service, run))
    }

    /// When the first task of a run was made.
    pub fn began_at(&self, service: ServiceId, run: Version) -> Option<Timestamp> {
        let from = (service, run, Timestamp(i64::MIN), TaskId(Id::LOWEST));
        let (of, its, at, _) = self.ages.range(from..).next()?;
        ((*of, *its) == (service, run)).then_some(*at)
    }

    /// The places of a run that have tasks, in order.
    pub fn places(
        &self,
        service: ServiceId,
        run: Version,
    ) -> impl DoubleEndedIterator<Item = (Slot, &PlaceRow)> {
        let places = self.places.range(all_places(service, run));
        places.map(|((_, _, slot), row)| (*slot, row))
    }

    /// One place, if there are tasks in it.
    pub fn place(&self, service: ServiceId, run: Version, slot: Slot) -> Option<&PlaceRow> {
        self.places.get(&(service, run, slot))
    }

    /// The places of a run in one stage, in order.
    pub fn places_in(
        &self,
        service: ServiceId,
        run: Version,
        stage: Stage,
    ) -> impl Iterator<Item = Slot> {
        let range = (service, run, stage, LOWEST_SLOT)..=(service, run, stage, HIGHEST_SLOT);
        self.by_stage.range(range).map(|(_, _, _, slot)| *slot)
    }

    /// Failures of a job's tasks that became known after `since`, the latest first.
    pub fn failures_since(
        &self,
        service: ServiceId,
        since: Timestamp,
    ) -> impl Iterator<Item = TaskId> {
        let last = (service, Timestamp(i64::MAX), TaskId(Id::HIGHEST));
        let range = (service, since, TaskId(Id::LOWEST))..=last;
        self.failures.range(range).rev().map(|(_, _, task)| *task)
    }

    /// Tasks of a job that are placed, have not ended and shall not be stopped, by node.
    pub fn active(&self, service: ServiceId) -> impl Iterator<Item = (NodeId, usize)> {
        let range = (service, NodeId(Id::LOWEST))..=(service, NodeId(Id::HIGHEST));
        self.active
            .range(range)
            .map(|((_, node), count)| (*node, *count))
    }
}

// === following tasks ===

impl JobTables {
    /// Turns what is known of one task from `old` into `new`. Its place is told by
    /// [`JobTables::set_place`].
    pub(crate) fn set_task(&mut self, id: ServiceId, old: Option<&Task>, new: Option<&Task>) {
        let run = |task: &Task| (id, task.job_iteration.unwrap_or_default());
        let age = |task: &Task| (id, run(task).1, task.meta.created_at, task.id);
        if old.map(age) != new.map(age) {
            old.map(age).and_then(|key| self.ages.remove(&key));
            self.ages.extend(new.map(age));
        }
        let failure = |task: &Task| {
            let has_failed = matches!(task.status.state, TaskState::Failed | TaskState::Rejected);
            let at = task.status.applied_at.unwrap_or(task.status.timestamp);
            has_failed.then_some((id, at, task.id))
        };
        let (was, is) = (old.and_then(failure), new.and_then(failure));
        if was != is {
            was.and_then(|key| self.failures.remove(&key));
            self.failures.extend(is);
        }
        let active = |task: &Task| {
            let is_active = (TaskState::Assigned..=TaskState::Running).contains(&task.status.state)
                && task.desired_state <= TaskState::Complete;
            task.node_id.filter(|_| is_active).map(|node| (id, node))
        };
        let (was, is) = (old.and_then(active), new.and_then(active));
        if was != is {
            was.iter().for_each(|key| subtract(&mut self.active, key));
            is.iter().for_each(|key| add(&mut self.active, *key));
        }
        let spec = |task: &Task| (run(task), task.spec_version);
        let (was, is) = (old.map(spec), new.map(spec));
        if was != is {
            if let Some((run, spec)) = was {
                let row = self.runs.get_mut(&run).expect("a task's run was counted");
                subtract(&mut row.specs, &spec);
                self.forget_if_empty(run);
            }
            if let Some((run, spec)) = is {
                add(&mut self.runs.entry(run).or_default().specs, spec);
            }
        }
    }

    /// Says what the tasks of a place, oldest first, come to now.
    pub(crate) fn set_place(
        &mut self,
        service: ServiceId,
        run: Version,
        slot: Slot,
        row: PlaceRow,
    ) {
        let key = (service, run, slot);
        let old = self.places.get(&key).cloned().unwrap_or_default();
        if old == row {
            return;
        }
        let (was, is) = (old.stage(), row.stage());
        if was != is {
            let by_stage = |stage| (service, run, stage, slot);
            was.and_then(|stage| self.by_stage.remove(&by_stage(stage)));
            self.by_stage.extend(is.map(by_stage));
        }
        let sums = self.runs.entry((service, run)).or_default();
        sums.turn(&old, &row);
        self.forget_if_empty((service, run));
        if row.task_count == 0 {
            self.places.remove(&key);
        } else {
            self.places.insert(key, row);
        }
    }

    /// Forgets a service that is gone, or has become another kind.
    pub(crate) fn remove_service(&mut self, id: ServiceId) {
        let runs: Vec<Version> = self.runs(id).map(|(run, _)| run).collect();
        for run in runs {
            self.runs.remove(&(id, run));
        }
        let places = (id, Version(0), LOWEST_SLOT)..=(id, Version(u64::MAX), HIGHEST_SLOT);
        let places: Vec<PlaceKey> = self.places.range(places).map(|(key, _)| *key).collect();
        for (id, run, slot) in places {
            self.places.remove(&(id, run, slot));
            for stage in [Stage::Open, Stage::Idle, Stage::Spent] {
                self.by_stage.remove(&(id, run, stage, slot));
            }
        }
        let from = (id, Version(0), Timestamp(i64::MIN), TaskId(Id::LOWEST));
        while let Some(key) = self.ages.range(from..).next().copied() {
            if key.0 != id {
                break;
            }
            self.ages.remove(&key);
        }
        let from = (id, Timestamp(i64::MIN), TaskId(Id::LOWEST));
        while let Some(key) = self.failures.range(from..).next().copied() {
            if key.0 != id {
                break;
            }
            self.failures.remove(&key);
        }
        let active: Vec<NodeId> = self.active(id).map(|(node, _)| node).collect();
        for node in active {
            self.active.remove(&(id, node));
        }
    }

    fn forget_if_empty(&mut self, run: (ServiceId, Version)) {
        let is_empty = |row: &RunRow| row.specs.is_empty() && row.place_count == 0;
        if self.runs.get(&run).is_some_and(is_empty) {
            self.runs.remove(&run);
        }
    }
}

// === impl PlaceRow ===

impl PlaceRow {
    /// What tasks of one place come to.
    pub fn of<'a>(tasks: impl IntoIterator<Item = &'a Task>) -> Self {
        let mut row = Self::default();
        let mut newest: Option<&Task> = None;
        let order = |task: &Task| (task.meta.created_at, task.id);
        for task in tasks {
            row.task_count += 1;
            row.open_count += usize::from(is_open(task));
            row.is_complete |= task.status.state == TaskState::Complete;
            row.is_wanted |= is_wanted(task);
            if is_open(task) && !is_wanted(task) {
                row.leaving.push(task.node_id);
            }
            newest = newest
                .filter(|other| order(other) > order(task))
                .or(Some(task));
        }
        if row.is_wanted {
            row.leaving.clear();
        }
        row.is_last = newest.is_some_and(|task| {
            task.spec.restart.condition == RestartCondition::None
                || task.annotations.labels.contains_key(EXHAUSTED_LABEL)
        });
        row
    }

    /// How far the place has come; `None`: it is complete and over, or there is no task.
    pub fn stage(&self) -> Option<Stage> {
        if self.open_count > 0 {
            Some(Stage::Open)
        } else if self.is_complete || self.task_count == 0 {
            None
        } else if self.is_last {
            Some(Stage::Spent)
        } else {
            Some(Stage::Idle)
        }
    }
}

// === impl RunRow ===

impl RunRow {
    /// Turns what one place adds from `old` into `new`.
    fn turn(&mut self, old: &PlaceRow, new: &PlaceRow) {
        let turn = |sum: &mut usize, old: bool, new: bool| {
            *sum = *sum + usize::from(new) - usize::from(old);
        };
        self.open_count = self.open_count + new.open_count - old.open_count;
        turn(
            &mut self.place_count,
            old.task_count > 0,
            new.task_count > 0,
        );
        turn(&mut self.complete_count, old.is_complete, new.is_complete);
        turn(&mut self.wanted_count, old.is_wanted, new.is_wanted);
        let is_spent = |row: &PlaceRow| row.stage() == Some(Stage::Spent);
        turn(&mut self.spent_count, is_spent(old), is_spent(new));
        for node in &old.leaving {
            subtract(&mut self.leaving, node);
        }
        for node in &new.leaving {
            add(&mut self.leaving, *node);
        }
    }
}
