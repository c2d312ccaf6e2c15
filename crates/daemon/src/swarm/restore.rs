//! A cluster made again of its state: from the local log, or from a backup.

use std::{net::SocketAddr, sync::Arc};

use bytes::BytesMut;
use futures_util::StreamExt;
use skep_ca::{KeyRequest, Lock, Signer, Subject};
use skep_docker_api::{
    backend::{ByteStream, InitRequest, RestoreRequest},
    error::{ApiError, ErrorKind, Result},
};
use skep_manager::{Published, entry};
use skep_model::{NodeId, Role};
use skep_raft::Storage;
use skep_wire::{member::Member as GroupMember, snapshot::Membership as Group};
use tracing::{info, warn};

use super::{
    Identity, NOT_A_MANAGER, START_TIMEOUT, Swarm,
    address::{self, Addresses, Asked},
    alone::{self, State},
    asked,
    backup::{self, BackupError, Header},
    identity,
    life::lock_of,
    member::{Active, Member},
    system, wait_until_ready,
};
use crate::error_chain::chain;

impl Swarm {
    /// Restarts a manager as the only one, with what its own log holds.
    pub(super) async fn force_new_cluster(
        &self,
        member: &Arc<Member>,
        request: &InitRequest,
    ) -> Result<NodeId> {
        let identity = Identity::clone(&member.identity());
        let (Role::Manager, Some(raft_id)) = (member.role(), identity.raft_id) else {
            return Err(ApiError::unavailable(NOT_A_MANAGER));
        };
        let mut fresh = identity.clone().without_manager();
        fresh.raft_id = Some(identity::new_raft_id());
        if !request.advertise_addr.is_empty() || !request.listen_addr.is_empty() {
            match asked(request).on_init() {
                Ok(addresses) => fresh.addresses = addresses,
                // The address it had is good enough where the new one is a question.
                Err(error) if request.advertise_addr.is_empty() => {
                    warn!(error = %error, "Keeps its address");
                }
                Err(error) => return Err(error),
            }
        }
        let lock = member
            .manager()
            .and_then(|active| Some(lock_of(active.handle.view().store.cluster()?)))
            .unwrap_or_default();
        self.stop().await;
        let node_id = identity.node_id;
        let made = self.rewrite_log(raft_id, &fresh, &lock);
        // Whatever happened, a manager goes on: the new one, or the one there was.
        let identity = if made.is_ok() { fresh } else { identity };
        let resumed = async {
            let member = self.open_member(identity, &lock)?;
            member.remotes().replace(vec![own_peer(&member)]);
            self.live(member, lock, None).await
        };
        match resumed.await {
            Ok(member) => {
                made?;
                wait_until_ready(&member, START_TIMEOUT).await?;
                info!(node.id = %node_id, "Goes on as a cluster of one manager");
                Ok(node_id)
            }
            Err(error) => {
                self.fail(&error, "failed to continue as part of the cluster");
                Err(error)
            }
        }
    }

    /// Writes the log of a group of one beside the old one and switches to it.
    fn rewrite_log(&self, raft_id: u64, fresh: &Identity, lock: &Lock) -> Result<()> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            let text = format!("failed to make a new cluster of the local state: {error}");
            ApiError::system(text, error)
        };
        let mut old = self
            .home
            .open_log(raft_id, lock)
            .map_err(|e| failed(e.into()))?;
        let restored = old.restored().map_err(|e| failed(e.into()))?;
        let state = alone::replay(&restored).map_err(|e| failed(e.into()))?;
        drop(old);
        self.write_alone(&state, fresh, lock)
    }

    /// Stores `state` as the log of `identity`'s manager alone, then the identity.
    fn write_alone(&self, state: &State, identity: &Identity, lock: &Lock) -> Result<()> {
        let own = GroupMember {
            raft_id: identity.raft_id.unwrap_or_default(),
            node_id: identity.node_id,
            addr: identity.manager_addr(),
        };
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            ApiError::system(format!("failed to write the new log: {error}"), error)
        };
        let mut log = self
            .home
            .open_log(own.raft_id, lock)
            .map_err(|e| failed(e.into()))?;
        log.bootstrap(&alone::alone(state, &own))
            .map_err(|e| failed(e.into()))?;
        drop(log);
        self.home.store_identity(identity).map_err(system)
    }

    /// Makes this node the only manager of the cluster a backup was taken of.
    pub(crate) async fn restore(&self, request: RestoreRequest) -> Result<NodeId> {
        let _changing = self.changing.lock().await;
        self.check_inactive()?;
        let file = read(request.backup).await?;
        let (header, state) = tokio::task::spawn_blocking(move || backup::decode(&file))
            .await
            .map_err(|error| ApiError::system("failed to read the backup", error))?
            .map_err(|error| ApiError::invalid(error.to_string()))?;
        let (node_id, addresses) = successor(
            &header,
            &state.membership,
            (&request.listen_addr, &request.advertise_addr),
        )?;
        let identity = Identity {
            node_id,
            cluster_id: header.cluster_id,
            raft_id: Some(identity::new_raft_id()),
            former_raft_ids: Vec::new(),
            addresses,
        };
        let result = self.restore_as(&identity, &state).await;
        if result.is_err() {
            self.end().await;
            let _ = self.home.clear();
        }
        result?;
        info!(node.id = %node_id, made_at = header.made_at, "Restored a cluster from a backup");
        Ok(node_id)
    }

    async fn restore_as(&self, identity: &Identity, state: &State) -> Result<()> {
        let Some(cluster) = state.store.cluster() else {
            return Err(ApiError::invalid("backup holds no cluster"));
        };
        let lock = lock_of(cluster);
        let issue = || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            let key = KeyRequest::generate()?;
            let subject = Subject {
                node_id: identity.node_id,
                role: Role::Manager,
                cluster_id: identity.cluster_id,
            };
            let signer = Signer::from_stored(&cluster.root_ca)?;
            let certificate = signer.issue(
                key.csr_pem.as_bytes(),
                &subject,
                identity::now(),
                cluster.spec.ca.node_cert_expiry,
            )?;
            self.home.prepare()?;
            let roots = String::from_utf8_lossy(&cluster.root_ca.ca_cert);
            self.home.store_roots(&roots)?;
            Ok(self
                .home
                .store_certificate(&certificate, &key.key_pem, &lock)?)
        };
        issue().map_err(|error| {
            ApiError::system(
                format!("failed to make this node's certificate: {error}"),
                error,
            )
        })?;
        self.write_alone(state, identity, &lock)?;
        let member = self.open_member(identity.clone(), &lock)?;
        let member = self.live(member, lock, None).await?;
        wait_until_ready(&member, START_TIMEOUT).await
    }
}

