//! A small client of the API over its Unix socket, for Skep's own command line.
//!
//! One request per connection, and no deadlines: the caller knows how long its question may take. Other
//! languages have Docker's SDKs.

use std::{
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Frame, Incoming},
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    net::UnixStream,
};
use tokio_util::io::ReaderStream;

use crate::{
    backend::{TaskInput, TaskOutput},
    error::plain,
    http::{console, request::JSON_BODY_BYTES_MAX},
};

/// Bytes of a body that the daemon takes.
pub const BODY_BYTES_MAX: usize = JSON_BODY_BYTES_MAX;
/// Bytes of an answer that is kept in memory; a list of many thousand tasks fits.
const ANSWER_BYTES_MAX: usize = 64 << 20;

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
        source: io::Error,
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
    /// What the daemon sent could not be written down.
    #[error("failed to write what the daemon sent")]
    Write(#[source] io::Error),
}

/// Talks to the daemon behind one socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

// === impl Error ===

impl Error {
    /// The status of a refusal.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Connect { .. } | Self::Transport(_) | Self::Malformed(_) | Self::Write(_) => None,
        }
    }
}

// === impl Client ===

impl Client {
    /// A client of the daemon that listens on `socket`. Connects only when asked something.
    pub fn unix(socket: impl AsRef<Path>) -> Self {
        Self {
            socket: socket.as_ref().to_owned(),
        }
    }

    /// `GET path`; the JSON of the answer.
    pub async fn get(&self, path: &str) -> Result<Value, Error> {
        let request = request(Method::GET, path).body(Full::<Bytes>::default());
        let bytes = self.whole(request.map_err(transport)?).await?;
        serde_json::from_slice(&bytes).map_err(Error::Malformed)
    }

    /// `GET path` with credentials for a registry (the value of `X-Registry-Auth`); the JSON of the answer.
    pub async fn get_with_auth(&self, path: &str, auth: &str) -> Result<Value, Error> {
        let request = request(Method::GET, path)
            .header("x-registry-auth", auth)
            .body(Full::<Bytes>::default());
        let bytes = self.whole(request.map_err(transport)?).await?;
        serde_json::from_slice(&bytes).map_err(Error::Malformed)
    }

    /// `POST path` with a body of JSON; the JSON of the answer, null when it is empty.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Error> {
        self.send(Method::POST, path, body).await
    }

    /// `PUT path`, as [`Client::post`].
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value, Error> {
        self.send(Method::PUT, path, body).await
    }

    /// `DELETE path`; the JSON of the answer, null when it is empty.
    pub async fn delete(&self, path: &str) -> Result<Value, Error> {
        let request = request(Method::DELETE, path).body(Full::<Bytes>::default());
        let bytes = self.whole(request.map_err(transport)?).await?;
        json_or_null(&bytes)
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Result<Value, Error> {
        let request = request(method, path)
            .header("content-type", "application/json")
            .body(Full::from(body.to_string()));
        let bytes = self.whole(request.map_err(transport)?).await?;
        json_or_null(&bytes)
    }

    /// `GET path`; writes the answer's body to `out` as it comes and returns its length in bytes.
    pub async fn download(
        &self,
        path: &str,
        out: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<u64, Error> {
        let request = request(Method::GET, path).body(Full::<Bytes>::default());
        let request = request.map_err(transport)?;
        self.exchange(request, async |response| {
            let mut body = successful(response).await?;
            let mut length = 0;
            while let Some(frame) = body.frame().await {
                if let Ok(data) = frame.map_err(transport)?.into_data() {
                    length += data.len() as u64;
                    out.write_all(&data).await.map_err(Error::Write)?;
                }
            }
            out.flush().await.map_err(Error::Write)?;
            Ok(length)
        })
        .await
    }

    /// `POST path` with what `input` has as body of type `media`; the answer's body.
    pub async fn upload(
        &self,
        path: &str,
        media: &str,
        input: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<Bytes, Error> {
        let body = StreamBody::new(ReaderStream::new(input).map(|data| data.map(Frame::data)));
        let request = request(Method::POST, path)
            .header("content-type", media)
            .body(body)
            .map_err(transport)?;
        self.whole(request).await
    }

    /// `POST path` with a body of JSON, of a daemon that answers with a command's streams.
    pub async fn console(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<(ConsoleReader, ConsoleWriter), Error> {
        let request = request(Method::POST, path)
            .header("content-type", "application/json")
            .header("connection", "Upgrade")
            .header("upgrade", "tcp")
            .body(Full::<Bytes>::from(body.to_string()));
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(transport)?;
        let upgrade = async {
            let response = sender.send_request(request.map_err(transport)?).await;
            let response = response.map_err(transport)?;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return hyper::upgrade::on(response).await.map_err(transport);
            }
            let answer = successful(response).await;
            drop(sender);
            answer.and(Err(transport("the daemon handed no streams over")))
        };
        let (upgraded, _) = tokio::join!(upgrade, connection.with_upgrades());
        let (reader, writer) = tokio::io::split(TokioIo::new(upgraded?));
        Ok((ConsoleReader(reader), ConsoleWriter(writer)))
    }

    async fn connect(&self) -> Result<UnixStream, Error> {
        let stream = UnixStream::connect(&self.socket).await;
        stream.map_err(|source| Error::Connect {
            socket: self.socket.clone(),
            source,
        })
    }

    async fn whole<B>(&self, request: Request<B>) -> Result<Bytes, Error>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.exchange(request, async |response| {
            collect(successful(response).await?).await
        })
        .await
    }

    /// Sends `request` on a connection of its own and has `read` take the answer while it lasts.
    async fn exchange<B, T>(
        &self,
        request: Request<B>,
        read: impl AsyncFnOnce(Response<Incoming>) -> Result<T, Error>,
    ) -> Result<T, Error>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(transport)?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(transport)?;
            let answer = read(response).await;
            drop(sender);
            answer
        };
        let (answer, _) = tokio::join!(exchange, connection);
        answer
    }
}

