//! Spreads or packs the tasks of one group: the emptiest branch of every preference, then the best node.
//!
//! Each choice costs the logarithm of the number of branches and of nodes. Branches and nodes that
//! tie are taken in the order of their label's value and of their id, so that the same state gives
//! the same choice.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use skep_model::{constraint, reserved::service::placement::Strategy, validate::PREFERENCES_MAX};

use super::{
    filter::{Needs, Tally},
    fleet::{Counts, Fleet},
};

/// The nodes that can take tasks of a group, by preference.
pub(super) struct Spread {
    counts: Counts,
    root: Branch,
}

/// Nodes that share the values of the labels above them.
enum Branch {
    Fork {
        /// Tasks of the service in each branch that may have room, and its index.
        order: BinaryHeap<Reverse<(u64, usize)>>,
        branches: Vec<Branch>,
    },
    Leaf {
        nodes: BinaryHeap<Reverse<Rank>>,
    },
}

/// How good a node is; less is better. Compared in this order, the index breaks ties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Recent failures, if too many, then the weight of preferences not met.
    demerit: u32,
    /// Tasks of the service, or how empty the node is when tasks are packed.
    crowd: u32,
    /// All tasks, counted down when tasks are packed.
    active: u32,
    index: u32,
}

/// Bits of [`Rank::demerit`] for preferences: their weights add up to at most 3200.
const UNMET_BITS: u32 = 16;
/// Least good weight of a node for packing: full CPU and full memory are 100 each.
const FULL: u32 = 200;

// === impl Spread ===

impl Spread {
    pub(super) fn new(fleet: &Fleet<'_>, needs: &Needs<'_>, counts: Counts) -> Self {
        let root = Self::grow(fleet, needs, &counts);
        Self { counts, root }
    }

    fn grow(fleet: &Fleet<'_>, needs: &Needs<'_>, counts: &Counts) -> Branch {
        // Preferences on anything but labels are ignored, as in Swarm.
        let preferences: Vec<&str> = needs
            .preferences()
            .iter()
            .map(String::as_str)
            .filter(|text| constraint::is_label(text))
            // No spec has more, unless it was accepted by Swarm. Each is a level of the tree, and of the stack.
            .take(PREFERENCES_MAX)
            .collect();
        let all: Vec<usize> = (0..fleet.len()).collect();
        Branch::grow(fleet, needs, counts, &preferences, all)
    }

    /// The node for the next task; it is taken to get the task. `None` when there is none.
    pub(super) fn choose(&mut self, fleet: &Fleet<'_>, needs: &mut Needs<'_>) -> Option<usize> {
        let index = self.root.choose(fleet, needs, &mut self.counts)?;
        if needs.relations.note(index) {
            // A place got its first task that others want to be near.
            self.root = Self::grow(fleet, needs, &self.counts);
        }
        Some(index)
    }

    /// Why the nodes do not take another task.
    pub(super) fn tally(&self, fleet: &Fleet<'_>, needs: &Needs<'_>) -> Tally {
        let mut tally = Tally::default();
        for (index, count) in self.counts.of_service.iter().enumerate() {
            if let Some(failed) = needs.check(fleet, index, *count) {
                tally.add(failed);
            }
        }
        tally
    }
}

// === impl Branch ===

impl Branch {
    fn grow(
        fleet: &Fleet<'_>,
        needs: &Needs<'_>,
        counts: &Counts,
        preferences: &[&str],
        nodes: Vec<usize>,
    ) -> Self {
        let Some((preference, rest)) = preferences.split_first() else {
            let ranks = nodes.into_iter().filter_map(|index| {
                let count = counts.of_service[index];
                let is_fit = needs.check(fleet, index, count).is_none();
                is_fit.then(|| Reverse(Rank::new(fleet, needs, counts, index)))
            });
            return Self::Leaf {
                nodes: ranks.collect::<Vec<_>>().into(),
            };
        };
        let mut by_value: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for index in nodes {
            let node = fleet.get(index).node;
            let value = constraint::spread_value(preference, node).unwrap_or("");
            by_value.entry(value).or_default().push(index);
        }
        let mut order = Vec::new();
        let mut branches = Vec::new();
        for nodes in by_value.into_values() {
            // Tasks on nodes that take no more count too: they are there.
            let tasks = nodes.iter().map(|i| u64::from(counts.of_service[*i])).sum();
            order.push(Reverse((tasks, branches.len())));
            branches.push(Self::grow(fleet, needs, counts, rest, nodes));
        }
        Self::Fork {
            order: order.into(),
            branches,
        }
    }

    fn choose(
        &mut self,
        fleet: &Fleet<'_>,
        needs: &Needs<'_>,
        counts: &mut Counts,
    ) -> Option<usize> {
        match self {
            Self::Fork { order, branches } => {
                while let Some(mut emptiest) = order.peek_mut() {
                    let Reverse((tasks, branch)) = *emptiest;
                    if let Some(index) = branches[branch].choose(fleet, needs, counts) {
                        *emptiest = Reverse((tasks + 1, branch));
                        return Some(index);
                    }
                    // Tasks only come, so a branch without room stays so.
                    std::collections::binary_heap::PeekMut::pop(emptiest);
                }
                None
            }
            Self::Leaf { nodes } => {
                while let Some(mut best) = nodes.peek_mut() {
                    let Reverse(rank) = *best;
                    let index = rank.index();
                    if !needs.still_fits(fleet, index, counts.of_service[index]) {
                        std::collections::binary_heap::PeekMut::pop(best);
                        continue;
                    }
                    if needs.relations.is_dynamic() {
                        let actual = Rank::new(fleet, needs, counts, index);
                        if actual > rank {
                            *best = Reverse(actual);
                            continue;
                        }
                    }
                    counts.of_service[index] += 1;
                    match needs.relations.strategy {
                        Strategy::Spread => {
                            *best = Reverse(Rank {
                                crowd: rank.crowd + 1,
                                active: rank.active + 1,
                                ..rank
                            });
                        }
                        // It is fuller now, so it stays the best.
                        Strategy::BinPack => {}
                    }
                    return Some(index);
                }
                None
            }
        }
    }
}

// === impl Rank ===

impl Rank {
    fn new(fleet: &Fleet<'_>, needs: &Needs<'_>, counts: &Counts, index: usize) -> Self {
        let penalty = counts.penalty[index].min(u32::MAX >> UNMET_BITS);
        let active = fleet.get(index).active_count;
        let (crowd, active) = match needs.relations.strategy {
            Strategy::Spread => (counts.of_service[index], active),
            Strategy::BinPack => (
                FULL - needs.fullness(fleet, index).min(FULL),
                u32::MAX - active,
            ),
        };
        Self {
            demerit: penalty << UNMET_BITS | needs.relations.unmet(fleet, index),
            crowd,
            active,
            index: u32::try_from(index).expect("fewer than four billion nodes"),
        }
    }

    fn index(self) -> usize {
        usize::try_from(self.index).expect("an index fits usize")
    }
}
