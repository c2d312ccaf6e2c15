//! The cluster as the API needs it: a consistent view to read, commands to write.

use std::{fmt, net::IpAddr, sync::Arc};

use async_trait::async_trait;
use skep_model::{
    Availability, Cluster, ClusterSpec, Config, ConfigId, ConfigSpec, Network, NetworkId,
    NetworkSpec, Node, NodeId, NodeSpec, NodeTlsInfo, Secret, SecretId, SecretSpec, Service,
    ServiceId, ServiceSpec, Task, TaskId, Timestamp, Version,
    object::ServiceRevision,
    stack::{ApplyOptions, Stack, StackOutcome, StackRevision, StackSpec},
};

use crate::{
    backend::{
        BoxStream, ByteStream, ExecConfig, ExecStart, LogMessage, LogOptions, PlannedStack,
        TaskExec,
    },
    error::{ApiError, ErrorKind, Result},
};

/// Cluster side of the API. Only [`status`](Self::status) is called while the node is not an
/// active manager; the API answers everything else itself with Docker's texts.
#[async_trait]
pub trait ClusterBackend: Send + Sync + 'static {
    /// Where this node stands. Called for every request that touches the cluster: from memory.
    fn status(&self) -> ClusterStatus;

    /// The committed state this manager may answer from. Must be cheap: the store is O(1) to
    /// clone. Read-your-writes: a view taken after a command returned shows its effect.
    async fn view(&self) -> Result<Arc<dyn ClusterView>>;

    /// Makes this node the first manager of a new cluster and returns its node id. The API has
    /// checked that the node is inactive (or `force_new_cluster` is set).
    async fn init(&self, request: InitRequest) -> Result<NodeId>;

    /// Makes this node part of an existing cluster. Returns once it has its place there; what takes
    /// longer than 20 s goes on in the background, and the caller is told so with Docker's text. The
    /// API has checked that the node is inactive and that there is a remote address.
    async fn join(&self, request: JoinRequest) -> Result<()>;

    /// Opens the sealed keys of a locked manager with `key` (`SWMKEY-1-…`) and starts it. A wrong
    /// key: [`ErrorKind::Unauthorized`] and `swarm could not be unlocked: invalid key provided`. The
    /// API has checked that the node is locked.
    ///
    /// [`ErrorKind::Unauthorized`]: crate::error::ErrorKind::Unauthorized
    async fn unlock(&self, key: &str) -> Result<()>;

    /// Leaves the cluster. Without `force` a manager must refuse ([`ErrorKind::Unavailable`]) with
    /// Docker's text on what the departure means for the quorum.
    ///
    /// [`ErrorKind::Unavailable`]: crate::error::ErrorKind::Unavailable
    async fn leave(&self, force: bool) -> Result<()>;

    /// Replaces the cluster spec. `version` must be the stored one, else
    /// [`out_of_sequence`](crate::error::out_of_sequence).
    async fn update_cluster(
        &self,
        version: Version,
        spec: ClusterSpec,
        rotate: RotateFlags,
    ) -> Result<()>;

    /// The key that unlocks managers; empty while auto-lock is off.
    async fn unlock_key(&self) -> Result<String>;

    /// Creates a service. The spec is converted but not validated beyond single fields; the
    /// backend validates (names, constraints, resources, port conflicts). A taken name:
    /// [`ErrorKind::Conflict`] and
    /// `rpc error: code = AlreadyExists desc = name conflicts with an existing object: service X
    /// already exists`.
    ///
    /// [`ErrorKind::Conflict`]: crate::error::ErrorKind::Conflict
    async fn create_service(&self, spec: ServiceSpec) -> Result<CreatedService>;

    /// Changes a service and returns warnings.
    async fn update_service(
        &self,
        id: ServiceId,
        version: Version,
        update: ServiceUpdate,
    ) -> Result<Vec<String>>;

    /// Removes a service and its tasks.
    async fn remove_service(&self, id: ServiceId) -> Result<()>;

    /// Creates a network. The spec is converted but not validated beyond single fields. Addresses
    /// that overlap or are used up: [`ErrorKind::InvalidArgument`] with the reason.
    ///
    /// [`ErrorKind::InvalidArgument`]: crate::error::ErrorKind::InvalidArgument
    async fn create_network(&self, spec: NetworkSpec) -> Result<NetworkId>;

    /// Removes a network. In use: [`ErrorKind::InvalidArgument`] and
    /// `rpc error: code = FailedPrecondition desc = network X is in use by service Y`.
    ///
    /// [`ErrorKind::InvalidArgument`]: crate::error::ErrorKind::InvalidArgument
    async fn remove_network(&self, id: NetworkId) -> Result<()>;

    /// Creates a secret. A taken name: [`ErrorKind::Conflict`] and
    /// `rpc error: code = AlreadyExists desc = secret X already exists`.
    ///
    /// [`ErrorKind::Conflict`]: crate::error::ErrorKind::Conflict
    async fn create_secret(&self, spec: SecretSpec) -> Result<SecretId>;

    /// Replaces a secret's labels. Anything else of it: [`ErrorKind::InvalidArgument`].
    ///
    /// [`ErrorKind::InvalidArgument`]: crate::error::ErrorKind::InvalidArgument
    async fn update_secret(&self, id: SecretId, version: Version, spec: SecretSpec) -> Result<()>;

    /// Removes a secret. In use: [`ErrorKind::InvalidArgument`] with the services' names.
    ///
    /// [`ErrorKind::InvalidArgument`]: crate::error::ErrorKind::InvalidArgument
    async fn remove_secret(&self, id: SecretId) -> Result<()>;

    /// Creates a config, as [`create_secret`](Self::create_secret).
    async fn create_config(&self, spec: ConfigSpec) -> Result<ConfigId>;

    /// Replaces a config's labels, as [`update_secret`](Self::update_secret).
    async fn update_config(&self, id: ConfigId, version: Version, spec: ConfigSpec) -> Result<()>;

    /// Removes a config, as [`remove_secret`](Self::remove_secret).
    async fn remove_config(&self, id: ConfigId) -> Result<()>;

    /// Makes a stack what a document says, in one step or not at all. Problems of the document:
    /// [`ErrorKind::InvalidArgument`] with one on each line; another revision in force than expected:
    /// [`ErrorKind::Conflict`]; too large to be stored at once: [`ErrorKind::TooLarge`].
    ///
    /// [`ErrorKind::InvalidArgument`]: crate::error::ErrorKind::InvalidArgument
    /// [`ErrorKind::Conflict`]: crate::error::ErrorKind::Conflict
    /// [`ErrorKind::TooLarge`]: crate::error::ErrorKind::TooLarge
    async fn apply_stack(&self, spec: StackSpec, options: ApplyOptions) -> Result<StackOutcome>;

    /// Makes a stack what it was in a revision, by default the kept one before that in force.
    async fn roll_back_stack(&self, name: &str, to: Option<u64>) -> Result<StackOutcome>;

    /// Removes a stack with all it has; its networks follow when its tasks end.
    async fn remove_stack(&self, name: &str) -> Result<StackOutcome>;

    /// Replaces a node's spec.
    async fn update_node(&self, id: NodeId, version: Version, spec: NodeSpec) -> Result<()>;

    /// Removes a node; without `force` only one that is down.
    async fn remove_node(&self, id: NodeId, force: bool) -> Result<()>;

    /// Log lines of the selected tasks from all nodes, in batches, by time. Each message names
    /// its origin. Ends when all selected tasks have ended or, without `follow`, at their end.
    async fn logs(
        &self,
        selector: LogSelector,
        options: LogOptions,
    ) -> Result<BoxStream<Result<Vec<LogMessage>>>>;

    /// The whole cluster's state as a file that [`restore`](Self::restore) takes. It holds every
    /// secret of the cluster. On active managers only.
    async fn backup(&self) -> Result<ByteStream>;

    /// Runs a command beside a task of `node`; returns once it runs. A program that cannot be run is one that said so and ended, with
    /// the exit code that shells give it.
    async fn exec_in_task(
        &self,
        node: NodeId,
        task: TaskId,
        config: ExecConfig,
        start: ExecStart,
    ) -> Result<TaskExec> {
        let _ = (node, task, config, start);
        Err(ApiError::new(
            ErrorKind::NotImplemented,
            "this daemon reaches no other nodes",
        ))
    }

    /// What a node finds of its networks, repaired before if `heal`, as `GET /skep/v1/doctor` has it.
    async fn examine_node(&self, node: NodeId, heal: bool) -> Result<String> {
        let _ = (node, heal);
        Err(ApiError::new(
            ErrorKind::NotImplemented,
            "this daemon reaches no other nodes",
        ))
    }

    /// Makes this node the only manager of the cluster a backup was taken of, with its ids, tokens
    /// and CA, and returns its node id. A file that cannot be used changes nothing. The API has
    /// checked that the node is inactive.
    async fn restore(&self, request: RestoreRequest) -> Result<NodeId>;
}

