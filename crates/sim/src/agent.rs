//! A node: the real agent core, driven as its shell drives it, with a simulated disk and executor.

use std::time::Duration;

use skep_agent::{
    AgentCore,
    core::{Attempt, Effect, Event as CoreEvent},
};
use skep_model::{NodeDescription, NodeId, Rng, TaskId, Timestamp};

use crate::{
    context::Context,
    event::{AgentIndex, AgentSide, ConnectionNumber, Down, Event, ManagerIndex, Up},
    executor::{Executor, Next},
    facts::Observation,
    manager::index_of,
    network::Route,
    profile::{pick, span},
    worker_db::WorkerDb,
};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) index: AgentIndex,
    pub(crate) node_id: NodeId,
    pub(crate) description: NodeDescription,
    pub(crate) executor: Executor,
    /// None while it is down.
    core: Option<AgentCore>,
    /// Counts starts; what belongs to an earlier life is dropped.
    life: u64,
    db: WorkerDb,
    rng: Rng,
    connection: Option<(Attempt, ConnectionNumber)>,
    /// The managers it was told of last; survives restarts.
    known: Vec<ManagerIndex>,
    /// The machine is a node of the cluster.
    pub(crate) is_enrolled: bool,
    /// How far the node's clock is ahead, in nanoseconds.
    clock_ahead: i64,
    wake_at: Option<Timestamp>,
    /// The next call of the core ends in a crash, at a random point of its effects.
    is_doomed: bool,
}

impl Agent {
    /// A node with nothing on it.
    pub(crate) fn new(
        index: AgentIndex,
        node_id: NodeId,
        description: NodeDescription,
        executor: Executor,
        rng: Rng,
    ) -> Self {
        Self {
            index,
            node_id,
            description,
            executor,
            core: None,
            life: 0,
            db: WorkerDb::default(),
            rng,
            connection: None,
            known: vec![0],
            is_enrolled: true,
            clock_ahead: 0,
            wake_at: None,
            is_doomed: false,
        }
    }

    /// The core, while it runs.
    pub(crate) fn core(&self) -> Option<&AgentCore> {
        self.core.as_ref()
    }

    /// Starts the process.
    pub(crate) fn start(&mut self, ctx: &mut Context) {
        if self.core.is_some() || !self.is_enrolled {
            return;
        }
        self.life += 1;
        ctx.trace(format_args!("agent {} starts", self.index));
        let stored = self.db.load();
        let known = self.executor.containers().keys().copied().collect();
        let mut core = AgentCore::new(self.rng.split(), stored, known);
        let mut effects = Vec::new();
        core.start(self.now(ctx), &mut effects);
        self.core = Some(core);
        self.perform(ctx, effects);
    }

    /// The process dies now.
    pub(crate) fn crash(&mut self, ctx: &mut Context) {
        if self.core.take().is_none() {
            return;
        }
        ctx.trace(format_args!("agent {} dies", self.index));
        self.is_doomed = false;
        self.wake_at = None;
        self.db.crash();
        let mut next = Vec::new();
        self.executor.abandon(&mut next);
        self.follow(ctx, next);
        if let Some((_, connection)) = self.connection.take() {
            ctx.network
                .close_agent(&mut ctx.queue, &ctx.links, connection);
        }
        let delay = span(&mut self.rng, Duration::from_secs(20));
        ctx.queue.after(delay, Event::AgentRestart(self.index));
    }

    /// The process dies at its next step, in the midst of it.
    pub(crate) fn doom(&mut self) {
        self.is_doomed = true;
    }

    /// The machine fails.
    pub(crate) fn reboot(&mut self, ctx: &mut Context) {
        self.crash(ctx);
        self.executor.reboot();
    }

    /// The clock jumps by `nanos`.
    pub(crate) fn jump(&mut self, ctx: &mut Context, nanos: i64) {
        self.clock_ahead += nanos;
        self.wake_at = None;
        self.schedule_wake(ctx);
    }

    /// The moment the core asked for.
    pub(crate) fn wake(&mut self, ctx: &mut Context, life: u64) {
        if life != self.life {
            return;
        }
        let due = self.wake_at.take_if(|at| *at <= ctx.now());
        if due.is_some() {
            self.handle(ctx, CoreEvent::Tick);
        }
    }

    /// The node is described to the agent of `life`.
    pub(crate) fn described(&mut self, ctx: &mut Context, life: u64) {
        if life == self.life {
            let description = self.description.clone();
            self.handle(ctx, CoreEvent::Described(Some(description)));
        }
    }

