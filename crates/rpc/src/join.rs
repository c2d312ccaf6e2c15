//! How a node without certificate gets one: it fetches the root its token vouches for, then asks for a certificate.

use std::time::Duration;

use skep_ca::{CertificateError, JoinToken, NodeCertificate, verify_chain};
use skep_model::{Availability, NodeId};
use skep_wire::proto::{
    self, ca_client::CaClient, issuance_status::State, node_ca_client::NodeCaClient,
};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::Code;

use crate::{
    connection::{Connection, DialError, Pings, Target},
    convert::is_not_executed,
    error::RpcError,
    limits::{ADDR_BYTES_MAX, CALL_TIMEOUT},
    security::{any_server, ca_name, known_roots, now},
};

/// Longest wait for a certificate; `docker swarm join` gives up after 20 s as well.
const ISSUE_TIMEOUT: Duration = Duration::from_secs(20);
/// Time between two questions for a certificate that is not there yet.
const POLL: Duration = Duration::from_millis(200);
/// Largest root bundle taken, above what any token was made for.
const ROOTS_BYTES_MAX: usize = 64 << 10;

/// A certificate for a new node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The node's id.
    pub node_id: NodeId,
    /// Its certificate and intermediates, PEM.
    pub chain_pem: String,
}

/// Why a node did not get in.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The call failed.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The root served is not the one the token was made for: wrong token, or wrong address.
    #[error("remote CA does not match fingerprint of the join token")]
    WrongRoot,
    /// The token was refused.
    #[error("join token is invalid, expired or used up: {0}")]
    Token(String),
    /// A certificate could not be issued.
    #[error("certificate was not issued: {0}")]
    NotIssued(String),
    /// The certificate is unusable; the clocks may differ.
    #[error("certificate issued by `{addr}` cannot be used; check the clocks of both nodes")]
    Certificate {
        /// Who issued it.
        addr: String,
        /// What is wrong.
        #[source]
        source: CertificateError,
    },
}

impl From<DialError> for JoinError {
    fn from(error: DialError) -> Self {
        Self::Rpc(error.into())
    }
}

/// The root certificates (PEM) of the cluster `addr` belongs to, checked against the token.
///
/// # Errors
/// No manager answers there, or it is of another cluster than the token.
pub async fn fetch_root(addr: &str, token: &JoinToken) -> Result<String, JoinError> {
    check_addr(addr)?;
    let target = Target {
        addr,
        tls: any_server().map_err(DialError::from)?,
        // Only its signature is checked, not its name.
        name: ca_name(),
        pings: Pings::Seldom,
    };
    let connection = Connection::dial(target).await?;
    let client = CaClient::new(connection);
    let response = once_led(addr, Instant::now() + CALL_TIMEOUT, || {
        let mut client = client.clone();
        async move {
            let request = proto::GetRootCaCertificateRequest {};
            client.get_root_ca_certificate(request).await
        }
    })
    .await?;
    let bundle = response.certificate;
    if bundle.len() > ROOTS_BYTES_MAX || !token.matches_bundle(&bundle) {
        return Err(JoinError::WrongRoot);
    }
    String::from_utf8(bundle).map_err(|_| JoinError::WrongRoot)
}

/// A certificate for the key of `csr_pem`, of the role the token stands for.
///
/// # Errors
/// The token is refused, or the manager cannot be reached or has no leader.
pub async fn request_certificate(
    addr: &str,
    roots_pem: &str,
    csr_pem: &str,
    token: &JoinToken,
    availability: Availability,
) -> Result<Issued, JoinError> {
    check_addr(addr)?;
    let target = Target {
        addr,
        tls: known_roots(roots_pem).map_err(DialError::from)?,
        name: ca_name(),
        pings: Pings::Seldom,
    };
    let connection = Connection::dial(target).await?;
    let request = proto::IssueNodeCertificateRequest {
        role: 0,
        csr: csr_pem.as_bytes().to_vec(),
        token: token.as_str().to_owned(),
        availability: proto::node_spec::Availability::from(availability).into(),
    };
    let (node_id, chain_pem) = issue(addr, connection, request).await?;
    check_chain(addr, &chain_pem, roots_pem)?;
    Ok(Issued { node_id, chain_pem })
}

