//! The cluster, its settings, and this node's place in it.

use std::net::IpAddr;

use skep_model::{Cluster, ClusterSpec, ExternalCa, Node, NodeId, NodeTlsInfo, Redacted};

use crate::{
    backend::{ClusterStatus, ClusterView, InitRequest},
    convert::{duration, nanos, node::availability},
    dto::cluster as dto,
    error::{ApiError, Result},
};

/// The only protocol of external signers.
const CFSSL: &str = "cfssl";
/// UDP port of the data path when none is set.
const DEFAULT_DATA_PATH_PORT: u16 = 4789;

/// The cluster with its join tokens. Keys are never shown.
pub(crate) fn swarm(cluster: &Cluster, tls_info: &NodeTlsInfo) -> dto::Swarm {
    dto::Swarm {
        info: cluster_info(cluster, tls_info),
        join_tokens: dto::JoinTokens {
            worker: cluster.root_ca.join_tokens.worker.0.clone(),
            manager: cluster.root_ca.join_tokens.manager.0.clone(),
        },
    }
}

fn cluster_info(cluster: &Cluster, tls_info: &NodeTlsInfo) -> dto::ClusterInfo {
    let port = cluster.vxlan_udp_port;
    dto::ClusterInfo {
        id: cluster.id.to_string(),
        meta: cluster.meta.into(),
        spec: (&cluster.spec).into(),
        tls_info: tls_info.into(),
        root_rotation_in_progress: cluster.root_ca.root_rotation.is_some(),
        default_addr_pool: cluster
            .default_address_pool
            .iter()
            .map(ToString::to_string)
            .collect(),
        subnet_size: cluster.subnet_size,
        data_path_port: u32::from(if port == 0 {
            DEFAULT_DATA_PATH_PORT
        } else {
            port
        }),
    }
}

/// The `Swarm` part of `/info`; `view` is there on an active manager.
pub(crate) fn local_info(status: &ClusterStatus, view: Option<&dyn ClusterView>) -> dto::LocalInfo {
    let peers = status.remote_managers.iter().map(|peer| dto::Peer {
        node_id: peer.node_id.to_string(),
        addr: peer.addr.clone(),
    });
    let peers: Vec<_> = peers.collect();
    let nodes = view.map(ClusterView::nodes).unwrap_or_default();
    let is_manager = |node: &&std::sync::Arc<Node>| node.manager_status.is_some();
    let cluster = view.and_then(|view| {
        let cluster = view.cluster()?;
        Some(cluster_info(&cluster, &view.tls_info()))
    });
    dto::LocalInfo {
        node_id: status
            .node_id
            .as_ref()
            .map(NodeId::to_string)
            .unwrap_or_default(),
        node_addr: status.node_addr.clone(),
        local_node_state: status.state.name(),
        control_available: view.is_some(),
        error: status.error.clone(),
        remote_managers: (!peers.is_empty()).then_some(peers),
        managers: nodes.iter().filter(is_manager).count(),
        nodes: nodes.len(),
        cluster,
        warnings: status.warnings.clone(),
    }
}

impl From<&ClusterSpec> for dto::Spec {
    fn from(spec: &ClusterSpec) -> Self {
        let external_cas = spec.ca.external_cas.iter().map(|ca| dto::ExternalCa {
            protocol: CFSSL.to_owned(),
            url: ca.url.clone(),
            options: ca.options.clone(),
            ca_cert: String::from_utf8_lossy(&ca.ca_cert).into_owned(),
        });
        Self {
            name: spec.annotations.name.clone(),
            labels: spec.annotations.labels.clone(),
            orchestration: dto::Orchestration {
                task_history_retention_limit: Some(spec.task_history_limit),
            },
            raft: dto::Raft {
                snapshot_interval: spec.raft.snapshot_interval,
                keep_old_snapshots: Some(spec.raft.keep_old_snapshots),
                log_entries_for_slow_followers: spec.raft.log_entries_for_slow_followers,
                election_tick: spec.raft.election_tick,
                heartbeat_tick: spec.raft.heartbeat_tick,
            },
            dispatcher: dto::Dispatcher {
                heartbeat_period: nanos(spec.heartbeat_period),
            },
            ca_config: dto::CaConfig {
                node_cert_expiry: nanos(spec.ca.node_cert_expiry),
                external_cas: external_cas.collect(),
                signing_ca_cert: String::new(),
                signing_ca_key: String::new(),
                force_rotate: spec.ca.force_rotate,
            },
            task_defaults: dto::TaskDefaults {
                log_driver: spec.default_log_driver.as_ref().map(Into::into),
            },
            encryption_config: dto::EncryptionConfig {
                auto_lock_managers: spec.auto_lock_managers,
            },
        }
    }
}

