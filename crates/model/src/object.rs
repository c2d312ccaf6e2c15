//! Stored objects: what the control plane knows. Replicated whole through the raft log.

mod cluster;
pub mod network;
mod node;
mod resource;
mod secret;
mod service;
mod task;

pub use self::{
    cluster::{
        BLACKLIST_MARGIN, Cluster, DEFAULT_DATA_PATH_PORT, EncryptionKey, JoinTokens, RootCa,
        RootRotation,
    },
    network::{Network, NetworkAttachment},
    node::{
        Certificate, CertificateState, EngineDescription, ManagerStatus, Node, NodeDescription,
        NodeState, NodeStatus, NodeTlsInfo, Plugin, Reachability, SKEP_NETWORK_DRIVER,
    },
    resource::{Extension, Payload, Resource, ServiceRevision},
    secret::{Config, Secret},
    service::{Endpoint, JobStatus, Service, UpdateState, UpdateStatus, VirtualIp},
    task::{ContainerStatus, NOT_READY_MESSAGE, Slot, Task, TaskStatus},
};

use crate::{id::Version, time::Timestamp};

/// Bookkeeping of a stored object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meta {
    /// Commit index at the start of the transaction that last wrote the object.
    pub version: Version,
    /// When it was created, by the leader's clock.
    pub created_at: Timestamp,
    /// When it was last written, by the leader's clock.
    pub updated_at: Timestamp,
}
