//! The scheduler against an oracle that looks at every node for every task, and the driver's
//! promises: same inputs, same plan; stale changes are dropped.

#![expect(clippy::unwrap_used, reason = "a broken test shall panic")]

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use skep_control::{Change, Dirty, Key, Plan, Wakes, apply, drive, reconcile};
use skep_model::{
    Availability, Certificate, Endpoint, EndpointSpec, Meta, Node, NodeDescription, NodeId,
    NodeSpec, NodeState, NodeStatus, PortConfig, PublishMode, Resources, Rng, Role, Service,
    ServiceId, ServiceMode, ServiceSpec, Slot, Task, TaskId, TaskState, TaskStatus, Timestamp,
    Version,
    reserved::service::placement::{AFFINITY, ANTI_AFFINITY, PREFER, PlacementPolicy, STRATEGY},
};
use skep_store::{Store, Transaction};

const NOW: Timestamp = Timestamp(2_000_000_000);

/// A node as the generator sees it.
#[derive(Debug, Clone)]
struct NodeCase {
    cpus: i64,
    memory: i64,
    rack: u8,
    zone: u8,
    is_ready: bool,
    is_active: bool,
    /// Tasks of each service that run there already.
    running: [u8; 2],
}

/// A service as the generator sees it.
#[derive(Debug, Clone)]
struct ServiceCase {
    pending: u8,
    cpus: i64,
    memory: i64,
    rack: Option<u8>,
    port: Option<u16>,
    max_replicas: u64,
    spread: u8,
    /// Only where the first service is, over zones.
    is_near: bool,
    /// Not where the second service is, over racks if true.
    apart: Option<bool>,
    has_wishes: bool,
    is_packed: bool,
}

/// The wishes, as labels say them; [`Oracle::unmet`] weighs them.
const WISHES: &str = "node.labels.zone==1 weight 5, service==s0 over node.labels.rack weight 3, \
                      service!=s1 weight 2";

fn node_case() -> impl Strategy<Value = NodeCase> {
    (
        0i64..8,
        0i64..8,
        0u8..3,
        0u8..3,
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.9),
        [0u8..3, 0u8..3],
    )
        .prop_map(
            |(cpus, memory, rack, zone, is_ready, is_active, running)| NodeCase {
                cpus,
                memory,
                rack,
                zone,
                is_ready,
                is_active,
                running,
            },
        )
}

fn service_case() -> impl Strategy<Value = ServiceCase> {
    (
        0u8..12,
        0i64..3,
        0i64..3,
        prop::option::weighted(0.3, 0u8..3),
        prop::option::weighted(0.2, Just(80u16)),
        prop_oneof![3 => Just(0u64), 1 => 1u64..3],
        0u8..3,
        (
            prop::bool::weighted(0.2),
            prop::option::weighted(0.2, any::<bool>()),
            prop::bool::weighted(0.3),
            prop::bool::weighted(0.3),
        ),
    )
        .prop_map(
            |(pending, cpus, memory, rack, port, max_replicas, spread, labels)| ServiceCase {
                pending,
                cpus,
                memory,
                rack,
                port,
                max_replicas,
                spread,
                is_near: labels.0,
                apart: labels.1,
                has_wishes: labels.2,
                is_packed: labels.3,
            },
        )
}

fn node(index: usize, case: &NodeCase) -> Node {
    let mut spec = NodeSpec::default();
    let labels = &mut spec.annotations.labels;
    labels.insert("rack".to_owned(), case.rack.to_string());
    if case.zone > 0 {
        labels.insert("zone".to_owned(), case.zone.to_string());
    }
    if !case.is_active {
        spec.availability = Availability::Pause;
    }
    Node {
        id: format!("{index:0>25}").parse::<NodeId>().unwrap(),
        meta: Meta::default(),
        spec,
        description: Some(NodeDescription {
            resources: Resources {
                nano_cpus: case.cpus,
                memory_bytes: case.memory,
                generic: Vec::new(),
            },
            ..NodeDescription::default()
        }),
        status: NodeStatus {
            state: if case.is_ready {
                NodeState::Ready
            } else {
                NodeState::Unknown
            },
            ..NodeStatus::default()
        },
        manager_status: None,
        certificate: Certificate::default(),
        role: Role::Worker,
        attachments: Vec::new(),
        vxlan_udp_port: 0,
    }
}

