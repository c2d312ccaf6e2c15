//! The cluster side of the Engine API, over this node's membership.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use skep_docker_api::{
    backend::{
        BoxStream, ByteStream, ClusterBackend, ClusterStatus, ClusterView, CreatedService,
        ExecConfig, ExecStart, InitRequest, JoinRequest, LocalNodeState, LogMessage, LogOptions,
        LogSelector, ManagerState, Peer, RestoreRequest, RotateFlags, ServiceUpdate, TaskExec,
    },
    error::{ApiError, Result},
};
use skep_manager::{
    Published,
    command::{Answer, Command, Rotate, ServiceChange},
};
use skep_model::{
    ClusterSpec, ConfigId, ConfigSpec, NetworkId, NetworkSpec, NodeId, NodeSpec, Role, SecretId,
    SecretSpec, ServiceId, ServiceSpec, TaskId, Version,
    stack::{ApplyOptions, StackOutcome, StackSpec},
};

use crate::{
    backend::{errors::from_command, remote, service_logs, view::View},
    swarm::{self, Active, Member, Membership, Swarm},
};

/// Docker's text for a node whose manager does not run (yet).
const NOT_READY: &str = "This node is not a swarm manager. Manager is being prepared or has trouble \
     connecting to the cluster.";
/// Bytes of a backup that are sent at once.
const BACKUP_PIECE_BYTES: usize = 1 << 20;

/// See the module's documentation.
pub(crate) struct Cluster {
    pub(crate) swarm: Arc<Swarm>,
}

impl Cluster {
    /// The manager. The API asks only while [`status`](ClusterBackend::status) says that there is one,
    /// but it may have gone since.
    fn active(&self) -> Result<Arc<Active>> {
        let manager = self.swarm.member().and_then(|member| member.manager());
        manager.ok_or_else(|| ApiError::unavailable(NOT_READY))
    }

    async fn command(&self, command: Command) -> Result<Answer> {
        let active = self.active()?;
        let result = active.cluster.command(command).await;
        result.map_err(|error| from_command(&error))
    }

    async fn stack_command(&self, command: Command) -> Result<StackOutcome> {
        match self.command(command).await? {
            Answer::Stack(outcome) => Ok(Arc::unwrap_or_clone(outcome)),
            _ => Err(unnamed("stack")),
        }
    }

    async fn published(&self, active: &Active) -> Result<Arc<Published>> {
        let view = active.cluster.view().await;
        view.map_err(|error| from_command(&error))
    }
}

#[async_trait]
impl ClusterBackend for Cluster {
    fn status(&self) -> ClusterStatus {
        match &*self.swarm.membership() {
            Membership::Inactive => ClusterStatus::default(),
            Membership::Joining => ClusterStatus {
                state: LocalNodeState::Pending,
                ..ClusterStatus::default()
            },
            Membership::Failed(error) => ClusterStatus {
                state: LocalNodeState::Error,
                error: error.clone(),
                ..ClusterStatus::default()
            },
            Membership::Locked(identity) => ClusterStatus {
                state: LocalNodeState::Locked,
                node_id: Some(identity.node_id),
                node_addr: identity.addr().to_string(),
                ..ClusterStatus::default()
            },
            Membership::Member(member) => member_status(member),
        }
    }

    async fn view(&self) -> Result<Arc<dyn ClusterView>> {
        let active = self.active()?;
        let published = self.published(&active).await?;
        Ok(Arc::new(View { published }))
    }

    async fn init(&self, request: InitRequest) -> Result<NodeId> {
        let swarm = Arc::clone(&self.swarm);
        to_its_end(async move { swarm.init(request).await }).await
    }

    async fn join(&self, request: JoinRequest) -> Result<()> {
        self.swarm.join(request).await
    }

    async fn unlock(&self, key: &str) -> Result<()> {
        let (swarm, key) = (Arc::clone(&self.swarm), key.to_owned());
        to_its_end(async move { swarm.unlock(&key).await }).await
    }

    async fn leave(&self, force: bool) -> Result<()> {
        let swarm = Arc::clone(&self.swarm);
        to_its_end(async move { swarm.leave(force).await }).await
    }

    async fn update_cluster(
        &self,
        version: Version,
        spec: ClusterSpec,
        rotate: RotateFlags,
    ) -> Result<()> {
        let rotate = Rotate {
            worker_token: rotate.worker_token,
            manager_token: rotate.manager_token,
            unlock_key: rotate.manager_unlock_key,
        };
        let command = Command::UpdateCluster {
            version,
            spec: Box::new(spec),
            rotate,
        };
        self.command(command).await.map(drop)
    }

