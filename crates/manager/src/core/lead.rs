//! What a leader has and a follower has not: queues, marks, the batch under way.

use std::{collections::VecDeque, time::Duration};

use skep_control::{
    Dirty, Reconcile, WRITES_PER_ENTRY_MAX, Wakes, drive_by, network::NO_SLICE_MESSAGE,
};
use skep_model::{NodeId, Rng, Task, TaskId, TaskState, TaskStatus, Timestamp};
use skep_store::{Change, Object, Store, Transaction};

use super::{
    certificates, cluster,
    dispatcher::{Dispatcher, Registration},
    keys, networks, nodes,
    roles::Roles,
    rotation, secrets, services, stacks,
};
use crate::{
    command::{Answer, Command, CommandError},
    event::{Bootstrap, Effect, ReplyTo, RequestId},
    group::Group,
    vault::Vault,
};

/// Commands taken into one batch: enough that one disk write serves every waiting client, few
/// enough that a batch stays well below SwarmKit's 1.5 MiB transaction limit.
pub(super) const BATCH_COMMANDS_MAX: usize = 256;
/// Commands that may wait for the next batch; more means the disk has stalled, so clients are told.
pub(super) const QUEUED_COMMANDS_MAX: usize = 10_000;
/// Status reports (one per message of an agent) taken into one batch.
pub(super) const BATCH_REPORTS_MAX: usize = 256;
/// Status reports that may wait; an agent whose report is refused repeats it.
pub(super) const QUEUED_REPORTS_MAX: usize = 50_000;
/// Period of the full sweep that makes up for any missed change mark.
pub(super) const SWEEP_PERIOD: Duration = Duration::from_secs(60);

/// The latest time in the store: what is written next must be later, whatever the clock says.
pub(super) fn last_write(store: &Store) -> Timestamp {
    let tasks = store.tasks().map(|task| task.meta.updated_at);
    let services = store.services().map(|service| service.meta.updated_at);
    let nodes = store.nodes().map(|node| node.meta.updated_at);
    let all = tasks.chain(services).chain(nodes);
    all.max().unwrap_or(Timestamp::ZERO)
}

/// What exists only while leading.
#[derive(Debug, Default)]
pub(super) struct Lead {
    pub(super) has_begun: bool,
    pub(super) commands: VecDeque<(ReplyTo, Command)>,
    pub(super) registrations: VecDeque<Registration>,
    pub(super) reports: VecDeque<Report>,
    pub(super) dirty: Dirty,
    pub(super) wakes: Wakes,
    pub(super) next_sweep: Timestamp,
    /// When the keys of the data plane are rotated.
    pub(super) next_key_rotation: Timestamp,
    pub(super) dispatcher: Dispatcher,
    pub(super) roles: Roles,
    /// Nodes or the cluster object changed since certificates were last looked at.
    pub(super) are_certificates_dirty: bool,
    /// When a rotation of the root in progress is looked at again.
    pub(super) rotation_retry_at: Option<Timestamp>,
    /// Networks of stacks wait for their removal.
    pub(super) are_stacks_leaving: bool,
    /// Stacks that lost their objects while another led have been looked for.
    pub(super) are_stacks_checked: bool,
    pub(super) in_flight: Option<InFlight>,
}

#[derive(Debug)]
pub(super) struct Report {
    pub(super) reply_to: ReplyTo,
    pub(super) node_id: NodeId,
    pub(super) updates: Vec<(TaskId, TaskStatus)>,
}

/// A batch proposed and not yet committed, with all that waits for its commit.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) request_id: RequestId,
    pub(super) head: Store,
    pub(super) changes: Vec<Change>,
    pub(super) outcome: Outcome,
}

/// What becomes true with a batch's commit.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) replies: Vec<(ReplyTo, Result<Answer, CommandError>)>,
    pub(super) reported: Vec<ReplyTo>,
    pub(super) registered: Vec<Registration>,
    /// The batch must be committed whole.
    pub(super) is_whole: bool,
}

impl Lead {
    pub(super) fn has_work(&self) -> bool {
        !self.has_begun
            || !self.commands.is_empty()
            || !self.registrations.is_empty()
            || !self.reports.is_empty()
            || !self.dirty.is_empty()
            || self.roles.is_dirty
            || self.are_certificates_dirty
    }

