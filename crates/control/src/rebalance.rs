//! Moves running tasks to where their service is spread better, a few at a time, if the cluster's labels ask for it.
//!
//! It only makes replacements, bound to the node they are for. How the old task and its replacement change places is told
//! in `drain.rs`, when a replacement is given up in `slot.rs`. What is better, and why moves end, is told in
//! `docs/design/rebalance.md`.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use skep_model::{
    Annotations, Availability, Cluster, MountKind, Node, NodeId, NodeState, RestartCondition, Rng,
    Service, ServiceId, ServiceMode, Slot, Task, TaskId, TaskState, Timestamp, UpdateOrder,
    reserved::{
        rebalance::{Mode, ONCE, RebalancePolicy},
        service::placement::{Affinity, PlacementPolicy, Rebalance, Strategy},
        task::{MOVE_REASON, MOVES, moved_by},
    },
};
use skep_store::Store;

use crate::{
    drain,
    key::Key,
    plan::{Change, Plan, Wait},
    revision::{Template, is_dirty, is_live, is_lost, node_of, status_time},
    scheduler::balance::{Balance, Better, Squad, changed_at},
    update,
};

/// How long a node must have been as it is before tasks move there: nodes that come and go would cost two moves each time.
pub(crate) const SETTLE_TIME: Duration = Duration::from_secs(10);
/// How long after a node joined, returned or was changed tasks move there in mode `on-join`. Long enough for a budget of
/// one to fill a node with slow images; a later imbalance is nobody's return.
pub(crate) const JOIN_WINDOW: Duration = Duration::from_secs(15 * 60);
/// How often an imbalance is looked for, as scaling down makes one without any node having changed.
pub(crate) const LOOK_PERIOD: Duration = Duration::from_secs(10);
/// How long a node where the service failed, or a move was given up, gets none of its tasks.
pub(crate) const CLOSED_TIME: Duration = Duration::from_secs(5 * 60);
/// Moves that are shown before anybody asked for them.
pub const PREVIEW_MAX: usize = 1000;

/// A move that would be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The task that moves.
    pub task: TaskId,
    /// Its service.
    pub service: ServiceId,
    /// Its slot.
    pub slot: u64,
    /// Where it is.
    pub from: NodeId,
    /// Where its replacement would be.
    pub to: NodeId,
    /// Why, for people.
    pub reason: String,
}

pub(crate) fn reconcile(view: &Store, now: Timestamp, rng: &mut Rng) -> Plan {
    let mut plan = Plan::default();
    let Some(cluster) = view.cluster() else {
        return plan;
    };
    let policy = RebalancePolicy::of(&cluster.spec.annotations.labels);
    if policy.mode == Mode::Off && !policy.is_once {
        return plan;
    }
    let mut round = Round::read(view);
    let under_way: usize = round.services.iter().map(|(_, s)| s.under_way_count).sum();
    round.explain(&mut plan);
    let may_take = |node: &Node| may_take(&policy, node, now);
    let mut budget = policy.budget.saturating_sub(under_way);
    let services = std::mem::take(&mut round.services);
    for (service, standing) in &services {
        let Some(squad) = standing.squad(view, service, now, &round) else {
            continue;
        };
        let mut free = update::workers(service).saturating_sub(standing.under_way_count);
        while budget > 0 && free > 0 {
            let Some(better) = round.balance.best(&squad, &may_take) else {
                break;
            };
            begin(view, service, &better, (now, rng), &mut plan);
            budget -= 1;
            free -= 1;
        }
    }
    let is_watched = policy.is_once || policy.mode == Mode::Continuous;
    let is_fresh = |node: &Arc<Node>| now.since(changed_at(node)) < JOIN_WINDOW;
    if is_watched || view.nodes().any(is_fresh) {
        plan.wake_by(now + LOOK_PERIOD);
    }
    if policy.is_once && plan.changes.is_empty() && under_way == 0 && all_settled(view, now) {
        plan.changes.push(finish(cluster));
    }
    plan
}

/// The moves that would be made one after the other if each went well, whatever the cluster's labels say.
pub fn preview(view: &Store, now: Timestamp) -> Vec<Move> {
    let mut round = Round::read(view);
    let services = std::mem::take(&mut round.services);
    let mut moves = Vec::new();
    let mut has_moved = true;
    // A move of one service can make room for evener nodes with another's.
    while has_moved {
        has_moved = false;
        for (service, standing) in &services {
            let Some(squad) = standing.squad(view, service, now, &round) else {
                continue;
            };
            while let Some(better) = round.balance.best(&squad, &|_| true) {
                has_moved = true;
                moves.push(Move {
                    task: better.task.id,
                    service: service.id,
                    slot: better.task.slot,
                    from: better.from,
                    to: better.to,
                    reason: better.reason,
                });
                if moves.len() >= PREVIEW_MAX {
                    return moves;
                }
            }
        }
    }
    moves
}

