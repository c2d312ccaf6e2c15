//! The node's containers as the Engine API and tasks see them.
//!
//! [`Engine`] ties image store, runtime, node network and volumes together and remembers what each
//! container was made from ([`Record`]). [`TaskExecutor`] is the agent's view of it. One watcher
//! task per running container turns its end into an event; all watchers belong to the engine.
//! Leaves out JSON and HTTP. Design: `docs/design/engine.md`.

mod adoption;
mod container;
mod creation;
mod describe;
mod drain;
mod events;
mod executor;
mod files;
mod health;
mod inspect;
mod lifecycle;
mod local_places;
mod networking;
mod places;
mod plan;
mod prober;
mod pull;
mod record;
mod supplies;
mod volume_fill;
mod volumes;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use skep_model::{TaskId, Timestamp};
use skep_network::Network;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    adoption::OpenError,
    container::{Container, ContainerStatusView, Phase},
    creation::CreateError,
    describe::{NodeFacts, node_facts},
    events::{EngineEvent, EventSubject, NetworkSubject},
    executor::TaskExecutor,
    health::{Health, HealthCheck, HealthStatus, ProbeResult},
    lifecycle::LifecycleError,
    networking::SliceState,
    places::{DnsRecord, NodeMode, PlaceError},
    plan::{Error as PlanError, signal_number},
    record::{LocalPlaceRecord, MountRecord, NetworkRecord, Record},
    supplies::SupplyError,
    volumes::{
        Error as VolumeError, LOCAL_DRIVER, PluginError, Plugins, Volume, VolumeView, Volumes,
    },
};
use crate::{
    dataplane::Dataplane,
    image::ImageStore,
    local_network::LocalNetworks,
    runtime::{ContainerId, Runtime},
};

/// Events a slow subscriber may lag behind before it loses the oldest.
const EVENTS_LAG_MAX: usize = 4096;

/// Settings of an engine.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Directory of the containers' records and writable layers.
    pub containers_dir: PathBuf,
    /// Directory of the volumes.
    pub volumes_dir: PathBuf,
    /// Directory of the networks that this node has for itself.
    pub networks_dir: PathBuf,
    /// Bridge of the node network.
    pub node_bridge: String,
    /// Directory of the secrets and configs of containers; becomes a file system in memory.
    pub supplies_dir: PathBuf,
    /// Engine labels.
    pub labels: BTreeMap<String, String>,
    /// User-defined resources tasks can reserve.
    pub generic_resources: Vec<skep_model::GenericResource>,
    /// Version shown to the cluster.
    pub version: String,
}

/// All containers of a node. Shared by the API and the agent.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    images: ImageStore,
    runtime: Runtime,
    network: Network,
    dataplane: Dataplane,
    slice: watch::Sender<SliceState>,
    volumes: Volumes,
    local_networks: LocalNetworks,
    supplies: supplies::Supplies,
    containers: RwLock<Containers>,
    events: broadcast::Sender<EngineEvent>,
    pulls: pull::Pulls,
    /// One permit for each probe of a health check that is being started.
    probe_starts: Semaphore,
    /// Labels of the node; `None`: no manager has told.
    node_labels: RwLock<Option<BTreeMap<String, String>>>,
    watchers: TaskTracker,
    stopping: CancellationToken,
}

/// Containers by id, and those of tasks by task.
#[derive(Debug, Default)]
struct Containers {
    by_id: BTreeMap<ContainerId, Arc<Container>>,
    by_task: BTreeMap<TaskId, Arc<Container>>,
}

impl Engine {
    /// The image store.
    pub fn images(&self) -> &ImageStore {
        &self.images
    }

    /// The OCI runtime.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The node network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Overlay networks and the routing mesh.
    pub fn dataplane(&self) -> &Dataplane {
        &self.dataplane
    }

    /// The volumes.
    pub fn volumes(&self) -> &Volumes {
        &self.volumes
    }

    /// Networks that this node has for itself.
    pub fn local_networks(&self) -> &LocalNetworks {
        &self.local_networks
    }

    /// Settings.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// Events from now on.
    pub fn events(&self) -> broadcast::Receiver<EngineEvent> {
        self.events.subscribe()
    }

    /// All containers, newest first.
    pub fn containers(&self) -> Vec<Arc<Container>> {
        let mut all: Vec<_> = self.read().by_id.values().cloned().collect();
        all.sort_by_key(|container| std::cmp::Reverse(container.record().created_at_ns));
        all
    }

    /// The container of a task.
    pub fn container_of_task(&self, task: TaskId) -> Option<Arc<Container>> {
        self.read().by_task.get(&task).cloned()
    }

    /// Containers whose id begins with, or whose name is, `text` (Docker's lookup: a whole id or
    /// name wins over a prefix).
    pub fn find(&self, text: &str) -> Vec<Arc<Container>> {
        let containers = self.read();
        let name = text.strip_prefix('/').unwrap_or(text);
        let exact = containers.by_id.values().find(|container| {
            let record = container.record();
            record.id.as_str() == text || record.name == name
        });
        if let Some(exact) = exact {
            return vec![Arc::clone(exact)];
        }
        let has_prefix = |container: &&Arc<Container>| {
            !text.is_empty() && container.record().id.as_str().starts_with(text)
        };
        containers
            .by_id
            .values()
            .filter(has_prefix)
            .cloned()
            .collect()
    }

    /// Whether the container with this id runs.
    pub fn is_running(&self, id: &str) -> bool {
        let Ok(id) = id.parse::<ContainerId>() else {
            return false;
        };
        self.read()
            .by_id
            .get(&id)
            .is_some_and(|container| container.status().is_running())
    }

    /// Number of containers made from an image.
    pub fn container_count_of_image(&self, image_id: &str) -> u64 {
        let containers = self.read();
        let count = containers
            .by_id
            .values()
            .filter(|container| container.record().image_id == image_id);
        u64::try_from(count.count()).unwrap_or(u64::MAX)
    }

    /// Volumes in use with the containers that use each.
    pub fn volume_users(&self) -> BTreeMap<String, Vec<String>> {
        let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for container in self.read().by_id.values() {
            let record = container.record();
            let mounts = record.mounts.iter().filter(|mount| !mount.name.is_empty());
            for name in mounts.map(|mount| &mount.name) {
                let id = record.id.to_string();
                let users = users.entry(name.clone()).or_default();
                if !users.contains(&id) {
                    users.push(id);
                }
            }
        }
        users
    }

    /// 64 random hex digits, for ids and anonymous volumes.
    pub fn random_name(&self) -> String {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The wall clock.
    pub fn now(&self) -> Timestamp {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Timestamp::ZERO + since_epoch.unwrap_or_default()
    }

    /// Ends the watchers; containers keep running.
    pub async fn close(&self) {
        self.stopping.cancel();
        self.watchers.close();
        self.watchers.wait().await;
        self.network.close().await;
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Containers> {
        self.containers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, container: &Arc<Container>) {
        let mut containers = self
            .containers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let record = container.record();
        containers
            .by_id
            .insert(record.id.clone(), Arc::clone(container));
        if let Some(task) = record.task_id.as_deref().and_then(|id| id.parse().ok()) {
            containers.by_task.insert(task, Arc::clone(container));
        }
    }

    fn forget(&self, id: &ContainerId) {
        let mut containers = self
            .containers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        containers.by_id.remove(id);
        containers
            .by_task
            .retain(|_, container| container.record().id != *id);
    }
}