    /// Something arrived over a connection.
    pub(crate) fn down(&mut self, ctx: &mut Context, side: AgentSide, message: Down) {
        use skep_manager::event::ToAgent;
        if side.life != self.life {
            return;
        }
        let attempt = side.attempt;
        let event = match message {
            Down::Message(ToAgent::Session(message)) => CoreEvent::Session {
                attempt,
                message: (*message).clone(),
            },
            Down::Message(ToAgent::Assignments(message)) => {
                CoreEvent::Assignments { attempt, message }
            }
            Down::Message(ToAgent::Heartbeat(response)) => CoreEvent::Heartbeat {
                attempt,
                result: Ok(response),
            },
            Down::Stored(result) => CoreEvent::StatusesSent { attempt, result },
            Down::Ended(error) => CoreEvent::SessionEnded { attempt, error },
        };
        self.handle(ctx, event);
    }

    /// A container's process ends by itself, unless all is calm by now and it is of no job.
    pub(crate) fn container_ends(&mut self, ctx: &mut Context, task: TaskId, number: u64) {
        let mut next = Vec::new();
        self.executor.ends(task, number, &mut next);
        ctx.trace(format_args!("agent {} sees {task} end", self.index));
        self.follow(ctx, next);
    }

    /// An operation has had its time.
    pub(crate) fn op_done(&mut self, ctx: &mut Context, number: u64) {
        let mut next = Vec::new();
        self.executor.finish(number, &mut next);
        self.follow(ctx, next);
    }

    fn now(&self, ctx: &Context) -> Timestamp {
        Timestamp(ctx.now().0 + self.clock_ahead)
    }

    fn handle(&mut self, ctx: &mut Context, event: CoreEvent) {
        let now = self.now(ctx);
        let Some(core) = &mut self.core else { return };
        let mut effects = Vec::new();
        core.handle(now, event, &mut effects);
        if let Err(problem) = core.validate() {
            ctx.violate("agent-validates", &problem);
        }
        self.perform(ctx, effects);
    }

