//! Which published ports programs of the node have for themselves.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use crate::plane::mesh::{Mesh, PublishedPort};
use crate::ports::Protocol;

/// State of a TCP socket that listens (`TCP_LISTEN`).
const LISTENING: &str = "0A";
/// State of a UDP socket that is not connected (`TCP_CLOSE`).
const UNCONNECTED: &str = "07";

/// Whether a program of the calling thread's namespace waits for others at a port. One that merely has a connection from there does
/// not.
pub(super) fn is_occupied(port: &PublishedPort) -> bool {
    let (tables, state) = match port.protocol {
        Protocol::Tcp => (["tcp", "tcp6"], LISTENING),
        Protocol::Udp => (["udp", "udp6"], UNCONNECTED),
        // The kernel has no such table.
        Protocol::Sctp => return false,
    };
    tables.iter().any(|table| {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{table}"));
        has(&text.unwrap_or_default(), port.port, state)
    })
}

/// Whether a table has a socket at a local port in this state.
fn has(table: &str, port: u16, state: &str) -> bool {
    let suffix = format!(":{port:04X}");
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = fields.next().unwrap_or_default();
        local.ends_with(&suffix) && fields.nth(1) == Some(state)
    })
}

/// For people whose port a program has.
pub(super) fn warning(port: &PublishedPort) -> String {
    format!(
        "port {}/{} is published by a service, but a program of this node has it: here the program answers, not the service",
        port.port, port.protocol
    )
}

/// The mesh without some ports. Without any it is the same, since it may be large.
pub(super) fn without(mesh: &Arc<Mesh>, ports: &BTreeSet<PublishedPort>) -> Arc<Mesh> {
    let mut mesh = Arc::clone(mesh);
    if !ports.is_empty() {
        let left = Arc::make_mut(&mut mesh);
        left.ports.retain(|port, _| !ports.contains(port));
    }
    mesh
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_wait_for_others_are_told_from_connections() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n   \
                     0: 00000000:1F90 00000000:0000 0A 00000000:00000000\n   \
                     1: 0100007F:1F91 0100007F:D431 01 00000000:00000000\n";
        assert!(has(table, 0x1F90, LISTENING));
        assert!(!has(table, 0x1F91, LISTENING));
        assert!(!has(table, 0x90, LISTENING));
        assert!(!has("", 0x1F90, LISTENING));
    }
}