/// Asks for a certificate and waits until it is there.
pub(crate) async fn issue(
    addr: &str,
    connection: Connection,
    request: proto::IssueNodeCertificateRequest,
) -> Result<(NodeId, String), JoinError> {
    let until = Instant::now() + ISSUE_TIMEOUT;
    let client = NodeCaClient::new(connection);
    let csr = request.csr.clone();
    let response = once_led(addr, until, || {
        let (mut client, request) = (client.clone(), request.clone());
        async move { client.issue_node_certificate(request).await }
    })
    .await;
    let response = response.map_err(|error| match error {
        RpcError::Refused(status)
            if matches!(
                status.code(),
                Code::InvalidArgument | Code::PermissionDenied
            ) =>
        {
            JoinError::Token(status.message().to_owned())
        }
        other => other.into(),
    })?;
    let malformed = |problem: &str| RpcError::Malformed {
        addr: addr.to_owned(),
        problem: problem.to_owned(),
    };
    let node_id: NodeId = response
        .node_id
        .parse()
        .map_err(|_| malformed("its node id"))?;
    loop {
        let request = proto::NodeCertificateStatusRequest {
            node_id: node_id.to_string(),
        };
        let answer = once_led(addr, until, || {
            let (mut client, request) = (client.clone(), request.clone());
            async move { client.node_certificate_status(request).await }
        })
        .await?;
        let status = answer.status.unwrap_or_default();
        let certificate = answer.certificate.unwrap_or_default();
        match State::try_from(status.state) {
            // Another certificate of this node may be shown until ours is stored.
            Ok(State::Issued | State::Rotate) if certificate.csr == csr => {
                let chain_pem = String::from_utf8(certificate.certificate)
                    .map_err(|_| malformed("its certificate"))?;
                return Ok((node_id, chain_pem));
            }
            Ok(State::Failed) => return Err(JoinError::NotIssued(status.err)),
            Ok(_) | Err(_) => {}
        }
        if Instant::now() + POLL >= until {
            return Err(RpcError::Deadline(addr.to_owned()).into());
        }
        sleep(POLL).await;
    }
}

/// Whether a chain just issued holds under `roots_pem`, by this node's clock.
pub(crate) fn check_chain(
    addr: &str,
    chain_pem: &str,
    roots_pem: &str,
) -> Result<NodeCertificate, JoinError> {
    verify_chain(chain_pem.as_bytes(), roots_pem.as_bytes(), now()).map_err(|source| {
        JoinError::Certificate {
            addr: addr.to_owned(),
            source,
        }
    })
}

/// Waits for the answer of a call, which is repeated while the manager says that nothing was done for want of a leader: a young
/// manager, or one whose leader just died, knows one soon.
pub(crate) async fn once_led<T, C>(
    addr: &str,
    until: Instant,
    mut call: impl FnMut() -> C,
) -> Result<T, RpcError>
where
    C: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
{
    loop {
        match deadline(addr, until, call()).await {
            Err(RpcError::Refused(status))
                if is_not_executed(&status) && Instant::now() + POLL < until =>
            {
                sleep(POLL).await;
            }
            answer => return answer,
        }
    }
}

/// Waits for the answer of one call.
pub(crate) async fn deadline<T>(
    addr: &str,
    until: Instant,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, RpcError> {
    match timeout_at(until, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(RpcError::Deadline(addr.to_owned())),
    }
}

fn check_addr(addr: &str) -> Result<(), DialError> {
    if addr.len() > ADDR_BYTES_MAX {
        return Err(DialError::Address(
            addr.chars().take(ADDR_BYTES_MAX).collect(),
        ));
    }
    Ok(())
}
