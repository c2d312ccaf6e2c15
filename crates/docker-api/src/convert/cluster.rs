//! The cluster, its settings, and this node's place in it.

use std::net::IpAddr;

use skep_model::{Availability, Cluster, ClusterSpec, Node, NodeId, NodeTlsInfo, Redacted};

use crate::{
    backend::{ClusterStatus, ClusterView, InitRequest, JoinRequest, LocalNodeState, ManagerState},
    convert::{duration, nanos, node::availability},
    dto::cluster as dto,
    error::{ApiError, Result},
};

/// The only protocol of external signers.
const CFSSL: &str = "cfssl";
/// Docker's text; clients show it as it is.
const TWO_MANAGERS: &str = "WARNING: Running Swarm in a two-manager configuration. This configuration provides\n         no fault tolerance, and poses a high risk to lose control over the cluster.\n         Refer to https://docs.docker.com/engine/swarm/admin_guide/ to configure the\n         Swarm for fault-tolerance.";
/// Longest prefix of subnets cut from the pools: eight addresses, as Docker has it.
const SUBNET_SIZE_MAX: u32 = 29;

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
            skep_model::DEFAULT_DATA_PATH_PORT
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
    let managers = nodes.iter().filter(is_manager).count();
    let mut warnings = status.warnings.clone();
    warnings.extend(manager_count_warning(managers));
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
        control_available: is_active_manager(status),
        error: status.error.clone(),
        remote_managers: (!peers.is_empty()).then_some(peers),
        managers,
        nodes: nodes.len(),
        cluster,
        warnings,
    }
}

fn is_active_manager(status: &ClusterStatus) -> bool {
    status.state == LocalNodeState::Active && status.manager == ManagerState::Active
}

/// What is wrong with a number of managers: two tolerate no failure (Docker's own text), and any even
/// number tolerates no more than the odd one below.
fn manager_count_warning(count: usize) -> Option<String> {
    match count {
        2 => Some(TWO_MANAGERS.to_owned()),
        count if count > 2 && count.is_multiple_of(2) => Some(format!(
            "WARNING: Running Swarm with {count} managers, an even number: it tolerates the loss of {}, \
             no more\n         than {} managers do. Add one manager or demote one.",
            (count - 1) / 2,
            count - 1
        )),
        _ => None,
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
    if !config.external_cas.is_empty() {
        return Err(ApiError::not_implemented(
            "not supported yet: CAConfig.ExternalCAs",
        ));
    }
    merged.ca.external_cas.clear();
    Ok(())
}

/// What an update builds on. A client sends the whole spec it read and changed, so what it leaves out
/// is meant to go: labels, the log driver, and the root that an earlier update asked for (which a
/// reader never sees, and which would be asked for again).
pub(crate) fn update_base(stored: &ClusterSpec) -> ClusterSpec {
    let mut base = stored.clone();
    base.annotations.labels.clear();
    base.default_log_driver = None;
    base.ca.signing_ca_cert.clear();
    base.ca.signing_ca_key = Redacted::default();
    base
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
        availability: availability_or_active(&request.availability)?,
        default_address_pool: check_pools(pool.collect::<Result<_>>()?, request.subnet_size)?,
        subnet_size: request.subnet_size,
    })
}

/// Reads `POST /swarm/join`.
pub(crate) fn join_request(request: dto::JoinRequest) -> Result<JoinRequest> {
    if request.remote_addrs.is_empty() {
        return Err(ApiError::invalid(
            "at least 1 RemoteAddr is required to join",
        ));
    }
    if request.remote_addrs.iter().any(String::is_empty) {
        return Err(ApiError::invalid(
            "invalid remoteAddr \"\": invalid empty address",
        ));
    }
    Ok(JoinRequest {
        listen_addr: request.listen_addr,
        advertise_addr: request.advertise_addr,
        data_path_addr: request.data_path_addr,
        remote_addrs: request.remote_addrs,
        join_token: request.join_token,
        availability: availability_or_active(&request.availability)?,
    })
}

fn availability_or_active(name: &str) -> Result<Availability> {
    match name {
        "" => Ok(Availability::Active),
        name => availability(name),
    }
}

/// Docker's rules for pools and the subnets cut from them; without pools the size is of no account.
fn check_pools(pools: Vec<(IpAddr, u8)>, subnet_size: u32) -> Result<Vec<(IpAddr, u8)>> {
    if !pools.is_empty() && subnet_size > SUBNET_SIZE_MAX {
        return Err(ApiError::invalid(format!(
            "subnet size is out of range: {subnet_size}"
        )));
    }
    for (address, prefix) in &pools {
        if subnet_size != 0 && subnet_size < u32::from(*prefix) {
            return Err(ApiError::invalid(format!(
                "invalid CIDR: \"{address}/{prefix}\". Subnet size is too small for pool: {subnet_size}"
            )));
        }
    }
    Ok(pools)
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
