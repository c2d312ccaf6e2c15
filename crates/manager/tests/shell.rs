//! The manager's shell on a real disk: acknowledged writes survive, a full disk is told and survived.

#![expect(
    clippy::unwrap_used,
    reason = "what a test cannot unwrap is its failure"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use skep_manager::{
    Config, Ended, Handle, Manager, Start,
    bootstrap::NewCluster,
    command::{Answer, Code, Command, CommandError},
    core,
    event::Bootstrap,
};
use skep_model::{
    Annotations, Availability, ClusterId, ClusterSpec, ContainerSpec, NodeId, Rng, RootCa,
    ServiceMode, ServiceSpec, TaskSpec,
};
use skep_raft::{Dek, Disk, DiskError, Ready, Restored, Snapshot, Storage};
use tokio::{sync::watch, task::JoinHandle};

/// Longest wait for anything here; real disks under load take a while.
const PATIENCE: Duration = Duration::from_secs(30);

struct Running {
    handle: Handle,
    stop: watch::Sender<bool>,
    task: JoinHandle<Ended>,
}

impl Running {
    async fn start(storage: impl Storage + 'static, snapshot_interval: u64) -> Self {
        let config = config(snapshot_interval);
        let vault = Box::new(skep_manager::vault::SystemVault);
        let (manager, handle, _outbox) = Manager::open(config, Box::new(storage), vault).unwrap();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(manager.run(stopped));
        let running = Self { handle, stop, task };
        running
            .until("it leads a cluster", |view| {
                view.is_leader && view.store.cluster().is_some()
            })
            .await;
        running
    }

    async fn until(&self, what: &str, is_met: impl Fn(&skep_manager::Published) -> bool) {
        let poll = async {
            while !is_met(&self.handle.view()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let met = tokio::time::timeout(PATIENCE, poll).await;
        met.unwrap_or_else(|_| panic!("not seen: {what}"));
    }

    async fn create(&self, name: &str) -> Result<Answer, CommandError> {
        self.handle
            .command(Command::CreateService {
                spec: Box::new(spec(name)),
            })
            .await
    }

    async fn stop(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap();
    }
}

fn config(snapshot_interval: u64) -> Config {
    let mut rng = Rng::from_seed(1);
    let node_id = NodeId::random(&mut rng);
    let mut spec = ClusterSpec::default();
    spec.raft.snapshot_interval = snapshot_interval;
    spec.raft.log_entries_for_slow_followers = 2;
    let new = NewCluster {
        cluster_id: ClusterId::random(&mut rng),
        node_id,
        spec,
        root_ca: RootCa::default(),
        certificate: Vec::new(),
        availability: Availability::Active,
        data_path_port: 0,
        default_address_pool: Vec::new(),
        subnet_size: 0,
        node_pool: None,
    };
    let bootstrap: Bootstrap = new.into();
    // Ids must differ between lives, as the daemon's random seed makes them.
    let seed = u64::from(std::process::id()) << 32 | u64::from(node_id.as_str().as_bytes()[0]);
    let seed = seed ^ next_life();
    Config {
        core: core::Config {
            node_id,
            seed,
            request_prefix: 3,
            bootstrap: None,
            reconcile: core::reconcile,
        },
        raft_id: 7,
        addr: "127.0.0.1:2377".to_owned(),
        start: Start::New(bootstrap),
        is_compat: false,
    }
}

fn next_life() -> u64 {
    static LIVES: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    LIVES.fetch_add(1, Ordering::Relaxed) * 0x9e37_79b9
}

fn spec(name: &str) -> ServiceSpec {
    let container = ContainerSpec {
        image: "img".to_owned(),
        ..ContainerSpec::default()
    };
    ServiceSpec {
        annotations: Arc::new(Annotations {
            name: name.to_owned(),
            ..Annotations::default()
        }),
        task: Arc::new(TaskSpec {
            container,
            ..TaskSpec::default()
        }),
        mode: ServiceMode::Replicated { replicas: 0 },
        ..ServiceSpec::default()
    }
}

fn multi_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn acknowledged_services_survive_restarts_through_log_and_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let dek = Dek::generate();
    multi_thread().block_on(async {
        for life in 0..3 {
            let running = Running::start(Disk::open(dir.path(), &dek).unwrap(), 5).await;
            let before = running.handle.view().store.service_count();
            assert_eq!(before, life * 20, "services of earlier lives are there");
            for number in 0..20 {
                running.create(&format!("s{life}-{number}")).await.unwrap();
            }
            running.stop().await;
        }
    });
}

#[test]
fn many_clients_at_once_are_all_answered_and_names_stay_unique() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Disk::open(dir.path(), &Dek::generate()).unwrap();
    multi_thread().block_on(async {
        let running = Running::start(storage, 10_000).await;
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..64 {
            let handle = running.handle.clone();
            clients.spawn(async move {
                let spec = Box::new(spec(&format!("s{}", client / 2)));
                handle.command(Command::CreateService { spec }).await
            });
        }
        let (created, refused): (Vec<_>, Vec<_>) = clients
            .join_all()
            .await
            .into_iter()
            .partition(Result::is_ok);
        assert_eq!((created.len(), refused.len()), (32, 32));
        let is_conflict = |answer: &Result<Answer, CommandError>| {
            answer
                .as_ref()
                .is_err_and(|error| error.code == Code::AlreadyExists)
        };
        assert!(refused.iter().all(is_conflict), "{refused:?}");
        running.stop().await;
    });
}

/// A disk that can be told to be full.
#[derive(Debug)]
struct FullDisk {
    disk: Disk,
    is_full: Arc<AtomicBool>,
}

impl Storage for FullDisk {
    fn restored(&mut self) -> Result<Restored, DiskError> {
        self.disk.restored()
    }

    fn bootstrap(&mut self, group: &Restored) -> Result<(), DiskError> {
        self.disk.bootstrap(group)
    }

    fn write(&mut self, ready: &Ready) -> Result<(), DiskError> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(DiskError::Full(std::io::ErrorKind::StorageFull.into()));
        }
        self.disk.write(ready)
    }

    fn save_snapshot(&mut self, snapshot: &Snapshot) -> Result<(), DiskError> {
        self.disk.save_snapshot(snapshot)
    }

    fn compact(&mut self, index: u64) -> Result<(), DiskError> {
        self.disk.compact(index)
    }

    fn snapshot(&mut self) -> Result<Option<Snapshot>, DiskError> {
        self.disk.snapshot()
    }
}

#[test]
fn a_full_disk_is_told_to_clients_and_survived() {
    let dir = tempfile::tempdir().unwrap();
    let is_full = Arc::new(AtomicBool::new(false));
    let disk = Disk::open(dir.path(), &Dek::generate()).unwrap();
    let storage = FullDisk {
        disk,
        is_full: Arc::clone(&is_full),
    };
    multi_thread().block_on(async {
        let running = Running::start(storage, 10_000).await;
        running.create("before").await.unwrap();
        is_full.store(true, Ordering::Relaxed);
        let refused = running.create("during").await.unwrap_err();
        assert!(refused.message.contains("no space left"), "{refused}");
        let again = running.create("during").await.unwrap_err();
        assert!(again.message.contains("no space left"), "{again}");
        is_full.store(false, Ordering::Relaxed);
        running
            .until("it leads again", |view| {
                view.is_leader && view.fault.is_none()
            })
            .await;
        let store = running.handle.view().store.clone();
        assert!(store.service_by_name("before").is_some());
        assert!(
            store.service_by_name("during").is_none(),
            "a refused write left something"
        );
        running.create("during").await.unwrap();
        running.stop().await;
    });
}