    /// Stores first, then does the rest; a doomed agent dies on the way.
    fn perform(&mut self, ctx: &mut Context, effects: Vec<Effect>) {
        let death = self.is_doomed.then(|| self.rng.below(4));
        let mut changes = Vec::new();
        let mut others = Vec::new();
        for effect in effects {
            match effect {
                Effect::Persist(change) => changes.push(change),
                other => others.push(other),
            }
        }
        if death == Some(0) {
            self.crash(ctx);
            return;
        }
        if !changes.is_empty() {
            self.db.store(changes, ctx.bug);
        }
        for effect in others {
            if death.is_some() && self.rng.percent(50) {
                self.crash(ctx);
                return;
            }
            self.perform_one(ctx, effect);
        }
        if death.is_some() {
            self.crash(ctx);
            return;
        }
        self.schedule_wake(ctx);
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each kind of effect")]
    fn perform_one(&mut self, ctx: &mut Context, effect: Effect) {
        match effect {
            Effect::Persist(_) => unreachable!("stored before"),
            Effect::Describe => {
                let delay = span(&mut self.rng, Duration::from_millis(50));
                let (agent, life) = (self.index, self.life);
                ctx.queue.after(delay, Event::Described { agent, life });
            }
            Effect::OpenSession { attempt, request } => {
                ctx.trace(format_args!(
                    "agent {} opens session {}",
                    self.index, attempt.0
                ));
                let side = AgentSide {
                    agent: self.index,
                    life: self.life,
                    attempt,
                };
                let route = self.route(ctx);
                let request = ctx.register_request(request);
                let number = ctx.network.open(
                    (&mut ctx.queue, &ctx.links),
                    side,
                    route,
                    Up::Register(Box::new(request)),
                );
                self.connection = Some((attempt, number));
            }
            Effect::OpenAssignments { .. } => {}
            Effect::Configure(node) => {
                let event = Event::RoleSeen(self.index, node.role);
                ctx.queue.after(Duration::ZERO, event);
            }
            // What was sent is checked on its way (`invariants::supplies`).
            Effect::Supply(_) => {}
            Effect::ManagersChanged(managers) => {
                let known = managers.iter().filter_map(|peer| index_of(&peer.addr));
                self.known = known.collect();
            }
            Effect::CloseSession(attempt) => {
                if let Some((_, number)) = self.connection.take_if(|(a, _)| *a == attempt) {
                    ctx.network.close_agent(&mut ctx.queue, &ctx.links, number);
                }
            }
            Effect::SendHeartbeat { attempt, .. } => self.send(ctx, attempt, Up::Heartbeat),
            Effect::SendStatuses { attempt, update } => {
                for (task, status) in &update.updates {
                    ctx.trace(format_args!(
                        "agent {} reports {task} {}",
                        self.index, status.state
                    ));
                    let agent = self.index;
                    let seen = Observation::Reported {
                        agent,
                        task: *task,
                        status,
                    };
                    ctx.observe(&seen);
                }
                self.send(ctx, attempt, Up::Statuses(update.updates));
            }
            Effect::Run { task, op } => {
                ctx.trace(format_args!(
                    "agent {} runs {op:?} of {}",
                    self.index, task.id
                ));
                let mut next = Vec::new();
                self.executor.run(task, op, &mut next);
                self.follow(ctx, next);
            }
            Effect::Cancel(task) => {
                let mut next = Vec::new();
                self.executor.cancel(task, &mut next);
                self.follow(ctx, next);
            }
            Effect::RemoveOrphan(task) => self.executor.remove_orphan(task),
            Effect::Left => {}
        }
    }

    /// A manager to talk to: mostly one it was told of. Now and then whoever runs one tells it the
    /// address of another, since all it knows may be gone.
    pub(crate) fn ask(&mut self, ctx: &Context) -> ManagerIndex {
        let up: Vec<ManagerIndex> = (0..ctx.managers_up.len())
            .filter(|index| ctx.managers_up[*index].is_some())
            .collect();
        let choice = if self.known.is_empty() || self.rng.percent(10) && !up.is_empty() {
            &up
        } else {
            &self.known
        };
        let count = u64::try_from(choice.len()).expect("few managers");
        choice
            .get(pick(&mut self.rng, count.max(1)))
            .copied()
            .unwrap_or(0)
    }

    /// To a manager, or through it to the one it takes to lead, or to its refusal.
    fn route(&mut self, ctx: &Context) -> Route {
        let asked = self.ask(ctx);
        let leader = ctx.leaders_known[asked].filter(|_| ctx.managers_up[asked].is_some());
        match leader {
            Some(leader) if leader != asked && self.rng.percent(70) => Route {
                manager: leader,
                life: ctx.managers_up[leader],
                via: Some(asked),
            },
            Some(_) | None => Route {
                manager: asked,
                life: ctx.managers_up[asked],
                via: None,
            },
        }
    }

    fn send(&mut self, ctx: &mut Context, attempt: Attempt, message: Up) {
        if let Some((current, number)) = self.connection
            && current == attempt
        {
            ctx.network.up(&mut ctx.queue, &ctx.links, number, message);
        }
    }

    /// Acts on what the executor says. Only a finished operation steps the core.
    fn follow(&mut self, ctx: &mut Context, next: Vec<Next>) {
        let agent = self.index;
        for next in next {
            match next {
                Next::Finish(number, delay) => {
                    ctx.queue.after(delay, Event::OpDone { agent, number });
                }
                Next::Ends(task, number, life) => {
                    let event = Event::ContainerEnds {
                        agent,
                        task,
                        number,
                    };
                    ctx.queue.after(life, event);
                }
                Next::Seen(task, state) => {
                    ctx.trace(format_args!("agent {agent} has {} {state:?}", task.id));
                    let seen = Observation::Container {
                        node: self.node_id,
                        task: &task,
                        state,
                    };
                    ctx.observe(&seen);
                }
                Next::Done(task, op, outcome) => {
                    ctx.trace(format_args!(
                        "agent {agent} ended {op:?} of {task}: {:?}",
                        outcome.result
                    ));
                    self.handle(ctx, CoreEvent::OpDone { task, op, outcome });
                }
            }
        }
    }

    fn schedule_wake(&mut self, ctx: &mut Context) {
        let Some(deadline) = self.core.as_ref().and_then(AgentCore::next_deadline) else {
            return;
        };
        let at = Timestamp(deadline.0.saturating_sub(self.clock_ahead)).max(ctx.now());
        if self
            .wake_at
            .is_none_or(|wake_at| at < wake_at || wake_at <= ctx.now())
        {
            self.wake_at = Some(at);
            let (agent, life) = (self.index, self.life);
            ctx.queue.at(at, Event::AgentWake { agent, life });
        }
    }
}
