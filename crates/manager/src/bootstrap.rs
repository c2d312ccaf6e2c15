//! The objects a new cluster begins with: itself and its first manager.

use skep_model::{
    Annotations, Certificate, CertificateState, Cluster, ClusterId, ClusterSpec, Membership, Meta,
    Node, NodeId, NodeSpec, NodeStatus, Role, RootCa,
};

use crate::event::Bootstrap;

/// Swarm's pool for overlay networks.
const DEFAULT_POOL: &str = "10.0.0.0/8";
/// Swarm's prefix length of overlay networks.
const DEFAULT_SUBNET_SIZE: u32 = 24;

/// What `docker swarm init` decides.
#[derive(Debug, Clone)]
pub struct NewCluster {
    /// Id of the cluster.
    pub cluster_id: ClusterId,
    /// Id of this node.
    pub node_id: NodeId,
    /// Settings.
    pub spec: ClusterSpec,
    /// Root CA with tokens.
    pub root_ca: RootCa,
    /// Certificate of this node (PEM chain).
    pub certificate: Vec<u8>,
    /// Whether this node takes tasks.
    pub availability: skep_model::Availability,
    /// UDP port of the data path; 0 is the default.
    pub data_path_port: u16,
    /// Pools of overlay networks; empty is the default.
    pub default_address_pool: Vec<ipnet::IpNet>,
    /// Prefix length of overlay networks; 0 is the default.
    pub subnet_size: u32,
    /// Pool of the node network, free on this host; `None`: the first of
    /// [`skep_control::network::NODE_POOLS`] that is in no other network's way.
    pub node_pool: Option<ipnet::Ipv4Net>,
}

impl From<NewCluster> for Bootstrap {
    fn from(new: NewCluster) -> Self {
        let mut default_address_pool = new.default_address_pool;
        if default_address_pool.is_empty() {
            default_address_pool.push(DEFAULT_POOL.parse().expect("the default pool is a network"));
        }
        let subnet_size = if new.subnet_size == 0 {
            DEFAULT_SUBNET_SIZE
        } else {
            new.subnet_size
        };
        let cluster = Cluster {
            id: new.cluster_id,
            meta: Meta::default(),
            spec: new.spec,
            root_ca: new.root_ca,
            network_bootstrap_keys: Vec::new(),
            encryption_key_lamport_clock: 0,
            blacklisted_certificates: std::collections::BTreeMap::new(),
            unlock_keys: Vec::new(),
            is_fips: false,
            default_address_pool,
            subnet_size,
            vxlan_udp_port: new.data_path_port,
        };
        let node = Node {
            id: new.node_id,
            meta: Meta::default(),
            spec: NodeSpec {
                annotations: Annotations::default(),
                desired_role: Role::Manager,
                membership: Membership::Accepted,
                availability: new.availability,
            },
            description: None,
            status: NodeStatus::default(),
            // Where managers are and how follows from the raft group, not from the store.
            manager_status: None,
            certificate: Certificate {
                role: Role::Manager,
                csr: Vec::new(),
                state: CertificateState::Issued,
                err: String::new(),
                certificate: new.certificate,
                cn: new.node_id.to_string(),
            },
            role: Role::Manager,
            attachments: Vec::new(),
            vxlan_udp_port: new.data_path_port,
        };
        Self {
            cluster: Box::new(cluster),
            node: Box::new(node),
            node_pool: new.node_pool,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use skep_model::Rng;

    use super::*;

    /// A manager's node record.
    pub(crate) fn node(rng: &mut Rng) -> Node {
        *new_cluster(rng).node
    }

    /// A cluster of one manager.
    pub(crate) fn new_cluster(rng: &mut Rng) -> Bootstrap {
        NewCluster {
            cluster_id: ClusterId::random(rng),
            node_id: NodeId::random(rng),
            spec: ClusterSpec::default(),
            root_ca: RootCa::default(),
            certificate: Vec::new(),
            availability: skep_model::Availability::Active,
            data_path_port: 0,
            default_address_pool: Vec::new(),
            subnet_size: 0,
            node_pool: None,
        }
        .into()
    }

    #[test]
    fn a_new_cluster_gets_swarms_defaults() {
        let bootstrap = new_cluster(&mut Rng::from_seed(1));
        assert_eq!(bootstrap.cluster.subnet_size, 24);
        assert_eq!(
            bootstrap.cluster.default_address_pool,
            ["10.0.0.0/8".parse().unwrap()]
        );
        assert_eq!(bootstrap.node.role, Role::Manager);
    }
}
