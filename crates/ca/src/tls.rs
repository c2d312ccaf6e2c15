//! What TLS would say of a chain, asked before nodes depend on it: rustls' own verifiers, without a connection.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::{CryptoProvider, aws_lc_rs},
    server::WebPkiClientVerifier,
};
use rustls_pki_types::{ServerName, UnixTime};
use skep_model::Timestamp;

use crate::certificate::{MANAGER_UNIT, read_pem};

/// Why a chain is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A certificate is malformed.
    #[error("certificate is malformed")]
    Malformed,
    /// A root cannot be trusted.
    #[error("root certificate cannot be used by TLS")]
    Root(#[source] rustls::Error),
    /// TLS refuses the chain.
    #[error("TLS refuses the certificate")]
    Chain(#[source] rustls::Error),
}

pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    &PROVIDER
}

/// Checks that a manager with `chain` (PEM) would be accepted at `now`, as server and as client, by who trusts `roots` (PEM).
pub(crate) fn check_manager(chain: &str, roots: &str, now: Timestamp) -> Result<(), Refused> {
    let malformed = |_| Refused::Malformed;
    let chain = read_pem(chain.as_bytes()).map_err(malformed)?;
    let (leaf, intermediates) = chain.split_first().ok_or(Refused::Malformed)?;
    let mut store = RootCertStore::empty();
    for root in read_pem(roots.as_bytes()).map_err(malformed)? {
        store.add(root).map_err(Refused::Root)?;
    }
    let store = Arc::new(store);
    let (seconds, _) = now.to_parts();
    let seconds = u64::try_from(seconds).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let unbuilt = |error: rustls::server::VerifierBuilderError| {
        Refused::Root(rustls::Error::General(error.to_string()))
    };
    let server = WebPkiServerVerifier::builder_with_provider(store.clone(), provider().clone())
        .build()
        .map_err(unbuilt)?;
    let name = ServerName::try_from(MANAGER_UNIT).expect("the unit is a name");
    server
        .verify_server_cert(leaf, intermediates, &name, &[], now)
        .map_err(Refused::Chain)?;
    let client = WebPkiClientVerifier::builder_with_provider(store, provider().clone())
        .build()
        .map_err(unbuilt)?;
    client
        .verify_client_cert(leaf, intermediates, now)
        .map_err(Refused::Chain)?;
    Ok(())
}
