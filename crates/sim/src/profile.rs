//! What a seed makes of a run: size of the cluster, load, and which faults occur how often.
//!
//! Swarm testing: each seed switches each fault on or off and chooses its rate, so that rare
//! combinations occur and a fault does not always hide behind a louder one.

use std::time::Duration;

use skep_model::Rng;

/// Kinds of faults that happen on their own, not to a message or an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An agent's process dies; its containers run on.
    AgentCrash,
    /// A machine reboots: its containers end, too.
    NodeReboot,
    /// A machine and all others cannot reach each other for a while.
    Partition,
    /// A machine does not reach another for a while; the other way is open.
    OneWay,
    /// A manager is restarted in good order.
    ManagerStop,
    /// The leader dies, and so does every voter, just after it has voted.
    VoterCrash,
    /// An agent's connection breaks.
    ConnectionBreak,
    /// A manager's process dies.
    ManagerCrash,
    /// Writes to a manager's disk take long for a while.
    SlowDisk,
    /// A manager's disk is full for a while.
    FullDisk,
    /// The next write fails; it may be stored all the same.
    WriteError,
    /// A manager's clock jumps.
    ManagerClock,
    /// A node's clock jumps.
    AgentClock,
    /// A node's capacity or labels change.
    Redescribe,
}

/// All kinds.
pub(crate) const FAULTS: [Fault; 14] = [
    Fault::AgentCrash,
    Fault::NodeReboot,
    Fault::Partition,
    Fault::OneWay,
    Fault::ManagerStop,
    Fault::VoterCrash,
    Fault::ConnectionBreak,
    Fault::ManagerCrash,
    Fault::SlowDisk,
    Fault::FullDisk,
    Fault::WriteError,
    Fault::ManagerClock,
    Fault::AgentClock,
    Fault::Redescribe,
];

/// Pools of the node network: the usual one, three slices of seven addresses, fifteen.
const NODE_POOLS: [Option<&str>; 4] = [None, None, Some("10.250.0.0/26"), Some("10.250.0.0/24")];

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    /// Nodes at first; when there is one, its manager's own core makes the cluster.
    pub(crate) node_count: usize,
    /// How many of them are managers.
    pub(crate) manager_count: usize,
    /// Machines that may join later.
    pub(crate) spare_count: usize,
    /// Commands of clients in a hundred that change who is a member.
    pub(crate) membership: u64,
    /// Longest delay of a message between managers.
    pub(crate) peer_delay_max: Duration,
    /// Messages between machines in a thousand that are lost.
    pub(crate) drops: u64,
    /// How long faults and clients are at work.
    pub(crate) storm: Duration,
    /// Mean time between commands of clients.
    pub(crate) client_period: Duration,
    /// Services beyond which clients create no more.
    pub(crate) services_max: usize,
    /// Most replicas a client asks for.
    pub(crate) replicas_max: u64,
    /// Mean time between faults of each kind that occurs.
    pub(crate) faults: Vec<(Fault, Duration)>,
    /// Longest delay of a message.
    pub(crate) delay_max: Duration,
    /// Messages in ten thousand at which a connection breaks.
    pub(crate) breaks: u64,
    /// Messages in a hundred that arrive twice.
    pub(crate) repeats: u64,
    /// Longest write to a healthy disk.
    pub(crate) write_max: Duration,
    /// Longest pull.
    pub(crate) prepare_max: Duration,
    /// Longest start and stop of a container.
    pub(crate) start_max: Duration,
    /// Operations in a hundred that fail for good.
    pub(crate) failures: u64,
    /// Operations in a hundred that fail for a while.
    pub(crate) hiccups: u64,
    /// Longest life of a container that ends by itself; none: it runs for ever.
    pub(crate) life_max: Option<Duration>,
    /// Ends in a hundred with a code that is not 0.
    pub(crate) bad_exits: u64,
    /// Period of heartbeats.
    pub(crate) heartbeat: Duration,
    /// Entries between snapshots.
    pub(crate) snapshot_interval: u64,
    /// Entries kept behind a snapshot.
    pub(crate) entries_kept: u64,
    /// Pool of the node network; none: the usual one.
    pub(crate) node_pool: Option<&'static str>,
    /// The cluster has its networks from the start, or it is a swarm that was restored.
    pub(crate) has_networks: bool,
    /// Ended tasks kept per slot.
    pub(crate) history_limit: i64,
    /// Clients make jobs and stacks whatever the seed says.
    pub(crate) is_busy: bool,
}

