//! Connections: accept, limits, timeouts, graceful end.

use std::{
    io,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{body::Incoming, header::HeaderValue, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, error, warn};

use crate::{
    backend::Backends,
    error::{ApiError, ErrorKind},
    http::{
        cache::Cache,
        leftover::{Leftover, RequestBody},
        request::{Path, Request},
        response::{self, Response},
        version::{ApiVersion, VERSION_MAX},
    },
    routes,
};

/// Connections at once. Each costs a file descriptor and about 20 KiB; more wait to be accepted.
const CONNECTION_COUNT_MAX: usize = 4096;
/// Time until a request's head is complete, and that a connection may idle: a slow client must not
/// hold a place for ever.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);
/// Bytes hyper may buffer for a connection; bounds a request's head too.
const BUFFER_BYTES_MAX: usize = 256 << 10;
/// Time running requests get when the server stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failed accept (out of file descriptors), lest the loop spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What handlers share.
pub(crate) struct Context {
    /// Where everything comes from.
    pub(crate) backends: Backends,
    /// Encoded lists.
    pub(crate) cache: Cache,
    /// Ends all streams.
    pub(crate) shutdown: CancellationToken,
    /// Hijacked connections.
    pub(crate) tasks: TaskTracker,
    /// Value of the `Server` header.
    server_header: HeaderValue,
    /// Value of the `Api-Version` header.
    version_header: HeaderValue,
}

/// The API server. Cheap to clone; several listeners may be served at once.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "holds trait objects")]
pub struct Server(Arc<Context>);

impl Server {
    /// A server over `backends`. Nothing runs until a listener is served.
    pub fn new(backends: Backends) -> Self {
        let facts = backends.system.facts();
        let header = |text: String| {
            HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("Skep"))
        };
        Self(Arc::new(Context {
            server_header: header(format!("Skep/{} (linux)", facts.version)),
            version_header: header(VERSION_MAX.to_string()),
            backends,
            cache: Cache::default(),
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }))
    }

    /// Serves `listener` until `shutdown`; returns when its connections have ended, at most
    /// `SHUTDOWN_TIMEOUT` later. Mode and owner of the socket are the caller's business.
    pub async fn serve_unix(&self, listener: UnixListener, shutdown: CancellationToken) {
        self.serve(listener, shutdown).await;
    }

    /// Serves a TCP listener, as [`serve_unix`](Self::serve_unix). Whoever reaches it is root on
    /// this node.
    pub async fn serve_tcp(&self, listener: TcpListener, shutdown: CancellationToken) {
        self.serve(listener, shutdown).await;
    }

    async fn serve(&self, listener: impl Accept, shutdown: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTION_COUNT_MAX));
        let connections = TaskTracker::new();
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(BUFFER_BYTES_MAX)
            .title_case_headers(true);
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = accept(&listener, &places) => accepted,
            };
            let (place, io) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "Failed to accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let context = self.0.clone();
            let service = service_fn(move |request| answer(context.clone(), request));
            let connection = builder
                .serve_connection(TokioIo::new(io), service)
                .with_upgrades();
            let shutdown = shutdown.clone();
            connections.spawn(async move {
                let mut connection = pin!(connection);
                let result = tokio::select! {
                    result = connection.as_mut() => result,
                    () = shutdown.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                };
                if let Err(error) = result {
                    debug!(%error, "Connection ended early");
                }
                drop(place);
            });
        }
        drop(listener);
        self.0.shutdown.cancel();
        connections.close();
        self.0.tasks.close();
        let ended = async {
            connections.wait().await;
            self.0.tasks.wait().await;
        };
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, ended).await.is_err() {
            warn!("Requests were still running at the end of the grace period");
        }
    }
}

/// A listener, whatever its address family.
trait Accept: Send {
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<Self::Io>> + Send;
}

impl Accept for UnixListener {
    type Io = tokio::net::UnixStream;

    async fn accept(&self) -> io::Result<Self::Io> {
        UnixListener::accept(self).await.map(|(stream, _)| stream)
    }
}

impl Accept for TcpListener {
    type Io = tokio::net::TcpStream;

    async fn accept(&self) -> io::Result<Self::Io> {
        let (stream, _) = TcpListener::accept(self).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Waits for a free place, then for a connection.
async fn accept<A: Accept>(
    listener: &A,
    places: &Arc<Semaphore>,
) -> io::Result<(tokio::sync::OwnedSemaphorePermit, A::Io)> {
    let place = places
        .clone()
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    Ok((place, listener.accept().await?))
}

/// Answers one request. Never fails: what goes wrong becomes an answer.
async fn answer(
    context: Arc<Context>,
    request: hyper::Request<Incoming>,
) -> Result<Response, std::convert::Infallible> {
    let started = Instant::now();
    let method = request.method().clone();
    let path = Path::parse(request.uri().path());
    let version = path.as_ref().and_then(|path| path.version);
    let leftover = Leftover::default();
    let request = request.map(|body| RequestBody::new(body, leftover.clone()));
    let result = match path {
        Some(path) => match version.unwrap_or(VERSION_MAX).check() {
            Ok(()) => {
                let request = Request::new(request, version);
                routes::dispatch(&context, path, request).await
            }
            Err(error) => {
                drop(request);
                Err(error)
            }
        },
        None => {
            drop(request);
            Err(routes::page_not_found())
        }
    };
    if result.is_err() {
        leftover.read().await;
    }
    let mut response = result.unwrap_or_else(|error| refuse(&error, version));
    let headers = response.headers_mut();
    headers.insert("Api-Version", context.version_header.clone());
    headers.insert("Docker-Experimental", HeaderValue::from_static("false"));
    headers.insert("Ostype", HeaderValue::from_static("linux"));
    headers.insert("Server", context.server_header.clone());
    debug!(
        http.method = %method,
        http.status = response.status().as_u16(),
        duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        "Answered a request"
    );
    Ok(response)
}

fn refuse(error: &ApiError, version: Option<ApiVersion>) -> Response {
    if error.kind == ErrorKind::System {
        error!(error = %crate::error::ErrorChain(error), "Request failed");
    } else {
        debug!(error = %crate::error::ErrorChain(error), "Request was refused");
    }
    response::failure(error, version)
}
