//! The life of one task on this node: which operation comes next, and what its end means.
//!
//! A pure core (STYLE S2): no IO, no clock, no randomness, no tokio. [`TaskMachine::handle`] takes
//! what happened and orders at most one [`Op`] at a time; the observed state only grows. States,
//! messages and the meaning of errors are Swarm's. One state machine, so one file. Restarting ended tasks is the manager's business.
//! Left out: storing, reporting and running, which `core` and `shell` do. Design:
//! `docs/design/agent.md`.

use std::{sync::Arc, time::Duration};

use skep_model::{
    ContainerStatus, NOT_READY_MESSAGE, Task, TaskId, TaskState, TaskStatus, Timestamp,
};

use crate::exec::{ControllerError, Op, OpResult, Outcome};

#[cfg(test)]
mod tests;

/// Pause before an operation that failed for a while is tried again; Swarm's value. Shorter burns
/// CPU on a sick node, longer delays its recovery.
pub const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Longest pause between two attempts to delete a container. Deleting is retried for ever because a
/// forgotten container leaks disk; a minute keeps a stuck one from costing anything.
pub const REMOVE_RETRY_DELAY_MAX: Duration = Duration::from_secs(60);

/// Message of a task that runs, Swarm's.
const RUNNING_MESSAGE: &str = "started";

/// What happens to a task.
#[derive(Debug, Clone)]
pub enum Event {
    /// The manager assigned the task anew or changed it.
    Update(Arc<Task>),
    /// The task left the assignments: end it and delete everything of it.
    Remove {
        /// Kill at once instead of stopping gracefully, e.g. because the node leaves the cluster.
        is_forced: bool,
    },
    /// The operation ordered last has ended.
    Done {
        /// Which.
        op: Op,
        /// How.
        outcome: Outcome,
    },
    /// The time of `next_deadline` has come.
    Tick,
}

/// What the owner of a machine must do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Start `op` on the task's controller; its end comes back as [`Event::Done`], always.
    Run {
        /// Which.
        op: Op,
        /// The task as now assigned; `Resolve`, `Update` and `Shutdown` need it.
        task: Arc<Task>,
    },
    /// Drop the running operation; it still comes back as [`Event::Done`], cancelled or not.
    Cancel,
    /// The status changed: store and report it.
    Status(TaskStatus),
    /// Nothing of the task is left: forget it. The machine is dead.
    Removed,
}

/// What to do next; computed by [`TaskMachine::next_step`] alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing until an event.
    Idle,
    /// A change of state that needs no operation, with Swarm's message.
    Move(TaskState, &'static str),
    /// An operation.
    Run(Op),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Assigned,
    Removing { is_forced: bool },
    Removed,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    op: Op,
    is_cancelled: bool,
}

/// One task on this node.
#[derive(Debug, Clone)]
pub struct TaskMachine {
    task: Arc<Task>,
    /// What is, as reported. `task.status` is what the manager believes and is not used.
    status: TaskStatus,
    phase: Phase,
    /// The controller is known, i.e. `Op::Resolve` succeeded.
    is_resolved: bool,
    /// The controller has not seen the newest `task`.
    is_update_due: bool,
    /// At most one, and none together with `retry_at`.
    running: Option<Running>,
    retry_at: Option<Timestamp>,
    remove_failures: u32,
    /// Newest known status of the container; shown from `Starting` on.
    container: Option<ContainerStatus>,
}

// === impl TaskMachine ===

impl TaskMachine {
    /// A machine for `task` that continues from `status`; idle until [`Self::start`].
    pub fn new(task: Arc<Task>, status: TaskStatus) -> Self {
        let container = status.container.clone();
        Self {
            task,
            status,
            phase: Phase::Assigned,
            is_resolved: false,
            is_update_due: false,
            running: None,
            retry_at: None,
            remove_failures: 0,
            container,
        }
    }

    /// The task as last assigned.
    pub fn task(&self) -> &Arc<Task> {
        &self.task
    }

    /// The task's id.
    pub fn id(&self) -> TaskId {
        self.task.id
    }

    /// What is.
    pub fn status(&self) -> &TaskStatus {
        &self.status
    }

    /// The operation that has been ordered and has not ended.
    pub fn running_op(&self) -> Option<Op> {
        self.running.map(|running| running.op)
    }

    /// Whether the task is no longer assigned.
    pub fn is_removing(&self) -> bool {
        self.phase != Phase::Assigned
    }

