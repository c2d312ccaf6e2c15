//! A registry that answers as a test tells it, over real sockets on the loopback address.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::fixture::TestImage;
use crate::image::{Digest, Reference};

/// What came in.
#[derive(Debug, Clone, Default)]
pub(super) struct Request {
    pub(super) method: String,
    /// With the query.
    pub(super) path: String,
    /// Names in lower case.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

/// What goes out.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    /// Break the connection after so many bytes of the body.
    pub(super) cut_after: Option<usize>,
}

pub(super) struct FakeRegistry {
    pub(super) address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    server: JoinHandle<()>,
}

/// Path → media type and bytes.
pub(super) type Content = BTreeMap<String, (String, Vec<u8>)>;

impl FakeRegistry {
    pub(super) async fn start(
        handler: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        let handler = Arc::new(handler);
        let server = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("accept");
                let (handler, log) = (Arc::clone(&handler), Arc::clone(&log));
                connections.spawn(async move {
                    serve(stream, &*handler, &log).await;
                });
            }
        });
        Self {
            address,
            requests,
            server,
        }
    }

    /// One that simply has `content`.
    pub(super) async fn with(content: Content) -> Self {
        Self::start(move |request, _| find(&content, request)).await
    }

    pub(super) fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.address)
            .parse()
            .expect("reference")
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("log").clone()
    }

    /// How many requests there were for paths with `part` in them.
    pub(super) fn count(&self, part: &str) -> usize {
        self.requests()
            .iter()
            .filter(|request| request.path.contains(part))
            .count()
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Answer {
    pub(super) fn status(status: u16, body: &Value) -> Self {
        Self {
            status,
            body: body.to_string().into_bytes(),
            ..Self::default()
        }
    }

    pub(super) fn error(status: u16, code: &str, message: &str) -> Self {
        Self::status(
            status,
            &json!({ "errors": [{ "code": code, "message": message }] }),
        )
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

async fn serve(
    mut stream: TcpStream,
    handler: &(dyn Fn(&Request, usize) -> Answer + Send + Sync),
    log: &Mutex<Vec<Request>>,
) {
    let Some(request) = read_request(&mut stream).await else {
        return;
    };
    let before = {
        let mut log = log.lock().expect("log");
        let before = log
            .iter()
            .filter(|earlier| earlier.path == request.path)
            .count();
        log.push(request.clone());
        before
    };
    let answer = handler(&request, before);
    let mut head = format!("HTTP/1.1 {} x\r\nconnection: close\r\n", answer.status);
    head.push_str(&format!("content-length: {}\r\n", answer.body.len()));
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let end = answer.cut_after.unwrap_or(answer.body.len());
    // The client may have gone, which is its good right.
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(&answer.body[..end]).await;
    let _ = stream.shutdown().await;
}

/// `None` for what is not HTTP, such as a TLS handshake.
async fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.ok()?;
        bytes.extend_from_slice(&chunk[..count]);
        if count == 0 || bytes[0] == 0x16 {
            return None;
        }
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let mut request = Request {
        method: words.next()?.into(),
        path: words.next()?.into(),
        ..Request::default()
    };
    for line in lines {
        let (name, value) = line.split_once(':')?;
        request
            .headers
            .insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length: usize = request
        .headers
        .get("content-length")
        .map_or(Ok(0), |l| l.parse())
        .ok()?;
    let mut body = bytes[end + 4..].to_vec();
    while body.len() < length {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.ok()?;
        body.extend_from_slice(&chunk[..count]);
    }
    request.body = String::from_utf8(body).ok()?;
    Some(request)
}

/// What a plain registry would answer.
pub(super) fn find(content: &Content, request: &Request) -> Answer {
    let Some((media_type, bytes)) = content.get(&request.path) else {
        return Answer::error(404, "MANIFEST_UNKNOWN", "manifest unknown");
    };
    let start = request.headers.get("range").and_then(|range| {
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse::<usize>()
            .ok()
    });
    let answer = Answer {
        status: 200,
        body: bytes.clone(),
        ..Answer::default()
    }
    .header("content-type", media_type);
    match start {
        None => answer,
        Some(start) => Answer {
            status: 206,
            body: bytes[start..].to_vec(),
            ..answer
        }
        .header(
            "content-range",
            &format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len()),
        ),
    }
}

/// Adds an image under a tag, layers compressed; returns the descriptor of its manifest.
pub(super) fn publish(content: &mut Content, name: &str, tag: &str, image: &TestImage) -> Value {
    let mut put_blob = |bytes: Vec<u8>, kind: &str| {
        let digest = Digest::of(&bytes).to_string();
        let descriptor = json!({ "mediaType": kind, "digest": digest, "size": bytes.len() });
        content.insert(
            format!("/v2/{name}/blobs/{digest}"),
            ("application/octet-stream".into(), bytes),
        );
        descriptor
    };
    let config = put_blob(
        image.config.clone(),
        "application/vnd.docker.container.image.v1+json",
    );
    let layers: Vec<Value> = image
        .layers
        .iter()
        .map(|tar| {
            let kind = "application/vnd.docker.image.rootfs.diff.tar.gzip";
            put_blob(super::fixture::gzip(tar), kind)
        })
        .collect();
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers });
    publish_manifest(content, name, tag, kind, &manifest)
}

pub(super) fn publish_manifest(
    content: &mut Content,
    name: &str,
    tag: &str,
    kind: &str,
    manifest: &Value,
) -> Value {
    let bytes = manifest.to_string().into_bytes();
    let digest = Digest::of(&bytes).to_string();
    for key in [tag, &digest] {
        content.insert(
            format!("/v2/{name}/manifests/{key}"),
            (kind.to_owned(), bytes.clone()),
        );
    }
    json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
}
