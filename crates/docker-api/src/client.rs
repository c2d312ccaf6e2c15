//! A small client of the API over its Unix socket, for Skep's own command line.
//!
//! One request per connection; not for streams. Other languages have Docker's SDKs.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

/// Bytes of an answer; `info` and `version` are far smaller.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing listens there, or not for us.
    #[error("failed to connect to the daemon at `{socket}`")]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("failed to talk to the daemon")]
    Transport(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The daemon refused.
    #[error("daemon: {message}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// The daemon's words.
        message: String,
    },
    /// The answer is no JSON.
    #[error("the daemon's answer is not JSON")]
    Malformed(#[source] serde_json::Error),
}

/// Talks to the daemon behind one socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the daemon that listens on `socket`. Connects only when asked something.
    pub fn unix(socket: impl AsRef<Path>) -> Self {
        Self {
            socket: socket.as_ref().to_owned(),
        }
    }

    /// `GET path`; the JSON of the answer.
    pub async fn get(&self, path: &str) -> Result<Value, Error> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| Error::Connect {
                socket: self.socket.clone(),
                source,
            })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(transport)?;
        let request = Request::get(path)
            .header("host", "skep")
            .body(Empty::<Bytes>::new())
            .map_err(transport)?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(transport)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await;
            let body = body.map_err(Error::Transport)?.to_bytes();
            drop(sender);
            Ok((status, body))
        };
        let (answer, _) = tokio::join!(exchange, connection);
        let (status, body) = answer?;
        let value: Value = serde_json::from_slice(&body).map_err(Error::Malformed)?;
        if status.is_success() {
            return Ok(value);
        }
        let message = value["message"]
            .as_str()
            .unwrap_or("no reason given")
            .to_owned();
        Err(Error::Refused { status, message })
    }
}

fn transport(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Transport(error.into())
}