    /// When to call [`Self::handle`] with [`Event::Tick`].
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.retry_at
    }

    /// Continues a removal an earlier run began. Before [`Self::start`].
    pub(crate) fn resume_removal(&mut self) {
        self.phase = Phase::Removing { is_forced: false };
    }

    /// Orders the first operation. Call once.
    pub fn start(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        self.advance(now, out);
    }

    /// Takes one event.
    pub fn handle(&mut self, now: Timestamp, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Update(task) => self.on_update(task, out),
            Event::Remove { is_forced } => self.on_remove(is_forced, out),
            Event::Done { op, outcome } => self.on_done(now, op, outcome, out),
            Event::Tick => {}
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
        }
        self.advance(now, out);
    }

    fn on_update(&mut self, task: Arc<Task>, out: &mut Vec<Effect>) {
        let is_stale = task.desired_state < self.task.desired_state;
        if self.is_removing() || is_stale || is_same_assignment(&self.task, &task) {
            return;
        }
        // The service's policy says how long a shutdown may take.
        let has_new_policy = self.task.service_annotations != task.service_annotations;
        self.task = task;
        self.is_update_due = self.is_resolved;
        self.retry_at = None;
        let is_overtaken = match self.running_op() {
            // Its container keeps running; the controller must see the update, then waits again.
            Some(Op::Wait { .. }) => true,
            Some(Op::Update | Op::Prepare | Op::Start) => {
                self.task.desired_state >= TaskState::Shutdown
            }
            Some(Op::Shutdown) => has_new_policy,
            Some(Op::Resolve | Op::Terminate | Op::Remove) | None => false,
        };
        if is_overtaken {
            self.cancel(out);
        }
    }

    fn on_remove(&mut self, is_forced: bool, out: &mut Vec<Effect>) {
        let was_forced = match self.phase {
            Phase::Removed => return,
            Phase::Removing { is_forced } => is_forced,
            Phase::Assigned => false,
        };
        let is_forced = was_forced || is_forced;
        self.phase = Phase::Removing { is_forced };
        self.retry_at = None;
        let is_overtaken = match self.running_op() {
            Some(Op::Update | Op::Prepare | Op::Start | Op::Wait { .. }) => true,
            Some(Op::Shutdown) => is_forced,
            Some(Op::Resolve | Op::Terminate | Op::Remove) | None => false,
        };
        if is_overtaken {
            self.cancel(out);
        }
    }

    fn cancel(&mut self, out: &mut Vec<Effect>) {
        if let Some(running) = &mut self.running
            && !running.is_cancelled
        {
            running.is_cancelled = true;
            out.push(Effect::Cancel);
        }
    }

    fn on_done(&mut self, now: Timestamp, op: Op, outcome: Outcome, out: &mut Vec<Effect>) {
        if self.running_op() != Some(op) {
            return;
        }
        self.running = None;
        if outcome.container.is_some() {
            self.container = outcome.container;
        }
        if !outcome.ports.is_empty() {
            self.status.ports = outcome.ports;
        }
        match outcome.result {
            OpResult::Cancelled => {}
            OpResult::Done => self.on_success(now, op, out),
            OpResult::Turned(why) => self.on_turn(why, out),
            OpResult::Failed(error) => match (op, error) {
                (Op::Prepare, ControllerError::AlreadyPrepared)
                | (Op::Start, ControllerError::AlreadyStarted) => self.on_success(now, op, out),
                (op, error) => self.on_failure(now, op, &error, out),
            },
        }
    }

    fn on_success(&mut self, now: Timestamp, op: Op, out: &mut Vec<Effect>) {
        match op {
            Op::Resolve => {
                self.is_resolved = true;
                if self.status.state < TaskState::Accepted {
                    self.move_to(now, TaskState::Accepted, "accepted", out);
                }
            }
            Op::Update => {}
            Op::Prepare => self.move_to(now, TaskState::Ready, "prepared", out),
            Op::Start => self.move_to(now, TaskState::Running, RUNNING_MESSAGE, out),
            Op::Wait { .. } => self.move_to(now, TaskState::Complete, "finished", out),
            Op::Shutdown | Op::Terminate => {
                self.move_to(now, TaskState::Shutdown, "shutdown", out);
            }
            Op::Remove => {
                self.phase = Phase::Removed;
                out.push(Effect::Removed);
            }
        }
    }

    fn on_failure(
        &mut self,
        now: Timestamp,
        op: Op,
        error: &ControllerError,
        out: &mut Vec<Effect>,
    ) {
        let is_temporary = matches!(error, ControllerError::Temporary(_));
        match op {
            // The controller's settings are advisory; the next update or operation tells.
            Op::Update => return,
            Op::Remove => {
                let delay = RETRY_DELAY.saturating_mul(1 << self.remove_failures.min(6));
                self.remove_failures = self.remove_failures.saturating_add(1);
                self.retry_at = Some(now + delay.min(REMOVE_RETRY_DELAY_MAX));
                return;
            }
            // What has no controller has no container the agent could delete.
            Op::Resolve if self.is_removing() && !is_temporary => {
                self.phase = Phase::Removed;
                out.push(Effect::Removed);
                return;
            }
            Op::Resolve if !is_temporary => {
                self.status.message = "resolving controller failed".to_owned();
            }
            Op::Resolve
            | Op::Prepare
            | Op::Start
            | Op::Wait { .. }
            | Op::Shutdown
            | Op::Terminate => {}
        }
        if let (Some(exit_code), Some(container)) = (error.exit_code(), &mut self.container) {
            container.exit_code = exit_code;
        } else if let Some(exit_code) = error.exit_code() {
            self.container = Some(ContainerStatus {
                exit_code,
                ..Default::default()
            });
        }
        let before = (self.status.err.clone(), self.status.state);
        self.status.err = error.to_string();
        if is_temporary {
            self.retry_at = Some(now + RETRY_DELAY);
        } else {
            self.status.state = state_after_failure(self.status.state);
        }
        if before != (self.status.err.clone(), self.status.state) {
            self.publish(now, out);
        }
    }

    fn move_to(&mut self, now: Timestamp, state: TaskState, message: &str, out: &mut Vec<Effect>) {
        // Only a removal ends operations in a state beyond theirs (e.g. terminating a failed task).
        if state <= self.status.state {
            return;
        }
        self.status.state = state;
        self.status.message = message.to_owned();
        self.status.err = String::new();
        self.publish(now, out);
    }

    /// Its readiness is another. It runs since it ran: the time stays.
    fn on_turn(&mut self, why: Option<String>, out: &mut Vec<Effect>) {
        if self.status.state != TaskState::Running {
            return;
        }
        let message = match why {
            Some(_) => NOT_READY_MESSAGE,
            None => RUNNING_MESSAGE,
        };
        self.status.message = message.to_owned();
        self.status.err = why.unwrap_or_default();
        self.publish(self.status.timestamp, out);
    }

    fn publish(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        self.status.timestamp = now;
        if self.status.state >= TaskState::Starting {
            self.status.container = self.container.clone();
        }
        // The manager has deleted a task that is being removed: nobody wants to know.
        if !self.is_removing() {
            out.push(Effect::Status(self.status.clone()));
        }
    }

    fn advance(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        while self.running.is_none() && self.retry_at.is_none() {
            match self.next_step() {
                Step::Idle => return,
                Step::Move(state, message) => self.move_to(now, state, message, out),
                Step::Run(op) => {
                    // Resolve and Shutdown hand over the newest task just as Update does.
                    if matches!(op, Op::Resolve | Op::Update | Op::Shutdown) {
                        self.is_update_due = false;
                    }
                    self.running = Some(Running {
                        op,
                        is_cancelled: false,
                    });
                    out.push(Effect::Run {
                        op,
                        task: Arc::clone(&self.task),
                    });
                }
            }
        }
    }

    /// The table of transitions. Moves lead to a higher state, and each operation's success does.
    fn next_step(&self) -> Step {
        let (state, desired) = (self.status.state, self.task.desired_state);
        match self.phase {
            Phase::Removed => return Step::Idle,
            Phase::Removing { .. } if !self.is_resolved => return Step::Run(Op::Resolve),
            Phase::Removing { .. } if state.is_terminal() => return Step::Run(Op::Remove),
            Phase::Removing { is_forced: true } => return Step::Run(Op::Terminate),
            Phase::Removing { is_forced: false } => return Step::Run(Op::Shutdown),
            Phase::Assigned => {}
        }
        if state.is_terminal() {
            return Step::Idle;
        }
        if !self.is_resolved {
            return Step::Run(Op::Resolve);
        }
        if desired >= TaskState::Shutdown {
            return Step::Run(Op::Shutdown);
        }
        if self.is_update_due {
            return Step::Run(Op::Update);
        }
        if state > desired {
            return Step::Idle;
        }
        match state {
            TaskState::Preparing => Step::Run(Op::Prepare),
            TaskState::Starting => Step::Run(Op::Start),
            TaskState::Running => Step::Run(Op::Wait {
                is_ready: self.status.is_ready(),
            }),
            // The rest are pauses: left only when more is desired.
            _ if state == desired => Step::Idle,
            TaskState::New | TaskState::Pending | TaskState::Assigned => {
                Step::Move(TaskState::Accepted, "accepted")
            }
            TaskState::Accepted => Step::Move(TaskState::Preparing, "preparing"),
            TaskState::Ready => Step::Move(TaskState::Starting, "starting"),
            TaskState::Complete
            | TaskState::Shutdown
            | TaskState::Failed
            | TaskState::Rejected
            | TaskState::Remove
            | TaskState::Orphaned => Step::Idle,
        }
    }
}

/// Where a failure that will not go away leaves a task: rejected before it was started, failed
/// afterwards. An ended task stays as it ended.
fn state_after_failure(state: TaskState) -> TaskState {
    if state < TaskState::Starting {
        TaskState::Rejected
    } else if state <= TaskState::Running {
        TaskState::Failed
    } else {
        state
    }
}

/// Whether two assignments of one task differ in nothing an executor could act on.
fn is_same_assignment(known: &Task, new: &Task) -> bool {
    known.desired_state == new.desired_state
        && known.spec == new.spec
        && known.service_id == new.service_id
        && known.slot == new.slot
        && known.node_id == new.node_id
        && known.annotations == new.annotations
        && known.service_annotations == new.service_annotations
        && known.endpoint == new.endpoint
        && known.log_driver == new.log_driver
        && known.assigned_generic_resources == new.assigned_generic_resources
}
