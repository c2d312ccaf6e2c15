//! What a client can ask of the control plane, and what it answers.

use std::sync::Arc;

use skep_model::{
    Availability, ClusterSpec, ConfigId, ConfigSpec, Membership, NetworkId, NetworkSpec, NodeId,
    NodeSpec, Redacted, SecretId, SecretSpec, ServiceId, ServiceSpec, Version,
    stack::{ApplyOptions, StackOutcome, StackSpec},
};

/// A request to change the cluster's wish. Executed by the leader, answered after its commit.
#[derive(Debug, Clone)]
pub enum Command {
    /// Adds a service; answered with [`Answer::Service`].
    CreateService {
        /// What is wanted; validated by the core.
        spec: Box<ServiceSpec>,
    },
    /// Replaces a service's spec.
    UpdateService {
        /// Which.
        id: ServiceId,
        /// The version the client read.
        version: Version,
        /// What to do with its spec.
        change: ServiceChange,
    },
    /// Removes a service and, in time, its tasks.
    RemoveService {
        /// Which.
        id: ServiceId,
    },
    /// Adds a network; answered with [`Answer::Network`].
    CreateNetwork {
        /// What is wanted; validated by the core.
        spec: Box<NetworkSpec>,
    },
    /// Removes a network nobody uses.
    RemoveNetwork {
        /// Which.
        id: NetworkId,
    },
    /// Adds a secret; answered with [`Answer::Secret`].
    CreateSecret {
        /// What is wanted; validated by the core.
        spec: Box<SecretSpec>,
    },
    /// Replaces a secret's labels.
    UpdateSecret {
        /// Which.
        id: SecretId,
        /// The version the client read.
        version: Version,
        /// What is wanted; empty data stands for the present data.
        spec: Box<SecretSpec>,
    },
    /// Removes a secret no service uses.
    RemoveSecret {
        /// Which.
        id: SecretId,
    },
    /// Adds a config; answered with [`Answer::Config`].
    CreateConfig {
        /// What is wanted; validated by the core.
        spec: Box<ConfigSpec>,
    },
    /// Replaces a config's labels.
    UpdateConfig {
        /// Which.
        id: ConfigId,
        /// The version the client read.
        version: Version,
        /// What is wanted; empty data stands for the present data.
        spec: Box<ConfigSpec>,
    },
    /// Removes a config no service uses.
    RemoveConfig {
        /// Which.
        id: ConfigId,
    },
    /// Makes a stack what a document says; answered with [`Answer::Stack`].
    ApplyStack {
        /// What is wanted; validated by the core.
        spec: Box<StackSpec>,
        /// How.
        options: ApplyOptions,
    },
    /// Makes a stack what it was; answered with [`Answer::Stack`].
    RollBackStack {
        /// Its name.
        name: String,
        /// The revision; `None`: the kept one before the one in force.
        number: Option<u64>,
    },
    /// Removes a stack with all it has; answered with [`Answer::Stack`].
    RemoveStack {
        /// Its name.
        name: String,
    },
    /// Replaces a node's spec.
    UpdateNode {
        /// Which.
        id: NodeId,
        /// The version the client read.
        version: Version,
        /// What is wanted.
        spec: Box<NodeSpec>,
    },
    /// Forgets a node.
    RemoveNode {
        /// Which.
        id: NodeId,
        /// Also when it is not down.
        is_forced: bool,
    },
    /// Replaces the cluster's spec.
    UpdateCluster {
        /// The version the client read.
        version: Version,
        /// What is wanted.
        spec: Box<ClusterSpec>,
        /// Which secrets the leader replaces.
        rotate: Rotate,
    },
    /// A node asks for a certificate; answered with [`Answer::Certificate`] once the certificate is
    /// in its record.
    IssueCertificate {
        /// The request (PEM). The caller has checked its signature.
        csr: Vec<u8>,
        /// Who asks.
        request: CertificateRequest,
    },
    /// A node stops being a manager, because it says so itself.
    LeaveGroup {
        /// Which.
        node_id: NodeId,
    },
}

/// Secrets of the cluster to be replaced by new ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rotate {
    /// The token that admits workers.
    pub worker_token: bool,
    /// The token that admits managers.
    pub manager_token: bool,
    /// The key that unlocks managers; without effect while they are not locked.
    pub unlock_key: bool,
}

/// On what ground a node asks for a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateRequest {
    /// It holds a join token and becomes a new node.
    Join {
        /// The whole token.
        token: Redacted<String>,
        /// Whether it takes tasks.
        availability: Availability,
    },
    /// It holds a valid certificate.
    Renew {
        /// Its id, from that certificate.
        node_id: NodeId,
    },
}

/// How an update changes a service's spec.
#[derive(Debug, Clone)]
pub enum ServiceChange {
    /// To this one.
    Spec(Box<ServiceSpec>),
    /// Back to the previous one.
    Rollback,
    /// To the one kept as the revision with this number.
    RollbackTo(u64),
}

/// The answer to a command that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Done,
    /// The id of the service created.
    Service(ServiceId),
    /// The id of the network created.
    Network(NetworkId),
    /// The id of the secret created.
    Secret(SecretId),
    /// The id of the config created.
    Config(ConfigId),
    /// What was done about a stack.
    Stack(Arc<StackOutcome>),
    /// The node whose certificate was issued.
    Certificate {
        /// Its id.
        node_id: NodeId,
        /// Whether it is accepted; always so today.
        membership: Membership,
    },
}

/// Why a command was refused, as gRPC classifies it; Docker shows code and text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rpc error: code = {} desc = {message}", code.name())]
pub struct CommandError {
    /// Class of the error.
    pub code: Code,
    /// Text for the client.
    pub message: String,
}

impl CommandError {
    /// An error of class `code`.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// The gRPC status codes in use here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// 2: anything else.
    Unknown,
    /// 3: the request is wrong in itself.
    InvalidArgument,
    /// 5: no such object.
    NotFound,
    /// 6: the name is taken.
    AlreadyExists,
    /// 4: no answer in time; it is not known whether the command was carried out.
    DeadlineExceeded,
    /// 7: the caller may not do this.
    PermissionDenied,
    /// 8: a queue or quota is full.
    ResourceExhausted,
    /// 9: the cluster is not in the state this needs.
    FailedPrecondition,
    /// 10: leadership was lost under way; it is not known whether the command was carried out.
    Aborted,
    /// 11: more than can be stored at once.
    OutOfRange,
    /// 12: not supported.
    Unimplemented,
    /// 14: no leader, or one that stops. The command was not carried out: try again.
    Unavailable,
}

impl Code {
    /// The name gRPC's Go implementation prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::InvalidArgument => "InvalidArgument",
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::DeadlineExceeded => "DeadlineExceeded",
            Self::PermissionDenied => "PermissionDenied",
            Self::ResourceExhausted => "ResourceExhausted",
            Self::FailedPrecondition => "FailedPrecondition",
            Self::Aborted => "Aborted",
            Self::OutOfRange => "OutOfRange",
            Self::Unimplemented => "Unimplemented",
            Self::Unavailable => "Unavailable",
        }
    }
}
