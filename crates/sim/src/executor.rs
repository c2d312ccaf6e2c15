//! A node's containers, and the operations on them: they take time, fail, and survive the agent.
//!
//! Keeps the contract of `skep_agent::exec`: operations are idempotent and may be dropped at any
//! point, before or after their effect.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use skep_agent::exec::{ControllerError, Op, OpResult, Outcome};
use skep_model::{ContainerStatus, Rng, Task, TaskId};

use crate::profile::{Profile, span};

/// Longest life of a job's container where others run for ever.
const JOB_LIFE_MAX: Duration = Duration::from_secs(8);

/// State of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Created,
    Running,
    Ended { code: i32 },
}

/// A container.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    /// Unique on the node; part of its id.
    pub(crate) number: u64,
    pub(crate) state: State,
    /// It ends by itself even when all is calm.
    is_job: bool,
}

#[derive(Debug)]
struct Running {
    number: u64,
    op: Op,
    task: Arc<Task>,
    will: Will,
    is_cancelled: bool,
}

/// What an operation will come to, decided when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Will {
    Succeed,
    FailForGood,
    FailForNow,
}

/// What the owner must do after a call.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    /// Call `finish` with this number after this time.
    Finish(u64, Duration),
    /// A container started and will end by itself after this time.
    Ends(TaskId, u64, Duration),
    /// Tell the agent.
    Done(TaskId, Op, Outcome),
    /// The container came into being or started: for the invariants.
    Seen(Arc<Task>, State),
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Executor {
    rng: Rng,
    containers: BTreeMap<TaskId, Container>,
    running: BTreeMap<TaskId, Running>,
    next_number: u64,
    prepare_max: Duration,
    start_max: Duration,
    failures: u64,
    hiccups: u64,
    life_max: Option<Duration>,
    bad_exits: u64,
}

impl Executor {
    /// An empty node.
    pub(crate) fn new(rng: Rng, profile: &Profile) -> Self {
        Self {
            rng,
            containers: BTreeMap::new(),
            running: BTreeMap::new(),
            next_number: 0,
            prepare_max: profile.prepare_max,
            start_max: profile.start_max,
            failures: profile.failures,
            hiccups: profile.hiccups,
            life_max: profile.life_max,
            bad_exits: profile.bad_exits,
        }
    }

    /// From now on nothing fails, and containers run for ever, but those of jobs come to a good end.
    pub(crate) fn calm(&mut self) {
        self.failures = 0;
        self.hiccups = 0;
        self.life_max = None;
        self.bad_exits = 0;
    }

    /// The containers, by task.
    pub(crate) fn containers(&self) -> &BTreeMap<TaskId, Container> {
        &self.containers
    }

    /// Starts an operation.
    pub(crate) fn run(&mut self, task: Arc<Task>, op: Op, out: &mut Vec<Next>) {
        let will = match op {
            Op::Wait { .. } => Will::Succeed,
            Op::Prepare | Op::Start if self.rng.percent(self.failures) => Will::FailForGood,
            _ if self.rng.percent(self.hiccups) => Will::FailForNow,
            _ => Will::Succeed,
        };
        let delay = match op {
            Op::Resolve | Op::Update => Duration::from_micros(self.rng.below(50)),
            Op::Prepare => span(&mut self.rng, self.prepare_max),
            Op::Start | Op::Shutdown => span(&mut self.rng, self.start_max),
            Op::Terminate | Op::Remove => span(&mut self.rng, Duration::from_millis(20)),
            Op::Wait { .. } => Duration::from_micros(1),
        };
        self.next_number += 1;
        let number = self.next_number;
        let id = task.id;
        let running = Running {
            number,
            op,
            task,
            will,
            is_cancelled: false,
        };
        let is_waiting = matches!(op, Op::Wait { .. }) && self.state_of(id) == Some(State::Running);
        let previous = self.running.insert(id, running);
        assert!(previous.is_none(), "one operation of a task at a time");
        if !is_waiting {
            out.push(Next::Finish(number, delay));
        }
    }

    /// The agent drops the operation; its effect may have happened already.
    pub(crate) fn cancel(&mut self, id: TaskId, out: &mut Vec<Next>) {
        // Now and then the end is faster than the cancellation.
        let is_too_late = self.rng.percent(30);
        if let Some(running) = self.running.get_mut(&id)
            && (matches!(running.op, Op::Wait { .. }) || !is_too_late)
        {
            running.is_cancelled = true;
            out.push(Next::Finish(running.number, Duration::from_micros(1)));
        }
    }

    /// The agent's process dies: so do its operations, before or after their effect.
    pub(crate) fn abandon(&mut self, out: &mut Vec<Next>) {
        for running in std::mem::take(&mut self.running).into_values() {
            if self.rng.percent(50) {
                self.take_effect(&running, out);
            }
        }
    }

    /// The machine reboots.
    pub(crate) fn reboot(&mut self) {
        for container in self.containers.values_mut() {
            if container.state == State::Running {
                container.state = State::Ended { code: 137 };
            }
        }
    }

