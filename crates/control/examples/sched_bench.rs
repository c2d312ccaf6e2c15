//! Scheduler benchmark: places tasks with the real driver, like for like with SwarmKit's own.
//!
//! Each workload starts from a store with ready nodes and pending tasks. The time covers driving
//! until nothing is left to place, in entries as the leader makes them, including writing every
//! assignment to the store and producing the change feed. SwarmKit's figures for the same
//! workloads include its 50 ms commit debounce; Skep has none.
//!
//! `cargo run --release -p skep-control --example sched_bench [workload]`

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark measures and prints"
)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use skep_control::{Dirty, WRITES_PER_ENTRY_MAX, Wakes, check, drive};
use skep_model::{
    Certificate, Meta, Node, NodeDescription, NodeId, NodeSpec, NodeState, NodeStatus, Resources,
    Rng, Role, Service, ServiceId, ServiceMode, ServiceSpec, Task, TaskId, TaskSpec, TaskState,
    TaskStatus, Timestamp, Version,
};
use skep_store::{Store, Transaction};

/// One benchmark.
struct Workload {
    name: &'static str,
    nodes: u64,
    tasks: u64,
    /// 0: tasks without a service.
    services: u64,
    /// Reservations, a constraint a third of the nodes satisfy, and a spread over ten racks.
    is_full: bool,
    /// Of the peer, seconds.
    swarmkit: f64,
}

const WORKLOADS: [Workload; 8] = [
    Workload::new("one-offs 1k x 1k", 1000, 1000, 0, false, 0.169),
    Workload::new("one-offs 1k x 10k", 1000, 10_000, 0, false, 1.64),
    Workload::new("one-offs 1k x 100k", 1000, 100_000, 0, false, 17.7),
    Workload::new("1 service 1k x 10k", 1000, 10_000, 1, false, 0.489),
    Workload::new("100 services 1k x 10k", 1000, 10_000, 100, false, 0.521),
    Workload::new("100 services full 1k x 10k", 1000, 10_000, 100, true, 0.581),
    Workload::new("100 services 1k x 100k", 1000, 100_000, 100, false, 8.98),
    Workload::new("100 services 10k x 100k", 10_000, 100_000, 100, false, 7.13),
];

impl Workload {
    const fn new(
        name: &'static str,
        nodes: u64,
        tasks: u64,
        services: u64,
        is_full: bool,
        swarmkit: f64,
    ) -> Self {
        Self {
            name,
            nodes,
            tasks,
            services,
            is_full,
            swarmkit,
        }
    }
}

fn main() {
    let only = std::env::args().nth(1);
    println!(
        "{:<28} {:>10} {:>10} {:>8} {:>8}  SwarmKit",
        "workload", "ms", "cpu ms", "entries", "us/task"
    );
    for workload in &WORKLOADS {
        if only
            .as_ref()
            .is_some_and(|only| !workload.name.contains(only))
        {
            continue;
        }
        let mut best = Duration::MAX;
        let mut best_cpu = Duration::MAX;
        let mut entries = 0;
        for _ in 0..3 {
            let cpu = cpu_time();
            let (time, count, prepared) = measure(workload);
            best = best.min(time);
            best_cpu = best_cpu.min(cpu_time() - cpu - prepared);
            entries = count;
        }
        let micros =
            best_cpu.as_secs_f64() * 1e6 / f64::from(u32::try_from(workload.tasks).unwrap());
        println!(
            "{:<28} {:>10.1} {:>10.1} {:>8} {:>8.2}  {:.0} ms",
            workload.name,
            best.as_secs_f64() * 1e3,
            best_cpu.as_secs_f64() * 1e3,
            entries,
            micros,
            workload.swarmkit * 1e3
        );
    }
}

