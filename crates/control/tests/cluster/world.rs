//! The cluster a script talks to: a store, a clock, and agents that do as they are told.

use std::{collections::BTreeMap, fmt::Write, sync::Arc, time::Duration};

use skep_control::{
    Dirty, Key, Violation, WRITES_PER_ENTRY_MAX, Wakes, check, check_step, drive, job, reconcile,
};
use skep_model::{
    Certificate, Cluster, ClusterId, ClusterSpec, Meta, Node, NodeDescription, NodeId, NodeSpec,
    NodeState, NodeStatus, Platform, Rng, Role, RootCa, Service, ServiceId, ServiceMode, Slot,
    Task, TaskId, TaskState, TaskStatus, Timestamp, UpdateState, UpdateStatus, Version,
    reserved::{service::rollout, task::shown_message},
};
use skep_store::{Object, Store, Transaction};

mod networks;
mod nodes;

use self::nodes::change_node;
use crate::spec;

/// Where virtual time begins.
const START: Timestamp = Timestamp(1_000_000_000_000);

/// The state behind one script.
pub(crate) struct World {
    store: Store,
    now: Timestamp,
    version: u64,
    rng: Rng,
    dirty: Dirty,
    wakes: Wakes,
    nodes: BTreeMap<String, NodeId>,
    node_count: usize,
    /// What was wrong with steps taken since the last command.
    missteps: Vec<Violation>,
    /// Short names of tasks: `web.1#2` is the second task of slot 1.
    names: BTreeMap<TaskId, String>,
    made: BTreeMap<String, u32>,
    /// Agents act by themselves after every command.
    agents_act: bool,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut world = Self {
            store: Store::default(),
            now: START,
            version: 0,
            rng: Rng::from_seed(1),
            dirty: Dirty::default(),
            wakes: Wakes::default(),
            nodes: BTreeMap::new(),
            node_count: 0,
            missteps: Vec::new(),
            names: BTreeMap::new(),
            made: BTreeMap::new(),
            agents_act: true,
        };
        let cluster = Cluster {
            id: ClusterId::random(&mut Rng::from_seed(99)),
            meta: Meta::default(),
            spec: ClusterSpec::default(),
            root_ca: RootCa::default(),
            network_bootstrap_keys: Vec::new(),
            encryption_key_lamport_clock: 0,
            blacklisted_certificates: BTreeMap::new(),
            unlock_keys: Vec::new(),
            is_fips: false,
            default_address_pool: Vec::new(),
            subnet_size: 24,
            vxlan_udp_port: 0,
        };
        world.write(|tx| tx.create_cluster(cluster).unwrap());
        world
    }

    /// Runs one command and returns what it prints.
    pub(crate) fn run(&mut self, command: &str) -> String {
        let words: Vec<&str> = command.split_whitespace().collect();
        let output = match words.as_slice() {
            ["node", "add", name, args @ ..] => self.add_node(name, args),
            ["node", "update", name, args @ ..] => self.update_node(name, args),
            ["node", "down", name] => self.set_node_state(name, NodeState::Down),
            ["node", "up", name] => self.set_node_state(name, NodeState::Ready),
            ["node", "rm", name] => self.remove_node(name),
            ["service", "create", name, args @ ..] => self.create_service(name, args),
            ["service", "update", name, args @ ..] => self.update_service(name, args),
            ["service", "rollback", name] => self.rollback_service(name),
            ["service", "rm", name] => self.remove_service(name),
            ["cluster", "history", limit] => self.set_history(limit),
            ["cluster", "label", label] => self.set_label(label),
            ["agents", "act"] => self.set_agents(true),
            ["agents", "wait"] => self.set_agents(false),
            ["leader", "change"] => self.change_leader(),
            ["leader", "change", "unheard"] => self.change_leader_unheard(),
            ["tick", duration] => self.tick(spec::duration(duration)),
            ["task", state, name] => self.report(name, state),
            ["show", "tasks", rest @ ..] => return self.show_tasks(rest.first().copied()),
            ["show", "services"] => return self.show_services(),
            ["show", "job", name] => return self.show_job(name),
            // Nobody leads for so long.
            ["outage", duration] => {
                self.now = self.now + spec::duration(duration);
                self.change_leader()
            }
            ["clock", "back", duration] => {
                // No transaction is earlier than one before it: the manager's shell sees to that.
                self.now = Timestamp(self.now.0 - nanos(spec::duration(duration)));
                self.change_leader()
            }
            ["show", "nodes"] => return self.show_nodes(),
            ["show", "moves"] => return self.show_moves(),
            ["show", "blacklist"] => return self.show_blacklist(),
            ["show", "wait", name] => return self.show_wait(name),
            ["network", "create", name, args @ ..] => self.create_network(name, args),
            ["network", "between", "nodes", rest @ ..] => {
                self.create_node_network(rest.first().copied())
            }
            ["network", "rm", name] => self.remove_network(name),
            ["cluster", "pool", pool, size] => self.set_pool(pool, size),
            ["show", "networks"] => return self.show_networks(),
            ["show", "places", rest @ ..] => return self.show_places(rest.first().copied()),
            ["show", "endpoints"] => return self.show_endpoints(),
            ["show", "slices"] => return self.show_slices(),
            ["show", "balancers"] => return self.show_balancers(),
            ["check"] => return self.violations(),
            _ => panic!("unknown command `{command}`"),
        };
        self.settle();
        let output = output + &self.violations();
        self.missteps.clear();
        output
    }

    pub(crate) fn has_task(&self, name: &str) -> bool {
        let is_named = |full: &str| full.split('#').next() == Some(name);
        self.store.tasks().any(|task| {
            is_named(&self.names[&task.id])
                && task.status.state >= TaskState::Assigned
                && task.status.state <= TaskState::Running
                && task.desired_state <= TaskState::Complete
        })
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    // === driving ===

    /// A transaction of its own version, and later than all before it, as a leader gives them.
    fn begin(&mut self) -> Transaction {
        self.version += 1;
        self.now = self.now + Duration::from_nanos(1);
        Transaction::new(&self.store, Version(self.version), self.now)
    }

    pub(super) fn write(&mut self, change: impl FnOnce(&mut Transaction)) {
        let mut tx = self.begin();
        change(&mut tx);
        self.commit(tx);
    }

    fn commit(&mut self, tx: Transaction) {
        let (head, actions, changes) = tx.finish();
        let mut follower = self.store.clone();
        for action in &actions {
            follower.apply(action).unwrap();
        }
        assert!(follower == head, "a follower has the same state");
        for change in &changes {
            if let (None, Some(Object::Task(task))) = (&change.old, &change.new) {
                self.name_task(task);
            }
        }
        self.missteps.extend(check_step(&self.store, &head));
        self.store = head;
    }

    fn name_task(&mut self, task: &Task) {
        let service = task.service_id.and_then(|id| self.store.service(id));
        let place = match task.slot() {
            // Slots of jobs count from 0.
            _ if service
                .is_some_and(|s| matches!(s.spec.mode, ServiceMode::ReplicatedJob { .. })) =>
            {
                task.slot.to_string()
            }
            Some(Slot::Number(number)) => number.to_string(),
            Some(Slot::Node(node)) => self.node_name(node),
            None => "?".to_owned(),
        };
        let slot = format!("{}.{place}", task.service_annotations.name);
        let count = self.made.entry(slot.clone()).or_default();
        *count += 1;
        self.names.insert(task.id, format!("{slot}#{count}"));
    }

    /// Drives, lets agents act, and again, until nothing happens.
    fn settle(&mut self) {
        for _ in 0..100 {
            self.drive();
            if !self.agents_act || !self.let_agents_act() {
                return;
            }
        }
        panic!("no fixpoint");
    }

    fn drive(&mut self) {
        for _ in 0..100 {
            let mut tx = self.begin();
            let driven = drive(
                &mut tx,
                &mut self.dirty,
                &mut self.wakes,
                &mut self.rng,
                WRITES_PER_ENTRY_MAX,
            );
            assert_eq!(driven.stale_count, 0, "plans are applied to what they saw");
            self.commit(tx);
            if driven.is_settled {
                return;
            }
        }
        panic!("the driver does not settle");
    }

    /// Every reachable agent brings its tasks where they shall be.
    fn let_agents_act(&mut self) -> bool {
        let tasks: Vec<Arc<Task>> = self.store.tasks().cloned().collect();
        let mut acted = false;
        for task in tasks {
            let node = task.node_id.and_then(|id| self.store.node(id));
            let is_up = node.is_some_and(|node| node.status.state == NodeState::Ready);
            let state = task.status.state;
            if !is_up || state < TaskState::Assigned || state.is_terminal() {
                continue;
            }
            let goal = match task.desired_state {
                TaskState::Ready => TaskState::Ready,
                TaskState::Running | TaskState::Complete => TaskState::Running,
                _ => TaskState::Shutdown,
            };
            if state < goal {
                self.set_task_state(&task, goal);
                acted = true;
            }
        }
        acted
    }

    fn set_task_state(&mut self, task: &Task, state: TaskState) {
        let message = match state {
            TaskState::Running => "started",
            TaskState::Complete => "finished",
            other => other.name(),
        };
        let err = match state {
            TaskState::Failed => "task: non-zero exit (1)",
            TaskState::Rejected => "No such image: gone:latest",
            _ => "",
        };
        let status = TaskStatus {
            timestamp: self.now,
            applied_at: Some(self.now),
            state,
            message: message.to_owned(),
            err: err.to_owned(),
            ..TaskStatus::default()
        };
        let mut task = task.clone();
        task.status = status;
        self.mark(|tx| tx.update_task(task).unwrap());
    }

    /// Writes and marks what changed, as the leader core does.
    fn mark(&mut self, change: impl FnOnce(&mut Transaction)) {
        let mut tx = self.begin();
        change(&mut tx);
        for change in tx.changes() {
            self.dirty.mark(change);
        }
        self.commit(tx);
    }

    // === commands ===

    fn tick(&mut self, duration: Duration) -> String {
        let end = self.now + duration;
        while let Some(at) = self.wakes.next_deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.settle();
        }
        self.now = end.max(self.now);
        String::new()
    }

    /// Every running task of a job comes to a good end, until none is left.
    pub(crate) fn complete_jobs(&mut self) {
        for _ in 0..1000 {
            let is_running = |task: &&Arc<Task>| {
                task.desired_state == TaskState::Complete && task.status.state == TaskState::Running
            };
            let running = self.store.tasks().find(is_running).cloned();
            let Some(task) = running else {
                return;
            };
            self.set_task_state(&task, TaskState::Complete);
            self.settle();
        }
        panic!("jobs do not end");
    }

    /// A new leader knows nothing but the store.
    pub(super) fn change_leader(&mut self) -> String {
        self.dirty = Dirty::default();
        self.wakes = Wakes::default();
        self.rng = Rng::from_seed(self.version);
        let store = self.store.clone();
        self.dirty.mark_all(&store);
        String::new()
    }

    fn set_agents(&mut self, act: bool) -> String {
        self.agents_act = act;
        String::new()
    }

    fn set_history(&mut self, limit: &str) -> String {
        let mut cluster = Cluster::clone(self.store.cluster().unwrap());
        cluster.spec.task_history_limit = limit.parse().unwrap();
        self.mark(|tx| tx.update_cluster(cluster).unwrap());
        String::new()
    }

    fn set_label(&mut self, label: &str) -> String {
        let (key, value) = label.split_once('=').unwrap();
        let mut cluster = Cluster::clone(self.store.cluster().unwrap());
        let labels = &mut cluster.spec.annotations.labels;
        labels.insert(key.to_owned(), value.to_owned());
        let problems = skep_model::validate::cluster_spec(&cluster.spec);
        if let Some(problem) = problems.first() {
            return format!("{problem}\n");
        }
        self.mark(|tx| tx.update_cluster(cluster).unwrap());
        String::new()
    }

    fn add_node(&mut self, name: &str, args: &[&str]) -> String {
        self.node_count += 1;
        // Ids sort as nodes were added, so that ties are easy to follow.
        let id: NodeId = format!("{:0>25}", format!("{:0>3}", self.node_count))
            .parse()
            .unwrap();
        self.nodes.insert(name.to_owned(), id);
        let mut node = Node {
            id,
            meta: Meta::default(),
            spec: NodeSpec::default(),
            description: Some(NodeDescription {
                hostname: name.to_owned(),
                platform: Platform {
                    architecture: "x86_64".to_owned(),
                    os: "linux".to_owned(),
                },
                ..NodeDescription::default()
            }),
            status: NodeStatus {
                state: NodeState::Ready,
                ..NodeStatus::default()
            },
            manager_status: None,
            certificate: Certificate::default(),
            role: Role::Worker,
            attachments: Vec::new(),
            vxlan_udp_port: 0,
        };
        change_node(&mut node, args);
        self.mark(|tx| tx.create_node(node).unwrap());
        String::new()
    }

    fn update_node(&mut self, name: &str, args: &[&str]) -> String {
        let mut node = Node::clone(self.store.node(self.nodes[name]).unwrap());
        change_node(&mut node, args);
        self.mark(|tx| tx.update_node(node).unwrap());
        String::new()
    }

    fn set_node_state(&mut self, name: &str, state: NodeState) -> String {
        let mut node = Node::clone(self.store.node(self.nodes[name]).unwrap());
        node.status.state = state;
        self.mark(|tx| tx.update_node(node).unwrap());
        String::new()
    }

    fn remove_node(&mut self, name: &str) -> String {
        let id = self.nodes[name];
        self.mark(|tx| assert!(tx.remove_node(id)));
        String::new()
    }

    fn create_service(&mut self, name: &str, args: &[&str]) -> String {
        let spec = self.with_networks(spec::service(name, None, args));
        let (job_status, update_status) = job::begin(&spec, self.now);
        let service = Service {
            id: ServiceId::random(&mut self.rng),
            meta: Meta::default(),
            spec: Arc::new(spec),
            spec_version: Version(0),
            previous_spec: None,
            previous_spec_version: None,
            endpoint: None,
            update_status,
            job_status,
            is_pending_delete: false,
        };
        let problems = skep_model::validate::service_spec(&service.spec);
        assert!(problems.is_empty(), "{problems:?}");
        self.mark(|tx| tx.create_service(service).unwrap());
        String::new()
    }

    /// As the API does it.
    fn update_service(&mut self, name: &str, args: &[&str]) -> String {
        let mut service = Service::clone(self.store.service_by_name(name).unwrap());
        let new = self.with_networks(spec::service(name, Some(&service.spec), args));
        service.previous_spec = Some(std::mem::replace(&mut service.spec, Arc::new(new)));
        service.previous_spec_version = Some(service.spec_version);
        service.spec_version = service.meta.version;
        service.update_status = None;
        let old = Arc::clone(self.store.service_by_name(name).unwrap());
        job::revise(&mut service, &old, self.now);
        self.mark(|tx| tx.update_service(service).unwrap());
        String::new()
    }

    /// As the API does it.
    fn rollback_service(&mut self, name: &str) -> String {
        let mut service = Service::clone(self.store.service_by_name(name).unwrap());
        let previous = service.previous_spec.take().unwrap();
        service.previous_spec = Some(std::mem::replace(&mut service.spec, previous));
        let version = service.previous_spec_version.unwrap();
        service.previous_spec_version = Some(std::mem::replace(&mut service.spec_version, version));
        service.update_status = Some(UpdateStatus {
            state: UpdateState::RollbackStarted,
            started_at: Some(self.now),
            completed_at: None,
            message: "manually requested rollback".to_owned(),
        });
        self.mark(|tx| tx.update_service(service).unwrap());
        String::new()
    }

    fn remove_service(&mut self, name: &str) -> String {
        let id = self.store.service_by_name(name).unwrap().id;
        self.mark(|tx| assert!(tx.remove_service(id)));
        String::new()
    }

    /// An agent reports a state for the newest live task of a slot, or for a task by full name.
    fn report(&mut self, name: &str, state: &str) -> String {
        let state = match state {
            "fail" => TaskState::Failed,
            "reject" => TaskState::Rejected,
            "complete" => TaskState::Complete,
            name => *TaskState::ALL
                .iter()
                .find(|state| state.name() == name)
                .unwrap_or_else(|| panic!("unknown state `{name}`")),
        };
        let task = self.find_task(name);
        self.set_task_state(&task, state);
        String::new()
    }

    fn find_task(&self, name: &str) -> Arc<Task> {
        let mut tasks: Vec<&Arc<Task>> = self
            .store
            .tasks()
            .filter(|task| {
                let full = &self.names[&task.id];
                full == name || full.split('#').next() == Some(name)
            })
            .collect();
        tasks.sort_by_key(|task| {
            let ordinal = self.names[&task.id].split_once('#').map(|(_, n)| n.len());
            (
                task.desired_state <= TaskState::Complete && !task.status.state.is_terminal(),
                ordinal,
                &self.names[&task.id],
            )
        });
        let task = tasks.last();
        Arc::clone(task.unwrap_or_else(|| panic!("no task `{name}`")))
    }

    // === output ===

    fn violations(&self) -> String {
        let violations = check(&self.store);
        violations
            .iter()
            .chain(&self.missteps)
            .fold(String::new(), |mut text, violation| {
                let _ = writeln!(text, "violation: {}", self.redact(&violation.to_string()));
                text
            })
    }

    fn show_tasks(&self, service: Option<&str>) -> String {
        let mut tasks: Vec<&Arc<Task>> = self
            .store
            .tasks()
            .filter(|task| service.is_none_or(|name| task.service_annotations.name == name))
            .collect();
        tasks.sort_by(|a, b| {
            let key = |task: &Task| {
                let name = &self.names[&task.id];
                let (slot, count) = name.split_once('#').unwrap();
                (slot.to_owned(), count.parse::<u32>().unwrap())
            };
            key(a).cmp(&key(b))
        });
        let mut text = String::new();
        for task in tasks {
            let node = task.node_id.map_or("-".to_owned(), |id| self.node_name(id));
            let err = match rollout::shown_error(task).as_str() {
                "" => String::new(),
                err => format!(" ({err})"),
            };
            let _ = writeln!(
                text,
                "{:<10} {:<3} {:<9} want {:<9} {} {}{err}",
                self.names[&task.id],
                node,
                task.status.state,
                task.desired_state,
                task.spec.container.image,
                self.redact(shown_message(task)),
            );
        }
        text
    }

    fn show_services(&self) -> String {
        let mut services: Vec<&Arc<Service>> = self.store.services().collect();
        services.sort_by_key(|service| service.name());
        let mut text = String::new();
        for service in services {
            let running = self
                .store
                .tasks_of_service(service.id)
                .filter(|task| task.status.state == TaskState::Running)
                .filter(|task| task.desired_state == TaskState::Running)
                .count();
            let status = service.update_status.as_ref().map_or_else(
                || "never updated".to_owned(),
                |status| format!("{:?}: {}", status.state, self.redact(&status.message)),
            );
            let image = &service.spec.task.container.image;
            let _ = writeln!(
                text,
                "{} {image} running {running}, {status}",
                service.name()
            );
        }
        text
    }

    /// The present run: its number, when it began, its tasks by what they have come to.
    fn show_job(&self, name: &str) -> String {
        let service = self.store.service_by_name(name).unwrap();
        let status = service.job_status.as_ref().unwrap();
        let tasks = || {
            let tasks = self.store.tasks_of_service(service.id);
            tasks.filter(|task| task.job_iteration == Some(status.job_iteration))
        };
        let running = tasks().filter(|task| task.status.state == TaskState::Running);
        let complete = tasks().filter(|task| task.status.state == TaskState::Complete);
        let kept = self.store.tasks_of_service(service.id);
        let kept: std::collections::BTreeSet<u64> = kept
            .filter_map(|task| task.job_iteration)
            .map(|v| v.0)
            .collect();
        let last = status
            .last_execution
            .map_or("never".to_owned(), |at| format!("{}", at.0 / 1_000_000_000));
        format!(
            "run {} at {last}: {} running, {} complete; runs kept {kept:?}\n",
            status.job_iteration.0,
            running.count(),
            complete.count(),
        )
    }

    fn show_nodes(&self) -> String {
        let mut text = String::new();
        for (name, id) in &self.nodes {
            let load = self.store.load_of_node(*id);
            if self.store.node(*id).is_none() {
                continue;
            }
            let _ = writeln!(
                text,
                "{name} active {} held {} cpu {} mem {}M",
                load.active_count,
                load.held_count,
                load.nano_cpus / 1_000_000_000,
                load.memory_bytes >> 20
            );
        }
        text
    }

    fn show_moves(&self) -> String {
        let moves = skep_control::rebalance::preview(&self.store, self.now);
        moves.iter().fold(String::new(), |mut text, step| {
            let _ = writeln!(text, "{}: {}", self.names[&step.task], step.reason);
            text
        })
    }

    fn show_blacklist(&self) -> String {
        let mut text = String::new();
        for (name, until) in &self.store.cluster().unwrap().blacklisted_certificates {
            let days = until.since(self.now).as_secs() / 86_400;
            let _ = writeln!(text, "{} for {days} days", self.redact(name));
        }
        text
    }

    fn show_wait(&self, name: &str) -> String {
        let id = self.store.service_by_name(name).unwrap().id;
        let mut rng = self.rng.clone();
        let mut plan = reconcile(&self.store, &Key::Service(id), self.now, &mut rng);
        let mut text = String::new();
        for key in std::mem::take(&mut plan.follow_up) {
            let slot = reconcile(&self.store, &key, self.now, &mut rng);
            let _ = writeln!(text, "{}", self.redact(&slot.report.to_string()));
        }
        let _ = writeln!(text, "{}", self.redact(&plan.report.to_string()));
        text
    }

    fn node_name(&self, id: NodeId) -> String {
        let found = self.nodes.iter().find(|(_, node)| **node == id);
        found.map_or_else(|| id.to_string(), |(name, _)| name.clone())
    }

    /// Replaces ids and absolute times by names.
    fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (id, name) in &self.names {
            text = text.replace(id.as_str(), name);
        }
        for (name, id) in &self.nodes {
            text = text.replace(id.as_str(), name);
        }
        for network in self.store.networks().all() {
            text = text.replace(network.id.as_str(), network.name());
        }
        for service in self.store.services() {
            text = text.replace(service.id.as_str(), service.name());
        }
        let words = text.split(' ').map(|word| self.relative(word));
        words.collect::<Vec<_>>().join(" ")
    }

    /// `1005.000000000s` becomes `now+3s`.
    fn relative(&self, word: &str) -> String {
        let bare = word.trim_end_matches([',', ';']);
        let seconds = bare.strip_suffix('s').and_then(|s| s.parse::<f64>().ok());
        match seconds.filter(|_| bare.contains('.')) {
            Some(seconds) => {
                #[expect(clippy::cast_precision_loss, reason = "only printed")]
                let now = self.now.0 as f64 / 1e9;
                format!("now+{}s{}", (seconds - now).round(), &word[bare.len()..])
            }
            None => word.to_owned(),
        }
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap()
}
