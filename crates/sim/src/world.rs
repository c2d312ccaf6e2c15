//! The world: managers, agents, network and clients, stepped event by event in virtual time.
//!
//! How it is hurt is in `faults`, how machines become members in `enrol`.

use std::{collections::BTreeMap, time::Duration};

use skep_model::{NodeId, Rng, Role, Timestamp};
use skep_raft::{MemoryDisk, Storage as _};

use crate::{
    agent::Agent,
    bug::Bug,
    client::Clients,
    context::{Context, Violation},
    disk::Disk,
    enrol::{Enrolment, REQUESTS_FROM},
    event::Event,
    executor::Executor,
    facts::{Facts, Observation},
    invariants,
    links::Links,
    liveness,
    manager::{Identity, Manager, TICK},
    meter::Meter,
    network::Network,
    profile::{Profile, pick, span},
    queue::Queue,
    repeat::Repeats,
    setup::{description, first_log},
    trace::Trace,
    vault::Leak,
};

/// 2026-01-01, in nanoseconds since 1970.
const START: Timestamp = Timestamp(1_767_225_600_000_000_000);
/// Time after the last fault within which all must be as wished.
pub(crate) const CONVERGENCE_MAX: Duration = Duration::from_secs(300);
/// How often the calm world is looked at.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// Events of one moment after which something is taken to run in circles.
const EVENTS_PER_MOMENT_MAX: u64 = 20_000;

/// Options of a run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Keep the text of the trace.
    pub is_traced: bool,
    /// A bug to put in.
    pub bug: Option<Bug>,
    /// Stop after this many events.
    pub steps_max: Option<u64>,
    /// Jobs and stacks in every seed, and more commands.
    pub is_busy: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) ctx: Context,
    pub(crate) managers: Vec<Manager>,
    pub(crate) agents: Vec<Agent>,
    /// One for each machine, like managers and agents.
    pub(crate) enrolments: Vec<Enrolment>,
    pub(crate) clients: Clients,
    pub(crate) profile: Profile,
    pub(crate) rng: Rng,
    /// Requests of machines so far.
    pub(crate) requests: u64,
    pub(crate) calm_since: Option<Timestamp>,
    pub(crate) repeats: Repeats,
    /// How long after the last fault all was as wished.
    pub(crate) converged_after: Option<Duration>,
    pub(crate) event_count: u64,
    moment: (Timestamp, u64),
}

