//! Where tasks of other services are, as far as it matters to a group of tasks: what they must be near to, what they must be
//! apart from, and what they would rather have.
//!
//! Nodes fall into places by a rule's label. While a group is placed only its own tasks come, so a place that has become
//! forbidden stays so, and one task of a group that wants to be with itself opens its place for the rest.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::{
    Annotations, ServiceId, Task, TaskState,
    constraint::Constraint,
    reserved::service::placement::{ANTI_AFFINITY, Affinity, PlacementPolicy, Strategy, Wish},
};
use skep_store::Store;

use super::fleet::{Fleet, counts_as_active};
use crate::plan::Change;

/// Services whose tasks keep others away.
#[derive(Default)]
pub(super) struct Rivals(Vec<(ServiceId, Vec<Affinity>)>);

/// What a group of tasks has to do with others. Empty for nearly all.
#[derive(Default)]
pub(super) struct Relations {
    pub(super) strategy: Strategy,
    rules: Vec<Rule>,
    wishes: Vec<(Constraint, u32)>,
    weight_sum: u32,
    /// Placing a task of the group can make nodes better or worse.
    is_dynamic: bool,
}

/// One affinity, looked up.
struct Rule {
    kind: Kind,
    /// The place of each node; `None`: in none.
    place_of: Vec<Option<u32>>,
    /// Tasks meant, in each place.
    counts: Vec<u32>,
    total: u64,
    /// Whether the group's own tasks are meant.
    is_own: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Near,
    Apart,
    PreferNear(u32),
    PreferApart(u32),
}

/// The labels that count: those of the service as it is now, as a task that waits has those of the day it was made.
pub(super) fn annotations_of<'a>(view: &'a Store, task: &'a Task) -> &'a Annotations {
    let service = task.service_id.and_then(|id| view.service(id));
    service.map_or(&task.service_annotations, |service| {
        &service.spec.annotations
    })
}

// === impl Rivals ===

impl Rivals {
    pub(super) fn read(view: &Store) -> Self {
        let with_rules = view.services().filter_map(|service| {
            let labels = &service.spec.annotations.labels;
            labels.get(ANTI_AFFINITY)?;
            Some((service.id, PlacementPolicy::of(labels).apart))
        });
        Self(with_rules.collect())
    }
}

// === impl Relations ===

impl Relations {
    /// What tasks like `task` have to do with others. `changes` are placements that are not in `view` yet.
    pub(super) fn read(
        view: &Store,
        fleet: &Fleet<'_>,
        rivals: &Rivals,
        task: &Task,
        changes: &[Change],
    ) -> Self {
        let own = annotations_of(view, task);
        let policy = PlacementPolicy::of(&own.labels);
        let mut relations = Self {
            strategy: policy.strategy,
            ..Self::default()
        };
        let mut add = |kind, affinity: &Affinity, others: Option<ServiceId>| {
            let rule = Rule::read((view, changes), fleet, kind, affinity, (task, own), others);
            relations.rules.push(rule);
        };
        for affinity in &policy.near {
            add(Kind::Near, affinity, None);
        }
        for affinity in &policy.apart {
            add(Kind::Apart, affinity, None);
        }
        for (rival, apart) in &rivals.0 {
            let is_other = Some(*rival) != task.service_id;
            for affinity in apart.iter().filter(|a| is_other && a.who.is(own)) {
                add(Kind::Apart, affinity, Some(*rival));
            }
        }
        for preference in &policy.prefer {
            match &preference.wish {
                Wish::Node(_) => {}
                Wish::Near(affinity) => add(Kind::PreferNear(preference.weight), affinity, None),
                Wish::Apart(affinity) => add(Kind::PreferApart(preference.weight), affinity, None),
            }
        }
        for preference in policy.prefer {
            relations.weight_sum += preference.weight;
            if let Wish::Node(constraint) = preference.wish {
                relations.wishes.push((constraint, preference.weight));
            }
        }
        let mut rules = relations.rules.iter();
        relations.is_dynamic = rules.any(|rule| rule.is_own && rule.kind.is_preference());
        relations
    }

    /// Whether tasks must be where others are.
    pub(super) fn wants_company(&self) -> bool {
        self.rules.iter().any(|rule| rule.kind == Kind::Near)
    }

