//! A node as stored.

use std::collections::BTreeMap;

use crate::{
    directory::Slice,
    id::NodeId,
    object::{Meta, NetworkAttachment},
    spec::{NODE_NETWORK_DRIVER, NodeSpec, OVERLAY_DRIVER, Platform, Resources, Role},
};

/// The network driver by which a node of Skep shows that it is one.
pub const SKEP_NETWORK_DRIVER: &str = NODE_NETWORK_DRIVER;

/// A node as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Bookkeeping.
    pub meta: Meta,
    /// What is wanted.
    pub spec: NodeSpec,
    /// What the node said of itself.
    pub description: Option<NodeDescription>,
    /// What is.
    pub status: NodeStatus,
    /// Only for managers.
    pub manager_status: Option<ManagerStatus>,
    /// Its certificate.
    pub certificate: Certificate,
    /// Role in force.
    pub role: Role,
    /// For nodes of Skep their slice of the node network, see [`Node::slice`]; for others their load
    /// balancer's places on networks, see [`Node::needs_load_balancers`].
    pub attachments: Vec<NetworkAttachment>,
    /// UDP port of the data path.
    pub vxlan_udp_port: u16,
}

impl Node {
    /// The node's host name, empty while unknown.
    pub fn hostname(&self) -> &str {
        self.description
            .as_ref()
            .map_or("", |description| &description.hostname)
    }

    /// Whether it is a node of Skep, with a slice of the node network and this data plane.
    pub fn is_skep(&self) -> bool {
        self.has_network_driver(SKEP_NETWORK_DRIVER)
    }

    /// Its part of the node network, once the leader gave it one: its place on that network.
    pub fn slice(&self) -> Option<Slice> {
        let mut places = self.attachments.iter();
        let place = places.find(|place| place.network.spec.is_node_network())?;
        Slice::of(place)
    }

    /// Whether the node balances load from an address of its own on each overlay network, as a
    /// dockerd does. Skep's nodes balance in each container's namespace; they say so by the driver
    /// [`SKEP_NETWORK_DRIVER`].
    pub fn needs_load_balancers(&self) -> bool {
        self.has_network_driver(OVERLAY_DRIVER) && !self.is_skep()
    }

    fn has_network_driver(&self, wanted: &str) -> bool {
        let description = self.description.as_ref();
        let mut plugins = description.into_iter().flat_map(|d| &d.engine.plugins);
        plugins.any(|plugin| plugin.kind == "Network" && plugin.name == wanted)
    }
}

/// What a node says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeDescription {
    /// Host name.
    pub hostname: String,
    /// Platform; architecture in `uname -m` style.
    pub platform: Platform,
    /// Capacity.
    pub resources: Resources,
    /// Engine.
    pub engine: EngineDescription,
    /// Issuer of its certificate.
    pub tls_info: Option<NodeTlsInfo>,
    /// FIPS mode; carried.
    pub is_fips: bool,
}

/// The engine of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineDescription {
    /// Engine version.
    pub engine_version: String,
    /// Engine labels (`engine.labels.*` in constraints).
    pub labels: BTreeMap<String, String>,
    /// Drivers it has.
    pub plugins: Vec<Plugin>,
}

/// One driver of an engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Plugin {
    /// `Volume`, `Network`, `Log` or `Authorization`.
    pub kind: String,
    /// Driver name.
    pub name: String,
}

/// Issuer of a node's certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeTlsInfo {
    /// Root certificates the node trusts (PEM).
    pub trust_root: Vec<u8>,
    /// Raw DER of the issuer's subject.
    pub cert_issuer_subject: Vec<u8>,
    /// DER of the issuer's public key.
    pub cert_issuer_public_key: Vec<u8>,
}

/// What is known of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeStatus {
    /// Reachability of its agent.
    pub state: NodeState,
    /// Why, for people.
    pub message: String,
    /// Address seen by the manager.
    pub addr: String,
}

/// Reachability of a node's agent, with Swarm's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NodeState {
    /// Not known yet, e.g. after a change of leader.
    #[default]
    Unknown,
    /// Missed its heartbeats.
    Down,
    /// Has a session.
    Ready,
    /// Left in good order.
    Disconnected,
}

/// Manager part of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ManagerStatus {
    /// Its raft id.
    pub raft_id: u64,
    /// Its address.
    pub addr: String,
    /// Whether it leads.
    pub is_leader: bool,
    /// Whether the leader reaches it.
    pub reachability: Reachability,
}

/// Whether the leader reaches a manager.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reachability {
    /// Not known.
    #[default]
    Unknown,
    /// No.
    Unreachable,
    /// Yes.
    Reachable,
}

/// A node's certificate and the state of its issuance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Certificate {
    /// Role in it.
    pub role: Role,
    /// The request it answers.
    pub csr: Vec<u8>,
    /// State.
    pub state: CertificateState,
    /// Why issuance failed.
    pub err: String,
    /// PEM chain.
    pub certificate: Vec<u8>,
    /// Common name.
    pub cn: String,
}

/// State of issuance, with Swarm's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CertificateState {
    /// None.
    #[default]
    Unknown,
    /// Wants renewal.
    Renew,
    /// Waits for approval.
    Pending,
    /// Issued.
    Issued,
    /// Failed.
    Failed,
    /// Must be renewed under a new root.
    Rotate,
}
