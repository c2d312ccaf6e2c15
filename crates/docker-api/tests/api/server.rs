//! A served fake, and a bare HTTP client for it.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use skep_docker_api::Server;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::fake::Fake;

/// A running server; stops when dropped.
pub(crate) struct Served {
    pub(crate) fake: Arc<Fake>,
    pub(crate) events: Arc<skep_docker_api::EventHub>,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) stop: CancellationToken,
    pub(crate) ended: tokio::task::JoinHandle<()>,
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Served {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fake = Fake::new();
        let backends = fake.backends();
        let events = backends.events.clone();
        let listener = UnixListener::bind(directory.path().join("s")).unwrap();
        let stop = CancellationToken::new();
        let server = Server::new(backends);
        let token = stop.clone();
        let ended = tokio::spawn(async move { server.serve_unix(listener, token).await });
        Self {
            fake,
            events,
            directory,
            stop,
            ended,
        }
    }

    /// A server whose node is a manager.
    pub(crate) async fn with_swarm() -> Self {
        let served = Self::start();
        let answer = served.post("/swarm/init", "{}").await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        served
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.directory.path().join("s").display())
    }

    pub(crate) async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.directory.path().join("s"))
            .await
            .unwrap()
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let io = TokioIo::new(self.connect().await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        let connection = tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        drop(sender);
        connection.await.unwrap().unwrap();
        Answer {
            status: head.status,
            headers: head.headers,
            body,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(request(Method::GET, path, "")).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(request(Method::DELETE, path, "")).await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.send(request(Method::POST, path, body)).await
    }
}

pub(crate) fn request(method: Method, path: &str, body: &str) -> Request<Full<Bytes>> {
    // Filters are JSON, whose quotes and braces a URI cannot hold.
    let uri = path
        .replace('"', "%22")
        .replace('{', "%7B")
        .replace('}', "%7D");
    let request = Request::builder()
        .method(method)
        .uri(uri)
        .header("host", "docker");
    let request = match body.is_empty() {
        true => request,
        false => request.header("content-type", "application/json"),
    };
    request
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .unwrap()
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap().to_owned()
    }
}