fn json_or_null(bytes: &[u8]) -> Result<Value, Error> {
    if bytes.trim_ascii().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(bytes).map_err(Error::Malformed)
}

/// What a command gives.
#[derive(Debug)]
pub struct ConsoleReader(ReadHalf<TokioIo<Upgraded>>);

impl ConsoleReader {
    /// The next piece; `None` when the daemon ended without telling how the command did.
    pub async fn next(&mut self) -> Result<Option<TaskOutput>, Error> {
        loop {
            let Some((kind, data)) = console::read(&mut self.0).await.map_err(transport)? else {
                return Ok(None);
            };
            return Ok(Some(match kind {
                console::STDOUT => TaskOutput::Stdout(data),
                console::STDERR => TaskOutput::Stderr(data),
                console::FAILURE => TaskOutput::Failed(plain(&String::from_utf8_lossy(&data))),
                console::EXIT => match data.as_ref().try_into() {
                    Ok(code) => TaskOutput::Exit(i32::from_be_bytes(code)),
                    Err(_) => return Err(transport("the exit code is malformed")),
                },
                // Of a later daemon.
                _ => continue,
            }));
        }
    }
}

/// What a command gets.
#[derive(Debug)]
pub struct ConsoleWriter(WriteHalf<TokioIo<Upgraded>>);

impl ConsoleWriter {
    /// Sends a piece of input of at most 64 KiB, its end, or the terminal's size.
    pub async fn send(&mut self, input: &TaskInput) -> Result<(), Error> {
        let frame = match input {
            TaskInput::Data(data) => console::frame(console::INPUT, data),
            TaskInput::End => console::frame(console::INPUT, &[]),
            TaskInput::Resize(size) => {
                let (rows, columns) = (size.height.to_be_bytes(), size.width.to_be_bytes());
                console::frame(console::RESIZE, &[rows, columns].concat())
            }
        };
        self.0.write_all(&frame).await.map_err(transport)
    }
}

fn request(method: Method, path: &str) -> hyper::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "skep")
}

/// The body of a success; a refusal's text as an error.
async fn successful(response: Response<Incoming>) -> Result<Incoming, Error> {
    let status = response.status();
    if status.is_success() {
        return Ok(response.into_body());
    }
    let body = collect(response.into_body()).await?;
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    let message = value["message"].as_str().unwrap_or("no reason given");
    Err(Error::Refused {
        status,
        message: plain(message),
    })
}

async fn collect(body: Incoming) -> Result<Bytes, Error> {
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    Ok(body.map_err(Error::Transport)?.to_bytes())
}

fn transport(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Transport(error.into())
}
