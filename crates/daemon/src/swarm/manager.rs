//! Starts and stops this node's manager: port 2377, the log, the group, the transport.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use skep_ca::Lock;
use skep_manager::{
    Ended, Handle, Manager, Start, StartError, event::Bootstrap, vault::SystemVault,
};
use skep_raft::Storage;
use skep_rpc::{Cluster, RpcError, Server};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinError, JoinHandle},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::{info, warn};

use super::{
    home::{Home, HomeError},
    identity::{self, Identity},
    member::{Active, Member},
    read_log::ReadLog,
};

/// Pause between two attempts to announce a new address.
const ANNOUNCE_RETRY: Duration = Duration::from_secs(2);
/// Longest wait for connections to end once the manager has; those of agents would stay for ever.
const CONNECTIONS_WAIT_MAX: Duration = Duration::from_millis(100);

/// What a manager is made of.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) home: Home,
    pub(super) member: Arc<Member>,
    pub(super) current: watch::Sender<Option<Handle>>,
    pub(super) lock: Lock,
    /// Ticks as Docker's managers, for a group that has some.
    pub(super) is_compat: bool,
}

/// Where its state comes from.
#[derive(Debug)]
pub(super) enum Origin {
    /// Nowhere: the first manager of a new cluster.
    Found(Bootstrap),
    /// The log on disk, or the group when there is none.
    Stored,
}

