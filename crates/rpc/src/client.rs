//! What a node with a certificate asks of the managers it knows, besides its tasks.

use std::sync::Arc;

use skep_manager::Joined;
use skep_model::Role;
use skep_wire::{
    member::Member,
    proto::{self, ca_client::CaClient, raft_membership_client::RaftMembershipClient},
};
use tokio::time::Instant;
use tonic::Code;

use crate::{
    channels::Channels,
    connection::Connection,
    error::RpcError,
    join::{self, JoinError, deadline, once_led},
    limits::COMMAND_TIMEOUT,
    remotes::Remotes,
    security::Security,
};

/// Longest wait for a join: the leader dials back and the group agrees.
const JOIN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(15);

/// See the module's documentation. Clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    channels: Arc<Channels>,
    remotes: Arc<Remotes>,
}

impl Client {
    /// A client that shows `security` to `remotes`.
    pub fn new(security: Arc<Security>, remotes: Arc<Remotes>) -> Self {
        Self {
            channels: Arc::new(Channels::new(security)),
            remotes,
        }
    }

    /// The managers it knows.
    pub fn remotes(&self) -> &Arc<Remotes> {
        &self.remotes
    }

    /// A new certificate (PEM chain) for the key of `csr_pem`, in the role the cluster wants this node to have.
    ///
    /// # Errors
    /// No manager answers, or this node has no right to one any more.
    pub async fn renew_certificate(&self, csr_pem: &str) -> Result<String, JoinError> {
        let (addr, connection) = self.connect().await?;
        let role = match self.channels.security().role() {
            Role::Worker => proto::NodeRole::Worker,
            Role::Manager => proto::NodeRole::Manager,
        };
        let request = proto::IssueNodeCertificateRequest {
            role: role.into(),
            csr: csr_pem.as_bytes().to_vec(),
            ..Default::default()
        };
        let issued = join::issue(&addr, connection, request).await;
        self.observe(&addr, issued.as_ref().err().and_then(rpc_part));
        let (_, chain_pem) = issued?;
        join::check_chain(&addr, &chain_pem, &self.channels.security().roots_pem())?;
        Ok(chain_pem)
    }

    /// The key this manager's own keys are sealed with; `None` while managers are not locked.
    ///
    /// # Errors
    /// No manager answers, or this node is no manager.
    pub async fn unlock_key(&self) -> Result<Option<Vec<u8>>, RpcError> {
        let (addr, connection) = self.connect().await?;
        let mut client = CaClient::new(connection);
        let call = client.get_unlock_key(proto::GetUnlockKeyRequest {});
        let answer = self.call(&addr, call).await;
        match answer {
            Ok(answer) => Ok((!answer.unlock_key.is_empty()).then_some(answer.unlock_key)),
            // Managers of old releases have none.
            Err(RpcError::Refused(status)) if status.code() == Code::Unimplemented => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Joins the raft group as the manager listening at `own_addr`, which must answer already. An unspecified host means the
    /// address this call comes from.
    ///
    /// # Errors
    /// No manager answers, the leader cannot reach this one, or refuses it.
    pub async fn join_group(&self, own_addr: &str) -> Result<Joined, RpcError> {
        let (addr, connection) = self.connect().await?;
        let client = RaftMembershipClient::new(connection);
        let answer = once_led(&addr, Instant::now() + JOIN_TIMEOUT, || {
            let mut client = client.clone();
            let addr = own_addr.to_owned();
            async move { client.join(proto::JoinRequest { addr }).await }
        })
        .await;
        self.observe(&addr, answer.as_ref().err());
        let answer = answer?;
        let members: Result<Vec<Member>, _> =
            answer.members.into_iter().map(Member::try_from).collect();
        let members = members.map_err(|error| RpcError::Malformed {
            addr,
            problem: error.to_string(),
        })?;
        Ok(Joined {
            raft_id: answer.raft_id,
            members,
            removed: answer.removed_members,
        })
    }

    /// Leaves the raft group.
    ///
    /// # Errors
    /// No manager answers, or the group would lose its quorum.
    pub async fn leave_group(&self, own: &Member) -> Result<(), RpcError> {
        let (addr, connection) = self.connect().await?;
        let mut client = RaftMembershipClient::new(connection);
        let request = proto::LeaveRequest {
            node: Some(own.into()),
        };
        self.call(&addr, client.leave(request)).await.map(drop)
    }

    /// A connection to the manager to call now.
    pub(crate) async fn connect(&self) -> Result<(String, Connection), RpcError> {
        let addr = self.remotes.pick().ok_or(RpcError::NoManager)?;
        match self.channels.get(&addr).await {
            Ok(connection) => Ok((addr, connection)),
            Err(error) => {
                self.remotes.observe(&addr, false);
                Err(error.into())
            }
        }
    }

    /// Waits for a call, and remembers whether the manager was any good.
    pub(crate) async fn call<T>(
        &self,
        addr: &str,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, RpcError> {
        let answer = deadline(addr, Instant::now() + COMMAND_TIMEOUT, call).await;
        self.observe(addr, answer.as_ref().err());
        answer
    }

    /// A refusal is a manager's answer like any other, unless it says that the manager is of no use.
    pub(crate) fn observe(&self, addr: &str, error: Option<&RpcError>) {
        let is_ok = match error {
            None => true,
            Some(RpcError::Refused(status)) => !matches!(
                status.code(),
                Code::Unavailable
                    | Code::Unknown
                    | Code::Internal
                    | Code::Cancelled
                    | Code::Aborted
            ),
            Some(_) => false,
        };
        self.remotes.observe(addr, is_ok);
    }
}

fn rpc_part(error: &JoinError) -> Option<&RpcError> {
    match error {
        JoinError::Rpc(error) => Some(error),
        JoinError::WrongRoot
        | JoinError::Token(_)
        | JoinError::NotIssued(_)
        | JoinError::Certificate { .. } => None,
    }
}