/// One consistent state of the cluster; what a `skep_store::Store` offers, without the dependency.
///
/// Lists are in id order.
pub trait ClusterView: Send + Sync {
    /// Counters for caching; see [`Revision`].
    fn revision(&self) -> Revision;
    /// The cluster object.
    fn cluster(&self) -> Option<Arc<Cluster>>;
    /// Root certificate, and subject and public key of the issuer, parsed from the root CA.
    fn tls_info(&self) -> NodeTlsInfo;
    /// A node by its whole id.
    fn node(&self, id: NodeId) -> Option<Arc<Node>>;
    /// All nodes.
    fn nodes(&self) -> Vec<Arc<Node>>;
    /// A service by its whole id.
    fn service(&self, id: ServiceId) -> Option<Arc<Service>>;
    /// A service by its whole name, without regard to case.
    fn service_by_name(&self, name: &str) -> Option<Arc<Service>>;
    /// All services.
    fn services(&self) -> Vec<Arc<Service>>;
    /// Specs kept of a service, oldest first.
    fn revisions_of_service(&self, id: ServiceId) -> Vec<ServiceRevision>;
    /// A network by its whole id.
    fn network(&self, id: NetworkId) -> Option<Arc<Network>>;
    /// A network by its whole name, without regard to case.
    fn network_by_name(&self, name: &str) -> Option<Arc<Network>>;
    /// All networks.
    fn networks(&self) -> Vec<Arc<Network>>;
    /// All secrets.
    fn secrets(&self) -> Vec<Arc<Secret>>;
    /// All configs.
    fn configs(&self) -> Vec<Arc<Config>>;
    /// A task by its whole id.
    fn task(&self, id: TaskId) -> Option<Arc<Task>>;
    /// All tasks.
    fn tasks(&self) -> Vec<Arc<Task>>;
    /// Tasks of one service.
    fn tasks_of_service(&self, id: ServiceId) -> Vec<Arc<Task>>;
    /// Tasks placed on one node.
    fn tasks_on_node(&self, id: NodeId) -> Vec<Arc<Task>>;
    /// The moves that would spread running tasks better, one after the other. Costs a look at every task and node.
    fn planned_moves(&self, now: Timestamp) -> Vec<PlannedMove> {
        let _ = now;
        Vec::new()
    }
    /// All stacks that are stored; those made of labels only are not.
    fn stacks(&self) -> Vec<Stack> {
        Vec::new()
    }
    /// Revisions kept of a stack, oldest first.
    fn revisions_of_stack(&self, name: &str) -> Vec<StackRevision> {
        let _ = name;
        Vec::new()
    }
    /// Services of a stack that are not as its revision in force says. Costs as much as a deploy.
    fn services_astray(&self, stack: &str) -> Vec<String> {
        let _ = stack;
        Vec::new()
    }
    /// What a deploy would do. Costs as much as the deploy and the scheduling of its tasks.
    fn plan_stack(
        &self,
        spec: StackSpec,
        options: ApplyOptions,
        now: Timestamp,
    ) -> Result<PlannedStack> {
        let _ = (spec, options, now);
        Err(ApiError::not_implemented("plans are not supported here"))
    }
}

