//! Host ports held for a container: bound, never listened on, given back at the end.

use std::{net::SocketAddr, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with, sockopt},
};

use crate::runtime::config::{PortReservation, Protocol};

/// Ports of one container; a service publishes a handful, ranges some hundred.
pub(super) const PORT_COUNT_MAX: usize = 4096;

/// The sockets that hold the ports.
#[derive(Debug, Default)]
pub(super) struct Ports {
    held: Vec<(PortReservation, OwnedFd)>,
}

impl Ports {
    /// Binds all or none. The error is what Docker tells its clients.
    pub(super) fn reserve(wanted: &[PortReservation]) -> Result<Self, String> {
        if wanted.len() > PORT_COUNT_MAX {
            return Err(format!(
                "{} host ports are too many for one container",
                wanted.len()
            ));
        }
        let mut held = Vec::with_capacity(wanted.len());
        for port in wanted {
            if port.protocol == Protocol::Sctp {
                continue;
            }
            let socket = bind_port(port).map_err(|errno| refusal(port, errno))?;
            held.push((port.clone(), socket));
        }
        Ok(Self { held })
    }

    /// Gives one port back; nothing happens if it is not held.
    pub(super) fn release(&mut self, port: &PortReservation) {
        self.held.retain(|(held, _)| held != port);
    }
}

fn bind_port(port: &PortReservation) -> Result<OwnedFd, Errno> {
    let (family, is_v6) = match port.addr {
        std::net::IpAddr::V4(_) => (AddressFamily::INET, false),
        std::net::IpAddr::V6(_) => (AddressFamily::INET6, true),
    };
    let (kind, protocol) = match port.protocol {
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Tcp | Protocol::Sctp => (SocketType::STREAM, ipproto::TCP),
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol))?;
    if is_v6 {
        // 0.0.0.0 and [::] are two reservations.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &SocketAddr::new(port.addr, port.port))?;
    Ok(socket)
}

fn refusal(port: &PortReservation, errno: Errno) -> String {
    let at = SocketAddr::new(port.addr, port.port);
    if errno == Errno::ADDRINUSE {
        format!("Bind for {at} failed: port is already allocated")
    } else {
        format!("failed to bind host port {at}/{}: {errno}", port.protocol)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, TcpListener};

    use super::*;

    fn reservation(port: u16) -> PortReservation {
        PortReservation {
            protocol: Protocol::Tcp,
            addr: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port,
        }
    }

    #[test]
    fn a_taken_port_is_refused_in_dockers_words() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let error = Ports::reserve(&[reservation(port)]).unwrap_err();
        assert_eq!(
            error,
            format!("Bind for 127.0.0.1:{port} failed: port is already allocated")
        );
    }

    #[test]
    fn a_held_port_is_free_again_after_release() {
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut ports = Ports::reserve(&[reservation(free)]).unwrap();
        assert!(TcpListener::bind(("127.0.0.1", free)).is_err());
        ports.release(&reservation(free));
        assert!(TcpListener::bind(("127.0.0.1", free)).is_ok());
    }
}