    /// First batch of a term: creates a new cluster, forgets what is known of agents.
    pub(super) fn begin(
        &mut self,
        tx: &mut Transaction,
        bootstrap: Option<&Bootstrap>,
        rng: &mut Rng,
        vault: &mut dyn Vault,
    ) {
        if self.has_begun {
            return;
        }
        self.has_begun = true;
        self.are_stacks_leaving = true;
        if tx.view().cluster().is_none()
            && let Some(bootstrap) = bootstrap
        {
            let mut cluster = (*bootstrap.cluster).clone();
            cluster::set_unlock_key(&mut cluster, vault, false);
            tx.create_cluster(cluster)
                .expect("an empty store takes a cluster");
            let node = (*bootstrap.node).clone();
            tx.create_node(node).expect("an empty store takes a node");
            networks::ensure_node_network(tx, rng, bootstrap.node_pool);
            networks::ensure(tx, rng, true);
        } else {
            networks::ensure_node_network(tx, rng, None);
            networks::ensure(tx, rng, false);
        }
        keys::ensure(tx, rng, vault);
        self.dispatcher.begin(tx);
    }

    /// Carries out commands and agents' messages in the order they came.
    pub(super) fn take_in(
        &mut self,
        tx: &mut Transaction,
        means: &mut Means<'_>,
        own_node: NodeId,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        for _ in 0..BATCH_COMMANDS_MAX {
            let Some((to, command)) = self.commands.pop_front() else {
                break;
            };
            if stacks::is_whole(&command) {
                if tx.is_empty() && outcome.replies.is_empty() {
                    outcome.replies.push((to, execute(tx, means, command)));
                    outcome.is_whole = true;
                    self.are_stacks_leaving = true;
                    return outcome;
                }
                self.commands.push_front((to, command));
                break;
            }
            outcome.replies.push((to, execute(tx, means, command)));
        }
        for registration in self.registrations.drain(..) {
            Dispatcher::record(tx, &registration);
            outcome.registered.push(registration);
        }
        for _ in 0..BATCH_REPORTS_MAX {
            let Some(report) = self.reports.pop_front() else {
                break;
            };
            for (task_id, status) in report.updates {
                store_status(tx, report.node_id, own_node, task_id, status);
            }
            outcome.reported.push(report.reply_to);
        }
        outcome
    }

    /// Lets roles and certificates follow what is wanted, where that may have changed.
    pub(super) fn follow_wishes(
        &mut self,
        tx: &mut Transaction,
        means: &mut Means<'_>,
        out: &mut Vec<Effect>,
    ) {
        for change in tx.changes() {
            self.note(change);
        }
        if self.roles.is_due(tx.now()) {
            self.roles.reconcile(tx, means.group, out);
        }
        if tx.now() >= self.next_key_rotation {
            self.next_key_rotation = tx.now() + keys::ROTATION_PERIOD;
            keys::rotate(tx, means.vault);
        }
        let is_rotation_due = self.rotation_retry_at.is_some_and(|at| at <= tx.now());
        if std::mem::take(&mut self.are_certificates_dirty) || is_rotation_due {
            let waiting: Vec<NodeId> = tx
                .view()
                .nodes()
                .filter(|node| certificates::is_pending(node))
                .map(|node| node.id)
                .collect();
            for node_id in waiting {
                certificates::issue_pending(tx, means.vault, node_id);
            }
            self.rotation_retry_at = rotation::reconcile(tx, means.vault);
        }
    }

    /// Ends a batch that no reconciler adds to, but for the end of tasks whose service goes, and
    /// remembers what it may ask for.
    pub(super) fn close(&mut self, tx: &mut Transaction, rng: &mut Rng) {
        stacks::end_tasks(tx, rng);
        for change in tx.changes() {
            self.note(change);
            self.dirty.mark(change);
        }
    }

    /// Remembers what a change of a node or of the cluster may ask for.
    pub(super) fn note(&mut self, change: &Change) {
        let (is_role, is_certificate) = match (&change.old, &change.new) {
            (Some(Object::Node(old)), Some(Object::Node(new))) => (
                old.spec.desired_role != new.spec.desired_role || old.role != new.role,
                old.certificate.state != new.certificate.state
                    || old.description != new.description,
            ),
            (Some(Object::Node(_)), None) | (None, Some(Object::Node(_))) => (true, true),
            (_, Some(Object::Cluster(_))) => (false, true),
            _ => (false, false),
        };
        if let (Some(Object::Node(old)), Some(Object::Node(new))) = (&change.old, &change.new)
            && new.status.message == NO_SLICE_MESSAGE
            && old.status.message != NO_SLICE_MESSAGE
        {
            tracing::warn!(node.id = %new.id, "No slice of the node network is left for a node");
        }
        self.roles.is_dirty |= is_role;
        self.are_certificates_dirty |= is_certificate;
    }

