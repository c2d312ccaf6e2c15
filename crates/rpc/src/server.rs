//! Port 2377: accepts connections, bounds what they can take, and brings each request through the gate to its service or to the
//! leader.
//!
//! Tasks: one per connection, owned by [`Server::serve`]. Connections are told apart by who made them: callers without
//! certificate get little and not for long.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http_body_util::BodyExt as _;
use hyper::{Request, Response, body::Incoming, server::conn::http2::Builder, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use skep_manager::Handle;
use skep_model::Role;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body};
use tower::Service as _;
use tracing::{debug, warn};

use crate::{
    channels::Channels,
    convert::unreachable,
    gate::{
        Caller, Gate, Verdict,
        identity::{self, Peer},
        refusals::Reason,
        table::Rule,
    },
    limits::{
        ANONYMOUS_IDLE, ANONYMOUS_MAX, ANONYMOUS_STREAMS_MAX, CONNECTION_WINDOW, CONNECTIONS_MAX,
        DRAIN, HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, HANDSHAKES_PER_ADDRESS_MAX, HEADER_BYTES_MAX,
        IDLE, MANAGER_STREAMS_MAX, PING_INTERVAL, PING_TIMEOUT, STREAM_WINDOW, UNARY_TIMEOUT,
        WORKER_STREAM_WINDOW, WORKER_STREAMS_MAX, WORKER_WINDOW,
    },
    security::Security,
    service::Services,
};

mod activity;

use self::activity::Activity;

/// Wait after a failed accept, which mostly means that file descriptors ran out.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What a server has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that got through their handshake.
    pub connections: u64,
    /// Handshakes that failed, took too long or were turned away.
    pub handshakes_failed: u64,
    /// Requests that were served or passed on.
    pub requests: u64,
    /// Requests passed on to the leader.
    pub forwarded: u64,
    /// Requests refused because of who called.
    pub refused: u64,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    handshakes_failed: AtomicU64,
    requests: AtomicU64,
    forwarded: AtomicU64,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Server {
    security: Arc<Security>,
    gate: Gate,
    services: Services,
    channels: Arc<Channels>,
    counts: Counts,
    connections: Arc<Semaphore>,
    anonymous: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    /// Handshakes under way by address.
    greeting: Mutex<BTreeMap<IpAddr, usize>>,
}

// === impl Server ===

