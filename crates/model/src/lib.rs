//! Skep's vocabulary: ids, specs, stored objects, task states, validation and constraint expressions.
//!
//! Pure: no IO, no clock, no randomness. Every other crate speaks in these types; wire and Docker
//! JSON forms are converted at the edges. Field-for-field the objects follow `docker.swarmkit.v1`,
//! so that stored state can move between Swarm and Skep. What is deliberately absent: objects no
//! part of Skep acts on yet (cluster volumes).

pub mod constraint;
pub mod cron;
pub mod directory;
pub mod dispatch;
pub mod id;
pub mod object;
pub mod redact;
pub mod reserved;
pub mod rng;
pub mod spec;
pub mod stack;
pub mod state;
pub mod template;
pub mod time;
pub mod validate;

pub use crate::{
    id::{
        ClusterId, ConfigId, Id, NetworkId, NodeId, SecretId, ServiceId, SessionId, SpecVersion,
        TaskId, Version,
    },
    object::{
        Certificate, CertificateState, Cluster, Config, ContainerStatus, DEFAULT_DATA_PATH_PORT,
        EncryptionKey, Endpoint, EngineDescription, JobStatus, JoinTokens, ManagerStatus, Meta,
        NOT_READY_MESSAGE, Network, NetworkAttachment, Node, NodeDescription, NodeState,
        NodeStatus, NodeTlsInfo, Plugin, Reachability, RootCa, Secret, Service, Slot, Task,
        TaskStatus, UpdateState, UpdateStatus, VirtualIp,
    },
    redact::Redacted,
    rng::Rng,
    spec::*,
    state::TaskState,
    time::Timestamp,
};
