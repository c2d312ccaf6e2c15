//! Certificates of nodes: admission of new ones, renewal.
//!
//! A certificate is issued in the transaction that admits or renews the node, so that none exists
//! that the log does not know, and a change of leader between request and certificate loses nothing.

use skep_model::{
    Annotations, Availability, Certificate, CertificateState, Membership, Meta, Node, NodeId,
    NodeSpec, NodeStatus, Redacted, Rng, Role,
};
use skep_store::Transaction;

use super::refuse_store_error;
use crate::{
    command::{Answer, CertificateRequest, Code, CommandError},
    vault::{Order, Vault},
};

/// SwarmKit's answer to a token that is not this cluster's.
const BAD_TOKEN: &str = "A valid join token is necessary to join this cluster";

/// Admits a node, or renews its certificate.
pub(super) fn issue(
    tx: &mut Transaction,
    rng: &mut Rng,
    vault: &mut dyn Vault,
    csr: Vec<u8>,
    request: CertificateRequest,
) -> Result<Answer, CommandError> {
    let node_id = match request {
        CertificateRequest::Join {
            token,
            availability,
        } => join(tx, rng, vault, csr, &token, availability)?,
        CertificateRequest::Renew { node_id } => renew(tx, vault, csr, node_id)?,
    };
    Ok(Answer::Certificate {
        node_id,
        membership: Membership::Accepted,
    })
}

/// Whether a node was admitted or asked for renewal, and has no certificate yet.
pub(super) fn is_pending(node: &Node) -> bool {
    let certificate = &node.certificate;
    let is_waiting = matches!(
        certificate.state,
        CertificateState::Pending | CertificateState::Renew
    );
    is_waiting && !certificate.csr.is_empty()
}

/// Issues what an earlier leader admitted and did not issue (SwarmKit's leaders do it in two steps).
pub(super) fn issue_pending(tx: &mut Transaction, vault: &mut dyn Vault, node_id: NodeId) {
    let Some(stored) = tx.view().node(node_id) else {
        return;
    };
    let mut node = Node::clone(stored);
    let csr = node.certificate.csr.clone();
    match sign(tx, vault, &node, &csr) {
        Ok(chain) => set_issued(&mut node, csr, chain),
        Err(error) => {
            node.certificate.state = CertificateState::Failed;
            node.certificate.err = error.message;
        }
    }
    tx.update_node(node)
        .expect("a node just read can be written");
}

fn join(
    tx: &mut Transaction,
    rng: &mut Rng,
    vault: &mut dyn Vault,
    csr: Vec<u8>,
    token: &Redacted<String>,
    availability: Availability,
) -> Result<NodeId, CommandError> {
    let role = role_of_token(tx, token)?;
    // A joiner whose leader died asks the next one with the same request.
    let known = tx.view().nodes().find(|node| node.certificate.csr == csr);
    if let Some(known) = known {
        return Ok(known.id);
    }
    super::admission::take_use(tx, role)?;
    let vxlan_udp_port = tx
        .view()
        .cluster()
        .map_or(0, |cluster| cluster.vxlan_udp_port);
    let mut node = Node {
        id: NodeId::random(rng),
        meta: Meta::default(),
        spec: NodeSpec {
            annotations: Annotations::default(),
            desired_role: role,
            membership: Membership::Accepted,
            availability,
        },
        description: None,
        status: NodeStatus::default(),
        manager_status: None,
        certificate: Certificate::default(),
        role,
        attachments: Vec::new(),
        vxlan_udp_port,
    };
    let chain = sign(tx, vault, &node, &csr)?;
    set_issued(&mut node, csr, chain);
    let node_id = node.id;
    tx.create_node(node)
        .map_err(|error| refuse_store_error(&error))?;
    Ok(node_id)
}

fn renew(
    tx: &mut Transaction,
    vault: &mut dyn Vault,
    csr: Vec<u8>,
    node_id: NodeId,
) -> Result<NodeId, CommandError> {
    let Some(stored) = tx.view().node(node_id) else {
        let message = format!("node {node_id} not found when attempting to renew certificate");
        return Err(CommandError::new(Code::NotFound, message));
    };
    let mut node = Node::clone(stored);
    let chain = sign(tx, vault, &node, &csr)?;
    set_issued(&mut node, csr, chain);
    tx.update_node(node)
        .map_err(|error| refuse_store_error(&error))?;
    Ok(node_id)
}

/// The role a token admits to. Both are always compared, so that time tells nothing.
fn role_of_token(tx: &Transaction, token: &Redacted<String>) -> Result<Role, CommandError> {
    let refused = || CommandError::new(Code::InvalidArgument, BAD_TOKEN);
    let tokens = &tx.view().cluster().ok_or_else(refused)?.root_ca.join_tokens;
    let is_manager = skep_ca::is_same_secret(&tokens.manager.0, &token.0);
    let is_worker = skep_ca::is_same_secret(&tokens.worker.0, &token.0);
    match (is_manager, is_worker, token.0.is_empty()) {
        (true, _, false) => Ok(Role::Manager),
        (false, true, false) => Ok(Role::Worker),
        _ => Err(refused()),
    }
}

fn sign(
    tx: &Transaction,
    vault: &mut dyn Vault,
    node: &Node,
    csr: &[u8],
) -> Result<Vec<u8>, CommandError> {
    let Some(cluster) = tx.view().cluster() else {
        return Err(CommandError::new(Code::NotFound, "cluster not found"));
    };
    let order = Order {
        csr,
        node_id: node.id,
        cluster_id: cluster.id,
        role: node.role,
        expiry: cluster.spec.ca.node_cert_expiry,
    };
    vault
        .issue(&cluster.root_ca, &order, tx.now())
        .map_err(|error| CommandError::new(Code::Unknown, error))
}

fn set_issued(node: &mut Node, csr: Vec<u8>, chain: Vec<u8>) {
    node.certificate = Certificate {
        role: node.role,
        csr,
        state: CertificateState::Issued,
        err: String::new(),
        certificate: chain,
        cn: node.id.to_string(),
    };
}
