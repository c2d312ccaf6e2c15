//! The directory: what a node's data plane is told of the tasks, services, networks and other nodes
//! that its containers may exchange packets with.
//!
//! A function of the store (`skep_control::directory`), sent by any manager to each node as one
//! complete set and then as changes, in the order of the log. An entry is small, whole and
//! replaced as one. What is deliberately absent: anything a node decides by itself, and Docker's
//! gossip. Design: `docs/design/directory.md`.

mod slice;

pub use self::slice::Pools;

use std::{net::IpAddr, sync::Arc};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    id::{NetworkId, NodeId, ServiceId, TaskId},
    object::{Network, NetworkAttachment},
    spec::PortConfig,
};

/// One thing a node is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A network with a task on this node.
    Network(Arc<Network>),
    /// A service on one of those networks, or with ports published on every node.
    Service(Arc<ServiceEntry>),
    /// A task of such a service, on whichever node.
    Task(Arc<TaskEntry>),
    /// Any node of Skep in the cluster, this one too.
    Node(Arc<NodeEntry>),
}

/// Which thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A network.
    Network(NetworkId),
    /// A service.
    Service(ServiceId),
    /// A task.
    Task(TaskId),
    /// A node.
    Node(NodeId),
}

/// A change of what a node is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// New, or otherwise than before.
    Set(Entry),
    /// Gone, or none of the node's business any more.
    Remove(Key),
}

/// Some changes, in the order of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Index of the raft entry after which all this is so. Never falls for one node: it refuses a
    /// manager that is behind what it knows.
    pub index: u64,
    /// The first part of a complete set: what the node knew and is not in it is gone.
    pub is_complete: bool,
    /// No further part follows; what was sent may be acted on.
    pub is_last: bool,
    /// The changes.
    pub changes: Vec<Change>,
}

/// A service as other tasks know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEntry {
    /// Its id.
    pub id: ServiceId,
    /// Its name.
    pub name: String,
    /// Its networks.
    pub networks: Vec<ServicePlace>,
    /// Ports, with published numbers filled in, in either mode.
    pub ports: Vec<PortConfig>,
    /// Published ports lead to tasks of the node asked as long as it has ready ones.
    pub is_local_first: bool,
    /// The only address that published ports are answered on; `None`: all of a node.
    pub publish_address: Option<IpAddr>,
}

/// A service on one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePlace {
    /// The network.
    pub network: NetworkId,
    /// Virtual addresses; none for `dnsrr`.
    pub vips: Vec<IpAddr>,
    /// Other names of the service there.
    pub aliases: Vec<String>,
}

/// A task as others know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskEntry {
    /// Its id.
    pub id: TaskId,
    /// Its service; `None` for tasks outside any.
    pub service_id: Option<ServiceId>,
    /// Slot number; 0 for tasks of global services.
    pub slot: u64,
    /// `service.slot.id`, as its container is called.
    pub name: String,
    /// Id of its container; empty before there is one.
    pub container_id: String,
    /// Where it runs.
    pub node_id: NodeId,
    /// Its places on overlay networks.
    pub places: Vec<TaskPlace>,
    /// Its addresses on the node network, if the leader gave it any: published ports lead there.
    pub node_addresses: Vec<IpAddr>,
    /// What it gets.
    pub standing: Standing,
}

/// A task on one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskPlace {
    /// The network.
    pub network: NetworkId,
    /// Its addresses there, IPv4 first.
    pub addresses: Vec<IpAddr>,
}

/// What a task gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Packets, but no share of its service's load and no name: it is not running yet.
    Starting,
    /// New connections.
    Ready,
    /// Only what belongs to connections it has: it is to end.
    Leaving,
    /// Only what belongs to connections it has, and no name: it says that it is not ready.
    Unready,
}

/// A node as others know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEntry {
    /// Its id.
    pub id: NodeId,
    /// Where tunnels to it end; `None` while it has not said so.
    pub data_path: Option<IpAddr>,
    /// All its addresses: connections from one of them are the node's own.
    pub addresses: Vec<IpAddr>,
    /// Its part of the node network.
    pub slice: Option<Slice>,
    /// Its tasks count as gone, whatever they are said to be.
    pub is_down: bool,
    /// WireGuard keys (Curve25519, public) of its tunnel: the one in force, then the next.
    pub tunnel_keys: Vec<[u8; 32]>,
}

