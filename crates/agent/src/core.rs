//! The worker's mind: its session with a dispatcher, its assignments, its tasks, its reports.
//!
//! A pure core (STYLE S2): no IO, no clock, no randomness but its seeded [`Rng`], no tokio. The
//! shell and the simulator feed [`AgentCore::handle`] and perform the effects **in order, with all
//! [`Effect::Persist`] of one call made durable before the others are performed**. Losing the session
//! never touches a task. Left out: sockets, containers, the database. Design: `docs/design/agent.md`.

use std::{collections::BTreeMap, sync::Arc};

use skep_model::{
    Node, Rng, SessionId, Task, TaskId, TaskState, Timestamp,
    dispatch::{
        AssignmentChange, AssignmentsKind, AssignmentsMessage, DispatchError, SessionMessage,
        StatusUpdate, WeightedPeer,
    },
};

pub use self::{
    effect::{Change, Effect, StoredTask, Supplies},
    event::Event,
    session::Attempt,
};
use self::{
    report::StatusQueue,
    session::{Session, Verdict},
};
use crate::task::{self, TaskMachine};

mod effect;
mod event;
mod report;
mod session;

#[cfg(test)]
mod tests;

/// A worker. See the module's documentation.
#[derive(Debug)]
pub struct AgentCore {
    session: Session,
    reports: StatusQueue,
    machines: BTreeMap<TaskId, TaskMachine>,
    /// Deadlines of those machines that have one.
    deadlines: BTreeMap<TaskId, Timestamp>,
    /// Tasks the node had containers of at start and no record; swept by the first complete set.
    unclaimed: Vec<TaskId>,
    node: Option<Arc<Node>>,
    managers: Vec<WeightedPeer>,
    root_ca: Vec<u8>,
    is_leaving: bool,
    has_left: bool,
}

// === impl AgentCore ===

impl AgentCore {
    /// An agent with the tasks `stored` by an earlier run, on a node that has containers of the
    /// tasks `known`. `rng` jitters reconnection; give every node its own seed.
    pub fn new(rng: Rng, stored: Vec<StoredTask>, known: Vec<TaskId>) -> Self {
        let mut machines = BTreeMap::new();
        for StoredTask {
            task,
            status,
            is_assigned,
        } in stored
        {
            let id = task.id;
            let mut machine = TaskMachine::new(task, status);
            if !is_assigned {
                machine.resume_removal();
            }
            machines.insert(id, machine);
        }
        let unclaimed = known
            .into_iter()
            .filter(|id| !machines.contains_key(id))
            .collect();
        Self {
            session: Session::new(rng),
            reports: StatusQueue::default(),
            machines,
            deadlines: BTreeMap::new(),
            unclaimed,
            node: None,
            managers: Vec::new(),
            root_ca: Vec::new(),
            is_leaving: false,
            has_left: false,
        }
    }

    /// Resumes the stored tasks, then looks for a dispatcher. Call once, first.
    pub fn start(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        let ids: Vec<_> = self.machines.keys().copied().collect();
        for id in ids {
            self.step_machine(now, id, None, out);
        }
        self.finish(now, out);
    }

