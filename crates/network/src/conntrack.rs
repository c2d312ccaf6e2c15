//! Forgets UDP flows of endpoints that came or went.
//!
//! Connection tracking remembers where a flow was sent: a UDP client would reach a container that is gone, or miss one that
//! has just published its port, for as long as it keeps sending. (TCP needs nothing: a container's last act is to reset its
//! connections.)

use std::collections::BTreeSet;
use std::net::IpAddr;

use tracing::debug;

use crate::error::ErrorChain;
use crate::nfnl::conntrack::{Flow, UDP};
use crate::nfnl::{Family, NetfilterSocket};

/// Flows to forget.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Forget {
    /// Containers that are gone: flows translated to them.
    pub(crate) addresses: BTreeSet<IpAddr>,
    /// Ports just published: flows to them, whatever became of those.
    pub(crate) ports: BTreeSet<u16>,
}

// === impl Forget ===

impl Forget {
    /// Walking the kernel's table takes about 12 ms, so it is done once for all, and not for nothing.
    pub(crate) fn perform(&self, socket: &mut NetfilterSocket, has_v6: bool) {
        if *self == Forget::default() {
            return;
        }
        let families = [Some(Family::V4), has_v6.then_some(Family::V6)];
        for family in families.into_iter().flatten() {
            if let Err(error) = socket.forget_flows(family, |flow| self.is_doomed(flow)) {
                debug!(error = %ErrorChain(&error), "Flows not deleted");
            }
        }
    }

    fn is_doomed(&self, flow: &Flow) -> bool {
        flow.protocol == UDP
            && (self.addresses.contains(&flow.answerer)
                || self.ports.contains(&flow.destination_port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_to_the_gone_and_to_new_ports_are_forgotten() {
        let forget = Forget {
            addresses: ["10.255.0.2".parse().unwrap()].into(),
            ports: [54].into(),
        };
        let flow = |protocol, destination_port, answerer: &str| Flow {
            protocol,
            destination: [192, 0, 2, 1].into(),
            destination_port,
            answerer: answerer.parse().unwrap(),
            answerer_port: 53,
            is_answered: true,
        };
        assert!(forget.is_doomed(&flow(UDP, 5353, "10.255.0.2")));
        assert!(forget.is_doomed(&flow(UDP, 54, "192.0.2.1")));
        assert!(!forget.is_doomed(&flow(UDP, 5353, "10.255.0.3")));
        assert!(!forget.is_doomed(&flow(6, 54, "10.255.0.2")));
    }
}
