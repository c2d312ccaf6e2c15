//! Holds published ports by sockets that are bound and never listen.
//!
//! nft takes packets before any program of the node sees them. Without a reservation such a program would lose its traffic
//! silently when a container publishes its port; with it, whoever comes second gets an error.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with, sockopt};

use crate::ports::{HostPort, Protocol};

/// Attempts to bind a port. Between its fork and its exec a child of this process holds a copy of a reservation just given up.
const BIND_ATTEMPT_COUNT_MAX: u32 = 3;

/// Pause between two attempts: longer than a child takes from fork to exec.
const BIND_ATTEMPT_INTERVAL: Duration = Duration::from_millis(5);

/// All addresses of a family.
const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// A program of the node has the port, or its address is not the node's.
#[derive(Debug, thiserror::Error)]
#[error("failed to bind host port {host_ip}:{published}/{protocol}")]
pub struct ReservationError {
    host_ip: IpAddr,
    published: u16,
    protocol: Protocol,
    source: io::Error,
}

/// The sockets by endpoint.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    by_endpoint: BTreeMap<String, Vec<OwnedFd>>,
}

// === impl ReservationError ===

impl ReservationError {
    /// Whether the port's address is none of this node's.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrNotAvailable
    }

    /// Whether `port` is the one that could not be had.
    pub(crate) fn is_about(&self, port: &HostPort) -> bool {
        self.published == port.published && self.protocol == port.protocol
    }
}

// === impl Reservations ===

impl Reservations {
    /// Binds all ports of an endpoint, or none. Those open on all addresses are bound in IPv4, and with `has_v6` in IPv6.
    pub(crate) fn reserve(
        &mut self,
        id: &str,
        ports: &[HostPort],
        has_v6: bool,
    ) -> Result<(), ReservationError> {
        let mut sockets = Vec::with_capacity(ports.len());
        for port in ports {
            let all: &[IpAddr] = match port.host_ip.is_unspecified() {
                true if has_v6 => &[ANY4, ANY6],
                true => &[ANY4],
                false => std::slice::from_ref(&port.host_ip),
            };
            for &host_ip in all {
                sockets.extend(reserve(port, host_ip)?);
            }
        }
        self.by_endpoint.insert(id.to_owned(), sockets);
        Ok(())
    }

    /// Whether an endpoint's ports are held.
    pub(crate) fn is_reserved(&self, id: &str) -> bool {
        self.by_endpoint.contains_key(id)
    }

    /// Lets go of an endpoint's ports.
    pub(crate) fn release(&mut self, id: &str) {
        self.by_endpoint.remove(id);
    }
}

fn reserve(port: &HostPort, host_ip: IpAddr) -> Result<Option<OwnedFd>, ReservationError> {
    let kind = match port.protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        // A kernel may not have SCTP sockets, and yet forward SCTP.
        Protocol::Sctp => return Ok(None),
    };
    let address = SocketAddr::new(host_ip, port.published);
    let family = if host_ip.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    // Connections in TIME_WAIT of a program that has ended also refuse a plain bind; the second attempt tolerates those, but
    // no listening socket. Then the permission is withdrawn, so that nobody else can bind beside us.
    let attempt = |reuse: bool| -> rustix::io::Result<OwnedFd> {
        // Programs the daemon starts outlive it, and must not hold the port.
        let socket = socket_with(family, kind.0, SocketFlags::CLOEXEC, Some(kind.1))?;
        sockopt::set_socket_reuseaddr(&socket, reuse)?;
        if host_ip.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        bind(&socket, &address)?;
        sockopt::set_socket_reuseaddr(&socket, false)?;
        Ok(socket)
    };
    let is_tcp = port.protocol == Protocol::Tcp;
    let once = || attempt(false).or_else(|error| if is_tcp { attempt(true) } else { Err(error) });
    let mut bound = once();
    for _ in 1..BIND_ATTEMPT_COUNT_MAX {
        if bound.is_err() {
            std::thread::sleep(BIND_ATTEMPT_INTERVAL);
            bound = once();
        }
    }
    bound.map(Some).map_err(|error| ReservationError {
        host_ip,
        published: port.published,
        protocol: port.protocol,
        source: error.into(),
    })
}
