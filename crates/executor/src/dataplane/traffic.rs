//! What networks, services and published ports carried, by name, for metrics. Pure.

use std::collections::BTreeMap;

use skep_network::plane::{Counters, PublishedPort, Traffic};

use super::Book;

/// Names of one kind at most; what is beyond, in the order of names, is one entry called [`OTHERS`]. A metrics server keeps
/// every label it ever saw.
const NAME_COUNT_MAX: usize = 2000;

/// Stands for those beyond the limit. No service or network can have this name.
const OTHERS: &str = "(others)";

/// What this node carried, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carried {
    /// By network.
    pub networks: BTreeMap<String, Traffic>,
    /// Connections from this node's containers, by network and service.
    pub services: BTreeMap<(String, String), u64>,
    /// Connections for which this node was asked, by service and port.
    pub ports: BTreeMap<(String, Option<PublishedPort>), u64>,
}

impl Carried {
    /// Puts names in place of ids. Who has no name any more is left out.
    pub(super) fn new(counters: &Counters, book: &Book) -> Self {
        let networks = counters.networks.iter();
        let networks =
            networks.filter_map(|(id, traffic)| Some((book.name_of(id)?.to_owned(), *traffic)));
        let services = counters
            .services
            .iter()
            .filter_map(|((network, id), count)| {
                let name = book.service_name(id)?.to_owned();
                Some(((book.name_of(network)?.to_owned(), name), *count))
            });
        let ports = counters.ports.iter();
        let ports = ports.filter_map(|(port, count)| {
            Some(((book.publisher(port)?.to_owned(), Some(*port)), *count))
        });
        let others = || (OTHERS.to_owned(), OTHERS.to_owned());
        Self {
            networks: networks.collect(),
            services: bounded(services.collect(), NAME_COUNT_MAX, others()),
            ports: bounded(ports.collect(), NAME_COUNT_MAX, (OTHERS.to_owned(), None)),
        }
    }
}

/// The first so many; the sum of the rest under another key.
fn bounded<K: Ord>(mut counts: BTreeMap<K, u64>, count_max: usize, rest: K) -> BTreeMap<K, u64> {
    let mut sum = 0u64;
    while counts.len() > count_max {
        if let Some((_, count)) = counts.pop_last() {
            sum = sum.saturating_add(count);
        }
    }
    if sum > 0 {
        counts.insert(rest, sum);
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_the_limit_is_one() {
        let counts = BTreeMap::from([("a", 1), ("b", 2), ("c", 3), ("d", 4)]);
        let few = bounded(counts.clone(), 2, OTHERS);
        assert_eq!(few, [("a", 1), ("b", 2), (OTHERS, 7)].into());
        assert_eq!(bounded(counts.clone(), 4, OTHERS), counts);
    }
}
