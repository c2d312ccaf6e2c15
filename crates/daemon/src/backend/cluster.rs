//! The cluster side of the Engine API, over the manager's handle.

use std::sync::Arc;

use async_trait::async_trait;
use skep_docker_api::{
    backend::{
        BoxStream, ByteStream, ClusterBackend, ClusterStatus, ClusterView, CreatedService,
        InitRequest, JoinRequest, LocalNodeState, LogMessage, LogOptions, LogSelector,
        ManagerState, Peer, RestoreRequest, RotateFlags, ServiceUpdate,
    },
    error::{ApiError, Result},
};
use skep_manager::{
    Handle,
    command::{Answer, Command, ServiceChange},
};
use skep_model::{ClusterSpec, NodeId, NodeSpec, ServiceId, ServiceSpec, Version};

use crate::{
    backend::{errors::from_command, service_logs, view::View},
    swarm::{Active, Membership, Swarm},
};

/// Docker's text for a node without manager.
const NOT_A_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \
     \"docker swarm join\" to connect this node to swarm and try again.";

/// See the module's documentation.
pub(crate) struct Cluster {
    pub(crate) swarm: Arc<Swarm>,
}

impl Cluster {
    fn active(&self) -> Result<Arc<Active>> {
        match &*self.swarm.membership() {
            Membership::Active(active) => Ok(Arc::clone(active)),
            Membership::Inactive | Membership::Failed(_) => {
                Err(ApiError::unavailable(NOT_A_MANAGER))
            }
        }
    }

    async fn command(&self, command: Command) -> Result<Answer> {
        let handle: Handle = self.active()?.handle.clone();
        handle
            .command(command)
            .await
            .map_err(|error| from_command(&error))
    }
}

#[async_trait]
impl ClusterBackend for Cluster {
    fn status(&self) -> ClusterStatus {
        let membership = self.swarm.membership();
        match &*membership {
            Membership::Inactive => ClusterStatus::default(),
            Membership::Failed(error) => ClusterStatus {
                state: LocalNodeState::Error,
                error: error.clone(),
                ..ClusterStatus::default()
            },
            Membership::Active(active) => {
                let identity = &active.identity;
                let peer = Peer {
                    node_id: identity.node_id,
                    addr: identity.manager_addr(),
                };
                let fault = active.handle.view().fault.clone();
                ClusterStatus {
                    state: LocalNodeState::Active,
                    node_id: Some(identity.node_id),
                    node_addr: identity.addr.to_string(),
                    manager: ManagerState::Active,
                    error: String::new(),
                    remote_managers: vec![peer],
                    warnings: fault.into_iter().collect(),
                }
            }
        }
    }

    async fn view(&self) -> Result<Arc<dyn ClusterView>> {
        let active = self.active()?;
        let (published, tls_info) = (active.handle.view(), active.tls_info.clone());
        Ok(Arc::new(View {
            published,
            tls_info,
        }))
    }

    async fn init(&self, request: InitRequest) -> Result<NodeId> {
        self.swarm.init(request).await
    }

    async fn join(&self, _: JoinRequest) -> Result<()> {
        Err(ApiError::not_implemented(
            "not supported yet: joining a swarm",
        ))
    }

    async fn unlock(&self, _: &str) -> Result<()> {
        Err(ApiError::conflict("swarm is not locked"))
    }

    async fn backup(&self) -> Result<ByteStream> {
        Err(ApiError::not_implemented("not supported yet: backups"))
    }

    async fn restore(&self, _: RestoreRequest) -> Result<NodeId> {
        Err(ApiError::not_implemented("not supported yet: backups"))
    }

    async fn leave(&self, force: bool) -> Result<()> {
        self.swarm.leave(force).await
    }

    async fn update_cluster(
        &self,
        version: Version,
        spec: ClusterSpec,
        rotate: RotateFlags,
    ) -> Result<()> {
        if spec.auto_lock_managers || rotate.manager_unlock_key {
            let message = "autolock is not supported yet: managers cannot be locked";
            return Err(ApiError::not_implemented(message));
        }
        let active = self.active()?;
        let new_token = |is_wanted: bool| is_wanted.then(|| active.identity_token()).transpose();
        let command = Command::UpdateCluster {
            version,
            spec: Box::new(spec),
            worker_token: new_token(rotate.worker_token)?,
            manager_token: new_token(rotate.manager_token)?,
        };
        self.command(command).await.map(drop)
    }

    async fn unlock_key(&self) -> Result<String> {
        Ok(String::new())
    }

    async fn create_service(&self, spec: ServiceSpec) -> Result<CreatedService> {
        let command = Command::CreateService {
            spec: Box::new(spec),
        };
        match self.command(command).await? {
            Answer::Service(id) => Ok(CreatedService {
                id,
                warnings: Vec::new(),
            }),
            Answer::Done => Err(ApiError::new(
                skep_docker_api::ErrorKind::System,
                "the control plane did not name the service",
            )),
        }
    }

    async fn update_service(
        &self,
        id: ServiceId,
        version: Version,
        update: ServiceUpdate,
    ) -> Result<Vec<String>> {
        let change = match update {
            ServiceUpdate::Set(spec) => ServiceChange::Spec(Box::new(spec)),
            ServiceUpdate::RollBack => ServiceChange::Rollback,
        };
        self.command(Command::UpdateService {
            id,
            version,
            change,
        })
        .await?;
        Ok(Vec::new())
    }

    async fn remove_service(&self, id: ServiceId) -> Result<()> {
        self.command(Command::RemoveService { id }).await.map(drop)
    }

    async fn update_node(&self, id: NodeId, version: Version, spec: NodeSpec) -> Result<()> {
        let spec = Box::new(spec);
        self.command(Command::UpdateNode { id, version, spec })
            .await
            .map(drop)
    }

    async fn remove_node(&self, id: NodeId, force: bool) -> Result<()> {
        self.command(Command::RemoveNode {
            id,
            is_forced: force,
        })
        .await
        .map(drop)
    }

    async fn logs(
        &self,
        selector: LogSelector,
        options: LogOptions,
    ) -> Result<BoxStream<Result<LogMessage>>> {
        let active = self.active()?;
        Ok(service_logs::stream(
            &active,
            self.swarm.engine(),
            selector,
            options,
        ))
    }
}
