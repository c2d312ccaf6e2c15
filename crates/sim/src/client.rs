//! Clients: what they ask of the cluster, at random, sometimes with what they read long ago.

mod networks;
mod secrets;
mod stacks;

pub(crate) use self::stacks::{OUTSIDE, VARIANT};

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use skep_manager::command::{Answer, Command, CommandError, Rotate, ServiceChange};
use skep_model::{
    Annotations, Availability, ContainerSpec, FailureAction, Node, NodeId, NodeSpec, Placement,
    ResourceRequirements, Resources, RestartCondition, RestartPolicy, Rng, Role, Service,
    ServiceMode, ServiceSpec, TaskSpec, UpdateConfig, UpdateOrder, Version,
    reserved::{
        self,
        service::{rollout, schedule},
    },
};
use skep_store::Store;

use crate::{
    invariants::MARKER,
    profile::{Profile, pick, span},
};

/// Label that constraints and preferences ask for.
pub(crate) const ZONE: &str = "zone";
/// Its values.
pub(crate) const ZONES: [&str; 3] = ["a", "b", "c"];

/// Seeds in which clients make jobs, by the first number drawn for them, of a hundred.
const SEEDS_WITH_JOBS: std::ops::Range<u64> = 0..50;

/// Seeds of a hundred in which clients deploy stacks.
const PERCENT_WITH_STACKS: u64 = 40;

/// Managers beyond which nobody is promoted.
const MANAGERS_MAX: usize = 5;

/// All clients as one.
#[derive(Debug)]
pub(crate) struct Clients {
    rng: Rng,
    next_request: u64,
    next_name: u64,
    services_max: usize,
    replicas_max: u64,
    /// Commands in a hundred that change who is a member.
    membership: u64,
    /// A store read earlier: commands built on it are out of sequence.
    stale: Option<Store>,
    /// What is asked of jobs is drawn apart, so that seeds without them stay as they were.
    of_jobs: Rng,
    has_jobs: bool,
    /// The same of stacks.
    of_stacks: Rng,
    has_stacks: bool,
    /// The stack and the variant deployed last.
    last_stack: Option<(u64, u64)>,
    /// A client takes a stack apart, object by object.
    is_emptying: bool,
    /// The variant of each stack deployed last.
    variants: BTreeMap<u64, u64>,
    /// How many commands succeeded and how many were refused.
    pub(crate) answers: (u64, u64),
}

impl Clients {
    /// Clients as `profile` has them.
    pub(crate) fn new(rng: Rng, profile: &Profile) -> Self {
        let mut of_jobs = rng.clone();
        let has_jobs = SEEDS_WITH_JOBS.contains(&of_jobs.below(100)) || profile.is_busy;
        let mut of_stacks = Rng::from_seed(of_jobs.clone().below(u64::MAX));
        let has_stacks = of_stacks.percent(PERCENT_WITH_STACKS) || profile.is_busy;
        Self {
            rng,
            of_jobs,
            has_jobs,
            of_stacks,
            has_stacks,
            last_stack: None,
            is_emptying: false,
            variants: BTreeMap::new(),
            next_request: 0,
            next_name: 0,
            services_max: profile.services_max,
            replicas_max: profile.replicas_max,
            membership: profile.membership,
            stale: None,
            answers: (0, 0),
        }
    }

    /// The next command and its number, by what a client reads now. `movable` are the nodes that
    /// clients may remove.
    pub(crate) fn next(&mut self, store: &Store, movable: &[NodeId]) -> Option<(u64, Command)> {
        if self.rng.percent(5) {
            self.stale = Some(store.clone());
        }
        let stale = self.stale.clone().filter(|_| self.rng.percent(10));
        let command = self.command(stale.as_ref().unwrap_or(store), movable)?;
        self.next_request += 1;
        Some((self.next_request, command))
    }

    /// An answer came.
    pub(crate) fn answered(&mut self, result: &Result<Answer, CommandError>) {
        match result {
            Ok(_) => self.answers.0 += 1,
            Err(_) => self.answers.1 += 1,
        }
    }

