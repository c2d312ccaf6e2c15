//! Allocation benchmark: networks, services and tasks get what they need, with the real driver.
//!
//! Every task is on the network of its service. The times cover what the leader does: creating
//! networks, driving services and tasks to the fixpoint in entries as the leader makes them, one
//! replacement of a task in the full cluster, and the same with a network that has no address left.
//!
//! `cargo run --release -p skep-control --example alloc_bench`

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

use skep_control::{
    Dirty, WRITES_PER_ENTRY_MAX, Wakes, check, drive,
    network::{Allocation, allocate},
};
use skep_model::{
    Certificate, IpamConfig, IpamOptions, Meta, Network, NetworkAttachmentConfig, NetworkId,
    NetworkSpec, Node, NodeId, NodeSpec, NodeState, NodeStatus, Rng, Role, Service, ServiceId,
    ServiceMode, ServiceSpec, Task, TaskState, Timestamp, Version,
};
use skep_store::{Store, Transaction};

/// A cluster that lives for one benchmark.
struct Bench {
    store: Store,
    version: u64,
    rng: Rng,
    dirty: Dirty,
    wakes: Wakes,
}

impl Bench {
    fn new() -> Self {
        Self {
            store: Store::default(),
            version: 1,
            rng: Rng::from_seed(7),
            dirty: Dirty::default(),
            wakes: Wakes::default(),
        }
    }

    fn begin(&mut self) -> Transaction {
        self.version += 1;
        let now = Timestamp(1_000_000_000_000 + i64::try_from(self.version).unwrap());
        Transaction::new(&self.store, Version(self.version), now)
    }

    fn write(&mut self, change: impl FnOnce(&mut Transaction)) {
        let mut tx = self.begin();
        change(&mut tx);
        tx.changes()
            .iter()
            .for_each(|change| self.dirty.mark(change));
        self.store = tx.finish().0;
    }

    /// Drives to the fixpoint; how long it took.
    fn settle(&mut self) -> Duration {
        let start = Instant::now();
        loop {
            let mut tx = self.begin();
            let driven = drive(
                &mut tx,
                &mut self.dirty,
                &mut self.wakes,
                &mut self.rng,
                WRITES_PER_ENTRY_MAX,
            );
            self.store = tx.finish().0;
            if driven.is_settled {
                return start.elapsed();
            }
        }
    }

    fn create_network(&mut self, name: &str, subnet: Option<&str>) -> NetworkId {
        let id = NetworkId::random(&mut self.rng);
        let mut spec = NetworkSpec::default();
        spec.annotations.name = name.to_owned();
        spec.ipam = subnet.map(|subnet| IpamOptions {
            configs: vec![IpamConfig {
                subnet: Some(subnet.parse().unwrap()),
                ..IpamConfig::default()
            }],
            ..IpamOptions::default()
        });
        let Allocation { driver_state, ipam } = allocate(&self.store, id, &spec).unwrap();
        let network = Network {
            id,
            meta: Meta::default(),
            spec,
            driver_state: Some(driver_state),
            ipam: Some(ipam),
            is_pending_delete: false,
        };
        self.write(|tx| tx.create_network(network).unwrap());
        id
    }

    fn create_service(&mut self, name: &str, network: NetworkId, replicas: u64) -> ServiceId {
        let id = ServiceId::random(&mut self.rng);
        let mut spec = ServiceSpec {
            mode: ServiceMode::Replicated { replicas },
            ..ServiceSpec::default()
        };
        Arc::make_mut(&mut spec.annotations).name = name.to_owned();
        Arc::make_mut(&mut spec.task).networks = vec![NetworkAttachmentConfig {
            target: network.to_string(),
            ..NetworkAttachmentConfig::default()
        }];
        let service = Service {
            id,
            meta: Meta::default(),
            spec: Arc::new(spec),
            spec_version: Version(0),
            previous_spec: None,
            previous_spec_version: None,
            endpoint: None,
            update_status: None,
            job_status: None,
            is_pending_delete: false,
        };
        self.write(|tx| tx.create_service(service).unwrap());
        id
    }

    fn create_node(&mut self) {
        let node = Node {
            id: NodeId::random(&mut self.rng),
            meta: Meta::default(),
            spec: NodeSpec::default(),
            description: None,
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
        self.write(|tx| tx.create_node(node).unwrap());
    }

    /// A task fails; how long until the leader has allocated and placed its replacement.
    fn fail_one(&mut self, service: ServiceId) -> Duration {
        let mut tasks = self.store.tasks_of_service(service);
        let mut task = Task::clone(tasks.find(|task| task.node_id.is_some()).unwrap());
        drop(tasks);
        task.status.state = TaskState::Failed;
        self.write(|tx| tx.update_task(task).unwrap());
        self.settle()
    }
}

/// Networks, services and tasks of one size; each service has a network of its own.
fn spread(networks: u64, tasks_each: u64) {
    let mut bench = Bench::new();
    (0..100).for_each(|_| bench.create_node());
    bench.settle();
    let start = Instant::now();
    let ids: Vec<NetworkId> = (0..networks)
        .map(|index| bench.create_network(&format!("net-{index}"), None))
        .collect();
    let creating = start.elapsed();
    let services: Vec<ServiceId> = (0..)
        .zip(&ids)
        .map(|(index, id): (u64, _)| {
            bench.create_service(&format!("service-{index}"), *id, tasks_each)
        })
        .collect();
    let driving = bench.settle();
    let tasks = networks * tasks_each;
    assert_eq!(bench.store.task_count() as u64, tasks);
    assert_eq!(check(&bench.store), []);
    let replacing = bench.fail_one(services[0]);
    println!(
        "{networks} networks x {tasks_each} tasks: networks created in {creating:?}, services and \
         tasks allocated and placed in {driving:?} ({:?} a task), one task replaced in {replacing:?}",
        driving / u32::try_from(tasks).unwrap(),
    );
}

/// One network with room for `room` of `tasks` tasks.
fn crowd(subnet: &str, tasks: u64) {
    let mut bench = Bench::new();
    (0..100).for_each(|_| bench.create_node());
    bench.settle();
    let id = bench.create_network("crowd", Some(subnet));
    let service = bench.create_service("crowd", id, tasks);
    let driving = bench.settle();
    let waiting = bench
        .store
        .tasks()
        .filter(|task| task.status.state == TaskState::New)
        .count();
    assert_eq!(check(&bench.store), []);
    let replacing = bench.fail_one(service);
    println!(
        "one {subnet} for {tasks} tasks: {driving:?}, {waiting} wait, one address given back in \
         {replacing:?}"
    );
}

fn main() {
    spread(1000, 10);
    spread(100, 100);
    spread(1000, 100);
    crowd("10.1.0.0/16", 10_000);
    crowd("10.1.0.0/20", 10_000);
}