    /// Takes one event.
    pub fn handle(&mut self, now: Timestamp, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Described(description) => self.session.on_described(now, description, out),
            Event::Session { attempt, message } => self.on_session(now, attempt, message, out),
            Event::SessionEnded { attempt, error } => {
                self.session.on_lost(now, attempt, error, out);
            }
            Event::Assignments { attempt, message } => {
                self.on_assignments(now, attempt, message, out);
            }
            Event::Heartbeat { attempt, result } => {
                self.session.on_heartbeat(now, attempt, result, out);
            }
            Event::StatusesSent { attempt, result } => {
                if self.session.is_registered_as(attempt) {
                    self.reports.on_answer();
                    if let Err(error) = result {
                        self.session.on_lost(now, attempt, error, out);
                    }
                }
            }
            Event::OpDone { task, op, outcome } => {
                self.step_machine(now, task, Some(task::Event::Done { op, outcome }), out);
            }
            Event::Redescribe => self.session.redescribe(out),
            Event::Leave => self.on_leave(now, out),
            Event::Tick => self.on_tick(now, out),
        }
        self.finish(now, out);
        debug_assert_eq!(self.validate(), Ok(()));
    }

    /// When to call [`Self::handle`] with [`Event::Tick`] if nothing happens before.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let machines = self.deadlines.values().min().copied();
        let session = if self.is_leaving {
            None
        } else {
            self.session.next_deadline()
        };
        [machines, session, self.reports.deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The session, while registered.
    pub fn session_id(&self) -> Option<SessionId> {
        self.session.registered_id()
    }

    /// Why the last session ended, until the next one is registered.
    pub fn session_error(&self) -> Option<&DispatchError> {
        self.session.error()
    }

    /// The node object as last sent by a dispatcher.
    pub fn node(&self) -> Option<&Arc<Node>> {
        self.node.as_ref()
    }

    /// The managers as last sent by a dispatcher.
    pub fn managers(&self) -> &[WeightedPeer] {
        &self.managers
    }

    /// The root certificates (PEM) as last sent by a dispatcher; empty before. Not checked.
    pub fn root_ca(&self) -> &[u8] {
        &self.root_ca
    }

    /// The machines of all tasks, also of those being removed.
    pub fn tasks(&self) -> impl Iterator<Item = &TaskMachine> {
        self.machines.values()
    }

    /// What must always hold (STYLE S8.3).
    pub fn validate(&self) -> Result<(), String> {
        for (id, machine) in &self.machines {
            if machine.id() != *id {
                return Err(format!("machine of {} is filed under {id}", machine.id()));
            }
            if machine.next_deadline() != self.deadlines.get(id).copied() {
                return Err(format!("deadline of {id} is not filed"));
            }
            if machine.next_deadline().is_some() && machine.running_op().is_some() {
                return Err(format!("{id} both runs and waits for a retry"));
            }
        }
        if self.deadlines.len() > self.machines.len() {
            return Err("a deadline without a machine".to_owned());
        }
        Ok(())
    }

    fn on_session(
        &mut self,
        now: Timestamp,
        attempt: Attempt,
        message: SessionMessage,
        out: &mut Vec<Effect>,
    ) {
        let is_new = match self
            .session
            .on_message(now, attempt, message.session_id, out)
        {
            Verdict::Stale => return,
            Verdict::Registered => true,
            Verdict::Known => false,
        };
        if is_new {
            self.reports.reset();
            // A new session may be with a new leader that missed earlier reports.
            let statuses = self
                .machines
                .values()
                .filter(|machine| is_reportable(machine));
            for machine in statuses {
                self.reports.push(machine.id(), machine.status().clone());
            }
        }
        if let Some(node) = message.node {
            let is_same = self
                .node
                .as_ref()
                .is_some_and(|known| is_same_node(known, &node));
            if is_new || !is_same {
                out.push(Effect::Configure(Arc::clone(&node)));
            }
            self.node = Some(node);
        }
        if !message.root_ca.is_empty() && message.root_ca != self.root_ca {
            self.root_ca = message.root_ca;
        }
        // An agent that forgets every manager is lost for ever, so it never does.
        if !message.managers.is_empty() && message.managers != self.managers {
            self.managers.clone_from(&message.managers);
            out.push(Effect::ManagersChanged(message.managers));
        }
    }

    fn on_assignments(
        &mut self,
        now: Timestamp,
        attempt: Attempt,
        message: AssignmentsMessage,
        out: &mut Vec<Effect>,
    ) {
        if self.is_leaving || !self.session.accept_assignments(now, attempt, &message, out) {
            return;
        }
        let mut missing = match message.kind {
            AssignmentsKind::Complete => self.assigned_ids(),
            AssignmentsKind::Incremental => BTreeMap::new(),
        };
        let (tasks, supplies) = sort_out(message.kind, message.changes);
        out.extend(supplies.map(Effect::Supply));
        for change in tasks {
            match change {
                Ok(task) => {
                    missing.remove(&task.id);
                    self.unclaimed.retain(|id| *id != task.id);
                    self.assign(now, task, out);
                }
                Err(id) => self.unassign(now, id, false, out),
            }
        }
        for id in missing.into_keys() {
            self.unassign(now, id, false, out);
        }
        if message.kind == AssignmentsKind::Complete {
            out.extend(self.unclaimed.drain(..).map(Effect::RemoveOrphan));
        }
    }

    fn assigned_ids(&self) -> BTreeMap<TaskId, ()> {
        let assigned = self
            .machines
            .iter()
            .filter(|(_, machine)| !machine.is_removing());
        assigned.map(|(id, _)| (*id, ())).collect()
    }

    fn assign(&mut self, now: Timestamp, task: Arc<Task>, out: &mut Vec<Effect>) {
        let id = task.id;
        if let Some(machine) = self.machines.get(&id) {
            let before = Arc::clone(machine.task());
            let at = out.len();
            self.step_machine(now, id, Some(task::Event::Update(task)), out);
            let machine = self
                .machines
                .get(&id)
                .expect("an update removes no machine");
            if !Arc::ptr_eq(&before, machine.task()) {
                let change = Change::Task(Arc::clone(machine.task()));
                out.insert(at, Effect::Persist(change));
            }
            return;
        }
        let status = task.status.clone();
        out.push(Effect::Persist(Change::Task(Arc::clone(&task))));
        out.push(Effect::Persist(Change::Status(id, status.clone())));
        self.machines.insert(id, TaskMachine::new(task, status));
        self.step_machine(now, id, None, out);
    }

    fn unassign(&mut self, now: Timestamp, id: TaskId, is_forced: bool, out: &mut Vec<Effect>) {
        let Some(machine) = self.machines.get(&id) else {
            return;
        };
        if !machine.is_removing() {
            out.push(Effect::Persist(Change::Unassign(id)));
        }
        self.reports.forget(id);
        self.step_machine(now, id, Some(task::Event::Remove { is_forced }), out);
    }

    fn on_leave(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        self.is_leaving = true;
        self.session.close(out);
        self.reports.reset();
        let ids: Vec<_> = self.machines.keys().copied().collect();
        for id in ids {
            self.unassign(now, id, true, out);
        }
        out.extend(self.unclaimed.drain(..).map(Effect::RemoveOrphan));
    }

    fn on_tick(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        let due = self.deadlines.iter().filter(|(_, at)| **at <= now);
        let due: Vec<_> = due.map(|(id, _)| *id).collect();
        for id in due {
            self.step_machine(now, id, Some(task::Event::Tick), out);
        }
        if let Some(attempt) = self.session.attempt()
            && self.reports.deadline().is_some_and(|at| at <= now)
        {
            let error = DispatchError::Unavailable("status report timed out".to_owned());
            self.session.on_lost(now, attempt, error, out);
        }
    }

    /// Drives one machine, or starts it when there is no event, and translates its effects.
    fn step_machine(
        &mut self,
        now: Timestamp,
        id: TaskId,
        event: Option<task::Event>,
        out: &mut Vec<Effect>,
    ) {
        let Some(machine) = self.machines.get_mut(&id) else {
            return;
        };
        let mut effects = Vec::new();
        match event {
            Some(event) => machine.handle(now, event, &mut effects),
            None => machine.start(now, &mut effects),
        }
        match machine.next_deadline() {
            Some(at) => self.deadlines.insert(id, at),
            None => self.deadlines.remove(&id),
        };
        for effect in effects {
            match effect {
                task::Effect::Run { op, task } => out.push(Effect::Run { task, op }),
                task::Effect::Cancel => out.push(Effect::Cancel(id)),
                task::Effect::Status(status) => {
                    out.push(Effect::Persist(Change::Status(id, status.clone())));
                    self.reports.push(id, status);
                }
                task::Effect::Removed => {
                    out.push(Effect::Persist(Change::Forget(id)));
                    self.machines.remove(&id);
                    self.deadlines.remove(&id);
                }
            }
        }
    }

    /// What follows from any event: session timers, reports that can go, the end of leaving.
    fn finish(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        if self.is_leaving {
            if self.machines.is_empty() && !self.has_left {
                self.has_left = true;
                out.push(Effect::Left);
            }
            return;
        }
        self.session.advance(now, out);
        let Some((attempt, session_id)) = self.session.registered() else {
            self.reports.reset();
            return;
        };
        if let Some(updates) = self.reports.next_batch(now) {
            let update = StatusUpdate {
                session_id,
                updates,
            };
            out.push(Effect::SendStatuses { attempt, update });
        }
    }
}

