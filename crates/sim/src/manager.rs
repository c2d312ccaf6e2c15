//! A manager: the real leader core and raft node, driven as `skep_manager::Manager` drives them.
//!
//! What differs is the edge: a simulated disk that takes virtual time, loses what was not finished,
//! fills up and fails; crashes between any two steps; a clock that jumps. Above 300 lines because,
//! like its model, the loop and the effects it performs share all of its state.

use std::{collections::BTreeMap, time::Duration};

use skep_manager::{
    Core, core, entry,
    event::{
        CommittedEntry, ConnectionId, Effect, Event as CoreEvent, FromAgent, ReplyTo, RequestId,
        ToAgent,
    },
};
use skep_model::{NodeId, Rng, Timestamp};
use skep_raft::{Node, Restored};
use skep_store::Store;
use skep_wire::{SpecCache, log};

use crate::{
    bug::Bug,
    context::Context,
    disk::{Disk, Done, Request},
    event::{ConnectionNumber, Down, Event, ManagerIndex, Up, reply_to},
    facts::Observation,
    profile::span,
    trace::hash_of,
};

/// Raft's tick, as in the manager's shell.
pub(crate) const TICK: Duration = Duration::from_millis(100);
/// Pause before a log that could not be written is tried again, as in the manager's shell.
const FAULT_RETRY: Duration = Duration::from_secs(1);
/// Client requests have small numbers; agents' reports get these.
const REPORTS_FROM: u64 = 1 << 40;

/// What runs; gone in a crash.
#[derive(Debug)]
struct Running {
    core: Core,
    node: Node,
    effects: Vec<Effect>,
    /// Which connection waits for which report's answer.
    reports: BTreeMap<ReplyTo, ConnectionNumber>,
    next_report: u64,
    is_writing: bool,
    is_faulty: bool,
    last_now: Timestamp,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Manager {
    index: ManagerIndex,
    config: core::Config,
    raft_config: skep_raft::Config,
    rng: Rng,
    life: u64,
    running: Option<Running>,
    pub(crate) disk: Disk,
    /// How far its clock is ahead, in nanoseconds.
    clock_ahead: i64,
    wake_at: Option<Timestamp>,
    /// Dies after this many more effects.
    doom: Option<u64>,
}

impl Manager {
    /// A manager whose disk holds `restored`.
    pub(crate) fn new(index: ManagerIndex, config: core::Config, disk: Disk, rng: Rng) -> Self {
        let raft_id = u64::try_from(index).expect("few managers") + 1;
        Self {
            index,
            raft_config: skep_raft::Config::new(raft_id, config.seed),
            config,
            rng,
            life: 0,
            running: None,
            disk,
            clock_ahead: 0,
            wake_at: None,
            doom: None,
        }
    }