    /// The operation with this number has had its time.
    pub(crate) fn finish(&mut self, number: u64, out: &mut Vec<Next>) {
        let found = self
            .running
            .values()
            .find(|running| running.number == number);
        let Some(id) = found.map(|running| running.task.id) else {
            return;
        };
        let running = self.running.remove(&id).expect("it was just found");
        let result = match running.will {
            _ if running.is_cancelled => {
                if !matches!(running.op, Op::Wait { .. }) && self.rng.percent(40) {
                    self.take_effect(&running, out);
                }
                OpResult::Cancelled
            }
            // What is there already is found before anything can fail.
            Will::FailForGood if self.has_happened(&running) => self.take_effect(&running, out),
            Will::FailForGood => {
                OpResult::Failed(ControllerError::Fatal("simulated failure".to_owned()))
            }
            Will::FailForNow => {
                OpResult::Failed(ControllerError::Temporary("simulated hiccup".to_owned()))
            }
            Will::Succeed => self.take_effect(&running, out),
        };
        let mut outcome = Outcome::bare(result);
        if !matches!(running.op, Op::Resolve | Op::Update | Op::Remove) {
            outcome.container = self.status_of(id);
        }
        out.push(Next::Done(id, running.op, outcome));
    }

    /// A container's process ends by itself.
    pub(crate) fn ends(&mut self, id: TaskId, number: u64, out: &mut Vec<Next>) {
        let Some(container) = self.containers.get_mut(&id) else {
            return;
        };
        let may_end = container.is_job || self.life_max.is_some();
        if container.number != number || container.state != State::Running || !may_end {
            return;
        }
        let code = i32::from(self.rng.percent(self.bad_exits));
        container.state = State::Ended { code };
        self.end_wait(id, out);
    }

    /// Deletes what there is of a task nobody knows.
    pub(crate) fn remove_orphan(&mut self, id: TaskId) {
        self.containers.remove(&id);
    }

    fn has_happened(&self, running: &Running) -> bool {
        match (running.op, self.state_of(running.task.id)) {
            (Op::Prepare, state) => state.is_some(),
            (Op::Start, state) => matches!(state, Some(State::Running | State::Ended { .. })),
            _ => false,
        }
    }

    fn take_effect(&mut self, running: &Running, out: &mut Vec<Next>) -> OpResult {
        let id = running.task.id;
        let state = self.state_of(id);
        let fatal = |text: &str| OpResult::Failed(ControllerError::Fatal(text.to_owned()));
        match (running.op, state) {
            (Op::Resolve | Op::Update, _) => OpResult::Done,
            (Op::Prepare, None) => {
                self.next_number += 1;
                let container = Container {
                    number: self.next_number,
                    state: State::Created,
                    is_job: running.task.job_iteration.is_some(),
                };
                self.containers.insert(id, container);
                out.push(Next::Seen(Arc::clone(&running.task), State::Created));
                OpResult::Done
            }
            (Op::Prepare, Some(_)) => OpResult::Failed(ControllerError::AlreadyPrepared),
            (Op::Start, Some(State::Created)) => {
                self.start(&running.task, out);
                OpResult::Done
            }
            (Op::Start, Some(_)) => OpResult::Failed(ControllerError::AlreadyStarted),
            (Op::Start | Op::Wait { .. }, None) => fatal("no such container"),
            (Op::Wait { .. }, Some(State::Ended { code: 0 })) => OpResult::Done,
            (Op::Wait { .. }, Some(State::Ended { code })) => {
                OpResult::Failed(ControllerError::Exited { code, cause: None })
            }
            (Op::Wait { .. }, Some(State::Created | State::Running)) => {
                fatal("container never started")
            }
            (Op::Shutdown | Op::Terminate, Some(State::Running)) => {
                self.set_state(id, State::Ended { code: 143 });
                OpResult::Done
            }
            (Op::Shutdown | Op::Terminate, _) => OpResult::Done,
            (Op::Remove, _) => {
                self.containers.remove(&id);
                OpResult::Done
            }
        }
    }

    fn start(&mut self, task: &Arc<Task>, out: &mut Vec<Next>) {
        self.set_state(task.id, State::Running);
        out.push(Next::Seen(Arc::clone(task), State::Running));
        let life_max = match task.job_iteration {
            Some(_) => Some(self.life_max.unwrap_or(JOB_LIFE_MAX)),
            None => self.life_max,
        };
        let life = life_max.map(|max| span(&mut self.rng, max));
        if let Some((life, container)) = life.zip(self.containers.get(&task.id)) {
            out.push(Next::Ends(task.id, container.number, life));
        }
    }

    /// Ends the wait for a container that has ended.
    fn end_wait(&mut self, id: TaskId, out: &mut Vec<Next>) {
        if let Some(running) = self.running.get(&id)
            && matches!(running.op, Op::Wait { .. })
        {
            out.push(Next::Finish(running.number, Duration::from_micros(1)));
        }
    }

    fn set_state(&mut self, id: TaskId, state: State) {
        if let Some(container) = self.containers.get_mut(&id) {
            container.state = state;
        }
    }

    fn state_of(&self, id: TaskId) -> Option<State> {
        self.containers.get(&id).map(|container| container.state)
    }

    fn status_of(&self, id: TaskId) -> Option<ContainerStatus> {
        let container = self.containers.get(&id)?;
        let (pid, exit_code) = match container.state {
            State::Created => (0, 0),
            State::Running => (i32::try_from(container.number).unwrap_or(i32::MAX), 0),
            State::Ended { code } => (0, code),
        };
        Some(ContainerStatus {
            container_id: format!("{:012x}", container.number),
            pid,
            exit_code,
        })
    }
}
