//! All networks this node can tell of, and finding one by what people type.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::IpNet;
use skep_model::{
    IpamConfig, NODE_NETWORK, NetworkId, Node, NodeId, Service,
    directory::{Entry, Slice},
};

use super::PREDEFINED;
use crate::{
    backend::{ClusterView, NetworkDetail},
    convert::SWARM_SCOPE,
    dto::network::Network,
    error::{ApiError, Result},
    http::server::Context,
    routes::lookup,
};

/// Docker's name of the option with a bridge's name.
const BRIDGE_OPTION: &str = "com.docker.network.bridge.name";
/// Option with the addresses all nodes' parts of the node network are of.
const POOL_OPTION: &str = "skep.pool";

/// The networks: the cluster's first, then this node's.
pub(super) struct Catalog {
    /// The cluster, on a manager with a leader.
    pub(super) view: Option<Arc<dyn ClusterView>>,
    /// What this node's data plane knows.
    pub(super) entries: Vec<Entry>,
    /// What lists show.
    pub(super) networks: Vec<Network>,
}

// === impl Catalog ===

impl Catalog {
    /// All there is now.
    pub(super) async fn of(context: &Context) -> Result<Self> {
        let view = match lookup::check_manager(context) {
            // A manager without leader still knows its own networks.
            Ok(()) => context.backends.cluster.view().await.ok(),
            Err(_) => None,
        };
        let entries = context.backends.system.directory().await?;
        let mut networks = Vec::new();
        for network in view.iter().flat_map(|view| view.networks()) {
            if !network.spec.is_predefined() && !network.spec.is_node_network() {
                networks.push(Network::from(&*network));
            }
        }
        // A manager knows better: a network that was removed is gone, although containers that are still
        // ending here have it. Whoever deploys a stack again at once must not find it.
        let joined = entries.iter().filter_map(|entry| match entry {
            Entry::Network(network) if view.is_none() => Some(network),
            Entry::Network(_) | Entry::Service(_) | Entry::Task(_) | Entry::Node(_) => None,
        });
        for network in joined.filter(|network| network.spec.is_overlay()) {
            if !networks.iter().any(|known| known.id == network.id.as_str()) {
                networks.push(Network::from(&**network));
            }
        }
        let own = context.backends.system.networks().await?;
        let node_id = context.backends.cluster.status().node_id;
        networks.extend(node_network(view.as_deref(), &entries, node_id, &own));
        for network in own {
            let own = Network::from(network);
            match networks.iter_mut().find(|known| known.id == own.id) {
                // The cluster has no addresses of it; this node's part does.
                Some(known) => {
                    known.ipam = own.ipam;
                    known.options = own.options;
                }
                None => networks.push(own),
            }
        }
        Ok(Self {
            view,
            entries,
            networks,
        })
    }

    /// The network of the cluster called `term`, also one that lists hide. Docker's command asks so for
    /// the networks of a service.
    pub(super) fn of_cluster(&self, term: &str) -> Option<Network> {
        let network = lookup::network(self.view.as_deref()?, term).ok()?;
        (!network.spec.is_node_network()).then(|| Network::from(&*network))
    }

    /// By whole id, then by name, then by the start of the id.
    pub(super) fn find(&self, term: &str, is_wanted: impl Fn(&Network) -> bool) -> Result<Network> {
        lookup::check_named("network", term)?;
        let networks: Vec<&Network> = self.networks.iter().filter(|n| is_wanted(n)).collect();
        if let Some(found) = networks.iter().find(|network| network.id == term) {
            return Ok(Network::clone(found));
        }
        let named = |network: &&&Network| network.name == term;
        let starting = |network: &&&Network| network.id.starts_with(term);
        let found: [(&str, Vec<&&Network>); 2] = [
            ("name", networks.iter().filter(named).collect()),
            ("ID prefix", networks.iter().filter(starting).collect()),
        ];
        for (by, found) in found {
            match found.as_slice() {
                [] => {}
                [one] => return Ok(Network::clone(one)),
                many => {
                    return Err(ApiError::invalid(format!(
                        "network {term} is ambiguous ({} matches found based on {by})",
                        many.len()
                    )));
                }
            }
        }
        Err(ApiError::not_found(format!("network {term} not found")))
    }

    /// Ids of the networks that serve something: a service wants them, or they are there for all.
    pub(super) fn used(&self) -> BTreeSet<String> {
        let services = self.view.iter().flat_map(|view| view.services());
        let mut used: BTreeSet<String> = services.flat_map(|service| wanted(&service)).collect();
        let is_for_all = |network: &&Network| {
            let is_predefined = PREDEFINED.contains(&network.name.as_str());
            // A worker knows only of networks of the cluster that its containers are on.
            let is_joined = self.view.is_none() && network.scope == SWARM_SCOPE;
            is_predefined || is_joined || network.ingress || network.name == NODE_NETWORK
        };
        let for_all = self.networks.iter().filter(is_for_all);
        used.extend(for_all.map(|network| network.id.clone()));
        used
    }
}

/// Ids of the networks a service has.
fn wanted(service: &Service) -> Vec<String> {
    let spec = &service.spec;
    let targets = spec.task.networks.iter().chain(&spec.networks);
    targets.map(|wanted| wanted.target.clone()).collect()
}

/// The node network as people know `docker_gwbridge`: this node's part of it, a bridge.
fn node_network(
    view: Option<&dyn ClusterView>,
    entries: &[Entry],
    node_id: Option<NodeId>,
    own: &[NetworkDetail],
) -> Option<Network> {
    let node_id = node_id?;
    let told = entries.iter().find_map(|entry| match entry {
        Entry::Node(node) if node.id == node_id => node.slice,
        Entry::Network(_) | Entry::Service(_) | Entry::Task(_) | Entry::Node(_) => None,
    });
    let node: Option<Arc<Node>> = view.and_then(|view| view.node(node_id));
    let slice: Slice = told.or_else(|| node.as_ref()?.slice())?;
    let config = |net: IpNet| IpamConfig {
        subnet: Some(net.trunc()),
        gateway: Some(net.addr()),
        ..IpamConfig::default()
    };
    let v6 = slice.v6.map(|v6| config(v6.into()));
    let v4 = config(slice.v4.into());
    let mut options = BTreeMap::new();
    let bridge = own
        .iter()
        .find_map(|network| network.options.get(BRIDGE_OPTION));
    options.extend(bridge.map(|bridge| (BRIDGE_OPTION.to_owned(), bridge.clone())));
    let cluster = view.and_then(|view| view.network_by_name(NODE_NETWORK));
    let pools = cluster.iter().flat_map(|network| network.subnets());
    let pools: Vec<String> = pools.filter_map(|c| Some(c.subnet?.to_string())).collect();
    if !pools.is_empty() {
        options.insert(POOL_OPTION.to_owned(), pools.join(","));
    }
    let hex: String = NODE_NETWORK
        .bytes()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Some(Network::from(NetworkDetail {
        id: format!("{hex:0<64}"),
        name: NODE_NETWORK.to_owned(),
        driver: "bridge".to_owned(),
        scope: "local".to_owned(),
        created_at: cluster
            .map(|network| network.meta.created_at)
            .unwrap_or_default(),
        has_ipv6: v6.is_some(),
        subnets: [Some(v4), v6].into_iter().flatten().collect(),
        options,
        ..NetworkDetail::default()
    }))
}

/// The id of a network of the cluster.
pub(super) fn cluster_id(network: &Network) -> Option<NetworkId> {
    network
        .id
        .parse()
        .ok()
        .filter(|_| network.scope == SWARM_SCOPE)
}
