//! A machine's manager: the real `skep_manager::Replica`, driven as `skep_manager::Manager` does.
//!
//! What differs is the edge: a simulated disk that takes virtual time, loses what was not finished,
//! fills up and fails; links that lose and delay; crashes between any two outputs; a clock that
//! jumps. Above 400 lines because the process, what it is told and what it puts out share all of
//! its state.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use skep_manager::{
    Replica, StepRefused, core,
    event::{Bootstrap, ConnectionId, Event as CoreEvent, FromAgent, ReplyTo, ToAgent},
    replica::{self, DiskDone, DiskRequest, Output},
};
use skep_model::{NodeId, Rng, Timestamp};
use skep_raft::{Message, MessageKind};
use skep_store::Store;
use skep_wire::member::Member;

use crate::{
    bug::{self, Bug},
    context::Context,
    disk::Disk,
    event::{ConnectionNumber, Down, Event, ManagerIndex, PeerNews, Up, reply_to},
    facts::Observation,
    profile::span,
    vault::FakeVault,
};

/// Raft's tick, as in the manager's shell.
pub(crate) use skep_manager::replica::TICK;

/// Client requests have small numbers; agents' reports get these.
const REPORTS_FROM: u64 = 1 << 40;
/// Longest wait for a successor when a leader stops, as in the manager's shell.
const HAND_OVER_MAX: Duration = Duration::from_secs(1);

/// What a member is told when it joins, kept with its log.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) raft_id: u64,
    /// Members as of then.
    pub(crate) members: Vec<Member>,
    /// From this entry on its group follows from what it has applied.
    pub(crate) joined_at: u64,
}

/// What runs; gone in a crash.
#[derive(Debug)]
struct Running {
    replica: Replica,
    /// Which connection waits for which report's answer.
    reports: BTreeMap<ReplyTo, ConnectionNumber>,
    next_report: u64,
    /// Term it was last seen to lead.
    led_term: u64,
    /// Last entry its store was published with.
    published: u64,
    is_stopping: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Manager {
    index: ManagerIndex,
    bootstrap: Option<Bootstrap>,
    /// None while the machine is no member of the raft group.
    identity: Option<Identity>,
    /// Raft ids it had and whose logs it deleted. Never again: it has forgotten its votes.
    former: BTreeSet<u64>,
    rng: Rng,
    life: u64,
    running: Option<Running>,
    pub(crate) disk: Disk,
    /// How far its clock is ahead, in nanoseconds.
    clock_ahead: i64,
    wake_at: Option<Timestamp>,
    /// Dies after this many more outputs.
    doom: Option<u64>,
    /// Dies when it has voted.
    dies_after_vote: bool,
}

/// Where the manager of a machine is reached.
pub(crate) fn addr_of(index: ManagerIndex) -> String {
    format!("192.0.2.{}:2377", index + 1)
}

/// The machine behind an address.
pub(crate) fn index_of(addr: &str) -> Option<ManagerIndex> {
    let host = addr.strip_prefix("192.0.2.")?.strip_suffix(":2377")?;
    host.parse::<usize>().ok()?.checked_sub(1)
}

impl Manager {
    /// The manager of machine `index`, which is a member when it has an identity.
    pub(crate) fn new(
        index: ManagerIndex,
        identity: Option<Identity>,
        bootstrap: Option<Bootstrap>,
        disk: Disk,
        rng: Rng,
    ) -> Self {
        Self {
            index,
            bootstrap,
            identity,
            former: BTreeSet::new(),
            rng,
            life: 0,
            running: None,
            disk,
            clock_ahead: 0,
            wake_at: None,
            doom: None,
            dies_after_vote: false,
        }
    }

    /// Whether it leads.
    pub(crate) fn is_leading(&self) -> bool {
        self.replica()
            .is_some_and(|replica| replica.core().is_leading())
    }

    /// The replica, while it runs.
    pub(crate) fn replica(&self) -> Option<&Replica> {
        self.running.as_ref().map(|running| &running.replica)
    }

    /// Its committed store, while it runs.
    pub(crate) fn store(&self) -> Option<&Store> {
        self.replica().map(|replica| replica.core().store())
    }

    /// Its raft id, while it is a member.
    pub(crate) fn raft_id(&self) -> Option<u64> {
        self.identity.as_ref().map(|identity| identity.raft_id)
    }