/// A node's part of the node network: what its bridge has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slice {
    /// Its place among all slices, from 1.
    pub number: u16,
    /// The bridge's address, which is the slice's first, with the slice's prefix length.
    pub v4: Ipv4Net,
    /// The same in IPv6.
    pub v6: Option<Ipv6Net>,
}

// === impl Entry ===

impl Entry {
    /// What it is about.
    pub fn key(&self) -> Key {
        match self {
            Self::Network(network) => Key::Network(network.id),
            Self::Service(service) => Key::Service(service.id),
            Self::Task(task) => Key::Task(task.id),
            Self::Node(node) => Key::Node(node.id),
        }
    }
}

// === impl Change ===

impl Change {
    /// What it is about.
    pub fn key(&self) -> Key {
        match self {
            Self::Set(entry) => entry.key(),
            Self::Remove(key) => *key,
        }
    }
}

// === impl Slice ===

impl Slice {
    /// The slice that a place on the node network is: its addresses are the bridge's, and the
    /// number is its place in the network's IPv4 subnet. `None` if it is none.
    pub fn of(place: &NetworkAttachment) -> Option<Self> {
        let v4 = place.addresses.iter().find_map(|net| match net {
            IpNet::V4(v4) => Some(*v4),
            IpNet::V6(_) => None,
        })?;
        let v6 = place.addresses.iter().find_map(|net| match net {
            IpNet::V6(v6) => Some(*v6),
            IpNet::V4(_) => None,
        });
        let mut subnets = place.network.subnets().filter_map(|config| config.subnet);
        let pool = subnets.find(|subnet| subnet.contains(&IpNet::V4(v4)))?;
        let IpNet::V4(pool) = pool else { return None };
        let offset = v4.network().to_bits() - pool.network().to_bits();
        let number = offset.checked_shr(32 - u32::from(v4.prefix_len()))?;
        let number = u16::try_from(number).ok().filter(|number| *number > 0)?;
        Some(Self { number, v4, v6 })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        object::Meta,
        spec::{Driver, IpamConfig, IpamOptions, NODE_NETWORK_DRIVER, NetworkSpec},
    };

    fn place(pool: &str, addresses: &[&str]) -> NetworkAttachment {
        let config = IpamConfig {
            subnet: Some(pool.parse().unwrap()),
            ..IpamConfig::default()
        };
        let driver = Driver {
            name: NODE_NETWORK_DRIVER.to_owned(),
            options: BTreeMap::new(),
        };
        let network = Network {
            id: NetworkId::random(&mut crate::Rng::from_seed(1)),
            meta: Meta::default(),
            spec: NetworkSpec::default(),
            driver_state: Some(driver.clone()),
            ipam: Some(IpamOptions {
                driver: Some(driver),
                configs: vec![config],
            }),
            is_pending_delete: false,
        };
        NetworkAttachment {
            network: Arc::new(network),
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            aliases: Vec::new(),
            driver_options: BTreeMap::new(),
        }
    }

    #[track_caller]
    fn check(pool: &str, addresses: &[&str], number: Option<u16>) {
        let slice = Slice::of(&place(pool, addresses));
        assert_eq!(slice.map(|slice| slice.number), number);
    }

    #[test]
    fn a_slices_number_is_its_place_in_the_pool() {
        check("10.252.0.0/14", &["10.252.4.1/22"], Some(1));
        check(
            "10.252.0.0/14",
            &["fd00::1/64", "10.255.252.1/22"],
            Some(255),
        );
        check("10.0.0.0/8", &["10.255.252.1/22"], Some(16383));
    }

    #[test]
    fn what_is_no_slice_has_no_number() {
        check("10.252.0.0/14", &["10.252.0.1/22"], None);
        check("10.252.0.0/14", &["10.11.4.1/22"], None);
        check("10.252.0.0/14", &["fd00::1/64"], None);
        check("0.0.0.0/0", &["255.0.0.1/32"], None);
        check("0.0.0.0/0", &["0.0.0.1/0"], None);
    }
}