impl World {
    /// A world of `profile`, at its first moment.
    #[expect(
        clippy::too_many_lines,
        reason = "in the order in which the seed is used up"
    )]
    pub(crate) fn new(mut rng: Rng, profile: Profile, options: &Options) -> Self {
        let machine_count = profile.node_count + profile.spare_count;
        let node_ids: Vec<NodeId> = (0..machine_count)
            .map(|_| NodeId::random(&mut rng))
            .collect();
        let (restored, bootstrap) = first_log(&mut rng, &profile, &node_ids[..profile.node_count]);
        let network = Network::new(rng.split(), &profile);
        let links = Links::new(rng.split(), &profile);
        let mut ctx = Context {
            queue: Queue::new(START),
            trace: Trace::new(START, options.is_traced),
            network,
            links,
            facts: Facts::default(),
            invariants: invariants::all(),
            bug: options.bug,
            meter: Meter::default(),
            nodes: node_ids.clone(),
            managers_up: vec![None; machine_count],
            leaders_known: vec![None; machine_count],
            leak: Leak::default(),
            enrolments: BTreeMap::new(),
            start: START,
            violation: None,
        };
        let mut managers = Vec::new();
        let mut agents = Vec::new();
        let mut enrolments = Vec::new();
        let mut first = Some((restored, bootstrap));
        for (index, node_id) in node_ids.iter().enumerate() {
            let description = description(&mut rng, index);
            let is_node = index < profile.node_count;
            if is_node {
                ctx.observe(&Observation::Described {
                    node: *node_id,
                    description: &description,
                });
            }
            let executor = Executor::new(rng.split(), &profile);
            let mut agent = Agent::new(index, *node_id, description, executor, rng.split());
            agent.is_enrolled = is_node;
            agents.push(agent);
            enrolments.push(match index {
                _ if !is_node => Enrolment::spare(),
                _ if index < profile.manager_count => Enrolment::node(Role::Manager),
                _ => Enrolment::node(Role::Worker),
            });
            let mut storage = MemoryDisk::new();
            let (mut identity, mut bootstrap) = (None, None);
            if let Some((restored, first_bootstrap)) = first.take() {
                storage
                    .bootstrap(&restored)
                    .expect("an empty disk takes a group");
                bootstrap = first_bootstrap;
                identity = Some(Identity {
                    raft_id: 1,
                    members: Vec::new(),
                    joined_at: 0,
                });
            }
            let disk = Disk::new(storage, 1, rng.split(), profile.write_max);
            managers.push(Manager::new(index, identity, bootstrap, disk, rng.split()));
        }
        let clients = Clients::new(rng.split(), &profile);
        let mut world = Self {
            ctx,
            managers,
            agents,
            enrolments,
            clients,
            profile,
            rng,
            requests: 0,
            calm_since: None,
            repeats: Repeats::default(),
            converged_after: None,
            event_count: 0,
            moment: (START, 0),
        };
        world.schedule_first();
        world
    }

    fn schedule_first(&mut self) {
        for index in 0..self.managers.len() {
            self.ctx
                .queue
                .after(Duration::ZERO, Event::ManagerRestart(index));
            self.ctx.queue.after(TICK, Event::RaftTick(index));
        }
        for index in 0..self.agents.len() {
            let delay = span(&mut self.rng, Duration::from_secs(2));
            self.ctx.queue.after(delay, Event::AgentRestart(index));
            let delay = span(&mut self.rng, Duration::from_secs(2));
            self.ctx.queue.after(delay, Event::Enrol(index));
        }
        for index in 0..self.profile.faults.len() {
            self.schedule_fault(index);
        }
        self.ctx.queue.after(Duration::from_secs(2), Event::Client);
        if !self.profile.storm.is_zero() {
            self.calm_after(self.profile.storm);
        }
    }

    /// Ends the storm, if there is any, after `delay`.
    pub(crate) fn calm_after(&mut self, delay: Duration) {
        self.ctx.queue.after(delay, Event::Calm);
    }

    /// Runs until all is as wished, something is wrong, or `steps_max` events have happened.
    pub(crate) fn run(&mut self, steps_max: Option<u64>) {
        while self.ctx.violation.is_none()
            && self.converged_after.is_none()
            && steps_max.is_none_or(|max| self.event_count < max)
        {
            let event = self.ctx.queue.pop().expect("raft ticks for ever");
            self.event_count += 1;
            self.note_moment();
            self.step(event);
            self.give_out_early();
        }
    }

    /// With a certain bug certificates leave as soon as they are made.
    fn give_out_early(&mut self) {
        let mut leak = self.ctx.leak.lock().expect("one thread");
        let made = std::mem::take(&mut *leak);
        drop(leak);
        if self.ctx.bug == Some(Bug::EarlyCertificate) {
            for (node, chain) in made {
                let chain = &chain;
                self.ctx.observe(&Observation::Certificate { node, chain });
            }
        }
    }

    /// The first broken invariant.
    pub(crate) fn violation(&self) -> Option<&Violation> {
        self.ctx.violation.as_ref()
    }

    /// Virtual time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.ctx.now().since(START)
    }

    fn note_moment(&mut self) {
        let now = self.ctx.now();
        if self.moment.0 == now {
            self.moment.1 += 1;
        } else {
            self.moment = (now, 0);
        }
        let limit = EVENTS_PER_MOMENT_MAX.max(100 * self.agents.len() as u64);
        if self.moment.1 > limit {
            self.ctx
                .violate("no-spinning", "something happens without end");
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each kind of event")]
    fn step(&mut self, event: Event) {
        let ctx = &mut self.ctx;
        match event {
            Event::RaftTick(index) => {
                self.managers[index].tick(ctx);
                ctx.queue.after(TICK, Event::RaftTick(index));
            }
            Event::ManagerWake { manager, life } => self.managers[manager].wake(ctx, life),
            Event::ManagerRestart(index) => self.managers[index].start(ctx),
            Event::DiskDone { manager, life } => self.managers[manager].disk_done(ctx, life),
            Event::Raft { from, to, message } => self.raft(from, to, *message),
            Event::PeerNews {
                manager,
                raft_id,
                news,
            } => self.managers[manager].peer_news(ctx, raft_id, news),
            Event::Expelled { manager, raft_id } => self.managers[manager].expelled(ctx, raft_id),
            Event::Stop { manager, life } => self.managers[manager].stop_now(ctx, life),
            Event::Enrol(machine) => self.enrol(machine),
            Event::RoleSeen(machine, role) => self.role_seen(machine, role),
            Event::Join {
                manager,
                machine,
                request,
                is_relayed,
            } => self.join(manager, machine, request, is_relayed),
            Event::Joined {
                machine,
                request,
                result,
            } => self.joined(machine, request, result),
            Event::Up {
                connection,
                message,
            } => self.deliver_up(connection, message),
            Event::Gone { connection } => {
                if let Some(open) = ctx.network.get(connection).filter(|c| c.is_manager_open) {
                    let manager = open.manager;
                    self.managers[manager].gone(ctx, connection);
                }
                ctx.network.gone(connection);
            }
            Event::Down {
                connection,
                message,
            } => {
                let side = ctx.network.get(connection).filter(|c| c.is_agent_open);
                if let Some(side) = side.map(|c| c.side) {
                    self.agents[side.agent].down(ctx, side, message);
                }
            }
            Event::AgentWake { agent, life } => self.agents[agent].wake(ctx, life),
            Event::AgentRestart(agent) => self.agents[agent].start(ctx),
            Event::OpDone { agent, number } => self.agents[agent].op_done(ctx, number),
            Event::ContainerEnds {
                agent,
                task,
                number,
            } => self.agents[agent].container_ends(ctx, task, number),
            Event::Described { agent, life } => self.agents[agent].described(ctx, life),
            Event::Client => self.client(),
            Event::Command {
                manager,
                request,
                command,
                is_relayed,
            } => self.command(manager, request, command, is_relayed),
            Event::Answer {
                request,
                result,
                certificate,
            } => {
                ctx.trace(format_args!("request {request} answered: {result:?}"));
                if request < REQUESTS_FROM {
                    self.clients.answered(&result);
                    self.repeated(request, &result);
                } else {
                    self.certified(request, &result, certificate.as_deref());
                }
            }
            Event::Unblock(pair) => ctx.links.block(pair, false),
            Event::Fault(index) => self.fault(index),
            Event::Heal(fault, index) => self.heal(fault, index),
            Event::Calm => self.calm(),
            Event::Look => self.look(),
        }
    }

    fn raft(&mut self, from: usize, to: usize, message: skep_raft::Message) {
        let ctx = &mut self.ctx;
        if let Err(raft_id) = self.managers[to].raft_message(ctx, from, message)
            && let Some(delay) = ctx.links.request(to, from)
        {
            let event = Event::Expelled {
                manager: from,
                raft_id,
            };
            ctx.queue.after(delay, event);
        }
    }

    fn deliver_up(&mut self, number: u64, message: crate::event::Up) {
        let Some(connection) = self.ctx.network.get(number) else {
            return;
        };
        let manager = connection.manager;
        let is_same_life = self.ctx.managers_up[manager] == Some(connection.manager_life);
        if !connection.is_manager_open || !is_same_life {
            return;
        }
        let node_id = self.ctx.nodes[connection.side.agent];
        self.managers[manager].up(&mut self.ctx, number, node_id, message);
    }

    fn client(&mut self) {
        if self.calm_since.is_some() {
            return;
        }
        let delay = span(&mut self.rng, self.profile.client_period * 2);
        self.ctx.queue.after(delay, Event::Client);
        if self.rng.percent(self.profile.membership / 3) {
            self.enrol_a_spare();
        }
        // A client asks any manager, by what that one has to show.
        let up: Vec<usize> = (0..self.managers.len())
            .filter(|index| self.managers[*index].replica().is_some())
            .collect();
        if up.is_empty() {
            return;
        }
        let manager = up[pick(&mut self.rng, up.len() as u64)];
        let Some(store) = self.managers[manager].store() else {
            return;
        };
        let movable = self.movable();
        let Some((request, command)) = self.clients.next(store, &movable) else {
            return;
        };
        self.ctx
            .trace(format_args!("request {request} to {manager}: {command:?}"));
        self.ctx.observe(&Observation::Issued {
            request,
            command: &command,
        });
        let delay = span(&mut self.rng, Duration::from_millis(20));
        let event = Event::Command {
            manager,
            request,
            command: Box::new(command),
            is_relayed: false,
        };
        self.ctx.queue.after(delay, event);
    }

    /// Somebody wants one more machine in the cluster.
    fn enrol_a_spare(&mut self) {
        let role = [Role::Worker, Role::Manager][pick(&mut self.rng, 2)];
        let mut enrolments = self.enrolments.iter_mut();
        if let Some(spare) = enrolments.find(|e| !e.is_node && e.joins_as.is_none()) {
            spare.joins_as = Some(role);
        }
    }

    /// Nodes that may be removed: those that began as managers always stay.
    fn movable(&self) -> Vec<NodeId> {
        let stay = self.profile.manager_count.max(2);
        let machines = self.agents.iter().zip(&self.enrolments).skip(stay);
        machines
            .filter(|(_, enrolment)| enrolment.is_node)
            .map(|(agent, _)| agent.node_id)
            .collect()
    }

    /// The storm is over: whoever is down comes back, and nothing fails any more.
    fn calm(&mut self) {
        self.ctx.trace(format_args!("calm"));
        self.calm_since.get_or_insert(self.ctx.now());
        self.ctx.network.calm();
        self.ctx.links.calm();
        for manager in &mut self.managers {
            manager.disk.calm();
            manager.start(&mut self.ctx);
        }
        for agent in &mut self.agents {
            agent.executor.calm();
            agent.start(&mut self.ctx);
        }
        self.ctx.queue.after(LOOK_PERIOD, Event::Look);
    }

    fn look(&mut self) {
        let Some(since) = self.calm_since else { return };
        let since = since.max(self.repeats.since.unwrap_or(since));
        let waited = self.ctx.now().since(since);
        let unmet = liveness::unmet(self);
        let is_calm = unmet.is_empty();
        if is_calm && self.repeat() {
            self.ctx.queue.after(LOOK_PERIOD, Event::Look);
        } else if is_calm {
            self.ctx.trace(format_args!("all is as wished"));
            let managers = self.managers.iter().filter_map(|manager| {
                let core = manager.replica()?.core();
                Some((manager.raft_id()?, (core.index(), core.store().clone())))
            });
            let managers = &managers.collect();
            self.ctx.observe(&Observation::Converged { managers });
            self.converged_after = Some(waited);
        } else if waited > CONVERGENCE_MAX {
            self.ctx.violate("converges", &unmet.join("; "));
        } else {
            self.ctx.queue.after(LOOK_PERIOD, Event::Look);
        }
    }
}
