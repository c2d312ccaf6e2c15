//! How this node gets into a cluster: a manager that answers, its root, a certificate, the files.

use std::{sync::Arc, time::Duration};

use skep_ca::{JoinToken, KeyRequest, Lock, NodeCertificate, verify_chain};
use skep_docker_api::backend::JoinRequest;
use skep_model::{NodeId, Rng, Role, dispatch::WeightedPeer};
use skep_rpc::{
    Client, Credentials, Remotes, RpcError, Security, SecurityError,
    join::{self, Issued, JoinError},
};
use tracing::{info, warn};

use super::{
    address::{self, Addresses},
    certificate::fetch_unlock_key,
    home::{Home, HomeError},
    identity::{self, Identity},
    member::Member,
};
use crate::error_chain::chain;

/// Rounds over the addresses given before an attempt is given up; Swarm's value.
const ROUNDS: u32 = 5;
/// Pause between two rounds; Swarm's value.
const PAUSE: Duration = Duration::from_secs(2);

/// Why a node did not get in.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error("failed to make a key")]
    Key(#[from] skep_ca::RequestError),
    #[error("certificate is unusable")]
    Certificate(#[from] skep_ca::CertificateError),
    #[error("certificate is unusable")]
    Security(#[from] SecurityError),
    #[error("failed to ask for the unlock key")]
    UnlockKey(#[source] RpcError),
    #[error("unlock key is malformed")]
    MalformedUnlockKey,
    #[error("failed to store the membership")]
    Home(#[from] HomeError),
}

/// What a node that got in starts from.
pub(super) struct Admitted {
    pub(super) member: Arc<Member>,
    pub(super) lock: Lock,
}

/// Becomes a member; everything is stored on return, the identity last.
pub(super) async fn join(
    home: &Home,
    request: &JoinRequest,
    token: &JoinToken,
    addresses: Addresses,
) -> Result<Admitted, Failure> {
    let key = KeyRequest::generate()?;
    let (addr, roots_pem, issued) = get_certificate(request, token, &key).await?;
    let certificate: NodeCertificate = verify_chain(
        issued.chain_pem.as_bytes(),
        roots_pem.as_bytes(),
        identity::now(),
    )?;
    let security = Security::new(Credentials {
        chain_pem: issued.chain_pem.clone(),
        key_pem: key.key_pem.clone(),
        roots_pem: roots_pem.clone(),
    })?;
    let remotes = Remotes::new(vec![unnamed_manager(addr)]);
    let subject = certificate.subject;
    let lock = match subject.role {
        Role::Worker => Lock::default(),
        Role::Manager => {
            let client = Client::new(Arc::clone(&security), Arc::clone(&remotes));
            let key = fetch_unlock_key(&client).await;
            key.map_err(|error| error.map_or(Failure::MalformedUnlockKey, Failure::UnlockKey))?
        }
    };
    let identity = Identity {
        node_id: subject.node_id,
        cluster_id: subject.cluster_id,
        raft_id: None,
        former_raft_ids: Vec::new(),
        addresses,
    };
    home.prepare()?;
    home.store_roots(&roots_pem)?;
    home.store_certificate(&issued.chain_pem, &key.key_pem, &lock)?;
    home.store_managers(&remotes.list())?;
    home.store_identity(&identity)?;
    info!(node.id = %identity.node_id, node.role = ?subject.role, "Admitted to a cluster");
    let member = Arc::new(Member::new(identity, security, remotes));
    Ok(Admitted { member, lock })
}

/// The manager asked to join is not known by its id yet; the first session message names all.
fn unnamed_manager(addr: String) -> WeightedPeer {
    WeightedPeer {
        node_id: NodeId::random(&mut Rng::from_seed(identity::entropy())),
        addr,
        weight: 10,
    }
}

/// Asks the managers in turn. A refused token ends it: no other manager would take it.
async fn get_certificate(
    request: &JoinRequest,
    token: &JoinToken,
    key: &KeyRequest,
) -> Result<(String, String, Issued), Failure> {
    let mut round = 1;
    loop {
        let mut last = None;
        for addr in &request.remote_addrs {
            let addr = address::with_port(addr);
            match ask(&addr, request, token, key).await {
                Ok((roots_pem, issued)) => return Ok((addr, roots_pem, issued)),
                Err(error @ JoinError::Token(_)) => return Err(error.into()),
                Err(error) => {
                    warn!(addr, error = %chain(&error), "Failed to join");
                    last = Some(error);
                }
            }
        }
        let is_final = matches!(last, Some(JoinError::WrongRoot));
        match last {
            Some(error) if round >= ROUNDS || is_final => return Err(error.into()),
            _ => {}
        }
        round += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn ask(
    addr: &str,
    request: &JoinRequest,
    token: &JoinToken,
    key: &KeyRequest,
) -> Result<(String, Issued), JoinError> {
    let roots_pem = join::fetch_root(addr, token).await?;
    let availability = request.availability;
    let issued =
        join::request_certificate(addr, &roots_pem, &key.csr_pem, token, availability).await?;
    Ok((roots_pem, issued))
}