impl Profile {
    /// The profile of a seed.
    pub(crate) fn random(rng: &mut Rng) -> Self {
        let mut faults = Vec::new();
        for fault in FAULTS {
            if rng.percent(45) {
                faults.push((fault, Duration::from_secs(4 + rng.below(50))));
            }
        }
        let ms = Duration::from_millis;
        let manager_count = [1, 1, 3, 3, 3, 3, 5, 5][pick(rng, 8)];
        let worker_count = usize::try_from(rng.below(5)).expect("a small number fits");
        Self {
            node_count: manager_count + worker_count,
            manager_count,
            spare_count: [0, 0, 1, 3][pick(rng, 4)],
            membership: [0, 0, 5, 25][pick(rng, 4)],
            peer_delay_max: ms([1, 10, 50, 250, 800][pick(rng, 5)]),
            drops: [0, 0, 10, 150][pick(rng, 4)],
            storm: Duration::from_secs(40 + rng.below(100)),
            client_period: ms(300 + rng.below(6000)),
            services_max: usize::try_from(1 + rng.below(6)).expect("a small number fits"),
            replicas_max: 1 + rng.below(7),
            faults,
            delay_max: ms([1, 10, 100, 1500][pick(rng, 4)]),
            breaks: [0, 0, 20, 200][pick(rng, 4)],
            repeats: [0, 1, 10][pick(rng, 3)],
            write_max: ms([1, 5, 50, 500][pick(rng, 4)]),
            prepare_max: ms([20, 1000, 8000][pick(rng, 3)]),
            start_max: ms([10, 200, 3000][pick(rng, 3)]),
            failures: [0, 0, 2, 15][pick(rng, 4)],
            hiccups: [0, 3, 20][pick(rng, 3)],
            life_max: [None, Some(ms(120_000)), Some(ms(10_000))][pick(rng, 3)],
            bad_exits: [0, 50, 100][pick(rng, 3)],
            heartbeat: ms([500, 2000, 5000][pick(rng, 3)]),
            snapshot_interval: [3, 10, 40, 10_000][pick(rng, 4)],
            entries_kept: [0, 2, 20][pick(rng, 3)],
            history_limit: [0, 1, 2, 5][pick(rng, 4)],
            node_pool: NODE_POOLS[pick(rng, 4)],
            has_networks: rng.percent(60),
            is_busy: false,
        }
    }

    /// Jobs and stacks in every seed, more services and commands: what the orchestration of a
    /// seed does instead of waiting.
    pub(crate) fn focus_on_work(&mut self) {
        self.is_busy = true;
        self.services_max += 3;
        self.client_period = self.client_period.min(Duration::from_millis(1500));
    }

    /// Elections all the time, among managers that hear late of each other and die when they have
    /// voted. A vote that is forgotten matters in a moment too short to wait for.
    pub(crate) fn focus_on_elections(&mut self) {
        self.node_count += 5 - self.manager_count;
        self.manager_count = 5;
        self.membership = 0;
        self.peer_delay_max = Duration::from_millis(800);
        self.faults = vec![(Fault::VoterCrash, Duration::from_secs(4))];
        self.write_max = Duration::from_millis(5);
    }

    /// No faults, no clients: what the scale runs use.
    pub(crate) fn quiet(node_count: usize) -> Self {
        let ms = Duration::from_millis;
        Self {
            node_count,
            manager_count: 1,
            spare_count: 0,
            membership: 0,
            peer_delay_max: ms(1),
            drops: 0,
            storm: Duration::ZERO,
            client_period: ms(1000),
            services_max: 0,
            replicas_max: 0,
            faults: Vec::new(),
            delay_max: ms(2),
            breaks: 0,
            repeats: 0,
            write_max: ms(3),
            prepare_max: ms(50),
            start_max: ms(20),
            failures: 0,
            hiccups: 0,
            life_max: None,
            bad_exits: 0,
            heartbeat: skep_model::DEFAULT_HEARTBEAT_PERIOD,
            snapshot_interval: 10_000,
            entries_kept: 500,
            node_pool: None,
            has_networks: true,
            is_busy: false,
            history_limit: skep_model::DEFAULT_TASK_HISTORY_LIMIT,
        }
    }
}

/// An index below `count`.
pub(crate) fn pick(rng: &mut Rng, count: u64) -> usize {
    usize::try_from(rng.below(count)).expect("an index fits usize")
}

/// A duration up to `max`, at least a microsecond.
pub(crate) fn span(rng: &mut Rng, max: Duration) -> Duration {
    let nanos = u64::try_from(max.as_nanos()).expect("spans are short");
    Duration::from_micros(1) + Duration::from_nanos(rng.below(nanos))
}
