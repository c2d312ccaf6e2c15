//! Keeps this node's agent running: one that failed is opened again over the same files.
//!
//! An agent ends when its database cannot be written, for instance on a full disk. Containers run
//! on; the next agent adopts them.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use skep_agent::{
    Agent, AgentConfig,
    db::Db,
    exec::{Controller, ControllerError, ExecError, Executor, Supplies},
    shell::{Handle, Report},
};
use skep_docker_api::error::{ApiError, Result};
use skep_executor::engine::{Engine, TaskExecutor};
use skep_model::{Node, NodeDescription, NodeTlsInfo, Task, TaskId, reserved::engine::DataPlane};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{
    address, identity, member::Member, node_network::SliceFollower, switch::SwitchDispatcher,
};

/// Pause before a failed agent is opened again: a full disk stays full for a while.
const RETRY: Duration = Duration::from_secs(2);

/// What an agent is made of.
pub(super) struct Worker {
    engine: Arc<Engine>,
    dir: PathBuf,
    member: Arc<Member>,
    slice: Arc<SliceFollower>,
    bridge: String,
    report: watch::Sender<Report>,
    redescribe: Arc<Notify>,
}

/// Speaks to whichever agent runs.
#[derive(Clone)]
pub(super) struct WorkerHandle {
    pub(super) report: watch::Receiver<Report>,
    redescribe: Arc<Notify>,
}

impl WorkerHandle {
    /// Says that the node's description has changed.
    pub(super) fn redescribe(&self) {
        self.redescribe.notify_one();
    }
}

impl Worker {
    /// An agent's parts; its files live below `dir`.
    pub(super) fn new(
        engine: Arc<Engine>,
        dir: PathBuf,
        member: Arc<Member>,
        (slice, bridge): (Arc<SliceFollower>, String),
    ) -> (Self, WorkerHandle) {
        let report = watch::Sender::default();
        let redescribe = Arc::new(Notify::new());
        let handle = WorkerHandle {
            report: report.subscribe(),
            redescribe: Arc::clone(&redescribe),
        };
        let worker = Self {
            engine,
            dir,
            member,
            slice,
            bridge,
            report,
            redescribe,
        };
        (worker, handle)
    }

    /// Opens the agent's database.
    pub(super) fn open(&self) -> Result<Agent> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            ApiError::system(format!("failed to start agent: {error}"), error)
        };
        let dispatcher = SwitchDispatcher::new(Arc::clone(&self.member));
        let executor = NodeExecutor {
            tasks: TaskExecutor::new(Arc::clone(&self.engine), NodeTlsInfo::default()),
            member: Arc::clone(&self.member),
            slice: Arc::clone(&self.slice),
            bridge: self.bridge.clone(),
            tunnel_keys: self.engine.dataplane().tunnel_keys(),
        };
        fs::create_dir_all(&self.dir).map_err(|error| failed(error.into()))?;
        let db = Db::open(&self.dir.join("tasks.db")).map_err(|error| failed(error.into()))?;
        let config = AgentConfig {
            seed: identity::entropy(),
            core_count: std::thread::available_parallelism()
                .map_err(|error| failed(error.into()))?,
        };
        Ok(Agent::new(
            config,
            Arc::new(executor),
            Box::new(dispatcher),
            db,
        ))
    }

    /// Runs `agent`, and after a failure others, until `stop`.
    pub(super) async fn run(self, agent: Agent, stop: CancellationToken) {
        let mut opened = Ok(agent);
        loop {
            match opened {
                Ok(agent) => {
                    let handle = agent.handle();
                    let ended = tokio::select! {
                        ended = agent.run(stop.clone()) => ended,
                        () = self.pass_on(&handle) => Ok(()),
                    };
                    match ended {
                        Ok(()) => return,
                        Err(error) => error!(error = %error, "Agent failed"),
                    }
                }
                Err(error) => error!(error = %error, "Agent cannot be opened again"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RETRY) => info!("Opening the agent again"),
            }
            opened = self.open();
        }
    }

    /// Connects [`WorkerHandle`] with the agent that runs. Ends only with it.
    async fn pass_on(&self, agent: &Handle) {
        let mut report = agent.report();
        let mut tunnel_keys = self.engine.dataplane().tunnel_keys();
        let mut volume_plugins = self.engine.volumes().plugins().names();
        loop {
            self.report
                .send_replace(Report::clone(&report.borrow_and_update()));
            tokio::select! {
                changed = report.changed() => if changed.is_err() {
                    // The agent is ending; its own future says how.
                    std::future::pending::<()>().await;
                },
                () = self.redescribe.notified() => agent.redescribe(),
                Ok(()) = tunnel_keys.changed() => agent.redescribe(),
                Ok(()) = volume_plugins.changed() => agent.redescribe(),
            }
        }
    }
}

/// The engine's executor, with what the membership knows of the node.
struct NodeExecutor {
    tasks: TaskExecutor,
    member: Arc<Member>,
    slice: Arc<SliceFollower>,
    bridge: String,
    tunnel_keys: watch::Receiver<Vec<[u8; 32]>>,
}

#[async_trait]
impl Executor for NodeExecutor {
    async fn describe(&self) -> Result<NodeDescription, ExecError> {
        let mut description = self.tasks.describe().await?;
        let data_plane = DataPlane {
            data_path: Some(self.member.identity().addresses.data_path),
            addresses: address::of_node(&self.bridge),
            tunnel_keys: self.tunnel_keys.borrow().clone(),
        };
        data_plane.store(&mut description.engine.labels);
        Ok(NodeDescription {
            tls_info: Some(self.member.tls_info()),
            ..description
        })
    }

    async fn configure(&self, node: &Node) -> Result<(), ExecError> {
        self.slice.configure(node).await;
        self.tasks.configure(node).await
    }

    fn supply(&self, supplies: Supplies) {
        self.tasks.supply(supplies);
    }

    fn controller(&self, task: &Task) -> Result<Arc<dyn Controller>, ControllerError> {
        self.tasks.controller(task)
    }

    async fn known_tasks(&self) -> Vec<TaskId> {
        self.tasks.known_tasks().await
    }

    async fn remove_orphan(&self, task: TaskId) -> Result<(), ControllerError> {
        self.tasks.remove_orphan(task).await
    }
}