    /// Whether it was a member under this id and has deleted its log.
    pub(crate) fn was(&self, raft_id: u64) -> bool {
        self.former.contains(&raft_id)
    }

    /// The machine that leads, as far as this manager knows.
    pub(crate) fn known_leader(&self) -> Option<ManagerIndex> {
        let leader = self.replica()?.group().leader()?;
        index_of(&leader.member.addr)
    }

    // --- The process ---

    /// Becomes a member; an empty log begins.
    pub(crate) fn join(&mut self, ctx: &mut Context, identity: Identity) {
        let raft_id = identity.raft_id;
        ctx.trace(format_args!("machine {} is member {raft_id:x}", self.index));
        self.disk.wipe(raft_id);
        self.identity = Some(identity);
        self.start(ctx);
    }

    /// Is no member any more: the process ends and its log is deleted.
    pub(crate) fn leave(&mut self, ctx: &mut Context) {
        let Some(identity) = self.identity.take() else {
            return;
        };
        self.former.insert(identity.raft_id);
        ctx.trace(format_args!("machine {} is no member any more", self.index));
        self.end(ctx, None);
    }

    /// Starts the process from what is on disk.
    pub(crate) fn start(&mut self, ctx: &mut Context) {
        let Some(identity) = self.identity.clone().filter(|_| self.running.is_none()) else {
            return;
        };
        let raft_id = identity.raft_id;
        self.life += 1;
        ctx.trace(format_args!("manager {} starts", self.index));
        let restored = self.disk.restored();
        if let Err(problem) = ctx.facts.logs.restored(raft_id, &restored) {
            return ctx.violate("log-is-kept", &problem);
        }
        let core = core::Config {
            node_id: ctx.nodes[self.index],
            seed: self.rng.next_u64(),
            request_prefix: u16::try_from(self.index + 1).expect("few machines"),
            bootstrap: self.bootstrap.clone(),
            reconcile: bug::reconcile_of(ctx.bug),
        };
        let config = replica::Config {
            core,
            raft_id,
            members: identity.members,
            is_compat: false,
        };
        let vault = Box::new(FakeVault::new(self.rng.split(), ctx.leak.clone()));
        let replica = match Replica::new(config, vault, &restored) {
            Ok(replica) => replica,
            Err(error) => return ctx.violate("log-readable", &error.to_string()),
        };
        ctx.observe(&Observation::Restored {
            manager: self.index,
            store: replica.core().store(),
            index: replica.core().index(),
        });
        let published = replica.core().index();
        self.running = Some(Running {
            replica,
            reports: BTreeMap::new(),
            next_report: REPORTS_FROM,
            led_term: 0,
            published,
            is_stopping: false,
        });
        ctx.managers_up[self.index] = Some(self.life);
        self.drive(ctx, |replica, _, out| replica.campaign_alone(out));
    }

    /// The process dies now.
    pub(crate) fn crash(&mut self, ctx: &mut Context) {
        if self.running.is_none() {
            return;
        }
        ctx.trace(format_args!("manager {} dies", self.index));
        self.disk.crash(ctx);
        // Some supervisors are quick.
        let delay_max = match self.rng.below(2) {
            0 => Duration::from_millis(300),
            _ => Duration::from_secs(15),
        };
        let delay = span(&mut self.rng, delay_max);
        self.end(ctx, Some(delay));
    }

    fn end(&mut self, ctx: &mut Context, back_after: Option<Duration>) {
        self.doom = None;
        self.wake_at = None;
        let Some(running) = self.running.take() else {
            return;
        };
        let raft_id = running.replica.group().own;
        ctx.facts.logs.forget_memory(raft_id);
        ctx.managers_up[self.index] = None;
        ctx.manager_died(self.index, raft_id);
        if let Some(delay) = back_after {
            ctx.queue.after(delay, Event::ManagerRestart(self.index));
        }
    }

    /// The process dies after a few more outputs, in the midst of something.
    pub(crate) fn doom(&mut self) {
        self.doom = Some(self.rng.below(12));
    }

    /// The process dies just after it has given its vote away.
    pub(crate) fn die_after_vote(&mut self) {
        self.dies_after_vote = true;
    }

