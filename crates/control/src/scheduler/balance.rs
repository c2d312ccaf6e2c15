//! Better places for running tasks of one service: the part of rebalancing that knows what nodes can take.
//!
//! A place is better when the service is spread better by it, label by label of its preferences and then node by node, or
//! as well while nodes as a whole are loaded more evenly. What that means, and why it ends, is told in
//! `docs/design/rebalance.md`.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use skep_model::{Node, NodeId, Task, TaskId, TaskState, Timestamp, constraint};
use skep_store::Store;

use super::{
    filter::Needs,
    fleet::{Fleet, counts_as_active},
    relation::{Relations, Rivals},
};

/// Nodes to move from that are tried, fullest first. More than the first only matter when preferences forbid each move
/// off the first; the cost is a look at every node for each.
const SOURCES_MAX: usize = 8;
/// Pairs of label values that are tried, the most uneven first. As above.
const PAIRS_MAX: usize = 256;

/// The nodes as they will be when all moves are done.
pub(crate) struct Balance<'a> {
    view: &'a Store,
    fleet: Fleet<'a>,
    rivals: Rivals,
    /// All tasks of each node.
    totals: Vec<u32>,
    planned: Vec<Planned>,
}

struct Planned {
    task: TaskId,
    from: usize,
    to: usize,
}

/// What a service has to offer.
pub(crate) struct Squad<'a> {
    /// Tasks that can be moved.
    pub(crate) movable: Vec<&'a Arc<Task>>,
    /// Tasks on their way, with their replacements.
    pub(crate) under_way: Vec<(&'a Arc<Task>, &'a Arc<Task>)>,
    /// Nodes that failed the service a short while ago.
    pub(crate) closed: BTreeSet<NodeId>,
}

/// A better place for a task.
pub(crate) struct Better<'a> {
    pub(crate) task: &'a Arc<Task>,
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    /// For people.
    pub(crate) reason: String,
}

struct Search<'s, 'a> {
    fleet: &'s Fleet<'a>,
    needs: &'s Needs<'s>,
    totals: &'s [u32],
    /// Tasks of the service on each node.
    counts: Vec<u32>,
    /// The task to move off each node that has one.
    movable: BTreeMap<usize, &'a Arc<Task>>,
    closed: &'s BTreeSet<NodeId>,
    may_take: &'s dyn Fn(&Node) -> bool,
}

/// From, to, and why.
type Found = (usize, usize, String);

// === impl Balance ===

impl<'a> Balance<'a> {
    pub(crate) fn read(view: &'a Store) -> Self {
        let fleet = Fleet::read(view);
        let totals = (0..fleet.len()).map(|index| fleet.get(index).active_count);
        Self {
            view,
            rivals: Rivals::read(view),
            totals: totals.collect(),
            fleet,
            planned: Vec::new(),
        }
    }

    /// Counts a move under way as done. What the old task holds is held until it has stopped.
    pub(crate) fn settle(&mut self, old: &Task, new: &Task) {
        let index = |task: &Task| task.node_id.and_then(|node| self.fleet.index_of(node));
        let (from, to) = (index(old), index(new));
        if let Some(from) = from.filter(|_| counts_as_active(old)) {
            self.totals[from] = self.totals[from].saturating_sub(1);
        }
        if let Some(to) = to.filter(|_| new.status.state < TaskState::Assigned) {
            self.totals[to] += 1;
            self.fleet.take(to, new);
        }
    }

