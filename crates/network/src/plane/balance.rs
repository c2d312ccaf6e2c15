//! Virtual addresses of services, spread over backends in the client's own namespace: the rules, the maps, their changes. Pure.
//!
//! ```text
//! table ip skep (ip6 skep)
//!   map vips   address          -> goto n<K>, or goto refuse without a backend
//!   map slots  address . slot   -> backend
//!   chain n<K> dnat to address . (random number below K) map @slots
//!   set connections  address -> nothing, but each element counts, see `counters`
//! ```
//!
//! The table also leads port 53 of 127.0.0.11 to the name server's sockets.
//!
//! The key is the address alone: every port and protocol of a virtual address is balanced, as in Swarm. A service with K
//! backends has K slots, so all are equally likely; beyond [`EXACT_COUNT_MAX`] slots come in a few sizes, filled in turn. Only the
//! first packet of a connection asks; the kernel's connection tracking remembers the answer, so established connections
//! outlive any change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use crate::digest::fnv1a;
use crate::dns;
use crate::nfnl::Family;
use crate::nfnl::conntrack::{Flow, UDP};
use crate::nfnl::elements::{Change, Data, Verb};
use crate::nft::DIGEST_PREFIX;
use crate::plane::desired::Health;

/// Our table in a container, in both families.
pub(crate) const TABLE: &str = "skep";

pub(crate) const VIPS: &str = "vips";
pub(crate) const SLOTS: &str = "slots";

/// Set whose elements count the first packets of connections.
pub(crate) const CONNECTIONS: &str = "connections";

/// Chain of addresses without a backend.
const REFUSE: &str = "refuse";

/// Backend counts with a chain of their own.
const EXACT_COUNT_MAX: usize = 64;

/// Numbers of slots for more backends: at least four for each, so that none is more than a quarter likelier than another.
const SPREAD_COUNTS: [usize; 3] = [512, 1024, 4096];

/// Backends of one virtual address in use; of more the first by address. Costs 4096 elements for each container.
pub(crate) const BACKEND_COUNT_MAX: usize = 1024;

/// What a virtual address leads to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Backends {
    /// Get new connections.
    pub(crate) ready: BTreeSet<IpAddr>,
    /// Keep the connections they have.
    pub(crate) leaving: BTreeSet<IpAddr>,
    /// Keep the connections they have answered.
    pub(crate) silent: BTreeSet<IpAddr>,
}

/// Virtual addresses.
pub(crate) type Vips = BTreeMap<IpAddr, Backends>;

/// Elements of the maps, as they should be or were found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Elements {
    /// Chain of each virtual address.
    pub(crate) vips: BTreeMap<IpAddr, String>,
    /// Backend of each slot.
    pub(crate) slots: BTreeMap<(IpAddr, u32), IpAddr>,
    /// Virtual addresses with a counter. It stays when what an address leads to changes.
    pub(crate) counted: BTreeSet<IpAddr>,
}

/// The transaction that makes a family's table, with no elements.
pub(crate) fn script(family: Family) -> String {
    let table = table(family);
    format!(
        "add table {table}\ndelete table {table}\ntable {table} {{\n  chain {DIGEST_PREFIX}{} {{ }}\n{}}}\n",
        digest(family),
        body(family)
    )
}

/// The table's name with its family, as `nft` wants it.
pub(crate) fn table(family: Family) -> String {
    match family {
        Family::V4 => format!("ip {TABLE}"),
        Family::V6 => format!("ip6 {TABLE}"),
    }
}

/// Whether a table has these rules.
pub(crate) fn is_whole(family: Family, chains: &[String], rule_count: usize) -> bool {
    let wanted = format!("{DIGEST_PREFIX}{}", digest(family));
    chains.contains(&wanted) && rule_count == body(family).matches(RULE_MARK).count()
}

/// Starts every line that is a rule.
const RULE_MARK: &str = "\n    ";

fn digest(family: Family) -> String {
    format!("{:016x}", fnv1a(body(family).as_bytes()))
}

