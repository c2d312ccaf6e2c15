//! Benchmark of jobs: what the leader does for a job of many completions, from the first task to the last,
//! with the real driver.
//!
//! Agents are played: each round the tasks that were given to nodes run, and some of those that run complete,
//! as one entry. The time is that of `drive` alone; per completion it should not depend on how many there are.
//!
//! `cargo run --release -p skep-control --example job_bench [completions…]`

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark measures and prints"
)]

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use skep_control::{Dirty, WRITES_PER_ENTRY_MAX, Wakes, drive};
use skep_model::{
    Certificate, JobStatus, Meta, Node, NodeId, NodeSpec, NodeState, NodeStatus, Rng, Role,
    Service, ServiceId, ServiceMode, ServiceSpec, Task, TaskId, TaskState, Timestamp, Version,
};
use skep_store::{Object, Store, Transaction};

/// Nodes that take part.
const NODES: usize = 100;

/// A cluster that lives for one benchmark.
struct Bench {
    store: Store,
    version: u64,
    rng: Rng,
    dirty: Dirty,
    wakes: Wakes,
    /// Tasks given to nodes that do not run yet, and those that run.
    assigned: BTreeSet<TaskId>,
    running: BTreeSet<TaskId>,
    entries: usize,
    driving: Duration,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            store: Store::default(),
            version: 1,
            rng: Rng::from_seed(7),
            dirty: Dirty::default(),
            wakes: Wakes::default(),
            assigned: BTreeSet::new(),
            running: BTreeSet::new(),
            entries: 0,
            driving: Duration::ZERO,
        };
        (0..NODES).for_each(|_| bench.create_node());
        bench.settle();
        bench
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

    /// Drives to the fixpoint, in entries as the leader makes them.
    fn settle(&mut self) {
        loop {
            let mut tx = self.begin();
            let start = Instant::now();
            let driven = drive(
                &mut tx,
                &mut self.dirty,
                &mut self.wakes,
                &mut self.rng,
                WRITES_PER_ENTRY_MAX,
            );
            self.driving += start.elapsed();
            self.entries += 1;
            for change in tx.changes() {
                if let Some(Object::Task(task)) = &change.new
                    && task.status.state == TaskState::Assigned
                {
                    self.assigned.insert(task.id);
                }
            }
            self.store = tx.finish().0;
            if driven.is_settled {
                return;
            }
        }
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

    fn create_job(&mut self, total_completions: u64, max_concurrent: u64) -> ServiceId {
        let id = ServiceId::random(&mut self.rng);
        let mut spec = ServiceSpec {
            mode: ServiceMode::ReplicatedJob {
                max_concurrent,
                total_completions,
            },
            ..ServiceSpec::default()
        };
        Arc::make_mut(&mut spec.annotations).name = "job".to_owned();
        let service = Service {
            id,
            meta: Meta::default(),
            spec: Arc::new(spec),
            spec_version: Version(0),
            previous_spec: None,
            previous_spec_version: None,
            endpoint: None,
            update_status: None,
            job_status: Some(JobStatus::default()),
            is_pending_delete: false,
        };
        self.write(|tx| tx.create_service(service).unwrap());
        self.settle();
        id
    }

    /// What agents report in one entry: everything assigned runs, `batch` of what runs completes.
    fn report(&mut self, batch: usize) {
        let started = std::mem::take(&mut self.assigned);
        let ended: Vec<TaskId> = self.running.iter().copied().take(batch).collect();
        for id in &ended {
            self.running.remove(id);
        }
        self.running.extend(started.iter().copied());
        let store = self.store.clone();
        let set = |tx: &mut Transaction, id: TaskId, state: TaskState| {
            let mut task = Task::clone(store.task(id).unwrap());
            task.status.state = state;
            tx.update_task(task).unwrap();
        };
        self.write(|tx| {
            for id in started {
                set(tx, id, TaskState::Running);
            }
            for id in ended {
                set(tx, id, TaskState::Complete);
            }
        });
        self.settle();
    }
}

/// One job; `batch` tasks complete at once.
fn run(total: u64, concurrent: u64, batch: usize) {
    let mut bench = Bench::new();
    let job = bench.create_job(total, concurrent);
    let first = std::mem::take(&mut bench.driving);
    while !(bench.assigned.is_empty() && bench.running.is_empty()) {
        bench.report(batch);
    }
    let complete = bench
        .store
        .tasks_of_service(job)
        .filter(|task| task.status.state == TaskState::Complete)
        .count();
    assert_eq!(complete as u64, total);
    let each = bench.driving / u32::try_from(total).unwrap();
    println!(
        "{total} completions, {concurrent} at once, {batch} an entry: begun in {first:?}, completed in {:?} \
         ({each:?} each, {} entries)",
        bench.driving, bench.entries
    );
}

fn main() {
    let sizes: Vec<u64> = std::env::args()
        .skip(1)
        .map(|size| size.parse().unwrap())
        .collect();
    let sizes = if sizes.is_empty() {
        vec![10_000, 100_000]
    } else {
        sizes
    };
    for total in sizes {
        run(total, 100, 20);
        run(total, total, 100);
    }
}
