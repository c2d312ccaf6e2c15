//! Asks upstream servers, byte for byte: what we do not know we do not touch.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;
use tracing::trace;

use super::answer::{STREAM_BYTES_MAX, Transport};
use super::{From, UPSTREAM_COUNT_MAX, UPSTREAM_TIMEOUT, Upstream};
use crate::netns::NetnsThread;

/// Largest answer by datagram.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// What forwarding needs of a container.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(crate) netns: Arc<Mutex<NetnsThread>>,
    pub(crate) netns_path: Arc<Path>,
}

/// The first answer of the upstream servers, asked in turn; none if none answers in time.
pub(crate) async fn ask(
    way: &Way,
    upstreams: &[Upstream],
    query: &[u8],
    transport: Transport,
) -> Option<Vec<u8>> {
    for upstream in upstreams.iter().take(UPSTREAM_COUNT_MAX) {
        let asked = async {
            match transport {
                Transport::Datagram => by_datagram(way, *upstream, query).await,
                Transport::Stream => by_stream(way, *upstream, query).await,
            }
        };
        match timeout(UPSTREAM_TIMEOUT, asked).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => trace!(server = %upstream.server, %error, "Upstream server failed"),
            Err(_) => trace!(server = %upstream.server, "Upstream server is silent"),
        }
    }
    None
}

/// A socket of its own for each query: its random port is what makes false answers hard to guess.
async fn by_datagram(way: &Way, upstream: Upstream, query: &[u8]) -> io::Result<Vec<u8>> {
    let any = unspecified(upstream.server);
    let open = move || {
        let socket = std::net::UdpSocket::bind(any)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    let socket = UdpSocket::from_std(way.open(upstream.from, open)?)?;
    socket.connect(upstream.server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // An answer bears its query's number.
        if length >= 2 && query.len() >= 2 && buffer[..2] == query[..2] {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn by_stream(way: &Way, upstream: Upstream, query: &[u8]) -> io::Result<Vec<u8>> {
    let is_v4 = upstream.server.is_ipv4();
    let open = move || {
        if is_v4 {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }
    };
    let socket = match upstream.from {
        From::Node => open()?,
        From::Container => {
            let socket = way.open(upstream.from, move || {
                let domain = if is_v4 {
                    rustix::net::AddressFamily::INET
                } else {
                    rustix::net::AddressFamily::INET6
                };
                let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
                let fd =
                    rustix::net::socket_with(domain, rustix::net::SocketType::STREAM, flags, None)?;
                Ok(std::net::TcpStream::from(fd))
            })?;
            TcpSocket::from_std_stream(socket)
        }
    };
    let mut stream = socket.connect(upstream.server).await?;
    write_message(&mut stream, query).await?;
    read_message(&mut stream).await
}

/// Reads one message with its length before it.
pub(crate) async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes one message with its length before it.
pub(crate) async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len().min(STREAM_BYTES_MAX)).unwrap_or(u16::MAX);
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(&message[..usize::from(length)]);
    stream.write_all(&bytes).await
}

fn unspecified(server: SocketAddr) -> SocketAddr {
    let ip = if server.is_ipv4() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    SocketAddr::new(ip, 0)
}

// === impl Way ===

impl Way {
    /// Opens a socket where a query starts. Entering a container takes some microseconds, in which nobody else is served.
    fn open<T: Send + 'static>(
        &self,
        from: From,
        open: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        match from {
            From::Node => open(),
            From::Container => {
                let netns = self.netns.lock();
                let netns =
                    netns.map_err(|_| io::Error::other("the namespace thread has failed"))?;
                netns
                    .inside(&self.netns_path, open)
                    .map_err(io::Error::other)?
            }
        }
    }
}