fn body(family: Family) -> String {
    let (address, kind) = match family {
        Family::V4 => ("ip daddr", "ipv4_addr"),
        Family::V6 => ("ip6 daddr", "ipv6_addr"),
    };
    let unreachable = match family {
        Family::V4 => "icmp",
        Family::V6 => "icmpv6",
    };
    let mut text = format!(
        "  map {VIPS} {{ type {kind} : verdict; }}
  map {SLOTS} {{ typeof {address} . numgen random mod 16 : {address}; }}
  set {CONNECTIONS} {{ type {kind}; counter; }}
"
    );
    for count in slot_counts() {
        let rule = format!("dnat to {address} . numgen random mod {count} map @{SLOTS}");
        writeln!(text, "  chain {} {{{RULE_MARK}{rule}\n  }}", chain(count))
            .expect("writing to a string succeeds");
    }
    let refuse = [
        "meta l4proto tcp reject with tcp reset".to_owned(),
        format!("reject with {unreachable} type port-unreachable"),
    ];
    let rules = refuse.map(|rule| format!("{RULE_MARK}{rule}")).concat();
    writeln!(text, "  chain {REFUSE} {{{rules}\n  }}").expect("writing to a string succeeds");
    let hook = "type nat hook output priority -100; policy accept;";
    let rule = format!("{RULE_MARK}{address} @{CONNECTIONS}{RULE_MARK}{address} vmap @{VIPS}");
    let names = match family {
        Family::V4 => {
            let ip = dns::SERVER.ip();
            let (asked, bound) = (dns::SERVER.port(), dns::SERVER_PORT);
            format!(
                "{RULE_MARK}ip daddr {ip} meta l4proto {{ tcp, udp }} th dport {asked} dnat to {ip}:{bound}"
            )
        }
        Family::V6 => String::new(),
    };
    writeln!(text, "  chain balance {{ {hook}{names}{rule}\n  }}")
        .expect("writing to a string succeeds");
    text
}

/// All numbers of slots there can be.
pub(crate) fn slot_counts() -> impl Iterator<Item = usize> {
    (1..=EXACT_COUNT_MAX).chain(SPREAD_COUNTS)
}

fn chain(slot_count: usize) -> String {
    if slot_count == 0 {
        REFUSE.to_owned()
    } else {
        format!("n{slot_count}")
    }
}

/// How many slots so many backends get.
pub(crate) fn slot_count(backend_count: usize) -> usize {
    if backend_count <= EXACT_COUNT_MAX {
        return backend_count;
    }
    let is_enough = |count: &&usize| **count >= 4 * backend_count;
    let largest = SPREAD_COUNTS[SPREAD_COUNTS.len() - 1];
    SPREAD_COUNTS
        .iter()
        .find(is_enough)
        .copied()
        .unwrap_or(largest)
}

/// The changes that lead from one set of elements to another, by virtual address: those of one belong together.
pub(crate) fn changes(old: &Elements, new: &Elements) -> BTreeMap<IpAddr, Vec<Change>> {
    let mut changes: BTreeMap<IpAddr, Vec<Change>> = BTreeMap::new();
    let mut add = |vip: IpAddr, change: Change| changes.entry(vip).or_default().push(change);
    for (&vip, chain) in &old.vips {
        if new.vips.get(&vip) != Some(chain) {
            add(vip, vip_change(vip, Verb::Delete));
        }
    }
    for (&(vip, slot), backend) in &old.slots {
        if new.slots.get(&(vip, slot)) != Some(backend) {
            add(vip, slot_change(vip, slot, Verb::Delete));
        }
    }
    for (&(vip, slot), backend) in &new.slots {
        if old.slots.get(&(vip, slot)) != Some(backend) {
            let data = Data::Value(octets(*backend));
            add(vip, slot_change(vip, slot, Verb::Add(data)));
        }
    }
    for (&vip, chain) in &new.vips {
        if old.vips.get(&vip) != Some(chain) {
            add(vip, vip_change(vip, Verb::Add(Data::Goto(chain.clone()))));
        }
    }
    for (one, other, verb) in [
        (old, new, Verb::Delete),
        (new, old, Verb::Add(Data::Nothing)),
    ] {
        for &vip in one.counted.difference(&other.counted) {
            let change = Change {
                family: family(vip),
                map: CONNECTIONS,
                key: octets(vip),
                verb: verb.clone(),
            };
            add(vip, change);
        }
    }
    changes
}

/// Whether a flow to one of these virtual addresses must be forgotten: who answers it is gone, or it has no connection to keep.
pub(crate) fn is_doomed(flow: &Flow, vips: &Vips) -> bool {
    vips.get(&flow.destination)
        .is_some_and(|backends| !match backends.health(flow.answerer) {
            Some(health) => keeps(health, flow),
            None => false,
        })
}