/// All services and nodes, as they will be when the moves under way are done.
struct Round<'a> {
    balance: Balance<'a>,
    services: Vec<(&'a Arc<Service>, Standing<'a>)>,
    /// Whose tasks others must be near to, with those others.
    wanted: Vec<(ServiceId, Affinity)>,
}

/// The tasks of a service.
#[derive(Default)]
struct Standing<'a> {
    /// Those that serve and are as the service wants them.
    serving: Vec<&'a Arc<Task>>,
    /// Those that are moving, with their replacements.
    moving: Vec<(&'a Arc<Task>, &'a Arc<Task>)>,
    /// Moves that are not done: the old task has not stopped or the new one does not run.
    under_way_count: usize,
    /// Slots with anything else.
    unsettled_count: usize,
    ended: Vec<&'a Arc<Task>>,
}

// === impl Round ===

impl<'a> Round<'a> {
    fn read(view: &'a Store) -> Self {
        let mut balance = Balance::read(view);
        let mut services = Vec::new();
        let mut wanted = Vec::new();
        for service in view.services() {
            let policy = PlacementPolicy::of(&service.spec.annotations.labels);
            wanted.extend(
                policy
                    .near
                    .into_iter()
                    .map(|affinity| (service.id, affinity)),
            );
            if !matches!(service.spec.mode, ServiceMode::Replicated { .. }) {
                continue;
            }
            let standing = Standing::read(view, service);
            for (old, new) in &standing.moving {
                balance.settle(old, new);
            }
            services.push((service, standing));
        }
        Self {
            balance,
            services,
            wanted,
        }
    }

    fn explain(&self, plan: &mut Plan) {
        let moving = self.services.iter().flat_map(|(_, s)| &s.moving);
        for (old, new) in moving.filter(|(old, _)| is_live(old)) {
            plan.report.push_with(|| Wait::Replacement {
                task: old.id,
                replacement: new.id,
            });
        }
    }

    /// Whether tasks of others go where this service's are; they would be left behind.
    fn is_wanted(&self, service: &Service) -> bool {
        let annotations = &service.spec.annotations;
        let mut wanted = self.wanted.iter();
        wanted.any(|(_, affinity)| affinity.who.is(annotations))
    }
}

// === impl Standing ===

impl<'a> Standing<'a> {
    fn read(view: &'a Store, service: &'a Service) -> Self {
        let mut standing = Self::default();
        let tasks: Vec<&Arc<Task>> = view.tasks_of_service(service.id).collect();
        for slot in tasks.chunk_by(|a, b| a.slot == b.slot) {
            standing.add(view, service, slot);
        }
        standing
    }

