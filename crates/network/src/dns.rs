//! Names in containers: a server at 127.0.0.11 in every container on an overlay network.
//!
//! `zone` and `answer` are pure: what names a network has, and what a query gets. `server` is one thread for all containers; its
//! sockets lie inside their namespaces. Names that are not the cluster's go to the container's upstream servers. Design:
//! `docs/design/dns.md`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

mod answer;
mod bucket;
mod forward;
mod server;
mod zone;

pub use zone::{PortName, ServiceNames, TaskNames, Zone};

pub(crate) use server::{Server, Sockets};

/// Where containers look for names, as with Docker.
pub const SERVER: SocketAddr =
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 11)), 53);

/// Where the sockets are bound. Port 53 stays free for a name server that is the container's own; a rule leads from one to the
/// other. Above the ports the kernel picks by itself.
pub(crate) const SERVER_PORT: u16 = 61_053;

/// Upstream servers asked for one query, one after the other. Docker and glibc know three.
pub(crate) const UPSTREAM_COUNT_MAX: usize = 3;

/// How long one upstream server has. Stub resolvers give up after five seconds.
pub(crate) const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an answer may be kept, in seconds: longer, and clients speak to what is no longer there; shorter buys nothing, since
/// a query costs some microseconds.
pub(crate) const TTL_SECONDS: u32 = 5;

/// A server for names that are not the cluster's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upstream {
    /// Its address; port 53 unless tests say otherwise.
    pub server: SocketAddr,
    /// Where queries start.
    pub from: From,
}

/// The namespace a query starts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The node's: for the node's own servers, which may listen on its loopback interface.
    Node,
    /// The container's: for servers the user named, which may be containers.
    Container,
}

/// Everything one container can ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct View {
    /// Its networks' names; the first that has a name answers.
    pub(crate) zones: Vec<Arc<Zone>>,
    pub(crate) upstreams: Vec<Upstream>,
}
