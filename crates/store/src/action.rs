//! The unit of replication: a whole object created, updated or removed.

use std::sync::Arc;

use skep_model::{
    Cluster, ClusterId, Config, ConfigId, Meta, Network, NetworkId, Node, NodeId, Secret, SecretId,
    Service, ServiceId, Task, TaskId,
    id::{ExtensionId, ResourceId},
    object::{Extension, Resource},
};

/// What happens to an object, as SwarmKit's `StoreAction` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionKind {
    /// It comes into being.
    Create,
    /// It replaces the object with its id.
    Update,
    /// It goes. The action carries the object as it was.
    Remove,
}

/// One stored object, whole.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// A node.
    Node(Arc<Node>),
    /// A service.
    Service(Arc<Service>),
    /// A task.
    Task(Arc<Task>),
    /// A network.
    Network(Arc<Network>),
    /// The cluster.
    Cluster(Arc<Cluster>),
    /// A kind of resources.
    Extension(Arc<Extension>),
    /// Data of Skep's, or of an extension of Swarm.
    Resource(Arc<Resource>),
    /// A secret.
    Secret(Arc<Secret>),
    /// A config.
    Config(Arc<Config>),
}

/// Names one object of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectId {
    /// A node.
    Node(NodeId),
    /// A service.
    Service(ServiceId),
    /// A task.
    Task(TaskId),
    /// A network.
    Network(NetworkId),
    /// The cluster.
    Cluster(ClusterId),
    /// An extension.
    Extension(ExtensionId),
    /// A resource.
    Resource(ResourceId),
    /// A secret.
    Secret(SecretId),
    /// A config.
    Config(ConfigId),
}

impl Object {
    /// The object's id.
    pub fn id(&self) -> ObjectId {
        match self {
            Self::Node(node) => ObjectId::Node(node.id),
            Self::Service(service) => ObjectId::Service(service.id),
            Self::Task(task) => ObjectId::Task(task.id),
            Self::Network(network) => ObjectId::Network(network.id),
            Self::Cluster(cluster) => ObjectId::Cluster(cluster.id),
            Self::Extension(extension) => ObjectId::Extension(extension.id),
            Self::Resource(resource) => ObjectId::Resource(resource.id),
            Self::Secret(secret) => ObjectId::Secret(secret.id),
            Self::Config(config) => ObjectId::Config(config.id),
        }
    }

    /// The object's bookkeeping.
    pub fn meta(&self) -> &Meta {
        match self {
            Self::Node(node) => &node.meta,
            Self::Service(service) => &service.meta,
            Self::Task(task) => &task.meta,
            Self::Network(network) => &network.meta,
            Self::Cluster(cluster) => &cluster.meta,
            Self::Extension(extension) => &extension.meta,
            Self::Resource(resource) => &resource.meta,
            Self::Secret(secret) => &secret.meta,
            Self::Config(config) => &config.meta,
        }
    }
}

/// One step of a transaction; a list of these is a raft entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// What happens.
    pub kind: ActionKind,
    /// To what.
    pub object: Object,
}

/// What applying one action did: the change feed's element.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The object before; `None` when it was created.
    pub old: Option<Object>,
    /// The object after; `None` when it was removed.
    pub new: Option<Object>,
}

impl Change {
    /// The object after, or before when it was removed.
    pub fn subject(&self) -> &Object {
        self.new
            .as_ref()
            .or(self.old.as_ref())
            .expect("a change has an object on one side")
    }
}
