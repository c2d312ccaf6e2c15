//! This node's TLS identity, exchangeable while running, and the TLS settings that follow from it.
//!
//! Every new connection takes the settings of its moment. There is no session resumption: a resumed session would bring back a
//! certificate that was verified under other roots.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::CryptoProvider,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use skep_ca::{CertificateError, NodeCertificate, verify_chain};
use skep_model::{ClusterId, NodeId, Role, Timestamp};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::connection::{DialError, Pings, Target};

mod bootstrap;

pub(crate) use self::bootstrap::{any_server, known_roots};

/// The name managers are called by callers with a certificate.
const MANAGER_NAME: &str = "swarm-manager";
/// The name managers are called by callers without one.
const CA_NAME: &str = "swarm-ca";
/// HTTP/2, as gRPC wants it.
const ALPN: &[u8] = b"h2";

/// A node's certificate chain, its key and the roots it trusts, all PEM.
#[derive(Clone)]
pub struct Credentials {
    /// The certificate and intermediates.
    pub chain_pem: String,
    /// The private key, PKCS#8.
    pub key_pem: Zeroizing<String>,
    /// Trusted root certificates.
    pub roots_pem: String,
}

/// See the module's documentation.
pub struct Security {
    current: ArcSwap<Identity>,
    generation: watch::Sender<u64>,
}

/// Why credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// The chain is malformed, expired or not yet valid, or the roots do not vouch for it.
    #[error("node certificate cannot be used")]
    Certificate(#[source] CertificateError),
    /// The key is malformed.
    #[error("private key is malformed")]
    Key,
    /// The root certificates are malformed.
    #[error("root certificates are malformed")]
    Roots,
    /// Certificate and key do not fit, or the TLS library refuses them.
    #[error("TLS refuses the node's credentials")]
    Tls(#[source] rustls::Error),
}

/// Credentials in force, with what follows from them.
pub(crate) struct Identity {
    credentials: Credentials,
    pub(crate) certificate: NodeCertificate,
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
    /// Grows with every exchange.
    pub(crate) generation: u64,
}

// === impl Security ===

impl Security {
    /// The identity `credentials` give.
    ///
    /// # Errors
    /// They are malformed, do not fit together or are not valid now.
    pub fn new(credentials: Credentials) -> Result<Arc<Self>, SecurityError> {
        let identity = Identity::new(credentials, 0)?;
        Ok(Arc::new(Self {
            current: ArcSwap::from_pointee(identity),
            generation: watch::Sender::new(0),
        }))
    }

    /// Exchanges everything. Connections made from now on use the new credentials; clients reconnect.
    ///
    /// # Errors
    /// The credentials cannot be used; the old ones stay.
    pub fn replace(&self, credentials: Credentials) -> Result<(), SecurityError> {
        let generation = self.current.load().generation + 1;
        let identity = Identity::new(credentials, generation)?;
        self.current.store(Arc::new(identity));
        self.generation.send_replace(generation);
        Ok(())
    }

    /// Exchanges the roots only.
    ///
    /// # Errors
    /// The roots are malformed or do not vouch for this node's certificate; the old ones stay.
    pub fn replace_roots(&self, roots_pem: &str) -> Result<(), SecurityError> {
        let credentials = Credentials {
            roots_pem: roots_pem.to_owned(),
            ..self.current.load().credentials.clone()
        };
        self.replace(credentials)
    }

    /// This node's id.
    pub fn node_id(&self) -> NodeId {
        self.current.load().certificate.subject.node_id
    }

    /// The cluster it belongs to.
    pub fn cluster_id(&self) -> ClusterId {
        self.current.load().certificate.subject.cluster_id
    }

    /// Its role, as its certificate says.
    pub fn role(&self) -> Role {
        self.current.load().certificate.subject.role
    }

    /// The roots it trusts, PEM.
    pub fn roots_pem(&self) -> String {
        self.current.load().credentials.roots_pem.clone()
    }

    /// Its own chain, PEM.
    pub fn chain_pem(&self) -> String {
        self.current.load().credentials.chain_pem.clone()
    }

    /// Tells of exchanges; the value only grows.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    pub(crate) fn current(&self) -> Arc<Identity> {
        self.current.load_full()
    }

    /// Whether a peer's chain (PEM), verified once under other roots, holds under those of now.
    pub(crate) fn still_trusts(&self, chain_pem: &str) -> bool {
        let current = self.current.load();
        let roots = current.credentials.roots_pem.as_bytes();
        verify_chain(chain_pem.as_bytes(), roots, now()).is_ok()
    }
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Security")
            .field("certificate", &self.current.load().certificate)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

// === impl Identity ===

impl Identity {
    /// How to reach the manager at `addr` as this node.
    ///
    /// # Errors
    /// The certificate has expired: managers would only refuse it, and less clearly.
    pub(crate) fn target<'a>(&self, addr: &'a str) -> Result<Target<'a>, DialError> {
        let NodeCertificate {
            subject, not_after, ..
        } = self.certificate;
        if now() > not_after {
            return Err(DialError::OwnExpired(not_after));
        }
        Ok(Target {
            addr,
            tls: Arc::clone(&self.client),
            name: manager_name(),
            pings: match subject.role {
                Role::Manager => Pings::Often,
                Role::Worker => Pings::Seldom,
            },
        })
    }

    fn new(credentials: Credentials, generation: u64) -> Result<Self, SecurityError> {
        let chain = credentials.chain_pem.as_bytes();
        let certificate = verify_chain(chain, credentials.roots_pem.as_bytes(), now())
            .map_err(SecurityError::Certificate)?;
        let roots = root_store(&credentials.roots_pem)?;
        let key = || {
            PrivateKeyDer::from_pem_slice(credentials.key_pem.as_bytes())
                .map_err(|_| SecurityError::Key)
        };
        let chain = certificates(&credentials.chain_pem)
            .map_err(|()| SecurityError::Certificate(CertificateError::Malformed))?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider()))
                .allow_unauthenticated()
                .build()
                .map_err(|_| SecurityError::Roots)?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(provider()))
            .with_safe_default_protocol_versions()
            .map_err(SecurityError::Tls)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key()?)
            .map_err(SecurityError::Tls)?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_safe_default_protocol_versions()
            .map_err(SecurityError::Tls)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key()?)
            .map_err(SecurityError::Tls)?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        Ok(Self {
            credentials,
            certificate,
            server: Arc::new(server),
            client: Arc::new(client),
            generation,
        })
    }
}

/// What managers are called when the caller shows a certificate.
pub(crate) fn manager_name() -> ServerName<'static> {
    ServerName::try_from(MANAGER_NAME).expect("a constant host name is valid")
}

/// What managers are called when the caller has none.
pub(crate) fn ca_name() -> ServerName<'static> {
    ServerName::try_from(CA_NAME).expect("a constant host name is valid")
}

/// The only cryptography there is.
fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

fn root_store(roots_pem: &str) -> Result<Arc<RootCertStore>, SecurityError> {
    let mut store = RootCertStore::empty();
    for root in certificates(roots_pem).map_err(|()| SecurityError::Roots)? {
        store.add(root).map_err(|_| SecurityError::Roots)?;
    }
    if store.is_empty() {
        return Err(SecurityError::Roots);
    }
    Ok(Arc::new(store))
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, ()> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| ())
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::ZERO + elapsed
}
