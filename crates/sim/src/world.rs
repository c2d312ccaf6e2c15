//! The world: managers, agents, network and clients, stepped event by event in virtual time.
//!
//! Above 400 lines because how the world is made, stepped, hurt and judged share all of its state.

use std::{sync::Arc, time::Duration};

use skep_manager::{bootstrap::NewCluster, core, event::Bootstrap};
use skep_model::{
    Annotations, Availability, Cluster, ClusterId, ClusterSpec, Membership, Meta, Node,
    NodeDescription, NodeId, NodeSpec, NodeStatus, Platform, RaftSettings, Resources, Rng, Role,
    Timestamp,
};
use skep_raft::{Entry, EntryKind, MemoryDisk, Restored, Storage as _};
use skep_store::{Action, ActionKind, Object};
use skep_wire::{
    log,
    member::{Member, encode_member},
};

use crate::{
    agent::Agent,
    bug::Bug,
    client::{Clients, ZONE, ZONES},
    context::{Context, Violation},
    disk::Disk,
    event::Event,
    executor::Executor,
    facts::{Facts, Observation},
    invariants, liveness,
    manager::{Manager, TICK},
    network::Network,
    profile::{Fault, Profile, pick, span},
    queue::Queue,
    trace::Trace,
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
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) ctx: Context,
    pub(crate) managers: Vec<Manager>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) clients: Clients,
    pub(crate) profile: Profile,
    rng: Rng,
    calm_since: Option<Timestamp>,
    /// How long after the last fault all was as wished.
    pub(crate) converged_after: Option<Duration>,
    pub(crate) event_count: u64,
    moment: (Timestamp, u64),
}

impl World {
    /// A world of `profile`, at its first moment.
    pub(crate) fn new(mut rng: Rng, profile: Profile, options: &Options) -> Self {
        let node_ids: Vec<NodeId> = (0..profile.node_count)
            .map(|_| NodeId::random(&mut rng))
            .collect();
        let (restored, bootstrap) = first_log(&mut rng, &profile, &node_ids);
        let mut storage = MemoryDisk::new();
        storage
            .bootstrap(&restored)
            .expect("an empty disk takes a group");
        let network = Network::new(rng.split(), &profile);
        let mut ctx = Context {
            queue: Queue::new(START),
            trace: Trace::new(START, options.is_traced),
            network,
            facts: Facts::new(&[restored]),
            invariants: invariants::all(),
            bug: options.bug,
            nodes: node_ids.clone(),
            managers_up: vec![None],
            leader: None,
            start: START,
            violation: None,
        };
        let config = core::Config {
            node_id: node_ids[0],
            seed: 0,
            request_prefix: 1,
            bootstrap,
        };
        let disk = Disk::new(storage, rng.split(), profile.write_max);
        let manager = Manager::new(0, config, disk, rng.split());
        let mut agents = Vec::new();
        for (index, node_id) in node_ids.iter().enumerate() {
            let description = description(&mut rng, index);
            ctx.observe(&Observation::Described {
                node: *node_id,
                description: &description,
            });
            let executor = Executor::new(rng.split(), &profile);
            let seed = rng.split();
            agents.push(Agent::new(index, *node_id, description, executor, seed));
        }
        let clients = Clients::new(rng.split(), &profile);
        let mut world = Self {
            ctx,
            managers: vec![manager],
            agents,
            clients,
            profile,
            rng,
            calm_since: None,
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
            Event::RetryFault { manager, life } => self.managers[manager].retry_fault(ctx, life),
            Event::Raft { to, message } => {
                if let Some(manager) = self.managers.get_mut(to) {
                    manager.raft_message(ctx, *message);
                }
            }
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
            } => self.managers[manager].command(ctx, request, *command),
            Event::Answer { request, result } => {
                ctx.trace(format_args!("request {request} answered: {result:?}"));
                self.clients.answered(&result);
            }
            Event::Fault(index) => self.fault(index),
            Event::Heal(fault, index) => self.heal(fault, index),
            Event::Calm => self.calm(),
            Event::Look => self.look(),
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
        let leader = self.managers.iter().position(Manager::is_leading);
        let Some(manager) = leader else { return };
        let Some(store) = self.managers[manager].store() else {
            return;
        };
        let movable = self.movable();
        let Some((request, command)) = self.clients.next(store, &movable) else {
            return;
        };
        self.ctx
            .trace(format_args!("request {request}: {command:?}"));
        self.ctx.observe(&Observation::Issued {
            request,
            command: &command,
        });
        let delay = span(&mut self.rng, Duration::from_millis(20));
        let command = Box::new(command);
        let event = Event::Command {
            manager,
            request,
            command,
        };
        self.ctx.queue.after(delay, event);
    }