    /// The best move of one task of the service, to a node that `may_take` it.
    pub(crate) fn best(
        &mut self,
        squad: &Squad<'a>,
        may_take: &dyn Fn(&Node) -> bool,
    ) -> Option<Better<'a>> {
        let is_planned = |id: TaskId| self.planned.iter().any(|planned| planned.task == id);
        let left = squad.movable.iter().copied();
        let left: Vec<&Arc<Task>> = left.filter(|task| !is_planned(task.id)).collect();
        let counts = self.counts(squad);
        if !self.is_worth_a_look(&left, &counts) {
            return None;
        }
        let sample = self.sample(left.first()?);
        let relations = Relations::read(self.view, &self.fleet, &self.rivals, &sample, &[]);
        let needs = Needs::of(&sample, relations);
        self.fleet.detail_all(self.view, &needs);
        let mut movable = BTreeMap::new();
        for task in left {
            if let Some(index) = task.node_id.and_then(|node| self.fleet.index_of(node)) {
                movable.insert(index, task);
            }
        }
        let search = Search {
            fleet: &self.fleet,
            needs: &needs,
            totals: &self.totals,
            counts,
            movable,
            closed: &squad.closed,
            may_take,
        };
        let preferences = needs.preferences().iter().map(String::as_str);
        let preferences: Vec<&str> = preferences
            .filter(|text| constraint::is_label(text))
            .collect();
        let all: Vec<usize> = (0..self.fleet.len()).collect();
        let (from, to, reason) = search.find(&all, &preferences)?;
        let task = search.movable[&from];
        let task_id = task.id;
        let better = Better {
            task,
            from: self.fleet.node_id(from),
            to: self.fleet.node_id(to),
            reason,
        };
        self.planned.push(Planned {
            task: task_id,
            from,
            to,
        });
        self.totals[from] = self.totals[from].saturating_sub(1);
        self.totals[to] += 1;
        self.fleet.take(to, &sample);
        Some(better)
    }

    /// A task as the service would make it now, with what is allocated to all its tasks.
    fn sample(&self, task: &Arc<Task>) -> Task {
        let mut sample = Task::clone(task);
        if let Some(service) = task.service_id.and_then(|id| self.view.service(id)) {
            sample.spec = Arc::clone(&service.spec.task);
            sample.spec_version = Some(service.spec_version);
        }
        let networks = &mut sample.networks;
        networks.retain(|place| !place.network.spec.is_node_network());
        sample
    }

    /// Tasks of the service on each node when all moves are done.
    fn counts(&self, squad: &Squad<'_>) -> Vec<u32> {
        let mut counts = vec![0; self.fleet.len()];
        let mut add = |task: &Task| {
            if let Some(index) = task.node_id.and_then(|node| self.fleet.index_of(node)) {
                counts[index] += 1;
            }
        };
        for task in &squad.movable {
            add(task);
        }
        for (_, new) in &squad.under_way {
            add(new);
        }
        let mine: BTreeSet<TaskId> = squad.movable.iter().map(|task| task.id).collect();
        let planned = self.planned.iter();
        for planned in planned.filter(|planned| mine.contains(&planned.task)) {
            counts[planned.from] -= 1;
            counts[planned.to] += 1;
        }
        counts
    }

    /// False when the counts alone show that no move helps: nearly always.
    fn is_worth_a_look(&self, movable: &[&Arc<Task>], counts: &[u32]) -> bool {
        let Some(first) = movable.first() else {
            return false;
        };
        let ready = (0..self.fleet.len()).filter(|index| self.fleet.get(*index).is_ready);
        let least = |of: &[u32]| {
            ready
                .clone()
                .map(|index| of[index])
                .min()
                .unwrap_or(u32::MAX)
        };
        let sources = movable.iter().filter_map(|task| task.node_id);
        let sources = sources.filter_map(|node| self.fleet.index_of(node));
        let most = |of: &[u32]| sources.clone().map(|index| of[index]).max().unwrap_or(0);
        let is_uneven = |of: &[u32]| most(of) >= least(of).saturating_add(2);
        !first.spec.placement.spread_over.is_empty() || is_uneven(counts) || is_uneven(&self.totals)
    }
}

// === impl Search ===

impl Search<'_, '_> {
    /// Among `nodes`, which share the values of all labels before `preferences`.
    fn find(&self, nodes: &[usize], preferences: &[&str]) -> Option<Found> {
        let Some((preference, rest)) = preferences.split_first() else {
            return self.between_nodes(nodes);
        };
        let groups = self.groups(nodes, preference);
        self.between_groups(preference, &groups, rest).or_else(|| {
            let mut groups = groups.iter();
            groups.find_map(|(_, _, nodes)| self.find(nodes, rest))
        })
    }

