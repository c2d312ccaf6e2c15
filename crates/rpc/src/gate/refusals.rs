//! Why callers are refused; each caller and reason is logged once, all are counted.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use skep_model::NodeId;
use tracing::warn;

use crate::{gate::identity::Peer, limits::REFUSALS_REMEMBERED};

/// Why a caller is refused. The text is for the caller, and tells nothing about others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    NoCertificate,
    Role,
    Cluster,
    Expired,
    NotYetValid,
    Untrusted,
    Blacklisted,
    Unknown,
    Demoted,
    Spoofed,
    Malformed,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    count: AtomicU64,
    seen: Mutex<Seen>,
}

/// A caller: its node, or its address while it has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Node(NodeId),
    Address(IpAddr),
}

#[derive(Debug, Default)]
struct Seen {
    known: BTreeSet<(Who, Reason)>,
    order: VecDeque<(Who, Reason)>,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCertificate => "Permission denied: no client certificate",
            Self::Role => "Permission denied: role of the certificate does not allow this",
            Self::Cluster => "Permission denied: certificate is of another cluster",
            Self::Expired => "Permission denied: certificate has expired",
            Self::NotYetValid => "Permission denied: certificate is not valid yet",
            Self::Untrusted => "Permission denied: certificate is not of a trusted root any more",
            Self::Blacklisted => "Permission denied: node was removed from the cluster",
            Self::Unknown => "Permission denied: node is not part of the cluster",
            Self::Demoted => "Permission denied: node is not a manager",
            Self::Spoofed => "Permission denied: only managers may speak for others",
            Self::Malformed => "Permission denied: malformed forwarded identity",
        })
    }
}

impl Reason {
    /// What is wrong with the certificate a handshake failed for, if that was it.
    pub(crate) fn of_handshake(error: &io::Error) -> Option<Self> {
        use rustls::{CertificateError as Problem, Error};
        let error = error.get_ref()?.downcast_ref::<Error>()?;
        let Error::InvalidCertificate(problem) = error else {
            return None;
        };
        match problem {
            Problem::Expired | Problem::ExpiredContext { .. } => Some(Self::Expired),
            Problem::NotValidYet | Problem::NotValidYetContext { .. } => Some(Self::NotYetValid),
            _ => Some(Self::Untrusted),
        }
    }
}

impl Refusals {
    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Counts a refusal and logs it if it is the first of this caller and reason.
    pub(crate) fn note(&self, peer: &Peer, path: &str, reason: Reason) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let who = match &peer.certificate {
            Some(certificate) => Who::Node(certificate.subject.node_id),
            None => Who::Address(peer.addr.ip()),
        };
        if self.is_first(who, reason) {
            let path: String = path.chars().take(100).collect();
            warn!(peer.addr = %peer.addr, caller = ?who, path, reason = %reason, "Call refused");
        }
    }

    /// The same for a caller whose certificate TLS refused.
    pub(crate) fn note_handshake(&self, addr: SocketAddr, reason: Reason) {
        self.count.fetch_add(1, Ordering::Relaxed);
        if self.is_first(Who::Address(addr.ip()), reason) {
            warn!(peer.addr = %addr, reason = %reason, "Certificate refused; check the clocks of both nodes");
        }
    }

    fn is_first(&self, who: Who, reason: Reason) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.known.insert((who, reason)) {
            return false;
        }
        seen.order.push_back((who, reason));
        if seen.order.len() > REFUSALS_REMEMBERED
            && let Some(oldest) = seen.order.pop_front()
        {
            seen.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_logged_once_per_reason_and_memory_is_bounded() {
        let refusals = Refusals::default();
        let who = |number: u32| Who::Address(IpAddr::from(number.to_be_bytes()));
        assert!(refusals.is_first(who(1), Reason::Role));
        assert!(!refusals.is_first(who(1), Reason::Role));
        assert!(refusals.is_first(who(1), Reason::Spoofed));
        for number in 2..=u32::try_from(REFUSALS_REMEMBERED).unwrap() + 1 {
            refusals.is_first(who(number), Reason::Role);
        }
        assert_eq!(
            refusals.seen.lock().unwrap().known.len(),
            REFUSALS_REMEMBERED
        );
        assert!(refusals.is_first(who(1), Reason::Role), "forgotten");
    }
}
