//! Certificates: for new nodes, which show a token, and for nodes whose certificate is about to end.

use skep_ca::{JoinToken, PublicKey};
use skep_manager::{
    Handle,
    command::{Answer, CertificateRequest, Command},
};
use skep_model::{CertificateState, Node, NodeId, Redacted};
use skep_wire::proto::{
    self, IssueNodeCertificateRequest, IssueNodeCertificateResponse, NodeCertificateStatusRequest,
    NodeCertificateStatusResponse, node_ca_server,
};
use tokio::{
    sync::broadcast::error::RecvError,
    time::{Instant, timeout_at},
};
use tonic::{Request, Response, Status, async_trait};

use crate::{
    convert::{not_executed, status_of_command},
    limits::CERTIFICATE_WAIT,
    service::{context, handle},
};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct NodeCa;

#[async_trait]
impl node_ca_server::NodeCa for NodeCa {
    async fn issue_node_certificate(
        &self,
        request: Request<IssueNodeCertificateRequest>,
    ) -> Result<Response<IssueNodeCertificateResponse>, Status> {
        let subject = context(&request)?.caller.subject;
        let handle = handle(&request)?;
        let IssueNodeCertificateRequest {
            csr,
            token,
            availability,
            ..
        } = request.into_inner();
        // Checked here, so that the leader's loop spends nothing on strangers' mistakes.
        PublicKey::from_csr_pem(&csr)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let request = match subject {
            Some(subject) => CertificateRequest::Renew {
                node_id: subject.node_id,
            },
            None => {
                check_token(&handle, &token)?;
                let availability = proto::node_spec::Availability::try_from(availability)
                    .map_err(|_| Status::invalid_argument("unknown availability"))?;
                CertificateRequest::Join {
                    token: Redacted(token),
                    availability: availability.into(),
                }
            }
        };
        let command = Command::IssueCertificate { csr, request };
        match handle.command(command).await.map_err(status_of_command)? {
            Answer::Certificate {
                node_id,
                membership,
            } => Ok(Response::new(IssueNodeCertificateResponse {
                node_id: node_id.to_string(),
                node_membership: proto::node_spec::Membership::from(membership).into(),
            })),
            Answer::Done
            | Answer::Service(_)
            | Answer::Network(_)
            | Answer::Secret(_)
            | Answer::Config(_)
            | Answer::Stack(_) => Err(Status::internal("unexpected answer of the manager")),
        }
    }

    async fn node_certificate_status(
        &self,
        request: Request<NodeCertificateStatusRequest>,
    ) -> Result<Response<NodeCertificateStatusResponse>, Status> {
        let handle = handle(&request)?;
        let node_id: NodeId = request
            .into_inner()
            .node_id
            .parse()
            .map_err(|_| Status::invalid_argument("node id is malformed"))?;
        let node = decided(&handle, node_id).await?;
        let certificate = proto::Certificate::from(&node.certificate);
        Ok(Response::new(NodeCertificateStatusResponse {
            status: certificate.status.clone(),
            certificate: Some(certificate),
        }))
    }
}

/// Whether one of the cluster's tokens is shown. The leader decides again, and counts uses.
fn check_token(handle: &Handle, token: &str) -> Result<(), Status> {
    let refused =
        || Status::invalid_argument("A valid join token is necessary to join this cluster");
    token.parse::<JoinToken>().map_err(|_| refused())?;
    let view = handle.view();
    let cluster = view.store.cluster();
    let cluster = cluster.ok_or_else(|| not_executed("the cluster is not known yet"))?;
    let tokens = &cluster.root_ca.join_tokens;
    let is_workers = skep_ca::is_same_secret(&tokens.worker.0, token);
    let is_managers = skep_ca::is_same_secret(&tokens.manager.0, token);
    if is_workers || is_managers {
        Ok(())
    } else {
        Err(refused())
    }
}

/// The node, once its certificate is no longer awaited.
async fn decided(handle: &Handle, node_id: NodeId) -> Result<std::sync::Arc<Node>, Status> {
    let until = Instant::now() + CERTIFICATE_WAIT;
    let mut changes = handle.changes();
    loop {
        let view = handle.view();
        let node = view.store.node(node_id);
        let node = node.ok_or_else(|| Status::not_found("node not found"))?;
        match node.certificate.state {
            CertificateState::Issued | CertificateState::Failed | CertificateState::Rotate => {
                return Ok(std::sync::Arc::clone(node));
            }
            CertificateState::Unknown | CertificateState::Pending | CertificateState::Renew => {}
        }
        match timeout_at(until, changes.recv()).await {
            // What changed does not matter: the store is read again.
            Ok(Ok(_) | Err(RecvError::Lagged(_))) => {}
            Ok(Err(RecvError::Closed)) => return Err(not_executed("the manager has stopped")),
            Err(_) => return Err(Status::deadline_exceeded("certificate is still awaited")),
        }
    }
}