    /// The nodes by a label's value, with the tasks of the service there.
    fn groups<'n>(&'n self, nodes: &[usize], preference: &str) -> Vec<(u64, &'n str, Vec<usize>)> {
        let mut by_value: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for index in nodes {
            let node = self.fleet.get(*index).node;
            let value = constraint::spread_value(preference, node).unwrap_or("");
            by_value.entry(value).or_default().push(*index);
        }
        let sum = |nodes: &[usize]| {
            nodes
                .iter()
                .map(|index| u64::from(self.counts[*index]))
                .sum()
        };
        let groups = by_value.into_iter();
        groups
            .map(|(value, nodes)| (sum(&nodes), value, nodes))
            .collect()
    }

    /// From a group to one with at least two tasks less.
    fn between_groups(
        &self,
        preference: &str,
        groups: &[(u64, &str, Vec<usize>)],
        rest: &[&str],
    ) -> Option<Found> {
        let mut fullest: Vec<&(u64, &str, Vec<usize>)> = groups.iter().collect();
        fullest.sort_by_key(|(sum, value, _)| (Reverse(*sum), *value));
        let mut emptiest: Vec<&(u64, &str, Vec<usize>)> = groups.iter().collect();
        emptiest.sort_by_key(|(sum, value, _)| (*sum, *value));
        let mut tries = 0;
        for (more, from_value, from_nodes) in fullest {
            let Some(from) = self.source(from_nodes, rest) else {
                continue;
            };
            let better = emptiest.iter().take_while(|(less, ..)| less + 2 <= *more);
            for (less, to_value, to_nodes) in better {
                tries += 1;
                if tries > PAIRS_MAX {
                    return None;
                }
                if let Some(to) = self.target(to_nodes, rest, from) {
                    let reason = format!(
                        "{}: {more} tasks of the service where {preference} is `{from_value}`, {less} \
                         where it is `{to_value}`",
                        self.headline(from, to)
                    );
                    return Some((from, to, reason));
                }
            }
        }
        None
    }

    /// The node to take a task from: of the fullest group, label by label, the fullest.
    fn source(&self, nodes: &[usize], preferences: &[&str]) -> Option<usize> {
        let Some((preference, rest)) = preferences.split_first() else {
            let movable = nodes
                .iter()
                .filter(|index| self.movable.contains_key(*index));
            let key = |index: &usize| (self.counts[*index], self.totals[*index], Reverse(*index));
            return movable.max_by_key(|index| key(index)).copied();
        };
        let mut groups = self.groups(nodes, preference);
        groups.sort_by_key(|(sum, value, _)| (Reverse(*sum), *value));
        let mut groups = groups.iter();
        groups.find_map(|(_, _, nodes)| self.source(nodes, rest))
    }

    /// The node to give a task: of the emptiest group, label by label, the emptiest that takes it.
    fn target(&self, nodes: &[usize], preferences: &[&str], from: usize) -> Option<usize> {
        let Some((preference, rest)) = preferences.split_first() else {
            return self.emptiest(nodes.iter().copied(), from);
        };
        let mut groups = self.groups(nodes, preference);
        groups.sort_by_key(|(sum, value, _)| (*sum, *value));
        let mut groups = groups.iter();
        groups.find_map(|(_, _, nodes)| self.target(nodes, rest, from))
    }

    /// From a node to one with two tasks of the service less, or with one less and two of all.
    fn between_nodes(&self, nodes: &[usize]) -> Option<Found> {
        let mut sources: Vec<usize> = nodes.to_vec();
        sources.retain(|index| self.movable.contains_key(index));
        sources.sort_by_key(|i| (Reverse(self.counts[*i]), Reverse(self.totals[*i]), *i));
        for from in sources.iter().copied().take(SOURCES_MAX) {
            let less = nodes.iter().copied();
            let less = less.filter(|to| self.counts[*to] + 2 <= self.counts[from]);
            if let Some(to) = self.emptiest(less, from) {
                let (more, less) = (self.counts[from], self.counts[to]);
                let headline = self.headline(from, to);
                let reason = format!("{headline}: {more} tasks of the service there, {less} here");
                return Some((from, to, reason));
            }
        }
        sources.sort_by_key(|i| (Reverse(self.totals[*i]), Reverse(self.counts[*i]), *i));
        for from in sources.into_iter().take(SOURCES_MAX) {
            let less = nodes.iter().copied().filter(|to| {
                self.counts[*to] + 1 == self.counts[from]
                    && self.totals[*to] + 2 <= self.totals[from]
            });
            if let Some(to) = self.emptiest(less, from) {
                let (more, less) = (self.totals[from], self.totals[to]);
                let headline = self.headline(from, to);
                return Some((
                    from,
                    to,
                    format!("{headline}: {more} tasks there, {less} here"),
                ));
            }
        }
        None
    }

    fn emptiest(&self, candidates: impl Iterator<Item = usize>, from: usize) -> Option<usize> {
        let mut best: Option<(u32, u32, usize)> = None;
        for index in candidates {
            let key = (self.counts[index], self.totals[index], index);
            if best.is_none_or(|best| key < best) && self.takes(index, from) {
                best = Some(key);
            }
        }
        best.map(|(.., index)| index)
    }

    /// Whether a node can take a task, and is wanted no less than where the task is.
    fn takes(&self, index: usize, from: usize) -> bool {
        let candidate = self.fleet.get(index);
        let unmet = |index| self.needs.relations.unmet(self.fleet, index);
        (self.may_take)(candidate.node)
            && !self.closed.contains(&candidate.id)
            && self
                .needs
                .check(self.fleet, index, self.counts[index])
                .is_none()
            && unmet(index) <= unmet(from)
    }

    fn headline(&self, from: usize, to: usize) -> String {
        let name = |index: usize| {
            let node = self.fleet.get(index).node;
            match node.hostname() {
                "" => node.id.to_string(),
                name => name.to_owned(),
            }
        };
        format!("rebalanced from {} to {}", name(from), name(to))
    }
}

/// When what a node says of itself or what is said of it was last written: it joined, went, came back or was changed.
pub(crate) fn changed_at(node: &Node) -> Timestamp {
    node.meta.created_at.max(node.meta.updated_at)
}
