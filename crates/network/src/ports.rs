//! Published ports: the type, conflicts between them, and the choice of a free one.
//!
//! Pure. That a program outside Skep uses a port is found in `reservation`.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// Transport protocol of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// One port of the node that leads to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostPort {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Address of the node the port is open on; the unspecified address means all.
    pub host_ip: IpAddr,
    /// Port on the node. In a request 0 means "any free one"; in an attachment it is never 0.
    pub published: u16,
    /// Port in the container; never 0.
    pub target: u16,
}

/// Why ports cannot be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PortConflict {
    /// Another endpoint, or the same request, has the port. The text is Docker's.
    #[error("Bind for {host_ip}:{published} failed: port is already allocated")]
    Allocated {
        /// Address asked for.
        host_ip: IpAddr,
        /// Port asked for.
        published: u16,
    },
    /// Every port of the ephemeral range is taken.
    #[error("all ports are allocated")]
    Exhausted,
    /// Target port 0.
    #[error("target port of a published port is 0")]
    ZeroTarget,
    /// The host address is IPv6, and the node network has no IPv6 addresses.
    #[error("host address `{0}` of a published port is IPv6, which the node network has not")]
    Family(IpAddr),
}

/// Gives every port of `request` a port of the node, or says which cannot be had.
///
/// `taken` are the ports of all endpoints; `ephemeral` is the range for requests of port 0, searched upwards; `has_v6` says
/// whether the container has an IPv6 address.
pub(crate) fn allocate(
    request: &[HostPort],
    taken: &BTreeSet<HostPort>,
    ephemeral: RangeInclusive<u16>,
    has_v6: bool,
) -> Result<Vec<HostPort>, PortConflict> {
    let mut granted: Vec<HostPort> = Vec::with_capacity(request.len());
    for &port in request {
        if port.target == 0 {
            return Err(PortConflict::ZeroTarget);
        }
        if port.host_ip.is_ipv6() && !port.host_ip.is_unspecified() && !has_v6 {
            return Err(PortConflict::Family(port.host_ip));
        }
        let is_free = |candidate: &HostPort| {
            !taken
                .iter()
                .chain(&granted)
                .any(|other| candidate.conflicts_with(other))
        };
        let port = if port.published == 0 {
            ephemeral
                .clone()
                .map(|published| HostPort { published, ..port })
                .find(is_free)
                .ok_or(PortConflict::Exhausted)?
        } else if is_free(&port) {
            port
        } else {
            return Err(PortConflict::Allocated {
                host_ip: port.host_ip,
                published: port.published,
            });
        };
        granted.push(port);
    }
    Ok(granted)
}

// === impl HostPort ===

impl HostPort {
    /// Whether both cannot be published at the same time.
    pub fn conflicts_with(&self, other: &HostPort) -> bool {
        self.protocol == other.protocol
            && self.published == other.published
            && (self.host_ip == other.host_ip
                || self.host_ip.is_unspecified()
                || other.host_ip.is_unspecified())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}->{}/{}",
            self.host_ip, self.published, self.target, self.protocol
        )
    }
}

// === impl Protocol ===

impl Protocol {
    /// Docker's, nft's and conntrack's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(text: &str, published: u16) -> HostPort {
        HostPort {
            protocol: Protocol::Tcp,
            host_ip: text.parse().unwrap(),
            published,
            target: 80,
        }
    }

    #[track_caller]
    fn check(taken: &[HostPort], request: &[HostPort], expect: Result<&[u16], &str>) {
        let taken = taken.iter().copied().collect();
        let got = allocate(request, &taken, 32768..=32769, false)
            .map(|ports| ports.iter().map(|port| port.published).collect::<Vec<_>>());
        match (got, expect) {
            (Ok(got), Ok(expect)) => assert_eq!(got, expect),
            (Err(got), Err(expect)) => assert_eq!(got.to_string(), expect),
            (got, expect) => panic!("{got:?} is not {expect:?}"),
        }
    }

    #[test]
    fn all_addresses_conflict_with_each_address() {
        let any = port("0.0.0.0", 80);
        let one = port("10.0.0.1", 80);
        check(
            &[any],
            &[one],
            Err("Bind for 10.0.0.1:80 failed: port is already allocated"),
        );
        check(
            &[one],
            &[any],
            Err("Bind for 0.0.0.0:80 failed: port is already allocated"),
        );
        check(&[one], &[port("10.0.0.2", 80)], Ok(&[80]));
        check(
            &[HostPort {
                protocol: Protocol::Udp,
                ..any
            }],
            &[any],
            Ok(&[80]),
        );
    }

    #[test]
    fn one_request_cannot_ask_twice() {
        let any = port("0.0.0.0", 80);
        check(
            &[],
            &[any, any],
            Err("Bind for 0.0.0.0:80 failed: port is already allocated"),
        );
    }

    #[test]
    fn port_zero_takes_the_lowest_free_one_until_none_is_left() {
        let zero = port("0.0.0.0", 0);
        check(&[], &[zero, zero], Ok(&[32768, 32769]));
        check(&[port("0.0.0.0", 32768)], &[zero], Ok(&[32769]));
        check(&[], &[zero, zero, zero], Err("all ports are allocated"));
    }

    #[test]
    fn target_zero_and_v6_addresses_without_v6_are_refused() {
        check(
            &[],
            &[HostPort {
                target: 0,
                ..port("0.0.0.0", 80)
            }],
            Err("target port of a published port is 0"),
        );
        check(
            &[],
            &[port("fd00::1", 80)],
            Err(
                "host address `fd00::1` of a published port is IPv6, which the node network has not",
            ),
        );
        check(&[], &[port("::", 80)], Ok(&[80]));
        let v6 = allocate(&[port("fd00::1", 80)], &BTreeSet::new(), 1..=2, true);
        assert_eq!(v6, Ok(vec![port("fd00::1", 80)]));
    }
}
