//! What the world begins with: the first manager's log and the machines.

use std::sync::Arc;

use skep_control::network;
use skep_manager::{bootstrap::NewCluster, event::Bootstrap};
use skep_model::{
    Annotations, Availability, Certificate, CertificateState, Cluster, ClusterId, ClusterSpec,
    EngineDescription, JoinTokens, Membership, Meta, NODE_NETWORK_DRIVER, Network, NetworkId,
    NetworkSpec, Node, NodeDescription, NodeId, NodeSpec, NodeStatus, OVERLAY_DRIVER, Platform,
    Plugin, RaftSettings, Redacted, Resources, Rng, Role, RootCa, reserved::rebalance,
};
use skep_raft::{Entry, EntryKind, Restored};
use skep_store::{Action, ActionKind, Object, Store};
use skep_wire::{
    log,
    member::{Member, encode_member},
};

use crate::{
    client::{ZONE, ZONES},
    manager::addr_of,
    profile::{Profile, pick},
};

/// What a machine is like, drawn anew.
pub(crate) fn description(rng: &mut Rng, index: usize) -> NodeDescription {
    let drivers: &[&str] = match rng.below(5) {
        0 => &["bridge", "host", OVERLAY_DRIVER],
        _ => &["bridge", "host", OVERLAY_DRIVER, NODE_NETWORK_DRIVER],
    };
    let plugins = drivers.iter().map(|name| Plugin {
        kind: "Network".to_owned(),
        name: (*name).to_owned(),
    });
    NodeDescription {
        engine: EngineDescription {
            plugins: plugins.collect(),
            ..EngineDescription::default()
        },
        hostname: format!("node-{index}"),
        platform: Platform {
            architecture: "x86_64".to_owned(),
            os: "linux".to_owned(),
        },
        resources: Resources {
            nano_cpus: [2_000_000_000, 4_000_000_000][pick(rng, 2)],
            memory_bytes: [512 << 20, 1 << 30][pick(rng, 2)],
            generic: Vec::new(),
        },
        ..NodeDescription::default()
    }
}

fn cluster_spec(profile: &Profile) -> ClusterSpec {
    let mut annotations = Annotations {
        name: ClusterSpec::default().annotations.name,
        ..Annotations::default()
    };
    // By what the profile says already: a draw of its own would change what every seed does.
    let mode = [None, Some("continuous"), Some("on-join")]
        [usize::try_from(profile.replicas_max % 3).expect("less than three")];
    if let Some(mode) = mode {
        let labels = [(rebalance::MODE, mode), (rebalance::BUDGET, "3")];
        let labels = labels.map(|(label, value)| (label.to_owned(), value.to_owned()));
        annotations.labels.extend(labels);
    }
    ClusterSpec {
        annotations,
        task_history_limit: profile.history_limit,
        heartbeat_period: profile.heartbeat,
        raft: RaftSettings {
            snapshot_interval: profile.snapshot_interval,
            log_entries_for_slow_followers: profile.entries_kept,
            ..RaftSettings::default()
        },
        ..ClusterSpec::default()
    }
}

/// What is on disk at first: a new group, and unless the manager's core makes the cluster itself
/// (`docker swarm init` on one node), an entry with the cluster and its nodes.
pub(crate) fn first_log(
    rng: &mut Rng,
    profile: &Profile,
    node_ids: &[NodeId],
) -> (Restored, Option<Bootstrap>) {
    let member = Member {
        raft_id: 1,
        node_id: node_ids[0],
        addr: addr_of(0),
    };
    let mut restored = Restored::new_group(1, encode_member(&member));
    let root_ca = RootCa {
        ca_cert: b"root".to_vec(),
        join_tokens: JoinTokens {
            worker: Redacted("token-worker".to_owned()),
            manager: Redacted("token-manager".to_owned()),
        },
        ..RootCa::default()
    };
    let bootstrap: Bootstrap = NewCluster {
        cluster_id: ClusterId::random(rng),
        node_id: node_ids[0],
        spec: cluster_spec(profile),
        root_ca,
        certificate: Vec::new(),
        availability: Availability::Active,
        data_path_port: 0,
        default_address_pool: Vec::new(),
        subnet_size: 0,
        node_pool: profile.node_pool.and_then(|pool| pool.parse().ok()),
    }
    .into();
    if node_ids.len() == 1 {
        return (restored, Some(bootstrap));
    }
    let create = |object| Action {
        kind: ActionKind::Create,
        object,
    };
    let cluster: Cluster = (*bootstrap.cluster).clone();
    let mut actions = vec![create(Object::Cluster(Arc::new(cluster)))];
    for (index, id) in node_ids.iter().enumerate() {
        let mut node = (*bootstrap.node).clone();
        if index > 0 {
            let role = if index < profile.manager_count {
                Role::Manager
            } else {
                Role::Worker
            };
            node = plain_node(*id, role, rng);
        }
        actions.push(create(Object::Node(Arc::new(node))));
    }
    if profile.has_networks {
        actions.extend(first_networks(rng, &actions, profile));
    }
    restored.entries.push(Entry {
        kind: EntryKind::Normal as i32,
        term: 1,
        index: 2,
        data: log::encode_actions(0, &actions).into(),
    });
    restored.hard_state.commit = 2;
    (restored, None)
}

/// What the leader of a new cluster adds to `actions`.
fn first_networks(rng: &mut Rng, actions: &[Action], profile: &Profile) -> Vec<Action> {
    let mut store = Store::default();
    for action in actions {
        store.apply(action).expect("an empty store takes a cluster");
    }
    let wanted = profile.node_pool.and_then(|pool| pool.parse().ok());
    let mut specs: Vec<NetworkSpec> = network::node_network(&store, wanted).into_iter().collect();
    specs.extend(network::networks_of_a_new_cluster());
    let mut networks = Vec::new();
    for spec in specs {
        let id = NetworkId::random(rng);
        let Ok(allocation) = network::allocate(&store, id, &spec) else {
            continue;
        };
        let network = Network {
            id,
            meta: Meta::default(),
            spec,
            driver_state: Some(allocation.driver_state),
            ipam: Some(allocation.ipam),
            is_pending_delete: false,
        };
        let action = Action {
            kind: ActionKind::Create,
            object: Object::Network(Arc::new(network)),
        };
        store.apply(&action).expect("a new network is taken");
        networks.push(action);
    }
    networks
}

fn plain_node(id: NodeId, role: Role, rng: &mut Rng) -> Node {
    let zone = ZONES[pick(rng, 3)].to_owned();
    let labels = [(ZONE.to_owned(), zone)].into();
    Node {
        id,
        meta: Meta::default(),
        spec: NodeSpec {
            annotations: Annotations {
                name: String::new(),
                labels,
            },
            desired_role: role,
            membership: Membership::Accepted,
            availability: Availability::Active,
        },
        description: None,
        status: NodeStatus::default(),
        manager_status: None,
        certificate: Certificate {
            role,
            csr: format!("csr of {id}").into_bytes(),
            state: CertificateState::Issued,
            err: String::new(),
            certificate: format!("{id} {role:?} by root").into_bytes(),
            cn: id.to_string(),
        },
        role,
        attachments: Vec::new(),
        vxlan_udp_port: 0,
    }
}