fn service(index: usize, case: &ServiceCase) -> Service {
    let mut spec = ServiceSpec {
        mode: ServiceMode::Replicated { replicas: 1 },
        ..ServiceSpec::default()
    };
    let annotations = Arc::make_mut(&mut spec.annotations);
    annotations.name = format!("s{index}");
    let mut label = |key: &str, value: &str| {
        let labels = &mut annotations.labels;
        labels.insert(key.to_owned(), value.to_owned());
    };
    if case.is_near {
        label(AFFINITY, "service==s0 over node.labels.zone");
    }
    match case.apart {
        None => {}
        Some(false) => label(ANTI_AFFINITY, "service==s1"),
        Some(true) => label(ANTI_AFFINITY, "service==s1 over node.labels.rack"),
    }
    if case.has_wishes {
        label(PREFER, WISHES);
    }
    if case.is_packed {
        label(STRATEGY, "binpack");
    }
    assert_eq!(PlacementPolicy::problems(&annotations.labels), []);
    let task = Arc::make_mut(&mut spec.task);
    task.resources.reservations.nano_cpus = case.cpus;
    task.resources.reservations.memory_bytes = case.memory;
    task.placement.max_replicas = case.max_replicas;
    if let Some(rack) = case.rack {
        task.placement.constraints = vec![format!("node.labels.rack=={rack}")];
    }
    let spreads = ["node.labels.zone", "node.labels.rack"];
    let count = usize::from(case.spread);
    task.placement.spread_over = spreads[..count].iter().map(|s| (*s).to_owned()).collect();
    spec.endpoint = case.port.map(|port| EndpointSpec {
        ports: vec![PortConfig {
            published_port: port,
            publish_mode: PublishMode::Host,
            ..PortConfig::default()
        }],
        ..EndpointSpec::default()
    });
    Service {
        id: format!("{index:0>25}").parse::<ServiceId>().unwrap(),
        meta: Meta::default(),
        spec: Arc::new(spec),
        spec_version: Version(1),
        previous_spec: None,
        previous_spec_version: None,
        endpoint: None,
        update_status: None,
        job_status: None,
        is_pending_delete: false,
    }
}

fn task(service: &Service, slot: u64, node: Option<NodeId>, rng: &mut Rng) -> Task {
    let endpoint = service.spec.endpoint.clone();
    Task {
        id: TaskId::random(rng),
        meta: Meta::default(),
        spec: Arc::clone(&service.spec.task),
        spec_version: Some(service.spec_version),
        service_id: Some(service.id),
        slot,
        node_id: node,
        annotations: Arc::default(),
        service_annotations: Arc::clone(&service.spec.annotations),
        status: TaskStatus {
            state: match node {
                Some(_) => TaskState::Running,
                None => TaskState::Pending,
            },
            ..TaskStatus::default()
        },
        desired_state: TaskState::Running,
        endpoint: Some(Arc::new(Endpoint {
            ports: endpoint.iter().flat_map(|e| e.ports.clone()).collect(),
            spec: endpoint,
            virtual_ips: Vec::new(),
        })),
        log_driver: None,
        networks: Vec::new(),
        assigned_generic_resources: Vec::new(),
        job_iteration: None,
    }
}

fn build(nodes: &[NodeCase], services: &[ServiceCase]) -> Store {
    let mut rng = Rng::from_seed(5);
    let mut tx = Transaction::new(&Store::default(), Version(1), Timestamp(1));
    for (index, case) in nodes.iter().enumerate() {
        tx.create_node(node(index, case)).unwrap();
    }
    for (index, case) in services.iter().enumerate() {
        let service = service(index, case);
        tx.create_service(service.clone()).unwrap();
        let mut slot = 0;
        for (at, node_case) in nodes.iter().enumerate() {
            for _ in 0..node_case.running[index] {
                slot += 1;
                let id = node(at, node_case).id;
                tx.create_task(task(&service, slot, Some(id), &mut rng))
                    .unwrap();
            }
        }
        for _ in 0..case.pending {
            slot += 1;
            tx.create_task(task(&service, slot, None, &mut rng))
                .unwrap();
        }
    }
    tx.finish().0
}