    fn command(&mut self, store: &Store, movable: &[NodeId]) -> Option<Command> {
        if self.rng.percent(self.membership) {
            return self.membership_command(store);
        }
        if let Some(removal) = self.outside_removal(store) {
            return Some(removal);
        }
        if self.has_stacks && self.of_stacks.percent(12) {
            return Some(self.stack_command());
        }
        let services = store.services();
        let services: Vec<&Arc<Service>> = services
            .filter(|service| !stacks::is_of_stack(service))
            .collect();
        let has_room = services.len() < self.services_max;
        if self.rng.percent(8) {
            return Some(self.network_command(store));
        }
        if self.rng.percent(6) {
            return Some(self.supply_command(store));
        }
        if services.is_empty() || (has_room && self.rng.percent(30)) {
            let spec = Box::new(self.service_spec(store));
            return Some(Command::CreateService { spec });
        }
        match self.rng.below(100) {
            0..70 => {
                let service = services[pick(&mut self.rng, len(&services))];
                Some(self.service_command(store, service))
            }
            70..97 => {
                let nodes: Vec<&Arc<Node>> = store.nodes().collect();
                let node = nodes.get(pick(&mut self.rng, len(&nodes)))?;
                Some(self.node_command(node))
            }
            _ => {
                let id = movable.get(pick(&mut self.rng, len(movable)))?;
                let is_forced = self.rng.percent(70);
                Some(Command::RemoveNode { id: *id, is_forced })
            }
        }
    }

    /// Promotions, demotions, managers that leave, tokens and limits.
    fn membership_command(&mut self, store: &Store) -> Option<Command> {
        let nodes: Vec<&Arc<Node>> = store.nodes().collect();
        let node = nodes.get(pick(&mut self.rng, len(&nodes).max(1)))?;
        let is_manager = |node: &&&Arc<Node>| node.spec.desired_role == Role::Manager;
        let manager_count = nodes.iter().filter(is_manager).count();
        match self.rng.below(100) {
            0..70 => {
                let mut spec = node.spec.clone();
                spec.desired_role = match spec.desired_role {
                    Role::Manager => Role::Worker,
                    Role::Worker if manager_count < MANAGERS_MAX => Role::Manager,
                    Role::Worker => Role::Worker,
                };
                self.mark(&mut spec.annotations);
                Some(Command::UpdateNode {
                    id: node.id,
                    version: node.meta.version,
                    spec: Box::new(spec),
                })
            }
            70..85 => Some(Command::LeaveGroup { node_id: node.id }),
            _ => self.cluster_command(store),
        }
    }

    fn cluster_command(&mut self, store: &Store) -> Option<Command> {
        let cluster = store.cluster()?;
        let mut spec = cluster.spec.clone();
        let labels = &mut spec.annotations.labels;
        let uses = self.rng.below(3).to_string();
        let ttl = ["1m", "90s", "24h"][pick(&mut self.rng, 3)].to_owned();
        match self.rng.below(6) {
            0 => labels.insert(reserved::NODE_TTL.to_owned(), ttl),
            1 => labels.insert(reserved::JOIN_WORKER_USES.to_owned(), uses),
            2 => labels.insert(reserved::JOIN_MANAGER_USES.to_owned(), uses),
            3 => labels.remove(reserved::JOIN_WORKER_USES),
            4 => {
                let mode = if uses == "0" { "off" } else { "continuous" };
                labels.insert(reserved::rebalance::MODE.to_owned(), mode.to_owned())
            }
            _ => None,
        };
        let rotate = Rotate {
            worker_token: self.rng.percent(20),
            manager_token: self.rng.percent(20),
            unlock_key: false,
        };
        Some(Command::UpdateCluster {
            version: self.version(cluster.meta.version),
            spec: Box::new(spec),
            rotate,
        })
    }

