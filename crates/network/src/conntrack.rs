//! Forgets connections of endpoints that came or went.
//!
//! Connection tracking remembers where a flow was sent: a UDP client would reach a container that is gone, or miss one that
//! has just published its port, for as long as it keeps sending. Uses the `conntrack` program; without it nothing is
//! forgotten and flows end by their timeouts.

use std::net::IpAddr;
use std::process::{Command, Stdio};

use tracing::debug;

use crate::ports::{HostPort, Protocol};

/// Forgets flows that were translated to `address`.
pub(crate) fn forget_endpoint(address: IpAddr) {
    run(&["-D", "--reply-src", &address.to_string()]);
}

/// Forgets UDP flows to ports that have just been published.
pub(crate) fn forget_ports(ports: &[HostPort]) {
    for port in ports.iter().filter(|port| port.protocol == Protocol::Udp) {
        run(&[
            "-D",
            "-p",
            "udp",
            "--orig-port-dst",
            &port.published.to_string(),
        ]);
    }
}

fn run(arguments: &[&str]) {
    let status = Command::new("conntrack")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    // The program's exit code is 1 when nothing matched.
    if let Err(error) = status {
        debug!(%error, "Conntrack program is not usable");
    }
}