    fn add(&mut self, view: &'a Store, service: &Service, slot: &[&'a Arc<Task>]) {
        let live: Vec<&Arc<Task>> = slot.iter().copied().filter(|t| is_live(t)).collect();
        self.ended.extend(slot.iter().filter(|task| !is_live(task)));
        let mut movers = live.iter().filter(|task| moved_by(task).is_some());
        let moving = movers.find_map(|new| {
            let old = slot.iter().find(|old| moved_by(new) == Some(old.id))?;
            let is_done = new.status.state == TaskState::Running && old.status.state.is_terminal();
            (!is_done).then_some((*old, *new))
        });
        if let Some(pair) = moving {
            self.moving.push(pair);
            self.under_way_count += 1;
            return;
        }
        match live.as_slice() {
            [task]
                if task.status.state == TaskState::Running
                    && !is_lost(node_of(view, task))
                    && !is_dirty(view, service, task) =>
            {
                self.serving.push(*task);
            }
            [] => {}
            _ => self.unsettled_count += 1,
        }
    }

    /// What may be moved; `None` when the service is to be left alone.
    fn squad(
        &self,
        view: &Store,
        service: &Service,
        now: Timestamp,
        round: &Round<'_>,
    ) -> Option<Squad<'a>> {
        let ServiceMode::Replicated { replicas } = service.spec.mode else {
            return None;
        };
        let settled = u64::try_from(self.serving.len() + self.moving.len()).ok()?;
        let is_whole = self.unsettled_count == 0 && settled == replicas;
        let is_updating = update::is_active(service) || update::is_paused(service);
        if !is_whole || is_updating || !is_movable(service) || round.is_wanted(service) {
            return None;
        }
        Some(Squad {
            movable: self.serving.clone(),
            under_way: self.moving.clone(),
            closed: self.closed(view, service, now),
        })
    }

    /// Nodes where the service's revision failed a short while ago, or a move to which was given up.
    fn closed(&self, view: &Store, service: &Service, now: Timestamp) -> BTreeSet<NodeId> {
        let serves = |id: TaskId| view.task(id).is_some_and(|task| is_live(task));
        let ended = self.ended.iter();
        let recent = ended.filter(|task| now.since(status_time(task)) < CLOSED_TIME);
        // What ended on a node that was lost had been replaced before.
        let was_replaced = |task: &Task| {
            let slot = Slot::Number(task.slot);
            let mut others = view.tasks_in_slot(service.id, slot);
            others.any(|other| {
                let made_at = other.meta.created_at;
                made_at > task.meta.created_at && made_at < status_time(task)
            })
        };
        let failed = recent.filter(|task| {
            let is_failure = task.spec_version == Some(service.spec_version)
                && matches!(task.status.state, TaskState::Failed | TaskState::Rejected)
                && !was_replaced(task);
            is_failure || moved_by(task).is_some_and(serves)
        });
        failed.filter_map(|task| task.node_id).collect()
    }
}

/// Whether the service allows its tasks to be moved at all.
fn is_movable(service: &Service) -> bool {
    let spec = &service.spec.task;
    let policy = PlacementPolicy::of(&service.spec.annotations.labels);
    let keeps_nothing = || {
        let mounts = spec.container.mounts.iter();
        mounts.map(|mount| mount.kind).all(|kind| match kind {
            MountKind::Tmpfs => true,
            MountKind::Bind | MountKind::Volume | MountKind::NamedPipe | MountKind::Cluster => {
                false
            }
        })
    };
    let is_allowed = match policy.rebalance {
        Rebalance::On => true,
        Rebalance::Off => false,
        Rebalance::Auto => keeps_nothing(),
    };
    is_allowed
        && policy.strategy == Strategy::Spread
        && spec.restart.condition != RestartCondition::None
}

fn is_settled(node: &Node, now: Timestamp) -> bool {
    now.since(changed_at(node)) >= SETTLE_TIME
}

fn may_take(policy: &RebalancePolicy, node: &Node, now: Timestamp) -> bool {
    let is_wanted = match policy.mode {
        Mode::Continuous => true,
        Mode::OnJoin => policy.is_once || now.since(changed_at(node)) < JOIN_WINDOW,
        Mode::Off => policy.is_once,
    };
    is_wanted && is_settled(node, now)
}

/// Whether no node is about to become one to move to.
fn all_settled(view: &Store, now: Timestamp) -> bool {
    let is_open = |node: &Node| {
        node.status.state == NodeState::Ready && node.spec.availability == Availability::Active
    };
    view.nodes()
        .all(|node| !is_open(node) || is_settled(node, now))
}

/// Makes the replacement. The old task serves on, see `drain.rs`.
fn begin(
    view: &Store,
    service: &Service,
    better: &Better<'_>,
    (now, rng): (Timestamp, &mut Rng),
    plan: &mut Plan,
) {
    let desired_state = match drain::order(service) {
        UpdateOrder::StartFirst => TaskState::Running,
        UpdateOrder::StopFirst => TaskState::Ready,
    };
    let slot = Slot::Number(better.task.slot);
    let mut task = Template::new(view, service).task(slot, desired_state, now, rng);
    task.node_id = Some(better.to);
    let labels = [
        (MOVES.to_owned(), better.task.id.to_string()),
        (MOVE_REASON.to_owned(), better.reason.clone()),
    ];
    task.annotations = Arc::new(Annotations {
        labels: labels.into(),
        ..Annotations::default()
    });
    plan.changes.push(Change::CreateTask(Arc::new(task)));
    plan.follow_up.push(Key::Slot(service.id, slot));
}

/// What was asked for once is done.
fn finish(cluster: &Cluster) -> Change {
    let mut cluster = Cluster::clone(cluster);
    cluster.spec.annotations.labels.remove(ONCE);
    Change::UpdateCluster(Box::new(cluster))
}
