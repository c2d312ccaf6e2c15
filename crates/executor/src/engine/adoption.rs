//! Opening the engine: every container that survived the daemon is found again.
//!
//! Record and runtime directory are made and removed in an order that leaves one of: both (a whole
//! container), or a record alone (half made or half removed: discarded). What the runtime has
//! without a record is debris too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    sync::{Arc, RwLock},
};

use skep_network::Network;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use super::{
    Container, Containers, EVENTS_LAG_MAX, Engine, EngineConfig, Volumes,
    drain::stored_begin,
    prober::{STARTS_PER_CORE, stored_health},
    pull::Pulls,
    record::Record,
    supplies::Supplies,
};
use crate::{
    dataplane::Dataplane,
    image::ImageStore,
    local_network::LocalNetworks,
    runtime::{Adopted, ContainerId, Handle, Runtime},
};

/// Why the engine cannot open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system failed.
    #[error("failed to open container files")]
    Files(#[from] io::Error),
    /// The runtime failed.
    #[error("failed to find running containers")]
    Runtime(#[from] crate::runtime::Error),
}

impl Engine {
    /// Opens the engine over its parts and adopts all containers.
    ///
    /// # Errors
    /// Directories cannot be read or made.
    pub async fn open(
        config: EngineConfig,
        images: ImageStore,
        runtime: Runtime,
        (network, dataplane): (Network, Dataplane),
    ) -> Result<Arc<Self>, OpenError> {
        fs::create_dir_all(&config.containers_dir)?;
        let volumes = Volumes::open(&config.volumes_dir)?;
        let local_networks = LocalNetworks::open(&config.networks_dir, &config.node_bridge).await?;
        let supplies = Supplies::open(&config.supplies_dir)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let engine = Arc::new(Self {
            config,
            images,
            runtime,
            network,
            dataplane,
            slice: watch::Sender::default(),
            volumes,
            local_networks,
            supplies,
            containers: RwLock::new(Containers::default()),
            events: broadcast::Sender::new(EVENTS_LAG_MAX),
            pulls: Pulls::default(),
            probe_starts: Semaphore::new(cores * STARTS_PER_CORE),
            node_labels: RwLock::default(),
            watchers: TaskTracker::new(),
            stopping: CancellationToken::new(),
        });
        engine.adopt().await?;
        Ok(engine)
    }

    async fn adopt(self: &Arc<Self>) -> Result<(), OpenError> {
        let mut records = self.read_records()?;
        let mut debris = BTreeSet::new();
        let mut count = 0;
        for adopted in self.runtime.adopt_all().await? {
            let (handle, state): (Handle, _) = match adopted {
                Adopted::Live { handle, state } | Adopted::Ended { handle, state } => {
                    (handle, state)
                }
                Adopted::Broken { id, reason } => {
                    warn!(container.id = %id, reason, "Container cannot be adopted");
                    debris.insert(id);
                    continue;
                }
            };
            let Some(Some(record)) = records.remove(handle.id()) else {
                debris.insert(handle.id().clone());
                continue;
            };
            let container = Arc::new(Container::new(record, handle, (&state).into()));
            if container.health_check().is_some() {
                container.set_health(stored_health(&self.files_of(&container)));
            }
            if let Some(begin) = stored_begin(&self.files_of(&container)) {
                container.drain_since(begin);
            }
            self.adopt_volumes(container.record());
            self.insert(&container);
            if !container.status().has_ended() {
                self.adopt_networks(container.record()).await;
            }
            if container.status().is_running() {
                self.watch(&container);
            } else if container.status().has_ended() {
                self.release_network(&container).await;
            }
            count += 1;
        }
        debris.extend(records.into_keys());
        if count > 0 {
            info!(container.count = count, "Adopted containers");
        }
        for id in debris {
            self.discard(&id).await;
        }
        self.release_orphans().await;
        self.release_volumes();
        self.local_networks.prune().await;
        self.sweep_cgroups();
        let engine = Arc::clone(self);
        self.watchers.spawn(async move {
            let watching = engine.volumes.plugins().watch();
            engine.stopping.run_until_cancelled(watching).await;
        });
        Ok(())
    }

    fn adopt_volumes(&self, record: &Record) {
        for mount in record.mounts.iter().filter(|mount| !mount.name.is_empty()) {
            self.volumes.adopt(&mount.name, record.id.as_str());
        }
    }

    /// Takes volumes back from containers that a crash left unmade. A plugin may take its time over it.
    fn release_volumes(self: &Arc<Self>) {
        let mut orphans = self.volumes.holders();
        orphans.retain(|owner| !self.read().by_id.keys().any(|id| id.as_str() == owner));
        let engine = Arc::clone(self);
        self.watchers.spawn(async move {
            let releasing = async {
                for owner in orphans {
                    engine.volumes.release(&owner).await;
                }
            };
            engine.stopping.run_until_cancelled(releasing).await;
        });
    }

    /// Control groups that were left by containers which no longer exist; there may be thousands.
    fn sweep_cgroups(self: &Arc<Self>) {
        let known = self.read().by_id.keys().cloned().collect();
        let engine = Arc::clone(self);
        self.watchers.spawn(async move {
            let count = engine.runtime.sweep_cgroups(known).await;
            if count > 0 {
                info!(
                    cgroup.count = count,
                    "Removed cgroups of containers that are no more"
                );
            }
        });
    }

    /// Records by id; unreadable ones as `None`, so that their container is discarded.
    fn read_records(&self) -> io::Result<BTreeMap<ContainerId, Option<Record>>> {
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(&self.config.containers_dir)? {
            let entry = entry?;
            let Some(id) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            records.insert(id, Record::read(&entry.path()).ok());
        }
        Ok(records)
    }

    /// Leases and network endpoints of containers that no longer exist.
    async fn release_orphans(self: &Arc<Self>) {
        let leases = self.images.leases().unwrap_or_default();
        let endpoints = self.network.endpoints().await.unwrap_or_default();
        let owners = leases
            .into_iter()
            .map(|(owner, _)| owner)
            .chain(endpoints.into_keys());
        let orphans: BTreeSet<ContainerId> = owners
            .filter_map(|owner| owner.parse().ok())
            .filter(|id| !self.read().by_id.contains_key(id))
            .collect();
        for id in orphans {
            self.discard(&id).await;
        }
    }
}
