//! Makes a new cluster: ids, root, tokens, this node's certificate.

use std::error::Error;

use skep_ca::{JoinToken, KeyRequest, Lock, PublicKey, RootCa, Subject};
use skep_docker_api::{
    backend::InitRequest,
    error::{ApiError, Result},
};
use skep_manager::{bootstrap::NewCluster, event::Bootstrap};
use skep_model::{ClusterId, JoinTokens, NodeId, Redacted, Rng, Role, RootCa as StoredRootCa};

use super::{
    address::Addresses,
    home::Home,
    identity::{self, Identity},
    node_network::NodeNetwork,
};

/// Makes a new cluster's identity, root and node certificate; stores all but the identity.
pub(super) fn found(
    home: &Home,
    request: &InitRequest,
    addresses: Addresses,
    node_network: &NodeNetwork,
) -> Result<(Identity, Bootstrap)> {
    let system = |error: Box<dyn Error + Send + Sync>| {
        ApiError::system(format!("failed to found a cluster: {error}"), error)
    };
    let mut rng = Rng::from_seed(identity::entropy());
    let identity = Identity {
        node_id: NodeId::random(&mut rng),
        cluster_id: ClusterId::random(&mut rng),
        raft_id: Some(identity::new_raft_id()),
        former_raft_ids: Vec::new(),
        addresses,
    };
    let pools = request.default_address_pool.iter().map(|(addr, prefix)| {
        ipnet::IpNet::new(*addr, *prefix)
            .map_err(|_| ApiError::invalid(format!("invalid address pool {addr}/{prefix}")))
    });
    let default_address_pool = pools.collect::<Result<Vec<_>>>()?;
    let node_pool = node_network.pool(&default_address_pool, request.subnet_size)?;
    let (root_ca, certificate) = make_root(home, request, &identity).map_err(system)?;
    let mut spec = request.spec.clone();
    spec.auto_lock_managers |= request.auto_lock_managers;
    let new = NewCluster {
        cluster_id: identity.cluster_id,
        node_id: identity.node_id,
        spec,
        root_ca,
        certificate,
        availability: request.availability,
        data_path_port: request.data_path_port,
        default_address_pool,
        subnet_size: request.subnet_size,
        node_pool,
    };
    Ok((identity, new.into()))
}

fn make_root(
    home: &Home,
    request: &InitRequest,
    identity: &Identity,
) -> Result<(StoredRootCa, Vec<u8>), Box<dyn Error + Send + Sync>> {
    home.prepare()?;
    let now = identity::now();
    let root = wanted_root(request)?;
    let key = KeyRequest::generate()?;
    let subject = Subject {
        node_id: identity.node_id,
        role: Role::Manager,
        cluster_id: identity.cluster_id,
    };
    let public_key = PublicKey::from_csr_pem(key.csr_pem.as_bytes())?;
    let certificate = root.issue(&public_key, &subject, now, request.spec.ca.node_cert_expiry)?;
    home.store_roots(root.certificates_pem())?;
    // The unlock key is the leader's to make; the manager seals its keys when it learns it.
    home.store_certificate(&certificate, &key.key_pem, &Lock::default())?;
    let bundle = root.certificates_pem().as_bytes();
    let stored = StoredRootCa {
        ca_key: Redacted(root.key_pem().as_bytes().to_vec()),
        ca_cert: bundle.to_vec(),
        ca_cert_hash: root.hash(),
        join_tokens: JoinTokens {
            worker: Redacted(JoinToken::generate(bundle).to_string()),
            manager: Redacted(JoinToken::generate(bundle).to_string()),
        },
        root_rotation: None,
        last_forced_rotation: request.spec.ca.force_rotate,
    };
    Ok((stored, certificate.into_bytes()))
}

/// A new root, or the one the operator gave.
fn wanted_root(request: &InitRequest) -> Result<RootCa, Box<dyn Error + Send + Sync>> {
    let ca = &request.spec.ca;
    if ca.signing_ca_cert.is_empty() {
        return Ok(RootCa::generate(identity::now())?);
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(RootCa::from_pem(
        &text(&ca.signing_ca_cert),
        &text(&ca.signing_ca_key.0),
    )?)
}