    /// Whether it leads.
    pub(crate) fn is_leading(&self) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| running.core.is_leading())
    }

    /// Its committed store, while it runs.
    pub(crate) fn store(&self) -> Option<&Store> {
        self.running.as_ref().map(|running| running.core.store())
    }

    /// Starts the process from what is on disk.
    pub(crate) fn start(&mut self, ctx: &mut Context) {
        if self.running.is_some() {
            return;
        }
        self.life += 1;
        ctx.trace(format_args!("manager {} starts", self.index));
        let restored = self.disk.restored();
        let (store, index) = match store_from(&restored) {
            Ok(found) => found,
            Err(problem) => return ctx.violate("snapshot-readable", &problem),
        };
        let node = match Node::new(self.raft_config, &restored) {
            Ok(node) => node,
            Err(error) => return ctx.violate("log-readable", &error.to_string()),
        };
        ctx.observe(&Observation::Restored {
            last_index: restored.last_index(),
            store: &store,
            index,
        });
        let mut config = self.config.clone();
        config.seed = self.rng.next_u64();
        let core = Core::new(config, store, index, index);
        self.running = Some(Running {
            core,
            node,
            effects: Vec::new(),
            reports: BTreeMap::new(),
            next_report: REPORTS_FROM,
            is_writing: false,
            is_faulty: false,
            last_now: Timestamp::ZERO,
        });
        ctx.managers_up[self.index] = Some(self.life);
        self.campaign_alone(ctx);
        self.progress(ctx);
    }

    /// The process dies now.
    pub(crate) fn crash(&mut self, ctx: &mut Context) {
        if self.running.take().is_none() {
            return;
        }
        ctx.trace(format_args!("manager {} dies", self.index));
        self.doom = None;
        self.wake_at = None;
        self.disk.crash(ctx, self.index);
        ctx.managers_up[self.index] = None;
        ctx.network.manager_died(&mut ctx.queue, self.index);
        ctx.leader = None;
        let delay = span(&mut self.rng, Duration::from_secs(15));
        ctx.queue.after(delay, Event::ManagerRestart(self.index));
    }

    /// The process dies after a few more effects, in the midst of something.
    pub(crate) fn doom(&mut self) {
        self.doom = Some(self.rng.below(12));
    }

    /// The clock jumps by `nanos`.
    pub(crate) fn jump(&mut self, ctx: &mut Context, nanos: i64) {
        self.clock_ahead += nanos;
        self.wake_at = None;
        self.progress(ctx);
    }

    /// Raft's clock.
    pub(crate) fn tick(&mut self, ctx: &mut Context) {
        if let Some(running) = &mut self.running {
            running.node.tick();
            self.progress(ctx);
        }
    }

    /// The moment the core asked for.
    pub(crate) fn wake(&mut self, ctx: &mut Context, life: u64) {
        if life == self.life && self.wake_at.take_if(|at| *at <= ctx.now()).is_some() {
            self.progress(ctx);
        }
    }

    /// A raft message.
    pub(crate) fn raft_message(&mut self, ctx: &mut Context, message: skep_raft::Message) {
        if let Some(running) = &mut self.running {
            // Refused messages leave the node as it was.
            let _ = running.node.step(message);
            self.progress(ctx);
        }
    }

    /// A client's command.
    pub(crate) fn command(
        &mut self,
        ctx: &mut Context,
        request: u64,
        command: skep_manager::command::Command,
    ) {
        let event = CoreEvent::Command {
            reply_to: reply_to(request),
            command,
        };
        self.step(ctx, event);
    }

    /// Something of an agent.
    pub(crate) fn up(
        &mut self,
        ctx: &mut Context,
        number: ConnectionNumber,
        node_id: NodeId,
        message: Up,
    ) {
        let Some(running) = &mut self.running else {
            return;
        };
        let message = match message {
            Up::Register(request) => FromAgent::Register {
                node_id,
                addr: "192.0.2.1:1".to_owned(),
                request,
            },
            Up::Heartbeat => FromAgent::Heartbeat,
            Up::Statuses(updates) => {
                running.next_report += 1;
                let reply_to = ReplyTo(running.next_report);
                running.reports.insert(reply_to, number);
                FromAgent::Statuses { reply_to, updates }
            }
        };
        let connection = ConnectionId(number);
        self.step(
            ctx,
            CoreEvent::Agent {
                connection,
                message,
            },
        );
    }

    /// A connection ended.
    pub(crate) fn gone(&mut self, ctx: &mut Context, number: ConnectionNumber) {
        let connection = ConnectionId(number);
        self.step(ctx, CoreEvent::AgentGone { connection });
    }

    /// The disk has finished a request.
    pub(crate) fn disk_done(&mut self, ctx: &mut Context, life: u64) {
        if life != self.life || self.running.is_none() {
            return;
        }
        let done = self.disk.finish(ctx, self.index, life);
        let Some(running) = &mut self.running else {
            return;
        };
        match done {
            Some(Done::Written(number)) => {
                running.is_writing = false;
                if ctx.bug != Some(Bug::AckBeforeDurable) {
                    let messages = running.node.persisted(number);
                    send_all(ctx, &mut self.rng, messages);
                }
            }
            Some(Done::WriteFailed) => self.fail(ctx),
            Some(Done::SnapshotSaved {
                metadata,
                compact_to,
            }) => {
                ctx.trace(format_args!("snapshot {} saved", metadata.index));
                running.node.snapshot_saved(&metadata, compact_to);
            }
            Some(Done::SnapshotFailed) => ctx.trace(format_args!("snapshot failed")),
            Some(Done::Restored(restored)) => self.restart_raft(ctx, &restored),
            None => {}
        }
        self.progress(ctx);
    }

    /// A failed log is tried again.
    pub(crate) fn retry_fault(&mut self, ctx: &mut Context, life: u64) {
        let Some(running) = self.running.as_mut().filter(|_| life == self.life) else {
            return;
        };
        if running.is_faulty && !running.is_writing {
            running.is_writing = true;
            self.disk.send(ctx, (self.index, life), Request::Restore);
        }
    }

    fn step(&mut self, ctx: &mut Context, event: CoreEvent) {
        if self.running.is_none() {
            return;
        }
        self.handle(ctx, event);
        self.progress(ctx);
    }

    fn handle(&mut self, ctx: &mut Context, event: CoreEvent) {
        let now = self.now(ctx);
        let Some(running) = &mut self.running else {
            return;
        };
        running.core.handle(now, event, &mut running.effects);
        self.perform(ctx);
    }

    /// Steps core and raft until both wait for something outside.
    fn progress(&mut self, ctx: &mut Context) {
        loop {
            self.note_leadership(ctx);
            let now = self.now(ctx);
            let Some(running) = &mut self.running else {
                return;
            };
            running.core.turn(now, &mut running.effects);
            let has_acted = !running.effects.is_empty();
            self.perform(ctx);
            if !self.step_raft(ctx) && !has_acted {
                break;
            }
        }
        self.schedule_wake(ctx);
    }

    fn step_raft(&mut self, ctx: &mut Context) -> bool {
        let Some(running) = &mut self.running else {
            return false;
        };
        if running.is_writing || running.is_faulty {
            return false;
        }
        let Some(mut ready) = running.node.ready() else {
            return false;
        };
        let messages = std::mem::take(&mut ready.messages);
        send_all(ctx, &mut self.rng, messages);
        let committed = std::mem::take(&mut ready.committed);
        let number = ready.number;
        if ready.must_write() {
            if ctx.bug == Some(Bug::AckBeforeDurable) {
                let messages = running.node.persisted(number);
                send_all(ctx, &mut self.rng, messages);
            }
            running.is_writing = ctx.bug != Some(Bug::AckBeforeDurable);
            let to = (self.index, self.life);
            self.disk.send(ctx, to, Request::Write(ready));
        } else {
            let messages = running.node.persisted(number);
            send_all(ctx, &mut self.rng, messages);
        }
        for entry in committed {
            self.committed(ctx, &entry);
        }
        true
    }

    fn committed(&mut self, ctx: &mut Context, raft_entry: &skep_raft::Entry) {
        ctx.trace(format_args!(
            "manager {} commits {} {:016x}",
            self.index,
            raft_entry.index,
            hash_of(&raft_entry.data)
        ));
        ctx.committed(raft_entry);
        let Some(running) = &mut self.running else {
            return;
        };
        if raft_entry.index <= running.core.index() {
            return;
        }
        let entry = raft_entry.is_command().then(|| {
            let request_id = RequestId(entry::request_id(&raft_entry.data));
            let actions = if running.core.awaits(request_id) {
                Vec::new()
            } else {
                match log::decode_actions(&raft_entry.data, &mut SpecCache::new()) {
                    Ok((_, actions)) => actions,
                    Err(error) => panic!("committed entry is unreadable: {error}"),
                }
            };
            CommittedEntry {
                request_id,
                actions,
            }
        });
        let index = raft_entry.index;
        self.handle(ctx, CoreEvent::Committed { index, entry });
    }

    fn note_leadership(&mut self, ctx: &mut Context) {
        let Some(running) = &mut self.running else {
            return;
        };
        let leads = !running.is_faulty && running.node.is_leader_ready();
        if leads == running.core.is_leading() {
            return;
        }
        let term = running.node.term();
        ctx.trace(format_args!(
            "manager {} leads {leads} in {term}",
            self.index
        ));
        ctx.leader = leads.then_some((self.index, self.life));
        let event = if leads {
            CoreEvent::Led { term }
        } else {
            CoreEvent::Deposed
        };
        self.handle(ctx, event);
    }

    fn perform(&mut self, ctx: &mut Context) {
        loop {
            let Some(running) = &mut self.running else {
                return;
            };
            let effects = std::mem::take(&mut running.effects);
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                if let Some(left) = &mut self.doom {
                    if *left == 0 {
                        self.crash(ctx);
                        return;
                    }
                    *left -= 1;
                }
                self.perform_one(ctx, effect);
            }
        }
    }

    fn perform_one(&mut self, ctx: &mut Context, effect: Effect) {
        let Some(running) = &mut self.running else {
            return;
        };
        let index = running.core.index();
        match effect {
            Effect::Propose {
                request_id,
                actions,
            } => self.propose(ctx, request_id, &actions),
            Effect::Reply { to, result } => {
                let request = to.0;
                ctx.observe(&Observation::Replied {
                    request,
                    result: &result,
                    index,
                });
                let delay = span(&mut self.rng, Duration::from_millis(20));
                ctx.queue.after(delay, Event::Answer { request, result });
            }
            Effect::StatusReply { to, result } => {
                if let Some(number) = running.reports.remove(&to) {
                    let message = Down::Stored(result);
                    ctx.network.down(&mut ctx.queue, number, message);
                }
            }
            Effect::Send {
                connection,
                message,
            } => self.send(ctx, connection.0, message, index),
            Effect::Close { connection, reason } => {
                ctx.trace(format_args!("connection {} closed: {reason}", connection.0));
                let network = &mut ctx.network;
                network.close_manager(&mut ctx.queue, connection.0, reason);
            }
            Effect::Publish { index, store, .. } => {
                ctx.observe(&Observation::Published {
                    index,
                    store: &store,
                });
            }
            Effect::Snapshot { index, store } => self.snapshot(ctx, index, &store),
        }
    }

    fn send(
        &mut self,
        ctx: &mut Context,
        number: ConnectionNumber,
        mut message: ToAgent,
        index: u64,
    ) {
        let Some(connection) = ctx.network.get(number) else {
            return;
        };
        let node = ctx.nodes[connection.side.agent];
        if let ToAgent::Assignments(assignments) = &mut message {
            let count = assignments.changes.len();
            ctx.trace(format_args!("sends {count} changes over {number}"));
            if ctx.bug == Some(Bug::SkipAssignment) && count > 0 && self.rng.percent(30) {
                assignments.changes.pop();
            }
        }
        ctx.observe(&Observation::Sent {
            node,
            message: &message,
            index,
        });
        let network = &mut ctx.network;
        network.down(&mut ctx.queue, number, Down::Message(message));
    }

    fn propose(
        &mut self,
        ctx: &mut Context,
        request_id: RequestId,
        actions: &[skep_store::Action],
    ) {
        ctx.trace(format_args!(
            "manager {} proposes {} actions",
            self.index,
            actions.len()
        ));
        for data in entry::encode_batch(request_id.0, actions) {
            let Some(running) = &mut self.running else {
                return;
            };
            if let Err(error) = running.node.propose(data) {
                let reason = error.to_string();
                let event = CoreEvent::Refused { request_id, reason };
                self.handle(ctx, event);
                return;
            }
        }
    }

    fn snapshot(&mut self, ctx: &mut Context, index: u64, store: &Store) {
        let Some(running) = &mut self.running else {
            return;
        };
        let Ok(placed) = running.node.snapshot_at(index, bytes::Bytes::new()) else {
            return;
        };
        let kept = store.cluster().map_or(0, |cluster| {
            cluster.spec.raft.log_entries_for_slow_followers
        });
        let mut snapshot = placed;
        let compact_to = skep_raft::compaction_point(index, kept);
        let store = match (ctx.bug, store.tasks().next().map(|task| task.id)) {
            (Some(Bug::LossySnapshot), Some(lost)) => {
                let is_kept =
                    |object: &skep_store::Object| object.id() != skep_store::ObjectId::Task(lost);
                let objects = store.objects().filter(is_kept);
                Store::from_objects(objects).expect("a store without a task is a store")
            }
            _ => store.clone(),
        };
        snapshot.data = bytes::Bytes::from(entry::encode_snapshot(&store));
        let request = Request::Snapshot {
            snapshot,
            compact_to,
        };
        self.disk.send(ctx, (self.index, self.life), request);
    }

    /// The log could not be written: raft starts again from what is stored, in a while.
    fn fail(&mut self, ctx: &mut Context) {
        ctx.trace(format_args!("manager {} fails to write", self.index));
        let Some(running) = &mut self.running else {
            return;
        };
        running.is_writing = false;
        running.is_faulty = true;
        let (manager, life) = (self.index, self.life);
        ctx.queue
            .after(FAULT_RETRY, Event::RetryFault { manager, life });
        self.note_leadership(ctx);
    }

    fn restart_raft(&mut self, ctx: &mut Context, restored: &Restored) {
        let Some(running) = &mut self.running else {
            return;
        };
        running.is_writing = false;
        match Node::new(self.raft_config, restored) {
            Ok(node) => {
                running.node = node;
                running.is_faulty = false;
                self.campaign_alone(ctx);
            }
            Err(error) => ctx.violate("log-readable", &error.to_string()),
        }
    }

    /// A group of one need not wait for an election timeout.
    fn campaign_alone(&mut self, ctx: &mut Context) {
        // What is stored must be taken up first: it tells who the members are.
        self.progress(ctx);
        if let Some(running) = &mut self.running
            && running.node.members().voters == [self.raft_config.id]
        {
            // Refused when it leads already.
            let _ = running.node.campaign();
        }
    }

    fn schedule_wake(&mut self, ctx: &mut Context) {
        let Some(running) = &self.running else { return };
        let Some(deadline) = running.core.next_deadline() else {
            return;
        };
        let at = Timestamp(deadline.0.saturating_sub(self.clock_ahead)).max(ctx.now());
        if self
            .wake_at
            .is_none_or(|wake_at| at < wake_at || wake_at <= ctx.now())
        {
            self.wake_at = Some(at);
            let (manager, life) = (self.index, self.life);
            ctx.queue.at(at, Event::ManagerWake { manager, life });
        }
    }

    /// The wall clock, kept from going back within a life.
    fn now(&mut self, ctx: &Context) -> Timestamp {
        let wall = Timestamp(ctx.now().0 + self.clock_ahead);
        match &mut self.running {
            Some(running) => {
                running.last_now = running.last_now.max(wall);
                running.last_now
            }
            None => wall,
        }
    }
}

fn send_all(ctx: &mut Context, rng: &mut Rng, messages: Vec<skep_raft::Message>) {
    for message in messages {
        let Some(to) = message.to.checked_sub(1) else {
            continue;
        };
        let to = usize::try_from(to).expect("few managers");
        let delay = span(rng, Duration::from_millis(10));
        let message = Box::new(message);
        ctx.queue.after(delay, Event::Raft { to, message });
    }
}

fn store_from(restored: &Restored) -> Result<(Store, u64), String> {
    let Some(snapshot) = &restored.snapshot else {
        return Ok((Store::default(), 0));
    };
    let objects = entry::decode_snapshot(&snapshot.data).map_err(|error| error.to_string())?;
    let store = Store::from_objects(objects).map_err(|error| error.to_string())?;
    Ok((store, snapshot.index()))
}