/// Time this thread was on a CPU; on a busy machine the only figure that can be compared.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// Wall time, entries, and the CPU time that was spent outside the measured part.
fn measure(workload: &Workload) -> (Duration, usize, Duration) {
    let before = cpu_time();
    let mut store = prepare(workload);
    let mut dirty = Dirty::default();
    let mut wakes = Wakes::default();
    let mut rng = Rng::from_seed(1);
    dirty.insert(skep_control::Key::Scheduler);
    let mut entries = 0;
    let mut assigned = 0;
    let prepared = cpu_time();
    let start = Instant::now();
    loop {
        let version = 2 + u64::try_from(entries).unwrap();
        let mut tx = Transaction::new(&store, Version(version), Timestamp(2_000_000_000));
        let driven = drive(
            &mut tx,
            &mut dirty,
            &mut wakes,
            &mut rng,
            WRITES_PER_ENTRY_MAX,
        );
        let (head, _actions, changes) = tx.finish();
        assigned += changes.len();
        store = head;
        entries += 1;
        if driven.is_settled {
            break;
        }
    }
    let time = start.elapsed();
    let measured = cpu_time();
    assert_eq!(assigned, usize::try_from(workload.tasks).unwrap());
    assert_eq!(store.tasks_to_place().count(), 0, "all tasks are placed");
    assert_eq!(check(&store), []);
    drop(store);
    let outside = (prepared - before) + (cpu_time() - measured);
    (time, entries, outside)
}

fn prepare(workload: &Workload) -> Store {
    let mut rng = Rng::from_seed(7);
    let mut tx = Transaction::new(&Store::default(), Version(1), Timestamp(1_000_000_000));
    for index in 0..workload.nodes {
        tx.create_node(node(index, &mut rng)).unwrap();
    }
    let mut services = Vec::new();
    for index in 0..workload.services {
        let service = service(index, workload, &mut rng);
        services.push(service.clone());
        tx.create_service(service).unwrap();
    }
    let spec = Arc::new(TaskSpec::default());
    for index in 0..workload.tasks {
        let count = u64::try_from(services.len()).unwrap();
        let service = index
            .checked_rem(count)
            .map(|i| &services[usize::try_from(i).unwrap()]);
        let slot = 1 + index.checked_div(count).unwrap_or(0);
        tx.create_task(task(slot, service, &spec, &mut rng))
            .unwrap();
    }
    tx.finish().0
}

fn node(index: u64, rng: &mut Rng) -> Node {
    let mut spec = NodeSpec::default();
    let labels = &mut spec.annotations.labels;
    labels.insert("pool".to_owned(), (index % 3).to_string());
    labels.insert("rack".to_owned(), (index % 10).to_string());
    Node {
        id: NodeId::random(rng),
        meta: Meta::default(),
        spec,
        description: Some(NodeDescription {
            hostname: format!("node-{index}"),
            resources: Resources {
                nano_cpus: 64_000_000_000,
                memory_bytes: 256 << 30,
                generic: Vec::new(),
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
    }
}

fn service(index: u64, workload: &Workload, rng: &mut Rng) -> Service {
    let mut spec = ServiceSpec {
        mode: ServiceMode::Replicated {
            replicas: workload.tasks / workload.services,
        },
        ..ServiceSpec::default()
    };
    Arc::make_mut(&mut spec.annotations).name = format!("service-{index}");
    if workload.is_full {
        let task = Arc::make_mut(&mut spec.task);
        task.resources.reservations.nano_cpus = 100_000_000;
        task.resources.reservations.memory_bytes = 128 << 20;
        task.placement.constraints = vec!["node.labels.pool==1".to_owned()];
        task.placement.spread_over = vec!["node.labels.rack".to_owned()];
    }
    Service {
        id: ServiceId::random(rng),
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

fn task(slot: u64, service: Option<&Service>, spec: &Arc<TaskSpec>, rng: &mut Rng) -> Task {
    Task {
        id: TaskId::random(rng),
        meta: Meta::default(),
        spec: service.map_or_else(
            || Arc::clone(spec),
            |service| Arc::clone(&service.spec.task),
        ),
        spec_version: service.map(|service| service.spec_version),
        service_id: service.map(|service| service.id),
        slot: if service.is_some() { slot } else { 0 },
        node_id: None,
        annotations: Arc::default(),
        service_annotations: service
            .map(|s| Arc::clone(&s.spec.annotations))
            .unwrap_or_default(),
        status: TaskStatus {
            state: TaskState::Pending,
            message: "pending task scheduling".to_owned(),
            ..TaskStatus::default()
        },
        desired_state: TaskState::Running,
        endpoint: None,
        log_driver: None,
        networks: Vec::new(),
        assigned_generic_resources: Vec::new(),
        job_iteration: None,
    }
}
