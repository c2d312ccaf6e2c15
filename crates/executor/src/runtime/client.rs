//! The daemon's end of a monitor's socket. One connection per request; `attach` keeps its connection for streams.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    os::unix::net::UnixStream as StdStream,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use super::error::Error;
use crate::monitor::{
    protocol::{HEADER_BYTES, Header, Kind, PAYLOAD_BYTES_MAX, Reply, Request, SOCKET_FILE, frame},
    state::State,
};

/// A monitor answers in microseconds; `start` waits for the OCI runtime. Beyond this the monitor is stuck.
const REPLY_WAIT_MAX: Duration = Duration::from_secs(60);

/// A connection to a monitor.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
}

/// Output of an attached container.
#[derive(Debug)]
pub struct AttachedOutput {
    stream: OwnedReadHalf,
}

/// Input of an attached container. Dropping it leaves the container's stdin open; `close` ends it.
#[derive(Debug)]
pub struct AttachedInput {
    stream: OwnedWriteHalf,
    pending: Vec<u8>,
}

/// One of the container's output streams; a pty has only the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    Stdout,
    Stderr,
}

// === impl Connection ===

impl Connection {
    /// Connects to the socket in `dir`, whose path may be longer than a socket address. Never blocks.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let handle = File::open(dir)?;
        let address = SocketAddrUnix::new(format!(
            "/proc/self/fd/{}/{SOCKET_FILE}",
            handle.as_raw_fd()
        ))?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket: OwnedFd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &address)?;
        Ok(Self {
            stream: UnixStream::from_std(StdStream::from(socket))?,
        })
    }

    /// Asks, and waits a limited time for the answer.
    pub(super) async fn ask(&mut self, request: &Request) -> Result<State, Error> {
        self.send(request).await.map_err(Error::Protocol)?;
        match timeout(REPLY_WAIT_MAX, self.reply()).await {
            Ok(reply) => reply,
            Err(_) => Err(Error::Protocol(io::ErrorKind::TimedOut.into())),
        }
    }

    pub(super) async fn send(&mut self, request: &Request) -> io::Result<()> {
        self.stream
            .write_all(&frame(Kind::Request, &serde_json::to_vec(request)?))
            .await
    }

    /// The answer, however long it takes.
    pub(super) async fn reply(&mut self) -> Result<State, Error> {
        let read = async {
            let head = read_header(&mut self.stream).await?;
            let mut payload = vec![0; head.length];
            self.stream.read_exact(&mut payload).await?;
            if head.kind != Kind::Reply {
                return Err(io::ErrorKind::InvalidData.into());
            }
            Ok(serde_json::from_slice(&payload)?)
        };
        match read.await.map_err(Error::Protocol)? {
            Reply::Ok(state) => Ok(*state),
            Reply::Error(refusal) => Err(Error::Refused {
                kind: refusal.kind,
                message: refusal.message,
            }),
        }
    }

    /// After an `attach` was answered: the streams.
    pub(super) fn into_streams(self) -> (AttachedInput, AttachedOutput) {
        let (read, write) = self.stream.into_split();
        (
            AttachedInput {
                stream: write,
                pending: Vec::new(),
            },
            AttachedOutput { stream: read },
        )
    }
}

async fn read_header(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Header> {
    let mut bytes = [0; HEADER_BYTES];
    stream.read_exact(&mut bytes).await?;
    Header::parse(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

// === impl AttachedOutput ===

impl AttachedOutput {
    /// The next piece of output; `None` at the container's end. Not cancel-safe: a dropped call may lose a frame's beginning.
    pub async fn next(&mut self) -> io::Result<Option<(OutputStream, Bytes)>> {
        let head = match read_header(&mut self.stream).await {
            Ok(head) => head,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        };
        let stream = match head.kind {
            Kind::Stdout => OutputStream::Stdout,
            Kind::Stderr => OutputStream::Stderr,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        let mut payload = vec![0; head.length];
        self.stream.read_exact(&mut payload).await?;
        Ok(Some((stream, payload.into())))
    }

    /// The pieces as a stream, safe to poll in `select!`.
    pub fn into_stream(
        self,
    ) -> impl futures_util::Stream<Item = io::Result<(OutputStream, Bytes)>> + Send + 'static {
        futures_util::stream::try_unfold(self, |mut output| async move {
            Ok(output.next().await?.map(|piece| (piece, output)))
        })
    }
}

// === impl AttachedInput ===

impl AttachedInput {
    /// Writes to the container's stdin; waits while it does not read.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.chunks(PAYLOAD_BYTES_MAX) {
            self.stream.write_all(&frame(Kind::Stdin, part)).await?;
        }
        Ok(())
    }

    /// The client's input has ended; with `is_stdin_once` so has the container's.
    pub async fn close(&mut self) -> io::Result<()> {
        self.stream.write_all(&frame(Kind::StdinEnd, &[])).await
    }
}

impl AsyncWrite for AttachedInput {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.as_mut().poll_pending(cx))?;
        let part = &bytes[..bytes.len().min(PAYLOAD_BYTES_MAX)];
        self.pending = frame(Kind::Stdin, part);
        // What the socket does not take now goes first next time.
        let _ = self.as_mut().poll_pending(cx)?;
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.as_mut().poll_pending(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.as_mut().poll_pending(cx))?;
        let end = frame(Kind::StdinEnd, &[]);
        // Eight bytes: a socket that is writable takes them whole.
        Pin::new(&mut self.stream)
            .poll_write(cx, &end)
            .map_ok(|_| ())
    }
}

impl AttachedInput {
    fn poll_pending(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while !this.pending.is_empty() {
            let written = Pin::new(&mut this.stream).poll_write(cx, &this.pending);
            let count = std::task::ready!(written)?;
            this.pending.drain(..count);
        }
        Poll::Ready(Ok(()))
    }
}