fn own_peer(member: &Member) -> skep_model::dispatch::WeightedPeer {
    let identity = member.identity();
    skep_model::dispatch::WeightedPeer {
        node_id: identity.node_id,
        addr: identity.manager_addr(),
        weight: 10,
    }
}

/// The whole file, within the limit.
async fn read(mut stream: ByteStream) -> Result<Vec<u8>> {
    let mut file = BytesMut::new();
    while let Some(piece) = stream.next().await {
        let piece = piece
            .map_err(|error| ApiError::invalid("failed to read the backup").with_source(error))?;
        if file.len() + piece.len() > backup::FILE_BYTES_MAX {
            let text = BackupError::TooLarge.to_string();
            return Err(ApiError::new(ErrorKind::TooLarge, text));
        }
        file.extend_from_slice(&piece);
    }
    Ok(file.into())
}

/// Which manager this node becomes: the one whose address is its own, else the one that made the
/// backup, for which an address must then be given.
fn successor(
    header: &Header,
    group: &Group,
    (listen, advertise): (&str, &str),
) -> Result<(NodeId, Addresses)> {
    let asked = |advertise| Asked {
        listen,
        advertise,
        data_path: "",
    };
    let maker = std::iter::once(&header.made_by);
    if !advertise.is_empty() {
        let addresses = asked(advertise).on_init()?;
        let same = |member: &&GroupMember| member.addr == addresses.advertised.to_string();
        let found = maker.chain(&group.members).find(same);
        return Ok((found.unwrap_or(&header.made_by).node_id, addresses));
    }
    for member in maker.chain(&group.members) {
        let Ok(addr) = member.addr.parse::<SocketAddr>() else {
            continue;
        };
        if address::is_own(addr.ip()) {
            let listen = if listen.is_empty() {
                format!("0.0.0.0:{}", addr.port())
            } else {
                listen.to_owned()
            };
            let asked = Asked {
                listen: &listen,
                ..asked(&member.addr)
            };
            return Ok((member.node_id, asked.on_init()?));
        }
    }
    Err(ApiError::invalid(format!(
        "none of this node's addresses is one of the cluster's managers (the backup was made at {}); \
         give this node that address, or name one with an advertise address: nodes then have to \
         join again",
        header.made_by.addr
    )))
}

/// The backup of a manager's state.
pub(crate) fn back_up(active: &Active, view: &Published) -> Result<Vec<u8>> {
    let missing = || ApiError::unavailable("the cluster's state is not there yet");
    let cluster = view.store.cluster().ok_or_else(missing)?;
    let made_by = view.group.by_node(active.node_id).ok_or_else(missing)?;
    let header = Header {
        cluster_id: cluster.id,
        made_by: made_by.member.clone(),
        index: view.index,
        made_at: identity::now().0 / 1_000_000_000,
    };
    let membership = Group {
        members: view.group.list(),
        removed: view.group.removed.iter().copied().collect(),
    };
    let snapshot = entry::encode_snapshot(&view.store, &membership);
    let _ = chain;
    Ok(backup::encode(&header, &snapshot))
}