    /// Whether what must be near is.
    pub(super) fn is_near(&self, index: usize) -> bool {
        let mut near = self.rules.iter().filter(|rule| rule.kind == Kind::Near);
        // The first of those that want to be together has nobody to be with.
        near.all(|rule| rule.count_at(index) > 0 || rule.is_own && rule.total == 0)
    }

    /// Whether what must be apart is.
    pub(super) fn is_apart(&self, index: usize) -> bool {
        let mut apart = self.rules.iter().filter(|rule| rule.kind == Kind::Apart);
        apart.all(|rule| rule.count_at(index) == 0)
    }

    /// Weight of the preferences a node does not meet.
    pub(super) fn unmet(&self, fleet: &Fleet<'_>, index: usize) -> u32 {
        if self.weight_sum == 0 {
            return 0;
        }
        let wishes = self.wishes.iter();
        let nodes = wishes
            .filter(|(constraint, _)| constraint.matches(fleet.get(index).node))
            .map(|(_, weight)| *weight);
        let others = self.rules.iter().map(|rule| match rule.kind {
            Kind::PreferNear(weight) if rule.count_at(index) > 0 => weight,
            Kind::PreferApart(weight) if rule.count_at(index) == 0 => weight,
            Kind::Near | Kind::Apart | Kind::PreferNear(_) | Kind::PreferApart(_) => 0,
        });
        self.weight_sum - nodes.chain(others).sum::<u32>()
    }

    /// Whether the ranks of nodes change with what is placed.
    pub(super) fn is_dynamic(&self) -> bool {
        self.is_dynamic
    }

    /// Counts a task of the group that was placed; true when that makes other nodes better.
    pub(super) fn note(&mut self, index: usize) -> bool {
        let mut is_better = false;
        for rule in self.rules.iter_mut().filter(|rule| rule.is_own) {
            rule.total += 1;
            if let Some(place) = rule.place_of[index].and_then(|place| usize::try_from(place).ok())
            {
                rule.counts[place] += 1;
                is_better |= rule.counts[place] == 1 && matches!(rule.kind, Kind::PreferNear(_));
            }
        }
        is_better
    }
}

// === impl Kind ===

impl Kind {
    fn is_preference(self) -> bool {
        matches!(self, Self::PreferNear(_) | Self::PreferApart(_))
    }
}

// === impl Rule ===

impl Rule {
    /// Counts tasks of the services meant by `affinity`, or of `rival` alone.
    fn read(
        (view, changes): (&Store, &[Change]),
        fleet: &Fleet<'_>,
        kind: Kind,
        affinity: &Affinity,
        (task, own): (&Task, &Annotations),
        rival: Option<ServiceId>,
    ) -> Self {
        let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
        let mut place_of = Vec::with_capacity(fleet.len());
        for index in 0..fleet.len() {
            let place = affinity.over.place(fleet.get(index).node);
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            place_of.push(place.map(|place| *numbers.entry(place).or_insert(next)));
        }
        let meant: BTreeSet<ServiceId> = match rival {
            Some(rival) => [rival].into(),
            None => {
                let services = view.services();
                let meant = services.filter(|service| affinity.who.is(&service.spec.annotations));
                meant.map(|service| service.id).collect()
            }
        };
        let mut rule = Self {
            kind,
            counts: vec![0; numbers.len()],
            place_of,
            total: 0,
            is_own: rival.is_none() && task.service_id.is_some() && affinity.who.is(own),
        };
        for service in &meant {
            for task in view.tasks_with_node_of_service(*service) {
                rule.count(fleet, task);
            }
        }
        for change in changes {
            if let Change::UpdateTask(task) = change
                && task.status.state == TaskState::Assigned
                && task.service_id.is_some_and(|id| meant.contains(&id))
            {
                rule.count(fleet, task);
            }
        }
        rule
    }

    fn count(&mut self, fleet: &Fleet<'_>, task: &Task) {
        if !counts_as_active(task) {
            return;
        }
        self.total += 1;
        let index = task.node_id.and_then(|node| fleet.index_of(node));
        let place = index.and_then(|index| self.place_of[index]);
        if let Some(place) = place.and_then(|place| usize::try_from(place).ok()) {
            self.counts[place] += 1;
        }
    }

    fn count_at(&self, index: usize) -> u32 {
        let place = self.place_of[index].and_then(|place| usize::try_from(place).ok());
        place.map_or(0, |place| self.counts[place])
    }
}