/// Whether a backend keeps a flow. Unanswered ones are not only of clients that wait: an entry outlives its client by minutes,
/// and whoever gets the same port later is led to where the first one was.
pub(crate) fn keeps(health: Health, flow: &Flow) -> bool {
    match health {
        Health::Ready => true,
        Health::Leaving => flow.protocol != UDP,
        Health::Silent => flow.protocol != UDP && flow.is_answered,
    }
}

/// Whether a change of backends can have left flows that must be forgotten: some backend lost its place, or the address is new
/// and was spoken to before.
pub(crate) fn leaves_flows(old: Option<&Backends>, new: Option<&Backends>) -> bool {
    match (old, new) {
        (None, _) | (_, None) => true,
        (Some(old), Some(new)) => {
            let backends = old.ready.iter().chain(&old.leaving).chain(&old.silent);
            let mut backends = backends.copied();
            backends.any(|ip| new.health(ip) < old.health(ip))
        }
    }
}

// === impl Backends ===

impl Backends {
    fn health(&self, backend: IpAddr) -> Option<Health> {
        let sets = [
            (&self.ready, Health::Ready),
            (&self.leaving, Health::Leaving),
            (&self.silent, Health::Silent),
        ];
        let mut sets = sets.into_iter().filter(|(set, _)| set.contains(&backend));
        sets.next().map(|(_, health)| health)
    }
}

pub(crate) fn family(address: IpAddr) -> Family {
    if address.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    }
}

fn vip_change(vip: IpAddr, verb: Verb) -> Change {
    Change {
        family: family(vip),
        map: VIPS,
        key: octets(vip),
        verb,
    }
}

fn slot_change(vip: IpAddr, slot: u32, verb: Verb) -> Change {
    let mut key = octets(vip);
    // The kernel's random number lies in a register as it is.
    key.extend(slot.to_ne_bytes());
    Change {
        family: family(vip),
        map: SLOTS,
        key,
        verb,
    }
}

pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// An address from a map's bytes.
pub(crate) fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

// === impl Elements ===

impl Elements {
    /// The elements of virtual addresses.
    pub(crate) fn of<'a>(vips: impl IntoIterator<Item = (&'a IpAddr, &'a Backends)>) -> Elements {
        let mut elements = Elements::default();
        for (&vip, backends) in vips {
            let is_same_family = |ip: &&IpAddr| ip.is_ipv4() == vip.is_ipv4();
            let ready: Vec<IpAddr> = backends
                .ready
                .iter()
                .filter(is_same_family)
                .take(BACKEND_COUNT_MAX)
                .copied()
                .collect();
            let count = slot_count(ready.len());
            elements.vips.insert(vip, chain(count));
            let slots = (0..).zip(ready.iter().cycle()).take(count);
            let slots = slots.map(|(slot, &backend)| ((vip, slot), backend));
            elements.slots.extend(slots);
            elements.counted.insert(vip);
        }
        elements
    }

    /// Adds what a listing of [`CONNECTIONS`] said.
    pub(crate) fn read_counted(&mut self, listing: &[(Vec<u8>, Data)]) {
        let addresses = listing.iter().filter_map(|(key, _)| address(key));
        self.counted.extend(addresses);
    }

    /// Adds what a listing of [`VIPS`] said.
    pub(crate) fn read_vips(&mut self, listing: Vec<(Vec<u8>, Data)>) {
        self.vips
            .extend(listing.into_iter().filter_map(|(key, data)| match data {
                Data::Goto(chain) => Some((address(&key)?, chain)),
                Data::Value(_) | Data::Nothing => None,
            }));
    }

    /// Adds what a listing of [`SLOTS`] said.
    pub(crate) fn read_slots(&mut self, listing: Vec<(Vec<u8>, Data)>) {
        self.slots
            .extend(listing.into_iter().filter_map(|(key, data)| {
                let (vip, slot) = key.split_last_chunk()?;
                match data {
                    Data::Value(value) => {
                        Some(((address(vip)?, u32::from_ne_bytes(*slot)), address(&value)?))
                    }
                    Data::Goto(_) | Data::Nothing => None,
                }
            }));
    }
}

#[cfg(test)]
mod tests;