    /// The process is told to stop, as at a restart of the daemon: hands leadership over first.
    pub(crate) fn stop(&mut self, ctx: &mut Context) {
        let Some(running) = &mut self.running else {
            return;
        };
        let is_handing_over = running.replica.hand_over();
        running.is_stopping = is_handing_over;
        ctx.trace(format_args!(
            "manager {} stops, hands over: {is_handing_over}",
            self.index
        ));
        if is_handing_over {
            let (manager, life) = (self.index, self.life);
            ctx.queue
                .after(HAND_OVER_MAX, Event::Stop { manager, life });
            self.drive(ctx, |_, _, _| {});
        } else {
            self.crash(ctx);
        }
    }

    /// Leadership was not handed over in time.
    pub(crate) fn stop_now(&mut self, ctx: &mut Context, life: u64) {
        if life == self.life {
            self.crash(ctx);
        }
    }

    /// The clock jumps by `nanos`.
    pub(crate) fn jump(&mut self, ctx: &mut Context, nanos: i64) {
        self.clock_ahead += nanos;
        self.wake_at = None;
        self.drive(ctx, |_, _, _| {});
    }

    // --- What it is told ---

    /// Raft's clock.
    pub(crate) fn tick(&mut self, ctx: &mut Context) {
        self.drive(ctx, |replica, now, _| replica.tick(now));
    }

    /// The moment the replica asked for.
    pub(crate) fn wake(&mut self, ctx: &mut Context, life: u64) {
        if life == self.life && self.wake_at.take_if(|at| *at <= ctx.now()).is_some() {
            self.drive(ctx, |_, _, _| {});
        }
    }

    /// A raft message. An error means that the sender must be told that it was removed.
    pub(crate) fn raft_message(
        &mut self,
        ctx: &mut Context,
        sender: ManagerIndex,
        message: Message,
    ) -> Result<(), u64> {
        let from = message.from;
        let contact = Member {
            raft_id: from,
            node_id: ctx.nodes[sender],
            addr: addr_of(sender),
        };
        if self.raft_id() != Some(message.to) {
            return Ok(());
        }
        let mut result = Ok(());
        self.drive(ctx, |replica, now, _| {
            replica.contact(contact);
            result = replica.step(now, message);
        });
        match result {
            Err(StepRefused::SenderRemoved) => Err(from),
            Ok(()) | Err(StepRefused::Stopped | StepRefused::Inadmissible) => Ok(()),
        }
    }

    /// Something about the way to another member.
    pub(crate) fn peer_news(&mut self, ctx: &mut Context, raft_id: u64, news: PeerNews) {
        self.drive(ctx, |replica, now, _| match news {
            PeerNews::Unreachable => replica.report_unreachable(raft_id),
            PeerNews::Snapshot(is_delivered) => replica.report_snapshot(raft_id, is_delivered),
            PeerNews::Lost => replica.peer_lost(now, raft_id),
        });
    }

    /// Others say that this member was removed.
    pub(crate) fn expelled(&mut self, ctx: &mut Context, raft_id: u64) {
        if self.raft_id() == Some(raft_id) && self.running.is_some() {
            self.leave(ctx);
        }
    }

    /// A client's command.
    pub(crate) fn command(
        &mut self,
        ctx: &mut Context,
        request: u64,
        mut command: skep_manager::command::Command,
    ) {
        bug::asked(ctx.bug, self.store(), &mut command);
        let event = CoreEvent::Command {
            reply_to: reply_to(request),
            command,
        };
        self.drive(ctx, |replica, now, out| replica.handle(now, event, out));
    }

    /// A machine wants to join the group.
    pub(crate) fn join_request(&mut self, ctx: &mut Context, request: u64, machine: ManagerIndex) {
        let (node_id, addr) = (ctx.nodes[machine], addr_of(machine));
        self.drive(ctx, |replica, now, out| {
            replica.join(now, reply_to(request), node_id, addr, out);
        });
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
        let event = CoreEvent::Agent {
            connection: ConnectionId(number),
            message,
        };
        self.drive(ctx, |replica, now, out| replica.handle(now, event, out));
    }

    /// A connection ended.
    pub(crate) fn gone(&mut self, ctx: &mut Context, number: ConnectionNumber) {
        let connection = ConnectionId(number);
        let event = CoreEvent::AgentGone { connection };
        self.drive(ctx, |replica, now, out| replica.handle(now, event, out));
    }

