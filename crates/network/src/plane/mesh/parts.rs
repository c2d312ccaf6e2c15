//! Which part of a client's ports each node has, as tasks see them. Pure.
//!
//! A task takes connections that came through different nodes for those of one client, but their clocks (TCP timestamps) differ: the
//! client's kernel has another one for each address it asks. A server that still remembers a connection refuses a new one with the
//! same port and a clock that is behind. So connections of a client that comes through several nodes get a port of the node's own
//! part, where all clocks are one. Why: `docs/design/mesh.md`, "One client through several nodes".

use std::collections::BTreeMap;

use super::{MARK, Mesh};

/// Lowest port that is given out: those below are for privileged programs, and stay theirs.
pub(crate) const PORT_MIN: u16 = 1024;

/// Most parts there are; nodes share them in a larger cluster. Each has 4032 ports then, which bounds the connections that one
/// client's address may have to one task through one node.
const COUNT_MAX: usize = 16;

/// One of `count` equal parts of the ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    count: usize,
    index: usize,
}

// === impl Part ===

impl Part {
    /// All there may be.
    pub(crate) fn all() -> impl Iterator<Item = Part> {
        let counts = (1..).map(|power| 1 << power);
        counts
            .take_while(|count| *count <= COUNT_MAX)
            .flat_map(|count| (0..count).map(move |index| Part { count, index }))
    }

    /// The part of each node, by the mark its connections have here; this node's have none.
    pub(crate) fn by_mark(mesh: &Mesh) -> BTreeMap<u32, Part> {
        if mesh.peers.is_empty() {
            return BTreeMap::new();
        }
        let mut numbers: Vec<u16> = mesh.peers.keys().copied().collect();
        numbers.push(mesh.number);
        // In the order of their numbers, so that all nodes agree.
        numbers.sort_unstable();
        let count = numbers.len().next_power_of_two().min(COUNT_MAX);
        let mark = |number: u16| match number == mesh.number {
            true => 0,
            false => MARK | u32::from(number),
        };
        let parts = (0..).map(|rank: usize| Part {
            count,
            index: rank % count,
        });
        numbers.into_iter().map(mark).zip(parts).collect()
    }

    /// The chain that gives out its ports.
    pub(crate) fn chain(self) -> String {
        format!("p{}_{}", self.count, self.index)
    }

    /// Its first and last port.
    pub(crate) fn ports(self) -> (usize, usize) {
        let size = (usize::from(u16::MAX) + 1 - usize::from(PORT_MIN)) / self.count;
        let first = usize::from(PORT_MIN) + self.index * size;
        (first, first + size - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_one_count_are_all_ports_once() {
        let mut counts = BTreeMap::<usize, Vec<(usize, usize)>>::new();
        for part in Part::all() {
            counts.entry(part.count).or_default().push(part.ports());
        }
        assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [2, 4, 8, 16]);
        for parts in counts.values() {
            assert_eq!(parts.first().map(|part| part.0), Some(1024));
            assert_eq!(parts.last().map(|part| part.1), Some(65535));
            assert!(parts.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0));
        }
    }
}