    /// Nodes that may be removed: no managers, and two always stay.
    fn movable(&self) -> Vec<NodeId> {
        let ids = self.agents.iter().skip(2).map(|agent| agent.node_id);
        ids.collect()
    }

    fn schedule_fault(&mut self, index: usize) {
        let (_, mean) = self.profile.faults[index];
        let delay = span(&mut self.rng, mean * 2);
        self.ctx.queue.after(delay, Event::Fault(index));
    }

    fn fault(&mut self, index: usize) {
        if self.calm_since.is_some() {
            return;
        }
        self.schedule_fault(index);
        let (fault, _) = self.profile.faults[index];
        let agent = pick(&mut self.rng, self.agents.len() as u64);
        let manager = pick(&mut self.rng, self.managers.len() as u64);
        let ctx = &mut self.ctx;
        ctx.trace(format_args!("fault {fault:?} ({agent}, {manager})"));
        match fault {
            Fault::AgentCrash if self.rng.percent(50) => self.agents[agent].doom(),
            Fault::AgentCrash => self.agents[agent].crash(ctx),
            Fault::NodeReboot => self.agents[agent].reboot(ctx),
            Fault::Partition => ctx.network.partition(agent, true),
            Fault::ConnectionBreak => ctx.network.cut_one_of(&mut ctx.queue, agent),
            Fault::ManagerCrash if self.rng.percent(60) => self.managers[manager].doom(),
            Fault::ManagerCrash => self.managers[manager].crash(ctx),
            Fault::SlowDisk => self.managers[manager].disk.set_slow(true),
            Fault::FullDisk => self.managers[manager].disk.set_full(true),
            Fault::WriteError => self.managers[manager].disk.fail_next(),
            Fault::ManagerClock => {
                let nanos = jump(&mut self.rng);
                self.managers[manager].jump(ctx, nanos);
            }
            Fault::AgentClock => {
                let nanos = jump(&mut self.rng);
                self.agents[agent].jump(ctx, nanos);
            }
            Fault::Redescribe => {
                self.agents[agent].description = description(&mut self.rng, agent);
                let seen = Observation::Described {
                    node: self.agents[agent].node_id,
                    description: &self.agents[agent].description,
                };
                ctx.observe(&seen);
            }
        }
        let lasts = span(&mut self.rng, Duration::from_secs(30));
        let heal = match fault {
            Fault::Partition => Some(agent),
            Fault::SlowDisk | Fault::FullDisk => Some(manager),
            _ => None,
        };
        if let Some(target) = heal {
            self.ctx.queue.after(lasts, Event::Heal(fault, target));
        }
    }

    fn heal(&mut self, fault: Fault, index: usize) {
        match fault {
            Fault::Partition => self.ctx.network.partition(index, false),
            Fault::SlowDisk => self.managers[index].disk.set_slow(false),
            Fault::FullDisk => self.managers[index].disk.set_full(false),
            _ => {}
        }
    }

    /// The storm is over: whoever is down comes back, and nothing fails any more.
    fn calm(&mut self) {
        self.ctx.trace(format_args!("calm"));
        self.calm_since.get_or_insert(self.ctx.now());
        self.ctx.network.calm();
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
        let waited = self.ctx.now().since(since);
        let unmet = liveness::unmet(self);
        if unmet.is_empty() {
            self.ctx.trace(format_args!("all is as wished"));
            self.converged_after = Some(waited);
        } else if waited > CONVERGENCE_MAX {
            self.ctx.violate("converges", &unmet.join("; "));
        } else {
            self.ctx.queue.after(LOOK_PERIOD, Event::Look);
        }
    }
}

