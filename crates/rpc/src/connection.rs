//! One HTTP/2 connection over TLS to a manager. Its end is known at once, unlike with clients that reconnect by themselves.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::{
    Request, Response, Uri,
    body::Incoming,
    client::conn::http2::{Builder, SendRequest},
    http::uri::{Authority, PathAndQuery, Scheme},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{CertificateError as TlsCertificateError, ClientConfig};
use rustls_pki_types::ServerName;
use skep_ca::NodeCertificate;
use skep_model::Timestamp;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use crate::limits::{
    CONNECTION_WINDOW, DIAL_TIMEOUT, HEADER_BYTES_MAX, PEER_PING_INTERVAL, PEER_PING_TIMEOUT,
    PING_INTERVAL, PING_TIMEOUT, STREAM_WINDOW,
};

/// What to connect to, and how.
pub(crate) struct Target<'a> {
    /// `host:port`.
    pub(crate) addr: &'a str,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
    pub(crate) pings: Pings,
}

/// How soon a peer that vanished is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pings {
    /// Among managers: commands wait for it.
    Often,
    /// From workers, of which there are many and which have their heartbeats.
    Seldom,
}

/// See the module's documentation. Clones share the connection, which ends when all are dropped and no call is under way.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    sender: SendRequest<Body>,
    authority: Authority,
    peer: Option<NodeCertificate>,
    closed: CancellationToken,
}

/// Why there is no connection to a manager.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address is not `host:port`.
    #[error("`{0}` is not an address")]
    Address(String),
    /// No TCP connection.
    #[error("failed to connect to `{addr}`")]
    Connect {
        /// Where.
        addr: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nothing answered in time.
    #[error("`{addr}` did not answer within {} s", .after.as_secs())]
    Timeout {
        /// Where.
        addr: String,
        /// How long was waited.
        after: Duration,
    },
    /// The peer's certificate is past its end, by this node's clock.
    #[error("certificate of the manager at `{addr}` has expired; check the clocks of both nodes")]
    Expired {
        /// Where.
        addr: String,
    },
    /// The peer's certificate begins in the future, by this node's clock.
    #[error(
        "certificate of the manager at `{addr}` is not valid yet; check the clocks of both nodes"
    )]
    NotYetValid {
        /// Where.
        addr: String,
    },
    /// Another call to the same manager just failed.
    #[error("failed to reach `{addr}`: {reason}")]
    Failed {
        /// Where.
        addr: String,
        /// Why.
        reason: String,
    },
    /// This node's own certificate is past its end.
    #[error("certificate of this node expired at {0:?}; check the clock of this node")]
    OwnExpired(Timestamp),
    /// The peer is not of this cluster, or no manager.
    #[error("certificate of `{addr}` is not one of a manager of this cluster")]
    Untrusted {
        /// Where.
        addr: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something else about TLS.
    #[error("failed to agree on TLS with `{addr}`")]
    Tls {
        /// Where.
        addr: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The peer is no HTTP/2 server.
    #[error("failed to agree on HTTP/2 with `{addr}`")]
    Http {
        /// Where.
        addr: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// The TLS settings are unusable.
    #[error(transparent)]
    Security(#[from] crate::security::SecurityError),
}

impl DialError {
    /// Whether the peer's machine answered that nothing listens there.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused)
    }
}

// === impl Connection ===

impl Connection {
    /// Connects.
    pub(crate) async fn dial(target: Target<'_>) -> Result<Self, DialError> {
        let addr = target.addr.to_owned();
        let dialled = timeout(DIAL_TIMEOUT, Self::connect(target)).await;
        dialled.unwrap_or(Err(DialError::Timeout {
            addr,
            after: DIAL_TIMEOUT,
        }))
    }

    async fn connect(target: Target<'_>) -> Result<Self, DialError> {
        let addr = target.addr.to_owned();
        let authority: Authority = addr.parse().map_err(|_| DialError::Address(addr.clone()))?;
        let stream =
            TcpStream::connect(target.addr)
                .await
                .map_err(|source| DialError::Connect {
                    addr: addr.clone(),
                    source,
                })?;
        let _ = stream.set_nodelay(true);
        let stream = TlsConnector::from(target.tls)
            .connect(target.name, stream)
            .await
            .map_err(|source| tls_error(&addr, source))?;
        let (_, session) = stream.get_ref();
        let peer = session
            .peer_certificates()
            .and_then(|chain| NodeCertificate::from_der(chain.first()?).ok());
        let (interval, limit) = match target.pings {
            Pings::Often => (PEER_PING_INTERVAL, PEER_PING_TIMEOUT),
            Pings::Seldom => (PING_INTERVAL, PING_TIMEOUT),
        };
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(interval)
            .keep_alive_timeout(limit)
            .keep_alive_while_idle(true)
            .max_header_list_size(HEADER_BYTES_MAX)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| DialError::Http { addr, source })?;
        let closed = CancellationToken::new();
        let ended = closed.clone().drop_guard();
        // Ends with the connection, which ends when nobody uses it.
        tokio::spawn(async move {
            let _ended = ended;
            let _ = connection.await;
        });
        Ok(Self {
            sender,
            authority,
            peer,
            closed,
        })
    }

    /// What the peer's certificate says.
    pub(crate) fn peer(&self) -> Option<&NodeCertificate> {
        self.peer.as_ref()
    }

    /// Whether it can no longer be used.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled() || self.sender.is_closed()
    }

    /// Returns when the connection is lost.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }
}

fn tls_error(addr: &str, source: io::Error) -> DialError {
    let addr = addr.to_owned();
    let problem = source
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match problem {
        Some(rustls::Error::InvalidCertificate(
            TlsCertificateError::Expired | TlsCertificateError::ExpiredContext { .. },
        )) => DialError::Expired { addr },
        Some(rustls::Error::InvalidCertificate(
            TlsCertificateError::NotValidYet | TlsCertificateError::NotValidYetContext { .. },
        )) => DialError::NotYetValid { addr },
        Some(rustls::Error::InvalidCertificate(_)) => DialError::Untrusted { addr, source },
        _ => DialError::Tls { addr, source },
    }
}

impl tower::Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let path = request.uri().path_and_query().cloned();
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let uri = Uri::builder()
            .scheme(Scheme::HTTPS)
            .authority(self.authority.clone())
            .path_and_query(path)
            .build();
        if let Ok(uri) = uri {
            *request.uri_mut() = uri;
        }
        Box::pin(self.sender.send_request(request))
    }
}