/// Places one task after the other, each on the best of all nodes, with plain sums.
struct Oracle<'a> {
    nodes: &'a [NodeCase],
    services: &'a [ServiceCase],
    /// Tasks of each service on each node.
    counts: Vec<Vec<i64>>,
}

impl<'a> Oracle<'a> {
    fn new(nodes: &'a [NodeCase], services: &'a [ServiceCase]) -> Self {
        let counts = (0..services.len())
            .map(|service| {
                nodes
                    .iter()
                    .map(|n| i64::from(n.running[service]))
                    .collect()
            })
            .collect();
        Self {
            nodes,
            services,
            counts,
        }
    }

    fn used(&self, node: usize, of: impl Fn(&ServiceCase) -> i64) -> i64 {
        let services = self.services.iter().enumerate();
        services
            .map(|(s, case)| self.counts[s][node] * of(case))
            .sum()
    }

    fn fits(&self, service: usize, node: usize) -> bool {
        let (case, at) = (&self.services[service], &self.nodes[node]);
        let port_used = self.used(node, |other| i64::from(other.port.is_some()));
        let free_cpus = at.cpus - self.used(node, |other| other.cpus);
        let free_memory = at.memory - self.used(node, |other| other.memory);
        let wants_nothing = case.cpus == 0 && case.memory == 0;
        at.is_ready
            && at.is_active
            && (wants_nothing || case.cpus <= free_cpus && case.memory <= free_memory)
            && case.rack.is_none_or(|rack| rack == at.rack)
            && (case.port.is_none() || port_used == 0)
            && (case.max_replicas == 0
                || self.counts[service][node] < i64::try_from(case.max_replicas).unwrap())
            && self.is_near(service, node)
            && self.is_apart(service, node)
    }

    /// Tasks of a service on all nodes that are like `node`.
    fn count_like(&self, service: usize, is_like: impl Fn(usize) -> bool) -> i64 {
        let nodes = (0..self.nodes.len()).filter(|other| is_like(*other));
        nodes.map(|other| self.counts[service][other]).sum()
    }

    fn in_rack(&self, service: usize, node: usize) -> i64 {
        self.count_like(service, |other| {
            self.nodes[other].rack == self.nodes[node].rack
        })
    }

    fn is_near(&self, service: usize, node: usize) -> bool {
        if !self.services[service].is_near || service == 0 && self.count_like(0, |_| true) == 0 {
            return true;
        }
        let zone = self.nodes[node].zone;
        zone > 0 && self.count_like(0, |other| self.nodes[other].zone == zone) > 0
    }

    fn is_apart(&self, service: usize, node: usize) -> bool {
        let is_free = |of: usize, is_over_racks: bool| match is_over_racks {
            true => self.in_rack(of, node) == 0,
            false => self.counts[of][node] == 0,
        };
        let own = self.services[service].apart;
        own.is_none_or(|racks| is_free(1, racks))
            // What the first wants to be apart from keeps its distance, too.
            && (service == 0 || self.services[0].apart.is_none_or(|racks| is_free(0, racks)))
    }

    fn unmet(&self, service: usize, node: usize) -> i64 {
        if !self.services[service].has_wishes {
            return 0;
        }
        5 * i64::from(self.nodes[node].zone != 1)
            + 3 * i64::from(self.in_rack(0, node) == 0)
            + 2 * i64::from(self.counts[1][node] > 0)
    }

    /// Percents of CPU and memory in use with one more task, added.
    fn fullness(&self, service: usize, node: usize) -> i64 {
        let (case, at) = (&self.services[service], &self.nodes[node]);
        let percent = |wanted: i64, used: i64, whole: i64| match wanted {
            0 => 100,
            _ => (used + wanted) * 100 / whole,
        };
        percent(case.cpus, self.used(node, |other| other.cpus), at.cpus)
            + percent(
                case.memory,
                self.used(node, |other| other.memory),
                at.memory,
            )
    }