/// A running task that would stand better elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedMove {
    /// The task.
    pub task: TaskId,
    /// Where it is.
    pub from: NodeId,
    /// Where its replacement would be.
    pub to: NodeId,
    /// Why, for people.
    pub reason: String,
}

/// Counters that change with every change of objects of a kind.
///
/// Equal counters promise equal objects for the life of the process: the API caches encoded
/// answers by them. A counter that moves too often only costs speed; the store's commit index for
/// all three is correct.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Revision {
    /// Services.
    pub services: u64,
    /// Tasks.
    pub tasks: u64,
    /// Nodes.
    pub nodes: u64,
}

/// Where this node stands in the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterStatus {
    /// State of the node's membership.
    pub state: LocalNodeState,
    /// Its id, once it has one.
    pub node_id: Option<NodeId>,
    /// The address others reach it at.
    pub node_addr: String,
    /// Whether this node can answer for the cluster.
    pub manager: ManagerState,
    /// What is wrong, for [`LocalNodeState::Error`].
    pub error: String,
    /// Managers this node knows.
    pub remote_managers: Vec<Peer>,
    /// Warnings for `docker info`.
    pub warnings: Vec<String>,
}

/// What a node's manager does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ManagerState {
    /// There is none: the node is a worker, or no member.
    #[default]
    Absent,
    /// It is being prepared.
    Starting,
    /// It answers.
    Active,
}