/// The settings a client sent over `base`: what it left out or at zero stays as it is.
pub(crate) fn merge_cluster_spec(spec: dto::Spec, base: ClusterSpec) -> Result<ClusterSpec> {
    let mut merged = base;
    if !spec.name.is_empty() {
        merged.annotations.name = spec.name;
    }
    if !spec.labels.is_empty() {
        merged.annotations.labels = spec.labels;
    }
    if let Some(limit) = spec.orchestration.task_history_retention_limit {
        merged.task_history_limit = limit;
    }
    merge_raft(&spec.raft, &mut merged);
    if spec.dispatcher.heartbeat_period != 0 {
        merged.heartbeat_period = duration(
            spec.dispatcher.heartbeat_period,
            "Dispatcher.HeartbeatPeriod",
        )?;
    }
    merge_ca(spec.ca_config, &mut merged)?;
    if let Some(driver) = spec.task_defaults.log_driver {
        merged.default_log_driver = Some(driver.into());
    }
    merged.auto_lock_managers = spec.encryption_config.auto_lock_managers;
    Ok(merged)
}

fn merge_raft(raft: &dto::Raft, merged: &mut ClusterSpec) {
    if raft.snapshot_interval != 0 {
        merged.raft.snapshot_interval = raft.snapshot_interval;
    }
    if let Some(count) = raft.keep_old_snapshots {
        merged.raft.keep_old_snapshots = count;
    }
    if raft.log_entries_for_slow_followers != 0 {
        merged.raft.log_entries_for_slow_followers = raft.log_entries_for_slow_followers;
    }
    if raft.heartbeat_tick != 0 {
        merged.raft.heartbeat_tick = raft.heartbeat_tick;
    }
    if raft.election_tick != 0 {
        merged.raft.election_tick = raft.election_tick;
    }
}

fn merge_ca(config: dto::CaConfig, merged: &mut ClusterSpec) -> Result<()> {
    if config.node_cert_expiry != 0 {
        merged.ca.node_cert_expiry = duration(config.node_cert_expiry, "CAConfig.NodeCertExpiry")?;
    }
    if !config.signing_ca_cert.is_empty() {
        merged.ca.signing_ca_cert = config.signing_ca_cert.into_bytes();
    }
    if !config.signing_ca_key.is_empty() {
        merged.ca.signing_ca_key = Redacted(config.signing_ca_key.into_bytes());
    }
    merged.ca.force_rotate = config.force_rotate;
    if let Some(ca) = config
        .external_cas
        .iter()
        .find(|ca| !ca.protocol.eq_ignore_ascii_case(CFSSL))
    {
        return Err(ApiError::invalid(format!(
            "invalid protocol: {:?}",
            ca.protocol
        )));
    }
    let external = config.external_cas.into_iter().map(|ca| ExternalCa {
        url: ca.url,
        options: ca.options,
        ca_cert: ca.ca_cert.into_bytes(),
    });
    merged.ca.external_cas = external.collect();
    Ok(())
}

/// Reads `POST /swarm/init`.
pub(crate) fn init_request(request: dto::InitRequest) -> Result<InitRequest> {
    let spec = merge_cluster_spec(request.spec, ClusterSpec::default())?;
    if spec.annotations.name != "default" {
        return Err(ApiError::invalid("swarm spec must be named \"default\""));
    }
    let pool = request
        .default_addr_pool
        .iter()
        .map(|pool| address_pool(pool));
    let data_path_port = u16::try_from(request.data_path_port)
        .ok()
        .filter(|port| *port == 0 || (1024..=49151).contains(port))
        .ok_or_else(|| {
            ApiError::invalid("Datapath port must be a number between 1024 and 49151")
        })?;
    Ok(InitRequest {
        listen_addr: request.listen_addr,
        advertise_addr: request.advertise_addr,
        data_path_addr: request.data_path_addr,
        data_path_port,
        force_new_cluster: request.force_new_cluster,
        auto_lock_managers: request.auto_lock_managers || spec.auto_lock_managers,
        spec,
        availability: match request.availability.as_str() {
            "" => skep_model::Availability::Active,
            name => availability(name)?,
        },
        default_address_pool: pool.collect::<Result<_>>()?,
        subnet_size: request.subnet_size,
    })
}

fn address_pool(text: &str) -> Result<(IpAddr, u8)> {
    let parse = || {
        let (address, prefix) = text.split_once('/')?;
        let (address, prefix) = (address.parse::<IpAddr>().ok()?, prefix.parse().ok()?);
        let bits = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= bits).then_some((address, prefix))
    };
    parse().ok_or_else(|| ApiError::invalid(format!("invalid CIDR address: {text}")))
}