    async fn unlock_key(&self) -> Result<String> {
        let active = self.active()?;
        let published = self.published(&active).await?;
        let cluster = published.store.cluster();
        let key = cluster.and_then(|cluster| swarm::lock_of(cluster).key);
        Ok(key.map(|key| key.to_string()).unwrap_or_default())
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
            _ => Err(unnamed("service")),
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
            ServiceUpdate::RollBackTo(number) => ServiceChange::RollbackTo(number),
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

    async fn create_network(&self, spec: NetworkSpec) -> Result<NetworkId> {
        let spec = Box::new(spec);
        match self.command(Command::CreateNetwork { spec }).await? {
            Answer::Network(id) => Ok(id),
            _ => Err(unnamed("network")),
        }
    }

    async fn remove_network(&self, id: NetworkId) -> Result<()> {
        self.command(Command::RemoveNetwork { id }).await.map(drop)
    }

    async fn create_secret(&self, spec: SecretSpec) -> Result<SecretId> {
        let spec = Box::new(spec);
        match self.command(Command::CreateSecret { spec }).await? {
            Answer::Secret(id) => Ok(id),
            _ => Err(unnamed("secret")),
        }
    }

    async fn update_secret(&self, id: SecretId, version: Version, spec: SecretSpec) -> Result<()> {
        let spec = Box::new(spec);
        self.command(Command::UpdateSecret { id, version, spec })
            .await
            .map(drop)
    }

    async fn remove_secret(&self, id: SecretId) -> Result<()> {
        self.command(Command::RemoveSecret { id }).await.map(drop)
    }

    async fn create_config(&self, spec: ConfigSpec) -> Result<ConfigId> {
        let spec = Box::new(spec);
        match self.command(Command::CreateConfig { spec }).await? {
            Answer::Config(id) => Ok(id),
            _ => Err(unnamed("config")),
        }
    }

    async fn update_config(&self, id: ConfigId, version: Version, spec: ConfigSpec) -> Result<()> {
        let spec = Box::new(spec);
        self.command(Command::UpdateConfig { id, version, spec })
            .await
            .map(drop)
    }

    async fn remove_config(&self, id: ConfigId) -> Result<()> {
        self.command(Command::RemoveConfig { id }).await.map(drop)
    }

    async fn apply_stack(&self, spec: StackSpec, options: ApplyOptions) -> Result<StackOutcome> {
        let spec = Box::new(spec);
        self.stack_command(Command::ApplyStack { spec, options })
            .await
    }

    async fn roll_back_stack(&self, name: &str, to: Option<u64>) -> Result<StackOutcome> {
        self.stack_command(Command::RollBackStack {
            name: name.to_owned(),
            number: to,
        })
        .await
    }

    async fn remove_stack(&self, name: &str) -> Result<StackOutcome> {
        let name = name.to_owned();
        self.stack_command(Command::RemoveStack { name }).await
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
    ) -> Result<BoxStream<Result<Vec<LogMessage>>>> {
        let active = self.active()?;
        service_logs::stream(&active, selector, options).await
    }

    async fn backup(&self) -> Result<ByteStream> {
        let active = self.active()?;
        let published = self.published(&active).await?;
        // Encoding takes a while for a large cluster.
        let file = tokio::task::spawn_blocking(move || swarm::back_up(&active, &published))
            .await
            .map_err(|error| ApiError::system("failed to make the backup", error))??;
        let mut file = Bytes::from(file);
        let pieces = std::iter::from_fn(move || {
            let length = file.len().min(BACKUP_PIECE_BYTES);
            (length > 0).then(|| Ok(file.split_to(length)))
        });
        Ok(Box::pin(stream::iter(pieces)))
    }

    async fn exec_in_task(
        &self,
        node: NodeId,
        task: TaskId,
        config: ExecConfig,
        start: ExecStart,
    ) -> Result<TaskExec> {
        let active = self.active()?;
        remote::exec(&active, node, (task, config, start)).await
    }

    async fn examine_node(&self, node: NodeId, heal: bool) -> Result<String> {
        let active = self.active()?;
        remote::examine(&active, node, heal).await
    }

    async fn restore(&self, request: RestoreRequest) -> Result<NodeId> {
        let swarm = Arc::clone(&self.swarm);
        to_its_end(async move { swarm.restore(request).await }).await
    }
}

/// Carries a change of the membership through, also when the client that asked for it goes away: half of one leaves a node
/// that is neither in nor out.
async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(change).await {
        Ok(result) => result,
        Err(error) => {
            let text = "the change of the membership ended early";
            Err(ApiError::system(text, Box::new(error)))
        }
    }
}

/// The leader created something and did not say what.
fn unnamed(noun: &str) -> ApiError {
    ApiError::new(
        skep_docker_api::ErrorKind::System,
        format!("the control plane did not name the {noun}"),
    )
}

fn member_status(member: &Member) -> ClusterStatus {
    let identity = member.identity();
    let state = member.state().borrow().clone();
    let manager = member.manager();
    let fault = manager
        .as_ref()
        .and_then(|active| active.handle.view().fault.clone());
    let peers = member.remotes().list().into_iter().map(|peer| Peer {
        node_id: peer.node_id,
        addr: peer.addr,
    });
    ClusterStatus {
        state: match (&state.error, state.is_ready) {
            (Some(_), _) => LocalNodeState::Error,
            (None, false) => LocalNodeState::Pending,
            (None, true) => LocalNodeState::Active,
        },
        node_id: Some(identity.node_id),
        node_addr: identity.addr().to_string(),
        manager: match (member.role(), manager) {
            (Role::Manager, Some(_)) => ManagerState::Active,
            (Role::Manager, None) => ManagerState::Starting,
            (Role::Worker, _) => ManagerState::Absent,
        },
        error: state.error.unwrap_or_default(),
        remote_managers: peers.collect(),
        warnings: fault.into_iter().collect(),
    }
}