/// State of a node's membership.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LocalNodeState {
    /// Not part of a cluster.
    #[default]
    Inactive,
    /// Joining.
    Pending,
    /// Part of one.
    Active,
    /// Failed to start.
    Error,
    /// Waits for the unlock key.
    Locked,
}

impl LocalNodeState {
    /// The lower-case name Docker's API shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Error => "error",
            Self::Locked => "locked",
        }
    }
}

/// A manager known to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub node_id: NodeId,
    /// Its address with port.
    pub addr: String,
}

/// How to start a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct InitRequest {
    /// Where managers listen, as given (`0.0.0.0:2377`, an interface name, …); may be empty.
    pub listen_addr: String,
    /// What others shall use, as given; may be empty.
    pub advertise_addr: String,
    /// Address of the data path, as given; may be empty.
    pub data_path_addr: String,
    /// UDP port of the data path; 0 is the default.
    pub data_path_port: u16,
    /// Restart as a single manager from local state.
    pub force_new_cluster: bool,
    /// Settings, over the defaults.
    pub spec: ClusterSpec,
    /// Seal keys from the start.
    pub auto_lock_managers: bool,
    /// Whether this node takes tasks.
    pub availability: Availability,
    /// Pools for subnets (address and prefix length); empty: the default.
    pub default_address_pool: Vec<(IpAddr, u8)>,
    /// Prefix length of subnets; 0: the default.
    pub subnet_size: u32,
}

/// How to become part of a cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// Where the node would listen as a manager, as given; may be empty.
    pub listen_addr: String,
    /// What others shall use, as given; may be empty.
    pub advertise_addr: String,
    /// Address of the data path, as given; may be empty.
    pub data_path_addr: String,
    /// Managers to ask, in this order; at least one. The port may be missing.
    pub remote_addrs: Vec<String>,
    /// The token that admits the node and decides its role. A secret.
    pub join_token: String,
    /// Whether the node takes tasks.
    pub availability: Availability,
}

impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest")
            .field("remote_addrs", &self.remote_addrs)
            .finish_non_exhaustive()
    }
}

/// How to restore a cluster.
#[expect(missing_debug_implementations, reason = "holds a stream")]
pub struct RestoreRequest {
    /// Where the manager listens, as given; empty: as before.
    pub listen_addr: String,
    /// What others shall use, as given; empty: as the backup says.
    pub advertise_addr: String,
    /// The backup.
    pub backup: ByteStream,
}

/// What `POST /swarm/update` shall rotate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RotateFlags {
    /// New worker token.
    pub worker_token: bool,
    /// New manager token.
    pub manager_token: bool,
    /// New unlock key.
    pub manager_unlock_key: bool,
}

/// The result of creating a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedService {
    /// Its id.
    pub id: ServiceId,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// What an update of a service does.
#[derive(Debug, Clone, PartialEq)]
pub enum ServiceUpdate {
    /// A new spec; registry credentials have been filled in.
    Set(ServiceSpec),
    /// Return to the previous spec. Without one: [`ErrorKind::InvalidArgument`] and
    /// `rpc error: code = FailedPrecondition desc = service X does not have a previous spec`.
    ///
    /// [`ErrorKind::InvalidArgument`]: crate::error::ErrorKind::InvalidArgument
    RollBack,
    /// Return to a kept spec, by the number of its revision. Unknown: not found, with the numbers.
    RollBackTo(u64),
}

/// Whose logs are wanted. Both lists: the union.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogSelector {
    /// All tasks of these services.
    pub services: Vec<ServiceId>,
    /// These tasks.
    pub tasks: Vec<TaskId>,
}
