//! What networks, services and published ports carried: the kernel's counters, added up so that they never fall. Pure.
//!
//! Nothing is counted per packet that the kernel does not count anyway. Connections to virtual addresses and published ports
//! are counted where their first packet is translated, by elements of sets that hold nothing else, so a change of backends leaves
//! them alone; packets and bytes of a network are those of its containers' interfaces. Counters of a container end with it,
//! and whoever flushes our tables resets the rest: [`Ledger`] remembers what was read last of each source and adds what is
//! new. What was counted between the last reading and a reset by others is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::balance::family;
use super::client;
use super::desired::{Container, Desired};
use super::mesh::PublishedPort;
use crate::nfnl::Family;

/// What this node carried since its kernel has the rules, as far as it was counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counters {
    /// By network id.
    pub networks: BTreeMap<String, Traffic>,
    /// Connections of this node's containers to virtual addresses, by network and service id. Refused ones count; so does the
    /// first packet of an exchange without connections.
    pub services: BTreeMap<(String, String), u64>,
    /// Connections to published ports for which this node was asked, in the same way.
    pub ports: BTreeMap<PublishedPort, u64>,
}

/// What this node's containers sent and received on a network. Segments that travel as one packet are counted as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Packets from containers.
    pub sent_packets: u64,
    /// Bytes from containers, with Ethernet headers.
    pub sent_bytes: u64,
    /// Packets to containers.
    pub received_packets: u64,
    /// Bytes to containers, with Ethernet headers.
    pub received_bytes: u64,
}

/// Sums of `N` counters each of what several sources counted of a subject, whichever of them start over or end.
#[derive(Debug)]
pub(crate) struct Ledger<S, K, const N: usize> {
    sums: BTreeMap<K, [u64; N]>,
    last: BTreeMap<S, BTreeMap<K, [u64; N]>>,
}

/// The ledgers of a node.
#[derive(Debug, Default)]
pub(crate) struct Ledgers {
    /// Of ports of networks, by network id and name.
    pub(crate) networks: Ledger<(String, String), String, 4>,
    /// Of containers, by id.
    pub(crate) services: Ledger<String, (String, String), 1>,
    pub(crate) ports: Ledger<Family, PublishedPort, 1>,
}

/// Which service of which network each virtual address is, for a container.
pub(crate) fn owners(
    desired: &Desired,
    container: &Container,
) -> BTreeMap<IpAddr, (String, String)> {
    let families = client::families(container);
    let networks = container.attachments.keys();
    let networks = networks.filter_map(|id| Some((id, desired.networks.get(id)?)));
    let vips = networks.flat_map(|(network, overlay)| {
        overlay.services.iter().flat_map(move |(id, service)| {
            let vips = service.vips.iter();
            vips.map(move |vip| (*vip, (network.clone(), id.clone())))
        })
    });
    vips.filter(|(vip, _)| families.contains(&family(*vip)))
        .collect()
}

// === impl Traffic ===

impl From<[u64; 4]> for Traffic {
    fn from(counts: [u64; 4]) -> Traffic {
        let [sent_packets, sent_bytes, received_packets, received_bytes] = counts;
        Traffic {
            sent_packets,
            sent_bytes,
            received_packets,
            received_bytes,
        }
    }
}

// === impl Ledger ===

impl<S: Ord, K: Ord + Clone, const N: usize> Ledger<S, K, N> {
    /// What a source counts now.
    pub(crate) fn note(&mut self, source: S, counts: BTreeMap<K, [u64; N]>) {
        let last = self.last.entry(source).or_default();
        for (subject, now) in &counts {
            let before = last.get(subject).copied().unwrap_or([0; N]);
            let sums = self.sums.entry(subject.clone()).or_insert([0; N]);
            for ((sum, now), before) in sums.iter_mut().zip(now).zip(before) {
                // A counter that fell began anew.
                let new = now.checked_sub(before).unwrap_or(*now);
                *sum = sum.saturating_add(new);
            }
        }
        *last = counts;
    }

    /// Forgets sources; what they counted stays.
    pub(crate) fn keep_sources(&mut self, is_there: impl Fn(&S) -> bool) {
        self.last.retain(|source, _| is_there(source));
    }

    /// The sums of these subjects; others are forgotten.
    pub(crate) fn sums(&mut self, subjects: &BTreeSet<K>) -> BTreeMap<K, [u64; N]> {
        self.sums.retain(|subject, _| subjects.contains(subject));
        for last in self.last.values_mut() {
            last.retain(|subject, _| subjects.contains(subject));
        }
        let sum = |subject: &K| self.sums.get(subject).copied().unwrap_or([0; N]);
        let sums = subjects.iter();
        sums.map(|subject| (subject.clone(), sum(subject)))
            .collect()
    }
}

impl<S, K, const N: usize> Default for Ledger<S, K, N> {
    fn default() -> Self {
        Ledger {
            sums: BTreeMap::new(),
            last: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_grow_by_what_is_new_whoever_starts_over_or_ends() {
        let mut ledger = Ledger::<&str, &str, 2>::default();
        let subjects = BTreeSet::from(["web"]);
        ledger.note("one", [("web", [100, 1])].into());
        ledger.note("two", [("web", [50, 1]), ("gone", [7, 7])].into());
        ledger.note("one", [("web", [130, 1])].into());
        assert_eq!(ledger.sums(&subjects), [("web", [180, 2])].into());
        // Its table was made anew.
        ledger.note("one", [("web", [20, 0])].into());
        assert_eq!(ledger.sums(&subjects), [("web", [200, 2])].into());
        ledger.keep_sources(|source| *source == "two");
        ledger.note("two", [("web", [60, 3])].into());
        assert_eq!(ledger.sums(&subjects), [("web", [210, 4])].into());
        // A subject that was away begins at nothing.
        assert_eq!(ledger.sums(&BTreeSet::new()), BTreeMap::new());
        assert_eq!(ledger.sums(&subjects), [("web", [0, 0])].into());
    }
}