/// Why a manager did not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartFailure {
    #[error("failed to listen on `{addr}`")]
    Listen {
        addr: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error("failed to open the manager's state")]
    Open(#[source] StartError),
    #[error("failed to join the managers")]
    Join(#[source] RpcError),
    #[error("the managers still know this node as member `{0}`, whose log was deleted")]
    Forgotten(u64),
}

/// A manager that runs.
pub(super) struct Running {
    setup: Setup,
    stop: watch::Sender<bool>,
    manager: JoinHandle<Ended>,
    connections: TaskTracker,
    /// Ends server and transport.
    token: DropGuard,
}

/// A manager that is about to run.
struct Opened {
    manager: Manager,
    handle: Handle,
    outbox: skep_manager::Outbox,
}

impl Running {
    /// Listens, opens or joins, and runs. Cleans up after itself on failure, and when dropped.
    pub(super) async fn start(setup: Setup, origin: Origin) -> Result<Self, StartFailure> {
        let addr = setup.member.identity().addresses.listen;
        let listener = TcpListener::bind(addr)
            .await
            .map_err(|source| StartFailure::Listen { addr, source })?;
        let cancel = CancellationToken::new();
        let token = cancel.clone().drop_guard();
        let connections = TaskTracker::new();
        let security = Arc::clone(&setup.member.security);
        // The leader dials back before it lets a manager join, so the server comes first.
        let server = Arc::new(Server::new(
            Arc::clone(&security),
            setup.current.subscribe(),
        ));
        connections.spawn(Arc::clone(&server).serve(listener, cancel.clone()));
        let opened = setup.open(origin).await?;
        let Opened {
            manager,
            handle,
            outbox,
        } = opened;
        let (stop, stopped) = watch::channel(false);
        connections.spawn(skep_rpc::carry(
            outbox,
            handle.clone(),
            Arc::clone(&security),
            cancel.clone(),
        ));
        let announcing = Box::pin(announce(Arc::clone(&setup.member), handle.clone()));
        connections.spawn(async move {
            cancel.run_until_cancelled_owned(announcing).await;
        });
        setup.current.send_replace(Some(handle.clone()));
        setup.member.set_manager(Some(Active {
            node_id: setup.member.identity().node_id,
            cluster: Cluster::new(handle.clone(), security),
            handle,
            port: server,
        }));
        info!(addr = %addr, "Manager started");
        Ok(Self {
            setup,
            stop,
            manager: tokio::spawn(manager.run(stopped)),
            connections,
            token,
        })
    }

    /// How the manager ended, when it did by itself. Cancel-safe.
    pub(super) async fn ended(&mut self) -> Ended {
        unless_panicked((&mut self.manager).await)
    }

    /// Hands leadership over and stops.
    pub(super) async fn stop(mut self) {
        let _ = self.stop.send(true);
        if !self.manager.is_finished() {
            self.ended().await;
        }
        self.close().await;
    }

    /// Takes down what is left of a manager that has ended.
    pub(super) async fn close(self) {
        self.setup.member.set_manager(None);
        self.setup.current.send_replace(None);
        drop(self.token);
        self.connections.close();
        let _ = tokio::time::timeout(CONNECTIONS_WAIT_MAX, self.connections.wait()).await;
        info!("Manager stopped");
    }
}

fn unless_panicked(ended: Result<Ended, JoinError>) -> Ended {
    match ended {
        Ok(ended) => ended,
        // Release builds abort on panic, so do not limp on in others.
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Ended::Broken,
    }
}

impl Setup {
    async fn open(&self, origin: Origin) -> Result<Opened, StartFailure> {
        let identity = self.member.identity();
        match (origin, identity.raft_id) {
            (Origin::Found(bootstrap), Some(raft_id)) => {
                let log = self.log(raft_id)?;
                self.manager(&identity, raft_id, Start::New(bootstrap), log)
            }
            (Origin::Stored, Some(raft_id)) => {
                let log = self.log(raft_id)?;
                self.home.remove_stale_logs(raft_id);
                let log = ReadLog::read(log).map_err(|error| StartFailure::Open(error.into()))?;
                if log.is_empty() {
                    // The daemon died between joining and the first entry.
                    drop(log);
                    return self.join(&identity).await;
                }
                self.manager(&identity, raft_id, Start::Restored, log)
            }
            (Origin::Found(_) | Origin::Stored, None) => self.join(&identity).await,
        }
    }

    /// Becomes a member of the group.
    async fn join(&self, identity: &Identity) -> Result<Opened, StartFailure> {
        let joined = self
            .member
            .client
            .join_group(&identity.manager_addr())
            .await
            .map_err(StartFailure::Join)?;
        let raft_id = joined.raft_id;
        if identity.former_raft_ids.contains(&raft_id) {
            return Err(StartFailure::Forgotten(raft_id));
        }
        let identity = Identity {
            raft_id: Some(raft_id),
            ..identity.clone()
        };
        self.home.store_identity(&identity)?;
        self.member.set_identity(identity.clone());
        let log = self.log(raft_id)?;
        self.home.remove_stale_logs(raft_id);
        let start = Start::Joined {
            members: joined.members,
        };
        self.manager(&identity, raft_id, start, log)
    }

    fn log(&self, raft_id: u64) -> Result<skep_raft::Disk, StartFailure> {
        self.home
            .open_log(raft_id, &self.lock)
            .map_err(StartFailure::Open)
    }

    fn manager(
        &self,
        identity: &Identity,
        raft_id: u64,
        start: Start,
        log: impl Storage + 'static,
    ) -> Result<Opened, StartFailure> {
        let config = skep_manager::Config {
            core: skep_manager::core::Config {
                node_id: identity.node_id,
                seed: identity::entropy(),
                request_prefix: identity::request_prefix(raft_id),
                bootstrap: None,
                reconcile: skep_manager::core::reconcile,
            },
            raft_id,
            addr: identity.manager_addr(),
            start,
            is_compat: self.is_compat,
        };
        let opened = Manager::open(config, Box::new(log), Box::new(SystemVault));
        let (manager, handle, outbox) = opened.map_err(StartFailure::Open)?;
        Ok(Opened {
            manager,
            handle,
            outbox,
        })
    }
}

/// Tells the group where this manager is now, when that is not what the group knows.
async fn announce(member: Arc<Member>, handle: Handle) {
    let mut group = handle.group();
    loop {
        let addr = member.identity().manager_addr();
        let known = {
            let group = group.borrow_and_update();
            group
                .members
                .get(&group.own)
                .map(|own| own.member.addr.clone())
        };
        if known.as_ref().is_some_and(|known| *known != addr) {
            match member.client.join_group(&addr).await {
                Ok(_) => info!(addr, "Announced this manager's new address"),
                Err(error) => {
                    warn!(error = %error, "Failed to announce this manager's new address")
                }
            }
            tokio::time::sleep(ANNOUNCE_RETRY).await;
        } else if group.changed().await.is_err() {
            return;
        }
    }
}