    fn service_command(&mut self, store: &Store, service: &Service) -> Command {
        let (id, version) = (service.id, self.version(service.meta.version));
        let mut spec = ServiceSpec::clone(&service.spec);
        let task = Arc::make_mut(&mut spec.task);
        match self.rng.below(100) {
            0..40 => {
                let most = self.replicas_max + 1;
                match &mut spec.mode {
                    ServiceMode::Replicated { replicas } => *replicas = self.rng.below(most),
                    ServiceMode::ReplicatedJob {
                        total_completions, ..
                    } => *total_completions = self.of_jobs.below(most),
                    ServiceMode::Global | ServiceMode::GlobalJob => {}
                }
            }
            40..60 => task.force_update += 1,
            60..70 => task.placement = self.placement(),
            70..78 => task.resources = self.resources(),
            78..86 => spec.update = self.update_config(),
            86..90 => {
                let change = match self.rng.below(5) {
                    0 | 1 => ServiceChange::Rollback,
                    number => ServiceChange::RollbackTo(number - 1),
                };
                return Command::UpdateService {
                    id,
                    version,
                    change,
                };
            }
            90..92 => task.restart = self.restart(),
            92..94 => task.networks = self.networks(store),
            94..96 => spec.endpoint = self.endpoint(),
            _ => return Command::RemoveService { id },
        }
        self.mark(Arc::make_mut(&mut spec.annotations));
        let change = ServiceChange::Spec(Box::new(spec));
        Command::UpdateService {
            id,
            version,
            change,
        }
    }

    fn node_command(&mut self, node: &Node) -> Command {
        let mut spec: NodeSpec = node.spec.clone();
        if self.rng.percent(70) {
            spec.availability = [
                Availability::Active,
                Availability::Active,
                Availability::Pause,
                Availability::Drain,
            ][pick(&mut self.rng, 4)];
        } else {
            let zone = ZONES[pick(&mut self.rng, 3)].to_owned();
            spec.annotations.labels.insert(ZONE.to_owned(), zone);
        }
        self.mark(&mut spec.annotations);
        let version = self.version(node.meta.version);
        Command::UpdateNode {
            id: node.id,
            version,
            spec: Box::new(spec),
        }
    }

    fn version(&mut self, version: Version) -> Version {
        if self.rng.percent(2) {
            Version(version.0 + self.rng.below(3))
        } else {
            version
        }
    }

    /// Puts the next command's number into a spec.
    fn mark(&self, annotations: &mut Annotations) {
        let marker = (self.next_request + 1).to_string();
        annotations.labels.insert(MARKER.to_owned(), marker);
    }

    fn service_spec(&mut self, store: &Store) -> ServiceSpec {
        self.next_name += 1;
        // Names come again, so that some conflict.
        let number = self.rng.below(self.next_name) + 1;
        let mut annotations = Annotations {
            name: format!("service-{number}"),
            ..Annotations::default()
        };
        self.mark(&mut annotations);
        let is_job = self.has_jobs && self.of_jobs.percent(50);
        if !is_job {
            self.set_rollout(&mut annotations);
        }
        let mode = if is_job {
            self.job(&mut annotations)
        } else if self.rng.percent(25) {
            ServiceMode::Global
        } else {
            let replicas = self.rng.below(self.replicas_max + 1);
            ServiceMode::Replicated { replicas }
        };
        let mut container = ContainerSpec {
            image: "registry.example/app:1".to_owned(),
            ..ContainerSpec::default()
        };
        self.use_supplies(store, &mut container);
        let task = TaskSpec {
            container,
            resources: self.resources(),
            restart: self.restart(),
            placement: self.placement(),
            networks: self.networks(store),
            ..TaskSpec::default()
        };
        ServiceSpec {
            annotations: annotations.into(),
            task: task.into(),
            mode,
            update: self.update_config().filter(|_| !is_job),
            rollback: self.update_config().filter(|_| !is_job),
            endpoint: self.endpoint(),
            ..ServiceSpec::default()
        }
    }

    /// Settings of updates and crash loops. Delays stay short, as trouble must end in time.
    fn set_rollout(&mut self, annotations: &mut Annotations) {
        let values = [
            (rollout::UPDATE_DEADLINE, ["10s", "1m", "0"]),
            (rollout::RESTART_BACKOFF_MAX, ["20s", "1m", "0"]),
            (rollout::REVISIONS, ["0", "2", "10"]),
        ];
        for (label, values) in values {
            let value = values[pick(&mut self.rng, 3)].to_owned();
            annotations.labels.insert(label.to_owned(), value);
        }
    }