    /// The disk has finished a request.
    pub(crate) fn disk_done(&mut self, ctx: &mut Context, life: u64) {
        if life != self.life || self.running.is_none() {
            return;
        }
        let Some(done) = self.disk.finish(ctx, self.index, life) else {
            return;
        };
        if matches!(done, DiskDone::Written(_)) && ctx.bug == Some(Bug::AckBeforeDurable) {
            return;
        }
        if let (DiskDone::Restored(_), Some(raft_id)) = (&done, self.raft_id()) {
            ctx.facts.logs.forget_memory(raft_id);
        }
        self.drive(ctx, |replica, now, out| replica.disk_done(now, done, out));
    }

    // --- What it puts out ---

    /// Tells the replica something, lets it act, and carries out what it wants.
    fn drive(
        &mut self,
        ctx: &mut Context,
        tell: impl FnOnce(&mut Replica, Timestamp, &mut Vec<Output>),
    ) {
        let now = Timestamp(ctx.now().0 + self.clock_ahead);
        let Some(running) = &mut self.running else {
            return;
        };
        let mut out = Vec::new();
        ctx.meter.begin();
        tell(&mut running.replica, now, &mut out);
        running.replica.progress(now, &mut out);
        ctx.meter.end();
        let mut early = self.note(ctx, &out);
        self.perform(ctx, out);
        while let (Some(number), Some(running)) = (early.pop(), &mut self.running) {
            let mut out = Vec::new();
            let done = DiskDone::Written(number);
            running.replica.disk_done(now, done, &mut out);
            running.replica.progress(now, &mut out);
            early.extend(self.note(ctx, &out));
            self.perform(ctx, out);
        }
        ctx.leaders_known[self.index] = if self.is_leading() {
            Some(self.index)
        } else {
            self.known_leader()
        };
        let Some(running) = &self.running else { return };
        if running.replica.is_removed() {
            return self.leave(ctx);
        }
        if running.is_stopping && !running.replica.raft().is_leader() {
            return self.crash(ctx);
        }
        self.schedule_wake(ctx);
    }

    /// Compares what the replica is now with the facts, before anything leaves it. Gives the writes
    /// that a bug says are done.
    fn note(&mut self, ctx: &mut Context, out: &[Output]) -> Vec<u64> {
        let Some(running) = &mut self.running else {
            return Vec::new();
        };
        let replica = &running.replica;
        let raft_id = replica.group().own;
        let mut early = Vec::new();
        for output in out {
            let Output::Disk(DiskRequest::Write(ready)) = output else {
                continue;
            };
            if let Err(problem) = ctx.facts.logs.handed(raft_id, ready) {
                ctx.violate("log-matching", &problem);
            }
            if ctx.bug == Some(Bug::AckBeforeDurable) {
                early.push(ready.number);
            }
        }
        ctx.applied(raft_id, replica.core().index());
        let (is_leader, term) = (replica.raft().is_leader(), replica.raft().term());
        if is_leader && running.led_term != term {
            running.led_term = term;
            ctx.trace(format_args!("manager {} leads term {term}", self.index));
            ctx.observe(&Observation::Leads { raft_id, term });
        }
        let index = replica.core().index();
        let joined_at = self.identity.as_ref().map_or(0, |known| known.joined_at);
        if index >= joined_at && index > 0 {
            let group = replica.group();
            ctx.observe(&Observation::Group {
                raft_id,
                index,
                group,
            });
        }
        early
    }

    fn perform(&mut self, ctx: &mut Context, out: Vec<Output>) {
        let mut out = out.into_iter();
        while let Some(output) = out.next() {
            if let Some(left) = &mut self.doom {
                if *left == 0 {
                    return self.crash(ctx);
                }
                *left -= 1;
            }
            if let Output::Publish { index, .. } = &output
                && let Some(running) = &mut self.running
            {
                running.published = *index;
            }
            let next = out.as_slice().iter().find_map(|output| match output {
                Output::Publish { index, .. } => Some(*index),
                _ => None,
            });
            self.perform_one(ctx, output, next);
        }
    }

