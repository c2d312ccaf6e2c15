//! Which address of which network is in use, by whom, and where the next free one is.
//!
//! An index: it follows from stored objects and is never written by itself. Finding a free address
//! costs a few look-ups however full a network is, because neighbouring addresses in use are kept
//! as one run.

use std::net::IpAddr;

use imbl::{OrdMap, OrdSet};
use skep_model::{
    NetworkId, NodeId, ServiceId, TaskId,
    object::network::{next, previous},
};

/// Who has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// The network itself: its gateway, or an address its user reserved.
    Network(NetworkId),
    /// A service: its virtual address.
    Service(ServiceId),
    /// A task that has not ended.
    Task(TaskId),
    /// A node: its load balancer.
    Node(NodeId),
}

/// One use of an address.
type Use = (NetworkId, IpAddr, Holder);

/// See the module's documentation. `clone` is O(1).
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    /// Normally one holder per address; more only where somebody else's store had more.
    uses: OrdSet<Use>,
    /// First and last address of each longest row of neighbours in use.
    runs: OrdMap<(NetworkId, IpAddr), IpAddr>,
}

// === impl Addresses ===

impl Addresses {
    /// Notes that `holder` has an address.
    pub fn insert(&mut self, network: NetworkId, ip: IpAddr, holder: Holder) {
        let was_held = self.is_held(network, ip);
        self.uses.insert((network, ip, holder));
        if was_held {
            return;
        }
        let mut first = ip;
        let mut last = ip;
        if let Some(before) = previous(ip)
            && let Some((start, _)) = self.run_of(network, before)
        {
            first = start;
        }
        if let Some(after) = next(ip)
            && let Some(end) = self.runs.remove(&(network, after))
        {
            last = end;
        }
        self.runs.insert((network, first), last);
    }

    /// Notes that `holder` has an address no more.
    pub fn remove(&mut self, network: NetworkId, ip: IpAddr, holder: Holder) {
        self.uses.remove(&(network, ip, holder));
        if self.is_held(network, ip) {
            return;
        }
        let Some((first, last)) = self.run_of(network, ip) else {
            return;
        };
        self.runs.remove(&(network, first));
        if first < ip {
            let end = previous(ip).expect("an address lies before it in the run");
            self.runs.insert((network, first), end);
        }
        if ip < last {
            let start = next(ip).expect("an address lies behind it in the run");
            self.runs.insert((network, start), last);
        }
    }

    /// Whether anybody has the address.
    pub fn is_held(&self, network: NetworkId, ip: IpAddr) -> bool {
        self.holders(network, ip).next().is_some()
    }

    /// Who has the address.
    pub fn holders(&self, network: NetworkId, ip: IpAddr) -> impl Iterator<Item = Holder> {
        let range = (network, ip, LOWEST)..;
        let uses = self.uses.range(range);
        uses.take_while(move |(n, address, _)| (*n, *address) == (network, ip))
            .map(|(_, _, holder)| *holder)
    }

    /// All addresses in use on a network, in order.
    pub fn of_network(&self, network: NetworkId) -> impl Iterator<Item = (IpAddr, Holder)> {
        let uses = self.uses.range((network, LOWEST_IP, LOWEST)..);
        uses.take_while(move |(n, _, _)| *n == network)
            .map(|(_, ip, holder)| (*ip, *holder))
    }

    /// The last address in use from `first` to `last`.
    pub fn last_held(&self, network: NetworkId, first: IpAddr, last: IpAddr) -> Option<IpAddr> {
        let range = (network, LOWEST_IP)..=(network, last);
        let ((_, start), end) = self.runs.range(range).next_back()?;
        let end = (*end).min(last);
        (end >= first && *start <= last).then_some(end)
    }

    /// The first free address from `first` to `last`.
    pub fn first_free(&self, network: NetworkId, first: IpAddr, last: IpAddr) -> Option<IpAddr> {
        let free = match self.run_of(network, first) {
            Some((_, end)) => next(end)?,
            None => first,
        };
        (free <= last).then_some(free)
    }

    /// The run `ip` belongs to.
    fn run_of(&self, network: NetworkId, ip: IpAddr) -> Option<(IpAddr, IpAddr)> {
        let range = (network, LOWEST_IP)..=(network, ip);
        let ((_, first), last) = self.runs.range(range).next_back()?;
        (*last >= ip).then_some((*first, *last))
    }
}

const LOWEST: Holder = Holder::Network(NetworkId(skep_model::Id::LOWEST));
const LOWEST_IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

#[cfg(test)]
mod tests;