impl Server {
    /// A server for `manager`, which comes and goes with this node's role.
    pub fn new(security: Arc<Security>, manager: watch::Receiver<Option<Handle>>) -> Self {
        let channels = Arc::new(Channels::new(Arc::clone(&security)));
        Self {
            gate: Gate::new(Arc::clone(&security), manager),
            services: Services::new(Arc::clone(&channels)),
            channels,
            security,
            counts: Counts::default(),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            anonymous: Arc::new(Semaphore::new(ANONYMOUS_MAX)),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            greeting: Mutex::default(),
        }
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            connections: read(&self.counts.connections),
            handshakes_failed: read(&self.counts.handshakes_failed),
            requests: read(&self.counts.requests),
            forwarded: read(&self.counts.forwarded),
            refused: self.gate.refusals.count(),
        }
    }

    /// Serves until `shutdown`, then lets calls under way finish for a moment.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(&listener) => accepted,
                Some(_) = tasks.join_next() => continue,
                () = shutdown.cancelled() => break,
            };
            match accepted {
                Ok((stream, addr, permits)) => {
                    let server = Arc::clone(&self);
                    let shutdown = shutdown.clone();
                    tasks.spawn(async move {
                        server.connection(stream, addr, permits, shutdown).await;
                    });
                }
                Err(error) => {
                    warn!(error = %error, "Failed to accept a connection");
                    sleep(ACCEPT_RETRY).await;
                }
            }
        }
        drop(listener);
        let drained = async { while tasks.join_next().await.is_some() {} };
        let _ = timeout(DRAIN + DRAIN, drained).await;
        tasks.shutdown().await;
    }

    /// The next connection, when there is room for it.
    async fn accept(
        &self,
        listener: &TcpListener,
    ) -> io::Result<(TcpStream, SocketAddr, [OwnedSemaphorePermit; 2])> {
        const OPEN: &str = "semaphores are never closed";
        let place = Arc::clone(&self.connections).acquire_owned().await;
        let handshake = Arc::clone(&self.handshakes).acquire_owned().await;
        let permits = [place.expect(OPEN), handshake.expect(OPEN)];
        let (stream, addr) = listener.accept().await?;
        Ok((stream, addr, permits))
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        addr: SocketAddr,
        [place, handshake]: [OwnedSemaphorePermit; 2],
        shutdown: CancellationToken,
    ) {
        let greeted = tokio::select! {
            greeted = self.greet(stream, addr) => greeted,
            () = shutdown.cancelled() => return,
        };
        drop(handshake);
        let Some((stream, peer)) = greeted else {
            self.counts
                .handshakes_failed
                .fetch_add(1, Ordering::Relaxed);
            return;
        };
        let anonymous = if peer.certificate.is_none() {
            match Arc::clone(&self.anonymous).try_acquire_owned() {
                Ok(permit) => Some(permit),
                Err(_) => return,
            }
        } else {
            None
        };
        self.counts.connections.fetch_add(1, Ordering::Relaxed);
        self.converse(stream, Arc::new(peer), shutdown).await;
        drop((place, anonymous));
    }

    /// The TLS handshake.
    async fn greet(
        &self,
        stream: TcpStream,
        addr: SocketAddr,
    ) -> Option<(TlsStream<TcpStream>, Peer)> {
        let _greeting = self.note_greeting(addr.ip())?;
        let _ = stream.set_nodelay(true);
        let identity = self.security.current();
        let acceptor = TlsAcceptor::from(Arc::clone(&identity.server));
        let stream = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                debug!(peer.addr = %addr, error = %error, "TLS handshake failed");
                if let Some(reason) = Reason::of_handshake(&error) {
                    self.gate.refusals.note_handshake(addr, reason);
                }
                return None;
            }
            Err(_) => {
                debug!(peer.addr = %addr, "TLS handshake took too long");
                return None;
            }
        };
        let (_, session) = stream.get_ref();
        let chain = session.peer_certificates().unwrap_or_default();
        let chain = chain.iter().map(|der| der.clone().into_owned()).collect();
        match Peer::new(addr, chain, identity.generation) {
            Ok(peer) => Some((stream, peer)),
            Err(error) => {
                debug!(peer.addr = %addr, error = %error, "Certificate of a peer is not a node's");
                None
            }
        }
    }

    /// Counts a handshake of this address; `None` if it has too many under way.
    fn note_greeting(&self, ip: IpAddr) -> Option<Greeting<'_>> {
        let mut greeting = self.greeting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = greeting.entry(ip).or_default();
        if *count >= HANDSHAKES_PER_ADDRESS_MAX {
            return None;
        }
        *count += 1;
        Some(Greeting { server: self, ip })
    }

    /// Serves the requests of one connection.
    async fn converse(
        self: &Arc<Self>,
        stream: TlsStream<TcpStream>,
        peer: Arc<Peer>,
        shutdown: CancellationToken,
    ) {
        let role = peer.certificate.map(|certificate| certificate.subject.role);
        let (streams, idle) = match role {
            None => (ANONYMOUS_STREAMS_MAX, ANONYMOUS_IDLE),
            Some(Role::Worker) => (WORKER_STREAMS_MAX, IDLE),
            Some(Role::Manager) => (MANAGER_STREAMS_MAX, IDLE),
        };
        let (stream_window, window) = match role {
            None | Some(Role::Worker) => (WORKER_STREAM_WINDOW, WORKER_WINDOW),
            Some(Role::Manager) => (STREAM_WINDOW, CONNECTION_WINDOW),
        };
        let activity = Activity::default();
        let service = service_fn(|request: Request<Incoming>| {
            let (server, peer) = (Arc::clone(self), Arc::clone(&peer));
            let guard = activity.begin();
            async move {
                let response = server.answer(&peer, request.map(Body::new)).await;
                let body = response.map(|body| {
                    // Until the body is done or dropped, the call is under way.
                    Body::new(body.map_frame(move |frame| {
                        let _ = &guard;
                        frame
                    }))
                });
                Ok::<_, Infallible>(body)
            }
        });
        let connection = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(streams)
            .max_header_list_size(HEADER_BYTES_MAX)
            .initial_stream_window_size(stream_window)
            .initial_connection_window_size(window)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => return,
            () = activity.idle_for(idle) => {}
            () = shutdown.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = timeout(DRAIN, connection).await;
    }

    async fn answer(&self, peer: &Peer, mut request: Request<Body>) -> Response<Body> {
        let path = request.uri().path();
        let verdict = self.gate.judge(peer, path, request.headers());
        let (rule, work) = match verdict {
            Verdict::Refuse(status) => return status.into_http(),
            Verdict::Serve(rule, context) => {
                request.extensions_mut().insert(context);
                (
                    rule,
                    futures_util::future::Either::Left(self.services.call(rule.service, request)),
                )
            }
            Verdict::Forward { rule, addr, caller } => {
                self.counts.forwarded.fetch_add(1, Ordering::Relaxed);
                let work = Box::pin(self.forward(addr, caller, request));
                (rule, futures_util::future::Either::Right(work))
            }
        };
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        limited(rule, work).await
    }

    /// Passes a request on to the leader, byte by byte.
    async fn forward(
        &self,
        addr: String,
        caller: Caller,
        mut request: Request<Body>,
    ) -> Response<Body> {
        let mut leader = match self.channels.get(&addr).await {
            Ok(connection) => connection,
            Err(error) => return unreachable(&error).into_http(),
        };
        identity::speak_for(&caller, request.headers_mut());
        match leader.call(request).await {
            Ok(response) => response.map(Body::new),
            // It may have been carried out.
            Err(error) => {
                let reason = format!("connection to the leader was lost: {error}");
                Status::aborted(reason).into_http()
            }
        }
    }
}

/// A call with one answer ends in time; streams last.
async fn limited(rule: Rule, work: impl Future<Output = Response<Body>>) -> Response<Body> {
    if rule.is_stream {
        return work.await;
    }
    match timeout(UNARY_TIMEOUT, work).await {
        Ok(response) => response,
        Err(_) => Status::deadline_exceeded("the call took too long").into_http(),
    }
}

/// A handshake under way.
struct Greeting<'s> {
    server: &'s Server,
    ip: IpAddr,
}

impl Drop for Greeting<'_> {
    fn drop(&mut self) {
        let mut greeting = self
            .server
            .greeting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = greeting.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                greeting.remove(&self.ip);
            }
        }
    }
}