    /// `next` is the index of the next store published.
    fn perform_one(&mut self, ctx: &mut Context, output: Output, next: Option<u64>) {
        let Some(running) = &mut self.running else {
            return;
        };
        let index = running.published;
        let core_index = running.replica.core().index();
        match output {
            Output::Message { to, message } => self.send_message(ctx, &to, message),
            Output::Disk(request) => {
                let to = (self.index, self.life);
                self.disk.send(ctx, to, request);
            }
            Output::Reply { to, result } => self.reply(ctx, to, result, core_index),
            Output::Joined { to, result } => ctx.joined(self.index, to.0, result),
            Output::StatusReply { to, result } => {
                if let Some(number) = running.reports.remove(&to) {
                    ctx.down(number, Down::Stored(result));
                }
            }
            Output::Send {
                connection,
                message,
            } => self.send(
                ctx,
                connection.0,
                message,
                (index, next.unwrap_or(core_index)),
            ),
            Output::Close { connection, reason } => {
                ctx.trace(format_args!("connection {} closed: {reason}", connection.0));
                ctx.close(connection.0, reason);
            }
            Output::Publish {
                index,
                store,
                changes,
            } => {
                let told = |all| bug::told_changes(ctx.bug, &mut self.rng, all);
                let changes = changes.map(told);
                ctx.observe(&Observation::Published {
                    manager: self.index,
                    index,
                    store: &store,
                    changes: changes.as_ref(),
                });
            }
            Output::Status => {}
        }
    }

    fn reply(
        &mut self,
        ctx: &mut Context,
        to: ReplyTo,
        result: Result<skep_manager::command::Answer, skep_manager::command::CommandError>,
        index: u64,
    ) {
        use skep_manager::command::Answer;
        let request = to.0;
        ctx.observe(&Observation::Replied {
            request,
            result: &result,
            index,
        });
        let node = match &result {
            Ok(Answer::Certificate { node_id, .. }) => self.store().and_then(|s| s.node(*node_id)),
            Ok(_) | Err(_) => None,
        };
        let certificate = node.map(|node| node.certificate.certificate.clone());
        let delay = span(&mut self.rng, Duration::from_millis(20));
        let event = Event::Answer {
            request,
            result,
            certificate,
        };
        ctx.queue.after(delay, event);
    }

    fn send_message(&mut self, ctx: &mut Context, to: &Member, message: Message) {
        let Some(index) = index_of(&to.addr) else {
            return;
        };
        if message.kind == MessageKind::RequestVoteResponse as i32 && !message.reject {
            ctx.observe(&Observation::Votes {
                raft_id: message.from,
                term: message.term,
                candidate: message.to,
            });
            if std::mem::take(&mut self.dies_after_vote) {
                self.doom = Some(1);
            }
        }
        let is_accepted = message.kind == MessageKind::AppendResponse as i32 && !message.reject;
        if ctx.bug == Some(Bug::CountTwice) && is_accepted {
            let group = self.replica().map(|replica| replica.group().clone());
            let ids = group.iter().flat_map(|group| group.members.keys());
            let other = ids
                .copied()
                .find(|id| *id != message.from && *id != message.to);
            if let Some(from) = other {
                let message = Message {
                    from,
                    ..message.clone()
                };
                ctx.send_to_peer(self.index, index, message);
            }
        }
        ctx.send_to_peer(self.index, index, message);
    }

    fn send(
        &mut self,
        ctx: &mut Context,
        number: ConnectionNumber,
        mut message: ToAgent,
        (index, next): (u64, u64),
    ) {
        let Some(connection) = ctx.network.get(number) else {
            return;
        };
        let node = ctx.nodes[connection.side.agent];
        if let ToAgent::Assignments(assignments) = &mut message {
            let count = assignments.changes.len();
            ctx.trace(format_args!("sends {count} changes over {number}"));
            let store = self.running.as_ref().map(|r| r.replica.core().store());
            bug::sent_changes(ctx.bug, store, &mut self.rng, &mut assignments.changes);
        }
        ctx.observe(&Observation::Sent {
            node,
            message: &message,
            index,
            next,
        });
        ctx.down(number, Down::Message(message));
    }

    fn schedule_wake(&mut self, ctx: &mut Context) {
        let Some(running) = &self.running else { return };
        let Some(deadline) = running.replica.next_deadline() else {
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
}