    /// Labels of a node, outermost preference first.
    fn branch(&self, service: usize, node: usize) -> Vec<String> {
        let at = &self.nodes[node];
        let zone = if at.zone == 0 {
            String::new()
        } else {
            at.zone.to_string()
        };
        let values = [zone, at.rack.to_string()];
        values[..usize::from(self.services[service].spread)].to_vec()
    }

    /// Tasks of the service on all nodes whose labels begin so.
    fn branch_count(&self, service: usize, branch: &[String]) -> i64 {
        (0..self.nodes.len())
            .filter(|node| self.branch(service, *node).starts_with(branch))
            .map(|node| self.counts[service][node])
            .sum()
    }

    fn place(&mut self, service: usize) -> Option<usize> {
        let best = (0..self.nodes.len())
            .filter(|node| self.fits(service, *node))
            .min_by_key(|node| {
                let branch = self.branch(service, *node);
                let path: Vec<(i64, String)> = (1..=branch.len())
                    .map(|depth| {
                        let count = self.branch_count(service, &branch[..depth]);
                        (count, branch[depth - 1].clone())
                    })
                    .collect();
                let total = self.used(*node, |_| 1);
                let unmet = self.unmet(service, *node);
                if self.services[service].is_packed {
                    return (path, unmet, -self.fullness(service, *node), -total, *node);
                }
                (path, unmet, self.counts[service][*node], total, *node)
            })?;
        self.counts[service][best] += 1;
        Some(best)
    }
}

/// Where the plan puts the tasks of each service, in slot order.
fn assignments(view: &Store, plan: &Plan) -> BTreeMap<(ServiceId, u64), Option<NodeId>> {
    let mut placed: BTreeMap<(ServiceId, u64), Option<NodeId>> = view
        .tasks_to_place()
        .map(|task| ((task.service_id.unwrap(), task.slot), None))
        .collect();
    for change in &plan.changes {
        let Change::UpdateTask(task) = change else {
            panic!("the scheduler only updates tasks")
        };
        if task.status.state == TaskState::Assigned {
            placed.insert((task.service_id.unwrap(), task.slot), task.node_id);
        } else {
            assert!(task.status.err.starts_with("no suitable node"));
        }
    }
    placed
}

proptest! {
    #[test]
    fn placement_agrees_with_looking_at_every_node(
        nodes in prop::collection::vec(node_case(), 0..8),
        services in prop::collection::vec(service_case(), 2..=2),
    ) {
        let view = build(&nodes, &services);
        let plan = reconcile(&view, &Key::Scheduler, NOW, &mut Rng::from_seed(1));
        let mut oracle = Oracle::new(&nodes, &services);
        for ((service, slot), actual) in assignments(&view, &plan) {
            let index = service.as_str().trim_start_matches('0').parse().unwrap_or(0);
            let expected = oracle.place(index).map(|at| node(at, &nodes[at]).id);
            prop_assert_eq!(actual, expected, "service {} slot {}", index, slot);
        }
    }

    #[test]
    fn same_inputs_give_the_same_entries(
        nodes in prop::collection::vec(node_case(), 0..6),
        services in prop::collection::vec(service_case(), 2..=2),
        seed: u64,
    ) {
        let view = build(&nodes, &services);
        let rebuilt = Store::from_objects(view.objects()).unwrap();
        let run = |store: &Store| {
            let mut dirty = Dirty::default();
            dirty.mark_all(store);
            let mut tx = Transaction::new(store, Version(2), NOW);
            let mut rng = Rng::from_seed(seed);
            drive(&mut tx, &mut dirty, &mut Wakes::default(), &mut rng, 10_000);
            tx.finish().1
        };
        prop_assert_eq!(run(&view), run(&rebuilt));
    }

    #[test]
    fn small_budgets_end_where_a_large_one_does(
        nodes in prop::collection::vec(node_case(), 1..6),
        services in prop::collection::vec(service_case(), 2..=2),
        budget in 1usize..7,
    ) {
        let settle = |budget: usize| {
            let mut store = build(&nodes, &services);
            let mut dirty = Dirty::default();
            dirty.insert(Key::Scheduler);
            for version in 2..200 {
                let mut tx = Transaction::new(&store, Version(version), NOW);
                let mut rng = Rng::from_seed(1);
                let driven = drive(&mut tx, &mut dirty, &mut Wakes::default(), &mut rng, budget);
                assert!(tx.actions().len() <= budget);
                store = tx.finish().0;
                if driven.is_settled {
                    break;
                }
            }
            // Explanations may differ: they tell what was missing when they were written.
            let places = store.tasks().map(|task| (task.id, task.node_id));
            places.collect::<Vec<_>>()
        };
        prop_assert_eq!(settle(budget), settle(10_000));
    }
}