/// Tasks assigned and (`Err`) taken away, in order; and what they are given to work with, which must
/// be there before them.
fn sort_out(
    kind: AssignmentsKind,
    changes: Vec<AssignmentChange>,
) -> (Vec<Result<Arc<Task>, TaskId>>, Option<Supplies>) {
    let mut tasks = Vec::with_capacity(changes.len());
    let mut supplies = Supplies {
        is_complete: kind == AssignmentsKind::Complete,
        ..Supplies::default()
    };
    for change in changes {
        match change {
            AssignmentChange::UpdateTask(task) => tasks.push(Ok(task)),
            AssignmentChange::RemoveTask(id) => tasks.push(Err(id)),
            AssignmentChange::UpdateSecret(secret) => supplies.secrets.push(secret),
            AssignmentChange::RemoveSecret(id) => supplies.gone_secrets.push(id),
            AssignmentChange::UpdateConfig(config) => supplies.configs.push(config),
            AssignmentChange::RemoveConfig(id) => supplies.gone_configs.push(id),
        }
    }
    (tasks, (supplies != Supplies::default()).then_some(supplies))
}

fn is_reportable(machine: &TaskMachine) -> bool {
    !machine.is_removing() && machine.status().state >= TaskState::Accepted
}

/// Whether two versions of the node object are the same to an executor.
fn is_same_node(known: &Node, new: &Node) -> bool {
    known.id == new.id
        && known.spec == new.spec
        && known.role == new.role
        && known.certificate == new.certificate
        && known.vxlan_udp_port == new.vxlan_udp_port
}
