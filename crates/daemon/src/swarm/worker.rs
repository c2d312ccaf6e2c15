//! Keeps this node's agent running: one that failed is opened again over the same files.
//!
//! An agent ends when its database cannot be written, for instance on a full disk. Containers run
//! on; the next agent adopts them.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use skep_agent::{Agent, AgentConfig, db::Db};
use skep_docker_api::error::{ApiError, Result};
use skep_executor::engine::{Engine, TaskExecutor};
use skep_manager::Handle;
use skep_model::{NodeId, NodeTlsInfo};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{Identity, identity, link::LocalDispatcher};

/// Pause before a failed agent is opened again: a full disk stays full for a while.
const RETRY: Duration = Duration::from_secs(2);

/// What an agent is made of.
pub(super) struct Worker {
    engine: Arc<Engine>,
    dir: PathBuf,
    node_id: NodeId,
    addr: String,
    handle: Handle,
    tls: NodeTlsInfo,
}

impl Worker {
    /// An agent's parts; its files live below `dir`.
    pub(super) fn new(
        engine: Arc<Engine>,
        dir: PathBuf,
        identity: &Identity,
        handle: Handle,
        tls: NodeTlsInfo,
    ) -> Self {
        Self {
            engine,
            dir,
            node_id: identity.node_id,
            addr: identity.addr.to_string(),
            handle,
            tls,
        }
    }

    /// Opens the agent's database.
    pub(super) fn open(&self) -> Result<Agent> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            ApiError::system(format!("failed to start agent: {error}"), error)
        };
        let link = LocalDispatcher::new(self.handle.clone(), self.node_id, self.addr.clone());
        let executor = TaskExecutor::new(Arc::clone(&self.engine), self.tls.clone());
        fs::create_dir_all(&self.dir).map_err(|error| failed(error.into()))?;
        let db = Db::open(&self.dir.join("tasks.db")).map_err(|error| failed(error.into()))?;
        let config = AgentConfig {
            seed: identity::entropy(),
            core_count: std::thread::available_parallelism()
                .map_err(|error| failed(error.into()))?,
        };
        Ok(Agent::new(config, Arc::new(executor), Box::new(link), db))
    }

    /// Runs `agent`, and after a failure others, until `stop`.
    pub(super) async fn run(self, agent: Agent, stop: CancellationToken) {
        let mut opened = Ok(agent);
        loop {
            match opened {
                Ok(agent) => match agent.run(stop.clone()).await {
                    Ok(()) => return,
                    Err(error) => error!(error = %error, "Agent failed"),
                },
                Err(error) => error!(error = %error, "Agent cannot be opened again"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RETRY) => info!("Opening the agent again"),
            }
            opened = self.open();
        }
    }
}
