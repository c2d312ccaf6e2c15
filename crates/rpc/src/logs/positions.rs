//! How far the lines of each task were read, so that a reading that broke off goes on without losing or repeating any.
//!
//! The lines of one task come in order, but several may have one time: a monitor stamps all it reads at once alike. So a place is a
//! time and how many lines of it were read.

use std::{collections::BTreeMap, time::Duration};

use skep_model::{NodeId, Timestamp};

/// Tasks whose place is known. Beyond, lines may be repeated after a break; a service has five tasks per slot.
const TASKS_MAX: usize = 65_536;
/// A node that begins anew is asked for what is so much older than its newest line: lines of different tasks may have overtaken each
/// other by the time it waits for the right order, and no more.
const OVERLAP: Duration = Duration::from_secs(2);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    nodes: BTreeMap<NodeId, Timestamp>,
    tasks: BTreeMap<(NodeId, String), Place>,
    /// What is skipped of nodes that began anew.
    repeated: BTreeMap<(NodeId, String), Place>,
}

/// The newest line of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    time: Timestamp,
    count: u64,
}

// === impl Positions ===

impl Positions {
    /// What an earlier reading had of each node.
    pub(crate) fn known(nodes: impl IntoIterator<Item = (NodeId, Timestamp)>) -> Self {
        Self {
            nodes: nodes.into_iter().collect(),
            ..Self::default()
        }
    }

    /// The newest line of each node.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (NodeId, Timestamp)> {
        self.nodes.iter().map(|(node, time)| (*node, *time))
    }

    /// A node begins anew. From when its lines are needed; `None` when nothing of it was read.
    pub(crate) fn begin_anew(&mut self, node_id: NodeId) -> Option<Timestamp> {
        let places = self
            .tasks
            .range((node_id, String::new())..)
            .take_while(|((node, _), _)| *node == node_id);
        let places: Vec<_> = places.map(|(key, place)| (key.clone(), *place)).collect();
        self.repeated.extend(places);
        let newest = self.nodes.get(&node_id)?;
        let overlap = i64::try_from(OVERLAP.as_nanos()).unwrap_or(i64::MAX);
        Some(Timestamp(newest.0.saturating_sub(overlap)))
    }

    /// Whether a line was not read before. Notes it.
    pub(crate) fn is_new(&mut self, node_id: NodeId, task: &str, time: Timestamp) -> bool {
        let key = (node_id, task.to_owned());
        if let Some(place) = self.repeated.get_mut(&key) {
            if time < place.time {
                return false;
            }
            if time == place.time && place.count > 0 {
                place.count -= 1;
                return false;
            }
            // From here on nothing was read.
            self.repeated.remove(&key);
        }
        let newest = self.nodes.entry(node_id).or_insert(time);
        *newest = time.max(*newest);
        let is_full = self.tasks.len() >= TASKS_MAX;
        match self.tasks.get_mut(&key) {
            Some(place) if place.time == time => place.count += 1,
            Some(place) => *place = Place { time, count: 1 },
            None if is_full => {}
            None => drop(self.tasks.insert(key, Place { time, count: 1 })),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use skep_model::Rng;

    use super::*;

    type Line = (&'static str, i64, &'static str);

    #[track_caller]
    fn check(positions: &mut Positions, node: NodeId, lines: &[Line], expect: &[&str]) {
        let mut is_new = |line: &&Line| positions.is_new(node, line.0, Timestamp(line.1));
        let texts: Vec<_> = lines
            .iter()
            .filter(|line| is_new(line))
            .map(|line| line.2)
            .collect();
        assert_eq!(texts, expect);
    }

    #[test]
    fn lines_of_one_time_are_told_apart_by_their_number() {
        let node = NodeId::random(&mut Rng::from_seed(1));
        let mut positions = Positions::default();
        assert_eq!(positions.begin_anew(node), None);
        let second = 1_000_000_000;
        let all = [
            ("a", 5 * second, "a1"),
            ("a", 9 * second, "a2"),
            ("b", 7 * second, "b1"),
            ("a", 9 * second, "a3"),
            ("a", 9 * second, "a4"),
            ("b", 9 * second, "b2"),
        ];
        check(&mut positions, node, &all[..4], &["a1", "a2", "b1", "a3"]);
        assert_eq!(positions.begin_anew(node), Some(Timestamp(7 * second)));
        check(&mut positions, node, &all, &["a4", "b2"]);
        assert_eq!(positions.begin_anew(node), Some(Timestamp(7 * second)));
        check(&mut positions, node, &all, &[]);
        check(&mut positions, node, &[("a", 3 * second, "new")], &[]);
        check(&mut positions, node, &[("a", 10 * second, "new")], &["new"]);
    }

    #[test]
    fn a_node_that_did_not_begin_anew_repeats_nothing() {
        let mut rng = Rng::from_seed(1);
        let (one, two) = (NodeId::random(&mut rng), NodeId::random(&mut rng));
        let mut positions = Positions::default();
        check(&mut positions, one, &[("a", 5, "x")], &["x"]);
        check(&mut positions, two, &[("a", 5, "x")], &["x"]);
        positions.begin_anew(one);
        check(&mut positions, two, &[("a", 4, "y")], &["y"]);
        check(&mut positions, one, &[("a", 5, "x")], &[]);
    }
}
