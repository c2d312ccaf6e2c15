//! This node's membership in a cluster: none, or manager and worker of its own.
//!
//! Owns the manager's and the agent's tasks and starts and stops them as `swarm init` and
//! `swarm leave` ask. Files below `<data>/swarm`; `identity.json` is written last, so a directory
//! without it is debris of an `init` that was never acknowledged.

mod address;
mod identity;
mod link;
mod worker;

use std::{fs, io, path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use skep_docker_api::{
    backend::InitRequest,
    error::{ApiError, ErrorKind, Result},
};
use skep_executor::engine::Engine;
use skep_manager::{Handle, Manager, StartError, bootstrap::NewCluster, event::Bootstrap};
use skep_model::{NodeId, NodeTlsInfo, Redacted};
use tokio::{
    sync::{Mutex, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub(crate) use self::identity::Identity;
use self::worker::Worker;

/// Docker's text for `swarm init` on a member.
const ALREADY_PART: &str = "This node is already part of a swarm. Use \"docker swarm leave\" to \
     leave this swarm and join another one.";
const NOT_PART: &str = "This node is not part of a swarm";
const LAST_MANAGER: &str = "You are attempting to leave the swarm on a node that is participating \
     as a manager. Removing the last manager erases all current state of the swarm. Use `--force` \
     to ignore this message. ";

/// Where this node stands.
pub(crate) enum Membership {
    /// Not part of a cluster.
    Inactive,
    /// Part of one.
    Active(Arc<Active>),
    /// Part of one that could not be started.
    Failed(String),
}

/// A running membership as others see it.
pub(crate) struct Active {
    pub(crate) identity: Identity,
    pub(crate) handle: Handle,
    pub(crate) tls_info: NodeTlsInfo,
}

impl Active {
    /// A new join token for this cluster's root.
    pub(crate) fn identity_token(&self) -> Result<Redacted<String>> {
        let view = self.handle.view();
        let cluster = view
            .store
            .cluster()
            .ok_or_else(|| ApiError::not_found(NOT_PART))?;
        Ok(Redacted(identity::join_token(&cluster.root_ca.ca_cert)))
    }
}

/// See the module's documentation.
pub(crate) struct Swarm {
    dir: PathBuf,
    engine: Arc<Engine>,
    membership: ArcSwap<Membership>,
    running: Mutex<Option<Running>>,
    /// Held by whoever joins or leaves: these take long and exclude each other.
    changing: Mutex<()>,
    /// The newest membership's handle, for whoever follows its changes.
    current: watch::Sender<Option<Handle>>,
}

/// The tasks of a running membership.
struct Running {
    stop_agent: CancellationToken,
    stop_manager: watch::Sender<bool>,
    agent: JoinHandle<()>,
    manager: JoinHandle<()>,
}

impl Swarm {
    /// Continues the membership found in `<data_dir>/swarm`, if there is one.
    pub(crate) async fn open(data_dir: &std::path::Path, engine: Arc<Engine>) -> io::Result<Self> {
        let swarm = Self {
            dir: data_dir.join("swarm"),
            engine,
            membership: ArcSwap::from_pointee(Membership::Inactive),
            running: Mutex::new(None),
            changing: Mutex::new(()),
            current: watch::Sender::new(None),
        };
        match Identity::read(&swarm.dir) {
            Ok(Some(identity)) => {
                if let Err(error) = swarm.start(identity, None).await {
                    error!(error = %error, "Failed to continue as part of the cluster");
                    let failed = Membership::Failed(error.message);
                    swarm.membership.store(Arc::new(failed));
                }
            }
            Ok(None) => swarm.set_aside()?,
            Err(error) => {
                error!(error = %error, "Failed to read this node's identity");
                let failed = Membership::Failed(format!("failed to read identity: {error}"));
                swarm.membership.store(Arc::new(failed));
            }
        }
        Ok(swarm)
    }

    pub(crate) fn membership(&self) -> Arc<Membership> {
        self.membership.load_full()
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Follows which manager runs.
    pub(crate) fn current(&self) -> watch::Receiver<Option<Handle>> {
        self.current.subscribe()
    }

    /// Makes this node the only manager of a new cluster; returns once that is committed.
    pub(crate) async fn init(&self, request: InitRequest) -> Result<NodeId> {
        if request.auto_lock_managers || request.spec.auto_lock_managers {
            let message = "autolock is not supported yet: managers cannot be locked";
            return Err(ApiError::not_implemented(message));
        }
        if request.force_new_cluster {
            let message = "force-new-cluster is not supported yet";
            return Err(ApiError::not_implemented(message));
        }
        let _changing = self.changing.lock().await;
        if !matches!(*self.membership(), Membership::Inactive) {
            return Err(ApiError::unavailable(ALREADY_PART));
        }
        let addr = address::advertised(&request)?;
        let files = || self.remove_files();
        files().map_err(|error| ApiError::system("failed to clear swarm state", error))?;
        let (identity, new) = identity::found(&self.dir, &request, addr)?;
        let node_id = identity.node_id;
        let result = self.start(identity, Some(new)).await;
        if let Err(error) = result {
            self.stop().await;
            self.membership.store(Arc::new(Membership::Inactive));
            let _ = self.remove_files();
            return Err(error);
        }
        info!(node.id = %node_id, "Started a new cluster");
        Ok(node_id)
    }

    /// Gives up the membership, its state and its tasks' containers.
    pub(crate) async fn leave(&self, is_forced: bool) -> Result<()> {
        let _changing = self.changing.lock().await;
        match *self.membership() {
            Membership::Inactive => return Err(ApiError::unavailable(NOT_PART)),
            Membership::Active(_) if !is_forced => {
                return Err(ApiError::unavailable(LAST_MANAGER));
            }
            Membership::Active(_) | Membership::Failed(_) => {}
        }
        self.stop().await;
        self.membership.store(Arc::new(Membership::Inactive));
        let system = |error| ApiError::system("failed to remove swarm state", error);
        self.remove_files().map_err(system)?;
        self.engine.remove_task_containers().await;
        info!("Left the cluster");
        Ok(())
    }

    /// Stops manager and agent; containers keep running.
    pub(crate) async fn stop(&self) {
        let Some(running) = self.running.lock().await.take() else {
            return;
        };
        self.current.send_replace(None);
        running.stop_agent.cancel();
        let _ = running.agent.await;
        let _ = running.stop_manager.send(true);
        let _ = running.manager.await;
    }

    async fn start(&self, identity: Identity, new: Option<NewCluster>) -> Result<()> {
        let is_new = new.is_some();
        let (manager, handle) =
            open_manager(&self.dir, &identity, new.map(Into::into)).map_err(|error| {
                ApiError::system(format!("failed to start manager: {error}"), error)
            })?;
        let (stop_manager, manager_stopped) = watch::channel(false);
        let manager = tokio::spawn(manager.run(manager_stopped));
        wait_for_cluster(&handle).await?;
        if is_new {
            let system = |error| ApiError::system("failed to store this node's identity", error);
            identity.write(&self.dir).map_err(system)?;
        }
        let view = handle.view();
        let cluster = view.store.cluster();
        let ca_cert = cluster
            .map(|cluster| cluster.root_ca.ca_cert.clone())
            .unwrap_or_default();
        let tls_info = identity::tls_info(&self.dir, &ca_cert);
        let stop_agent = CancellationToken::new();
        let worker = Worker::new(
            Arc::clone(&self.engine),
            self.dir.join("worker"),
            &identity,
            handle.clone(),
            tls_info.clone(),
        );
        let agent = worker.open()?;
        let agent = tokio::spawn(worker.run(agent, stop_agent.clone()));
        let running = Running {
            stop_agent,
            stop_manager,
            agent,
            manager,
        };
        *self.running.lock().await = Some(running);
        self.current.send_replace(Some(handle.clone()));
        let active = Arc::new(Active {
            identity,
            handle,
            tls_info,
        });
        self.membership.store(Arc::new(Membership::Active(active)));
        Ok(())
    }

    /// A directory without identity is an `init` that was never acknowledged, or a membership whose
    /// identity was lost; it is kept beside for whoever wants to look.
    fn set_aside(&self) -> io::Result<()> {
        if !self.dir.exists() {
            return Ok(());
        }
        let aside = self.dir.with_extension("incomplete");
        warn!(path = %aside.display(), "Cluster state without identity is set aside");
        remove_dir(&aside)?;
        fs::rename(&self.dir, aside)
    }

    fn remove_files(&self) -> io::Result<()> {
        remove_dir(&self.dir)
    }
}

fn remove_dir(dir: &std::path::Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn open_manager(
    dir: &std::path::Path,
    identity: &Identity,
    bootstrap: Option<Bootstrap>,
) -> Result<(Manager, Handle), StartError> {
    let storage = identity::open_log(dir)?;
    let config = skep_manager::Config {
        core: skep_manager::core::Config {
            node_id: identity.node_id,
            seed: identity::entropy(),
            request_prefix: identity.request_prefix(),
            bootstrap,
        },
        raft_id: identity.raft_id,
        addr: identity.manager_addr(),
    };
    Manager::open(config, Box::new(storage))
}

/// Waits until this manager leads and the cluster object is committed.
async fn wait_for_cluster(handle: &Handle) -> Result<()> {
    let mut changes = handle.changes();
    let deadline = tokio::time::Instant::now() + START_TIMEOUT;
    loop {
        let view = handle.view();
        if view.is_leader && view.store.cluster().is_some() {
            return Ok(());
        }
        if let Some(fault) = &view.fault {
            return Err(ApiError::new(ErrorKind::System, fault.clone()));
        }
        let poll = tokio::time::timeout(POLL, changes.recv());
        let _ = poll.await;
        if tokio::time::Instant::now() > deadline {
            let message = "Timeout was reached before node joined. The attempt to join the swarm \
                 will continue in the background. Use the \"docker info\" command to see the \
                 current swarm status of your node.";
            return Err(ApiError::new(ErrorKind::System, message));
        }
    }
}

/// Docker's limit for starting a node.
const START_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(20);
/// Leadership is not in the change feed, so it is looked for this often.
const POLL: std::time::Duration = std::time::Duration::from_millis(5);