    /// Lets the reconcilers answer to what changed, and to time.
    pub(super) fn reconcile(&mut self, tx: &mut Transaction, reconcile: Reconcile, rng: &mut Rng) {
        if tx.now() >= self.next_sweep {
            self.next_sweep = tx.now() + SWEEP_PERIOD;
            self.dirty.mark_all(tx.view());
        }
        for change in tx.changes() {
            self.dirty.mark(change);
        }
        let noted = tx.changes().len();
        let marks = (&mut self.dirty, &mut self.wakes);
        drive_by(reconcile, tx, marks, rng, WRITES_PER_ENTRY_MAX);
        if self.are_stacks_leaving {
            let driven = tx.changes().len();
            self.are_stacks_leaving = stacks::sweep(tx, rng);
            for change in &tx.changes()[driven..] {
                self.dirty.mark(change);
            }
        }
        let is_first = !std::mem::replace(&mut self.are_stacks_checked, true);
        stacks::forget_emptied(tx, is_first);
        // What a reconciler did to nodes is looked at in the next turn.
        for change in &tx.changes()[noted..] {
            self.note(change);
        }
    }
}

/// What commands are carried out with, besides the transaction.
pub(super) struct Means<'a> {
    pub(super) rng: &'a mut Rng,
    pub(super) vault: &'a mut dyn Vault,
    pub(super) group: &'a Group,
}

fn execute(
    tx: &mut Transaction,
    means: &mut Means<'_>,
    command: Command,
) -> Result<Answer, CommandError> {
    let group = means.group;
    match command {
        Command::CreateService { spec } => services::create(tx, group, means.rng, *spec),
        Command::UpdateService {
            id,
            version,
            change,
        } => services::update(tx, (means.rng, group), id, (version, change)),
        Command::RemoveService { id } => services::remove(tx, id),
        Command::CreateNetwork { spec } => networks::create(tx, means.rng, *spec),
        Command::RemoveNetwork { id } => networks::remove(tx, id),
        Command::CreateSecret { spec } => secrets::create_secret(tx, means.rng, *spec),
        Command::UpdateSecret { id, version, spec } => {
            secrets::update_secret(tx, id, version, *spec)
        }
        Command::RemoveSecret { id } => secrets::remove_secret(tx, id),
        Command::CreateConfig { spec } => secrets::create_config(tx, means.rng, *spec),
        Command::UpdateConfig { id, version, spec } => {
            secrets::update_config(tx, id, version, *spec)
        }
        Command::RemoveConfig { id } => secrets::remove_config(tx, id),
        Command::ApplyStack { spec, options } => {
            stacks::apply(tx, (means.rng, group), *spec, options)
        }
        Command::RollBackStack { name, number } => {
            stacks::roll_back(tx, (means.rng, group), &name, number)
        }
        Command::RemoveStack { name } => stacks::remove(tx, means.rng, &name),
        Command::UpdateNode { id, version, spec } => nodes::update(tx, group, id, version, *spec),
        Command::RemoveNode { id, is_forced } => nodes::remove(tx, group, id, is_forced),
        Command::LeaveGroup { node_id } => nodes::leave_group(tx, group, node_id),
        Command::UpdateCluster {
            version,
            spec,
            rotate,
        } => cluster::update(tx, means.vault, version, *spec, rotate),
        Command::IssueCertificate { csr, request } => {
            certificates::issue(tx, means.rng, means.vault, csr, request)
        }
    }
}

/// Stores what an agent reports of a task. Reports about tasks that are gone, belong to another
/// node or would go back in state are dropped: the agent repeats itself on every session.
fn store_status(
    tx: &mut Transaction,
    node_id: NodeId,
    own_node: NodeId,
    task_id: TaskId,
    mut status: TaskStatus,
) {
    let Some(stored) = tx.view().task(task_id) else {
        return;
    };
    let is_agents_state = status.state >= TaskState::Assigned
        && status.state != TaskState::Remove
        && status.state != TaskState::Orphaned;
    if stored.node_id != Some(node_id) || status.state < stored.status.state || !is_agents_state {
        return;
    }
    status.applied_by = stored.status.applied_by;
    status.applied_at = stored.status.applied_at;
    if status == stored.status {
        return;
    }
    status.applied_by = Some(own_node);
    status.applied_at = Some(tx.now());
    let mut task = Task::clone(stored);
    task.status = status;
    tx.update_task(task)
        .expect("a task just read can be written");
}
