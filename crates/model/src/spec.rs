//! What users ask for: specs of services, tasks, containers, networks, nodes and the cluster.
//!
//! A spec is the user's wish and is never modified by Skep. Fields mirror `docker.swarmkit.v1`;
//! fields Skep does not act on yet are still carried, and refused at the API edge.

mod cluster;
mod container;
mod mount;
mod network;
mod node;
mod node_driver;
mod resources;
mod secret;
mod service;
mod task;

pub use self::{
    cluster::{
        CaConfig, ClusterSpec, DEFAULT_CERT_EXPIRY, DEFAULT_HEARTBEAT_PERIOD,
        DEFAULT_TASK_HISTORY_LIMIT, ExternalCa, RaftSettings,
    },
    container::{
        AppArmorMode, ConfigReference, ConfigTarget, ContainerSpec, CredentialSpec,
        DEFAULT_STOP_GRACE_PERIOD, DnsConfig, FileTarget, HealthConfig, Isolation, Privileges,
        SeLinuxContext, SeccompMode, SeccompOptions, SecretReference, Ulimit,
    },
    mount::{BindOptions, Consistency, Mount, MountKind, Propagation, TmpfsOptions, VolumeOptions},
    network::{
        AddressFamily, DEFAULT_IPAM_DRIVER, ENCRYPTED_OPTION, INGRESS_NETWORK, IpamConfig,
        IpamOptions, MTU_OPTION, NODE_NETWORK, NODE_NETWORK_DRIVER, NetworkSpec, OVERLAY_DRIVER,
        PREDEFINED_LABEL, PREDEFINED_NETWORKS, VXLAN_IDS_OPTION,
    },
    node::{Availability, Membership, NodeSpec, Role},
    node_driver::{
        BRIDGE_DRIVER, BRIDGE_NAME_OPTION, BridgeOptions, MACVLAN_DRIVER, MacvlanMode,
        MacvlanOptions,
    },
    resources::{
        GENERIC_NAME_LENGTH_MAX, GENERIC_RESOURCES_MAX, GenericError, GenericResource, Platform,
        ResourceRequirements, Resources, is_generic_name, parse_generic,
    },
    secret::{CONFIG_BYTES_MAX, ConfigSpec, SECRET_BYTES_MAX, SecretSpec},
    service::{
        DEFAULT_UPDATE_MONITOR, DEFAULT_UPDATE_PARALLELISM, EndpointSpec, FailureAction,
        PortConfig, Protocol, PublishMode, ResolutionMode, ServiceMode, ServiceSpec, UpdateConfig,
        UpdateOrder,
    },
    task::{
        DEFAULT_RESTART_DELAY, NetworkAttachmentConfig, Placement, RestartCondition, RestartPolicy,
        TaskSpec,
    },
};

use std::collections::BTreeMap;

/// Name and labels of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations {
    /// Unique among objects of its kind, compared without regard to case; empty for tasks.
    pub name: String,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
}

/// A driver with its options (log, volume, network, template drivers).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Driver {
    /// Driver name, e.g. `json-file`.
    pub name: String,
    /// Options as given.
    pub options: BTreeMap<String, String>,
}