    /// A job's mode and, in its labels, when and how long it runs.
    fn job(&mut self, annotations: &mut Annotations) -> ServiceMode {
        let labels = &mut annotations.labels;
        let mut set = |key: &str, value: &str| labels.insert(key.to_owned(), value.to_owned());
        if self.of_jobs.percent(40) {
            let pattern = ["* * * * *", "*/2 * * * *", "@hourly"][pick(&mut self.of_jobs, 3)];
            set(schedule::SCHEDULE, pattern);
            let policy = ["forbid", "allow", "replace"][pick(&mut self.of_jobs, 3)];
            set(schedule::CONCURRENCY, policy);
        }
        if self.of_jobs.percent(25) {
            set(
                schedule::DEADLINE,
                ["1s", "10s", "1m"][pick(&mut self.of_jobs, 3)],
            );
        }
        if self.of_jobs.percent(30) {
            set(
                schedule::HISTORY,
                ["1", "2", "9"][pick(&mut self.of_jobs, 3)],
            );
        }
        if self.of_jobs.percent(30) {
            return ServiceMode::GlobalJob;
        }
        ServiceMode::ReplicatedJob {
            max_concurrent: self.of_jobs.below(4),
            total_completions: self.of_jobs.below(self.replicas_max + 1),
        }
    }

    fn resources(&mut self) -> ResourceRequirements {
        let reservations = match self.rng.below(3) {
            0 => Resources::default(),
            _ => Resources {
                nano_cpus: [0, 500_000_000, 1_500_000_000][pick(&mut self.rng, 3)],
                memory_bytes: [0, 64 << 20, 300 << 20][pick(&mut self.rng, 3)],
                generic: Vec::new(),
            },
        };
        ResourceRequirements {
            reservations,
            ..ResourceRequirements::default()
        }
    }

    fn restart(&mut self) -> RestartPolicy {
        let seconds = |rng: &mut Rng, of: [u64; 3]| Duration::from_secs(of[pick(rng, 3)]);
        RestartPolicy {
            condition: [
                RestartCondition::Any,
                RestartCondition::Any,
                RestartCondition::Any,
                RestartCondition::OnFailure,
                RestartCondition::None,
            ][pick(&mut self.rng, 5)],
            delay: seconds(&mut self.rng, [0, 1, 5]),
            max_attempts: [0, 0, 0, 3][pick(&mut self.rng, 4)],
            window: seconds(&mut self.rng, [0, 0, 20]),
        }
    }

    fn placement(&mut self) -> Placement {
        let zone = ZONES[pick(&mut self.rng, 3)];
        let constraints = match self.rng.below(5) {
            0 => vec![format!("node.labels.{ZONE} == {zone}")],
            1 => vec![format!("node.labels.{ZONE} != {zone}")],
            2 => vec!["node.role == worker".to_owned()],
            _ => Vec::new(),
        };
        let spread_over = match self.rng.below(3) {
            0 => vec![format!("node.labels.{ZONE}")],
            _ => Vec::new(),
        };
        Placement {
            constraints,
            spread_over,
            platforms: Vec::new(),
            max_replicas: [0, 0, 0, 1, 2][pick(&mut self.rng, 5)],
        }
    }

    fn update_config(&mut self) -> Option<UpdateConfig> {
        if self.rng.percent(20) {
            return None;
        }
        let order = [
            UpdateOrder::StopFirst,
            UpdateOrder::StopFirst,
            UpdateOrder::StartFirst,
        ][pick(&mut self.rng, 3)];
        let failure_action = [
            FailureAction::Pause,
            FailureAction::Continue,
            FailureAction::Rollback,
        ][pick(&mut self.rng, 3)];
        Some(UpdateConfig {
            parallelism: self.rng.below(4),
            delay: Duration::from_secs(self.rng.below(3)),
            failure_action,
            monitor: Some(span(&mut self.rng, Duration::from_secs(6))),
            max_failure_ratio: [0.0, 0.3, 1.0][pick(&mut self.rng, 3)],
            order,
        })
    }
}

fn len<T>(items: &[T]) -> u64 {
    u64::try_from(items.len()).expect("a length fits u64")
}
