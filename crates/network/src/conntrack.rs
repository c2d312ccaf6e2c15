//! Forgets UDP flows of endpoints that came or went.
//!
//! Connection tracking remembers where a flow was sent: a UDP client would reach a container that is gone, or miss one that
//! has just published its port, for as long as it keeps sending. (TCP needs nothing: a container's last act is to reset its
//! connections.) Uses the `conntrack` program; without it nothing is forgotten, and flows end by their timeouts.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use tracing::debug;

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
    /// Walking the kernel's table takes about 12 ms, so it is listed once for all, and walked again for each hit only.
    pub(crate) fn perform(&self) {
        if *self == Forget::default() {
            return;
        }
        let hits = self.hits(&run(&["-L", "-p", "udp"]));
        for address in hits.addresses {
            run(&["-D", "-p", "udp", "--reply-src", &address.to_string()]);
        }
        for port in hits.ports {
            run(&["-D", "-p", "udp", "--orig-port-dst", &port.to_string()]);
        }
    }

    /// What of this is in a listing. A line holds the flow's two directions, each as `src=… dst=… sport=… dport=…`.
    fn hits(&self, listing: &str) -> Forget {
        let mut hits = Forget::default();
        for line in listing.lines() {
            let values = |key: &'static str| {
                line.split_whitespace()
                    .filter_map(move |word| word.strip_prefix(key))
            };
            let reply_source = values("src=").nth(1).and_then(|text| text.parse().ok());
            let port = values("dport=").next().and_then(|text| text.parse().ok());
            hits.addresses
                .extend(reply_source.filter(|ip| self.addresses.contains(ip)));
            hits.ports
                .extend(port.filter(|port| self.ports.contains(port)));
        }
        hits
    }
}

fn run(arguments: &[&str]) -> String {
    let output = Command::new("conntrack")
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    // The program's exit code is 1 when nothing matched.
    match output {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => {
            debug!(%error, "Conntrack program is not usable");
            String::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_flows_in_the_listing_are_forgotten() {
        let listing = "\
udp      17 29 src=192.0.2.2 dst=192.0.2.1 sport=4000 dport=5353 src=10.255.0.2 dst=192.0.2.2 sport=53 dport=4000 mark=0 use=1
udp      17 9 src=10.255.0.3 dst=1.1.1.1 sport=9 dport=54 [UNREPLIED] src=1.1.1.1 dst=192.0.2.1 sport=54 dport=9 mark=0 use=1
nonsense src=
";
        let forget = Forget {
            addresses: ["10.255.0.2", "10.255.0.3"]
                .map(|ip| ip.parse().unwrap())
                .into(),
            ports: [54, 4000].into(),
        };
        let expect = Forget {
            addresses: ["10.255.0.2".parse().unwrap()].into(),
            ports: [54].into(),
        };
        assert_eq!(forget.hits(listing), expect);
    }
}
