//! How this node gets another certificate: a new key, a manager's answer, the lock that goes with it.

use std::sync::Arc;

use skep_ca::{KeyRequest, Lock, NodeCertificate, UnlockKey, verify_chain};
use skep_model::Role;
use skep_rpc::{Client, Credentials, RpcError, Security, join::JoinError};
use zeroize::Zeroizing;

use super::{home::HomeError, identity};

/// A new certificate.
pub(super) struct Renewed {
    pub(super) chain_pem: String,
    pub(super) key_pem: Zeroizing<String>,
    pub(super) lock: Lock,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum RenewError {
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error("failed to make a key")]
    Key(#[from] skep_ca::RequestError),
    #[error("certificate is unusable")]
    Certificate(#[from] skep_ca::CertificateError),
    #[error("certificate is unusable")]
    Security(#[from] skep_rpc::SecurityError),
    #[error("certificate is another node's")]
    NotOurs,
    #[error("failed to ask for the unlock key")]
    UnlockKey(#[source] RpcError),
    #[error("unlock key is malformed")]
    MalformedUnlockKey,
    #[error(transparent)]
    Home(#[from] HomeError),
}

/// Asks the managers for a new certificate; nothing is stored yet. `lock` is kept by a manager.
pub(super) async fn renew(
    client: Client,
    security: Arc<Security>,
    lock: Lock,
) -> Result<Renewed, RenewError> {
    let request = KeyRequest::generate()?;
    let chain_pem = client.renew_certificate(&request.csr_pem).await?;
    let roots_pem = security.roots_pem();
    let certificate: NodeCertificate =
        verify_chain(chain_pem.as_bytes(), roots_pem.as_bytes(), identity::now())?;
    let subject = certificate.subject;
    if subject.node_id != security.node_id() || subject.cluster_id != security.cluster_id() {
        return Err(RenewError::NotOurs);
    }
    let key_pem = request.key_pem;
    let lock = match (security.role(), subject.role) {
        (_, Role::Worker) => Lock::default(),
        (Role::Manager, Role::Manager) => lock,
        // Only a manager is told the key, so the new certificate has to ask.
        (Role::Worker, Role::Manager) => {
            let credentials = Credentials {
                chain_pem: chain_pem.clone(),
                key_pem: key_pem.clone(),
                roots_pem,
            };
            ask_unlock_key(credentials, &client).await?
        }
    };
    Ok(Renewed {
        chain_pem,
        key_pem,
        lock,
    })
}

/// The unlock key, asked for with a certificate that is not in force yet.
async fn ask_unlock_key(credentials: Credentials, client: &Client) -> Result<Lock, RenewError> {
    let security = Security::new(credentials)?;
    let client = Client::new(security, Arc::clone(client.remotes()));
    fetch_unlock_key(&client)
        .await
        .map_err(|error| error.map_or(RenewError::MalformedUnlockKey, RenewError::UnlockKey))
}

/// The unlock key as a manager's client is told; an error without cause: it is malformed.
pub(super) async fn fetch_unlock_key(client: &Client) -> Result<Lock, Option<RpcError>> {
    match client.unlock_key().await.map_err(Some)? {
        None => Ok(Lock::default()),
        Some(bytes) => {
            let bytes = <[u8; 32]>::try_from(&bytes[..]).map_err(|_| None)?;
            // The store says of which version it is, as soon as there is one.
            Ok(Lock {
                key: Some(UnlockKey::from_bytes(bytes)),
                version: 0,
            })
        }
    }
}

/// Whether the cluster refuses this node for good.
pub(super) fn is_disowned(error: &RenewError) -> bool {
    match error {
        RenewError::Join(JoinError::Token(_)) => true,
        RenewError::Join(JoinError::Rpc(error)) => error.is_permission_denied(),
        _ => false,
    }
}
