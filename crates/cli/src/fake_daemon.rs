//! A daemon for tests: answers a script of requests and remembers what it was sent.

use std::path::PathBuf;

use skep_docker_api::client::Client;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

/// An expected request (start of its first line), the status and the body it gets.
pub(crate) type Turn = (&'static str, u16, String);

/// Answers each request of a script, one connection each, in order.
pub(crate) struct FakeDaemon {
    dir: TempDir,
    requests: JoinHandle<Vec<String>>,
}

impl FakeDaemon {
    pub(crate) fn new(script: Vec<Turn>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let requests = tokio::spawn(async move {
            let mut requests = Vec::new();
            for (expected, status, body) in script {
                let (stream, _) = listener.accept().await.unwrap();
                let request = turn(stream, status, &body).await;
                assert!(request.starts_with(expected), "{request} is not {expected}");
                requests.push(request);
            }
            requests
        });
        Self { dir, requests }
    }

    pub(crate) fn client(&self) -> Client {
        Client::unix(self.dir.path().join("s"))
    }

    /// A file beside the socket.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The requests, once the whole script was played.
    pub(crate) async fn requests(self) -> Vec<String> {
        self.requests.await.unwrap()
    }
}

/// Reads a request to its end and answers it.
async fn turn(mut stream: UnixStream, status: u16, body: &str) -> String {
    let mut request = Vec::new();
    while !is_whole(&request) {
        let mut part = [0; 4096];
        let count = stream.read(&mut part).await.unwrap();
        assert!(count > 0, "the request is cut off");
        request.extend_from_slice(&part[..count]);
    }
    let length = body.len();
    let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    String::from_utf8(request).unwrap()
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let head = head.to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1);
    let length = length.and_then(|rest| rest.lines().next()?.parse().ok());
    match length {
        Some(length) => body.len() >= length,
        None => !head.contains("chunked") || body.ends_with("0\r\n\r\n"),
    }
}