/// Clocks jump forward by much or little, back by little.
fn jump(rng: &mut Rng) -> i64 {
    let millis = match rng.below(3) {
        0 => rng.below(60_000),
        _ => rng.below(3000),
    };
    let millis = i64::try_from(millis).expect("a small number fits");
    let is_back = millis < 3000 && rng.percent(50);
    if is_back {
        -millis * 1_000_000
    } else {
        millis * 1_000_000
    }
}

fn description(rng: &mut Rng, index: usize) -> NodeDescription {
    NodeDescription {
        hostname: format!("node-{index}"),
        platform: Platform {
            architecture: "x86_64".to_owned(),
            os: "linux".to_owned(),
        },
        resources: Resources {
            nano_cpus: [2_000_000_000, 4_000_000_000][pick(rng, 2)],
            memory_bytes: [512 << 20, 1 << 30][pick(rng, 2)],
            generic: Vec::new(),
        },
        ..NodeDescription::default()
    }
}

fn cluster_spec(profile: &Profile) -> ClusterSpec {
    ClusterSpec {
        task_history_limit: profile.history_limit,
        heartbeat_period: profile.heartbeat,
        raft: RaftSettings {
            snapshot_interval: profile.snapshot_interval,
            log_entries_for_slow_followers: profile.entries_kept,
            ..RaftSettings::default()
        },
        ..ClusterSpec::default()
    }
}

/// What is on disk at first: a new group, and unless the manager's core makes the cluster itself
/// (`docker swarm init` on one node), an entry with the cluster and its nodes.
fn first_log(
    rng: &mut Rng,
    profile: &Profile,
    node_ids: &[NodeId],
) -> (Restored, Option<Bootstrap>) {
    let member = Member {
        raft_id: 1,
        node_id: node_ids[0],
        addr: "192.0.2.1:2377".to_owned(),
    };
    let mut restored = Restored::new_group(1, encode_member(&member));
    let bootstrap: Bootstrap = NewCluster {
        cluster_id: ClusterId::random(rng),
        node_id: node_ids[0],
        spec: cluster_spec(profile),
        root_ca: skep_model::RootCa::default(),
        certificate: Vec::new(),
        availability: Availability::Active,
        raft_id: 1,
        addr: member.addr,
        data_path_port: 0,
        default_address_pool: Vec::new(),
        subnet_size: 0,
    }
    .into();
    if node_ids.len() == 1 {
        return (restored, Some(bootstrap));
    }
    let create = |object| Action {
        kind: ActionKind::Create,
        object,
    };
    let cluster: Cluster = (*bootstrap.cluster).clone();
    let mut actions = vec![create(Object::Cluster(Arc::new(cluster)))];
    for (index, id) in node_ids.iter().enumerate() {
        let mut node = (*bootstrap.node).clone();
        if index > 0 {
            node = worker(*id, rng);
        }
        actions.push(create(Object::Node(Arc::new(node))));
    }
    restored.entries.push(Entry {
        kind: EntryKind::Normal as i32,
        term: 1,
        index: 2,
        data: log::encode_actions(0, &actions).into(),
    });
    restored.hard_state.commit = 2;
    (restored, None)
}

fn worker(id: NodeId, rng: &mut Rng) -> Node {
    let zone = ZONES[pick(rng, 3)].to_owned();
    let labels = [(ZONE.to_owned(), zone)].into();
    Node {
        id,
        meta: Meta::default(),
        spec: NodeSpec {
            annotations: Annotations {
                name: String::new(),
                labels,
            },
            desired_role: Role::Worker,
            membership: Membership::Accepted,
            availability: Availability::Active,
        },
        description: None,
        status: NodeStatus::default(),
        manager_status: None,
        certificate: skep_model::Certificate::default(),
        role: Role::Worker,
        vxlan_udp_port: 0,
    }
}