fn one_pending() -> Store {
    let node = NodeCase {
        cpus: 4,
        memory: 4,
        rack: 0,
        zone: 0,
        is_ready: true,
        is_active: true,
        running: [0, 0],
    };
    let service = ServiceCase {
        pending: 1,
        cpus: 0,
        memory: 0,
        rack: None,
        port: None,
        max_replicas: 0,
        spread: 0,
        is_near: false,
        apart: None,
        has_wishes: false,
        is_packed: false,
    };
    build(&[node], &[service])
}

#[test]
fn a_change_computed_from_an_older_version_is_dropped() {
    let old = one_pending();
    let plan = reconcile(&old, &Key::Scheduler, NOW, &mut Rng::from_seed(1));
    assert_eq!(plan.changes.len(), 1);
    // Somebody else writes the task meanwhile.
    let mut tx = Transaction::new(&old, Version(2), NOW);
    let mut task = Task::clone(old.tasks().next().unwrap());
    task.desired_state = TaskState::Shutdown;
    tx.update_task(task).unwrap();
    let (current, ..) = tx.finish();

    let mut tx = Transaction::new(&current, Version(3), NOW);
    let mut dirty = Dirty::default();
    let stale = apply(&mut tx, Key::Scheduler, plan, &mut dirty);

    assert_eq!(stale, 1);
    assert!(tx.is_empty());
    assert_eq!(dirty.len(), 1, "the key is looked at again");
}

#[test]
fn changes_made_together_are_dropped_together() {
    let old = one_pending();
    let task = Task::clone(old.tasks().next().unwrap());
    let mut other = task.clone();
    other.id = TaskId::random(&mut Rng::from_seed(77));
    let mut stale = task.clone();
    stale.meta.version = Version(0);
    let plan = Plan {
        changes: vec![Change::Together(vec![
            Change::CreateTask(Arc::new(other)),
            Change::UpdateTask(Arc::new(stale)),
        ])],
        ..Plan::default()
    };
    let mut tx = Transaction::new(&old, Version(3), NOW);
    let mut dirty = Dirty::default();
    assert_eq!(apply(&mut tx, Key::Scheduler, plan, &mut dirty), 1);
    assert!(tx.is_empty());
}

#[test]
fn tasks_of_a_removed_service_are_ended_in_parts_and_each_is_looked_at_alone() {
    const COUNT: u64 = 5000;
    let mut rng = Rng::from_seed(9);
    let mut tx = Transaction::new(&one_pending(), Version(2), NOW);
    let service = Service::clone(tx.view().services().next().unwrap());
    for slot in 2..=COUNT {
        tx.create_task(task(&service, slot, None, &mut rng))
            .unwrap();
    }
    tx.remove_service(service.id);
    let (mut view, ..) = tx.finish();

    let mut look = |key: Key| reconcile(&view, &key, NOW, &mut rng);
    let plan = look(Key::Service(service.id));
    assert_eq!(plan.changes.len(), 2000);
    assert_eq!(plan.follow_up, [Key::Service(service.id)]);
    let plan = look(Key::Slot(service.id, Slot::Number(7)));
    assert_eq!(plan.changes.len(), 1);
    assert_eq!(plan.follow_up, []);

    let (mut dirty, mut wakes) = (Dirty::default(), Wakes::default());
    dirty.mark_all(&view);
    let mut activation_count = 0;
    for version in 3.. {
        let mut tx = Transaction::new(&view, Version(version), NOW);
        let driven = drive(&mut tx, &mut dirty, &mut wakes, &mut rng, 1000);
        activation_count += driven.activation_count as u64;
        view = tx.finish().0;
        if driven.is_settled {
            break;
        }
    }
    assert_eq!(view.tasks().count(), 0);
    assert!(activation_count < 6 * COUNT, "{activation_count}");
}
