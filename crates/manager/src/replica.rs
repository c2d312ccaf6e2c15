//! One manager without IO: leader core, raft node and raft group, stepped together.
//!
//! The tokio shell ([`crate::Manager`]) and the simulator both drive it: they tell it the time, what
//! arrived and what the disk has done, call [`Replica::progress`], and carry out the outputs in order.
//! Nothing here waits or reads a clock. Design: `docs/design/leader-core.md`, `docs/design/cluster.md`.

mod apply;
mod elections;
mod exchange;
mod joins;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use skep_model::{NodeId, Reachability, Rng, Timestamp};
use skep_raft::{DiskError, Message, Node, RestoreError, Restored, StepError};
use skep_store::Store;
use skep_wire::{member::Member, snapshot::Snapshot};

use self::{elections::Elections, joins::Joins};
use crate::{
    Core,
    command::CommandError,
    core, entry,
    event::{Effect, Event, ReplyTo, RequestId},
    group::Group,
    vault::Vault,
};

pub use self::{
    exchange::{DiskDone, DiskRequest, Output, SnapshotContent, StepRefused},
    joins::Joined,
};

/// Raft's tick; election after 10 to 20 of them (see `docs/design/raft.md`).
pub const TICK: Duration = Duration::from_millis(100);
/// Raft's tick among Docker's managers, which expect SwarmKit's pace.
pub const COMPAT_TICK: Duration = Duration::from_secs(1);
/// Pause before a log that could not be written is tried again.
const FAULT_RETRY: Duration = Duration::from_secs(1);
/// A member not heard of for this long counts as unreachable. Followers answer every heartbeat, ten
/// a second, or one in compat mode; a busy disk or processor may hold them up for a while.
const REACHABLE_WITHIN: Duration = Duration::from_secs(3);

/// Peers remembered besides the group's. Only managers can say that they are one; a group has few.
const CONTACTS_MAX: usize = 64;

/// How a member starts.
#[derive(Debug, Clone)]
pub struct Config {
    /// Settings of the core.
    pub core: core::Config,
    /// This member's raft id.
    pub raft_id: u64,
    /// Members known besides the log: told to one that joins and has no log yet.
    pub members: Vec<Member>,
    /// The group has, or may get, Docker's managers: SwarmKit's pace, no pre-vote, and no elections
    /// before the timeout, which rest on pre-vote.
    pub is_compat: bool,
}

impl Config {
    /// Time between ticks.
    pub fn tick(&self) -> Duration {
        if self.is_compat { COMPAT_TICK } else { TICK }
    }

    fn raft(&self) -> skep_raft::Config {
        skep_raft::Config {
            pre_vote: !self.is_compat,
            ..skep_raft::Config::new(self.raft_id, self.core.seed)
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Replica {
    raft_config: skep_raft::Config,
    core: Core,
    node: Node,
    group: Arc<Group>,
    effects: Vec<Effect>,
    joins: Joins,
    elections: Elections,
    /// Members this one was told of otherwise than by its log, which may be behind.
    contacts: BTreeMap<u64, Member>,
    rng: Rng,
    /// When each member was last heard of, while leading.
    heard: BTreeMap<u64, Timestamp>,
    /// Snapshots of the leader's by index, read before raft takes one: nothing unreadable is
    /// acknowledged.
    incoming: BTreeMap<u64, (Snapshot, Store)>,
    is_writing: bool,
    /// Set while the log cannot be written.
    fault: Option<String>,
    /// When the log is tried again.
    retry_at: Timestamp,
    /// Kept from going back.
    now: Timestamp,
}

impl Replica {
    /// A member that continues from what its disk holds: nothing, for one that joins.
    ///
    /// # Errors
    /// The log contradicts itself, or the snapshot cannot be decoded.
    pub fn new(
        config: Config,
        vault: Box<dyn Vault>,
        restored: &Restored,
    ) -> Result<Self, StartError> {
        let raft_config = config.raft();
        let node = Node::new(raft_config, restored)?;
        let contacts = config.members.iter().cloned();
        let contacts = contacts.map(|member| (member.raft_id, member)).collect();
        let mut group = Group::new(config.raft_id, config.members);
        let (mut store, mut index) = (Store::default(), 0);
        if let Some(stored) = &restored.snapshot {
            let (snapshot, state) =
                entry::decode_snapshot(&stored.data).map_err(StartError::Snapshot)?;
            group.restore(snapshot.membership);
            (store, index) = (state, stored.index());
        }
        let rng = Rng::from_seed(config.core.seed ^ config.raft_id);
        let group = Arc::new(group);
        let mut core = Core::new(config.core, vault, store, index, index);
        core.handle(
            Timestamp::ZERO,
            Event::Group(Arc::clone(&group)),
            &mut Vec::new(),
        );
        Ok(Self {
            raft_config,
            core,
            node,
            group,
            effects: Vec::new(),
            joins: Joins::default(),
            elections: Elections::default(),
            contacts,
            rng,
            heard: BTreeMap::new(),
            incoming: BTreeMap::new(),
            is_writing: false,
            fault: None,
            retry_at: Timestamp::ZERO,
            now: Timestamp::ZERO,
        })
    }

    // --- What is ---

    /// The leader core.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The raft node.
    pub fn raft(&self) -> &Node {
        &self.node
    }

    /// The raft group.
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// Why commands are refused, while the log cannot be written.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Whether this member was removed from the group: it does nothing more.
    pub fn is_removed(&self) -> bool {
        self.node.is_stopped()
    }

    /// When [`Self::progress`] must be called even if nothing happens; raft's ticks come on top.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if self.is_removed() {
            return None;
        }
        if self.fault.is_some() {
            return (!self.is_writing).then_some(self.retry_at);
        }
        // What is due waits until leadership is handed over, or is not after all.
        let is_held = self.node.transferring().is_some();
        let core = self.core.next_deadline().filter(|_| !is_held);
        [core, self.elections.next_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    // --- What happens ---

    /// Raft's clock.
    pub fn tick(&mut self, now: Timestamp) {
        self.pass(now);
        self.node.tick();
    }

    /// A command, or something of an agent.
    pub fn handle(&mut self, now: Timestamp, event: Event, out: &mut Vec<Output>) {
        self.pass(now);
        self.core.handle(self.now, event, &mut self.effects);
        self.perform(out);
    }

    /// A message of a peer, whose identity the caller vouches for.
    ///
    /// # Errors
    /// It was not taken.
    pub fn step(&mut self, now: Timestamp, message: Message) -> Result<(), StepRefused> {
        self.pass(now);
        if self.is_removed() {
            return Err(StepRefused::Stopped);
        }
        let from = message.from;
        if self.group.removed.contains(&from) {
            return Err(StepRefused::SenderRemoved);
        }
        self.read_snapshot(&message)?;
        match self.node.step(message) {
            Ok(()) => {
                self.heard.insert(from, self.now);
                Ok(())
            }
            // An answer from someone unknown is late, not wrong.
            Err(StepError::UnknownPeer(_)) => Ok(()),
            Err(StepError::Stopped) => Err(StepRefused::Stopped),
            Err(StepError::Inadmissible(_)) => Err(StepRefused::Inadmissible),
        }
    }

    /// Where a peer that sends messages says it is. A member whose log is behind may be asked for its
    /// vote by one it has never heard of, and be the vote that is missing.
    pub fn contact(&mut self, member: Member) {
        let is_known = self.group.members.contains_key(&member.raft_id);
        if !is_known && self.contacts.len() < CONTACTS_MAX {
            self.contacts.insert(member.raft_id, member);
        }
    }

    /// A message could not be delivered.
    pub fn report_unreachable(&mut self, raft_id: u64) {
        self.node.report_unreachable(raft_id);
    }

    /// How sending a snapshot ended.
    pub fn report_snapshot(&mut self, raft_id: u64, is_delivered: bool) {
        self.node.report_snapshot(raft_id, is_delivered);
    }

    /// The connection to a member was reset. If it led, there is an election without waiting for
    /// the timeout.
    pub fn peer_lost(&mut self, now: Timestamp, raft_id: u64) {
        self.pass(now);
        let is_leader_lost = self.node.leader() == Some(raft_id) && !self.node.is_leader();
        if is_leader_lost && self.raft_config.pre_vote {
            let now = self.now;
            self.elections.leader_lost(now, raft_id, &mut self.rng);
        }
    }

    /// Hands leadership to the member that is furthest; false when there is nobody, or nothing to
    /// hand over.
    pub fn hand_over(&mut self) -> bool {
        if !self.node.is_leader() {
            return false;
        }
        let mut peers = self.node.peers();
        peers.retain(|peer| {
            peer.id != self.group.own
                && self
                    .group
                    .members
                    .get(&peer.id)
                    .is_some_and(|status| status.reachability == Reachability::Reachable)
        });
        let best = peers.into_iter().max_by_key(|peer| peer.matched_index);
        best.is_some_and(|peer| self.node.transfer(peer.id).is_ok())
    }

    /// A manager asks to become a member, or tells a new address.
    pub fn join(
        &mut self,
        now: Timestamp,
        reply_to: ReplyTo,
        node_id: NodeId,
        addr: String,
        out: &mut Vec<Output>,
    ) {
        self.pass(now);
        self.request_join(reply_to, node_id, addr, out);
    }

    /// The disk has finished a request.
    pub fn disk_done(&mut self, now: Timestamp, done: DiskDone, out: &mut Vec<Output>) {
        self.pass(now);
        match done {
            DiskDone::Written(number) => {
                self.is_writing = false;
                let messages = self.node.persisted(number);
                self.send(messages, out);
            }
            DiskDone::WriteFailed(error) => self.fail(&error, out),
            DiskDone::SnapshotSaved {
                metadata,
                compact_to,
            } => {
                tracing::info!(raft.index = metadata.index, "Snapshot saved");
                self.node.snapshot_saved(&metadata, compact_to);
            }
            DiskDone::SnapshotFailed(error) => {
                tracing::warn!(error = %error, "Snapshot failed; the log grows until the next one");
            }
            DiskDone::Attached(message) => {
                if let Some(status) = self.group.members.get(&message.to) {
                    let to = status.member.clone();
                    out.push(Output::Message { to, message });
                } else {
                    self.node.report_snapshot(message.to, false);
                }
            }
            DiskDone::AttachFailed { to } => self.node.report_snapshot(to, false),
            DiskDone::Restored(restored) => self.restart_raft(restored, out),
        }
    }

    /// Steps core and raft until both wait for something outside.
    pub fn progress(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        self.pass(now);
        self.retry_after_fault(out);
        self.campaign_if_due();
        self.probe_if_forgotten(out);
        self.observe(out);
        loop {
            self.note_leadership(out);
            self.retry_joins(out);
            // What is proposed while leadership is handed over would be refused.
            if self.node.transferring().is_none() {
                self.core.turn(self.now, &mut self.effects);
            }
            let has_acted = !self.effects.is_empty();
            self.perform(out);
            if !self.step_raft(out) && !has_acted {
                return;
            }
        }
    }

    fn pass(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    /// Takes raft's next round of work; false when there is none to take now.
    fn step_raft(&mut self, out: &mut Vec<Output>) -> bool {
        if self.is_writing || self.fault.is_some() {
            return false;
        }
        let Some(mut ready) = self.node.ready() else {
            // What raft has not taken by now it has ignored.
            self.incoming.clear();
            return false;
        };
        self.send(std::mem::take(&mut ready.messages), out);
        let committed = std::mem::take(&mut ready.committed);
        let restored = ready.snapshot.as_ref().map(skep_raft::Snapshot::index);
        let number = ready.number;
        if ready.must_write() {
            self.is_writing = true;
            out.push(Output::Disk(DiskRequest::Write(ready)));
        } else {
            let messages = self.node.persisted(number);
            self.send(messages, out);
        }
        if let Some(index) = restored {
            self.restore(index, out);
        }
        for entry in committed {
            self.committed(&entry, out);
        }
        true
    }

    /// Hands messages to the transport; a snapshot is fetched from the disk first.
    fn send(&mut self, messages: Vec<Message>, out: &mut Vec<Output>) {
        for message in messages {
            let known = self.group.members.get(&message.to);
            let known = known.map(|status| &status.member);
            let Some(to) = known.or_else(|| self.contacts.get(&message.to)) else {
                continue;
            };
            if message.wants_snapshot() {
                out.push(Output::Disk(DiskRequest::Attach(message)));
            } else {
                let to = to.clone();
                out.push(Output::Message { to, message });
            }
        }
    }

    fn note_leadership(&mut self, out: &mut Vec<Output>) {
        let leads = self.fault.is_none() && self.node.is_leader_ready();
        if leads == self.core.is_leading() {
            return;
        }
        let term = self.node.term();
        let event = if leads {
            tracing::info!(raft.term = term, "Leads the cluster");
            Event::Led { term }
        } else {
            tracing::info!(raft.term = term, "Leads the cluster no more");
            self.fail_joins(out);
            Event::Deposed
        };
        self.core.handle(self.now, event, &mut self.effects);
        self.perform(out);
        out.push(Output::Status);
    }

    /// Keeps what is known of the group's leader and of its members' reachability.
    fn observe(&mut self, out: &mut Vec<Output>) {
        let leader = self.node.leader();
        if !self.node.is_leader() {
            self.heard.clear();
        }
        if let Some(leader) = leader {
            self.elections.leader_found(leader);
        }
        let ids: Vec<u64> = self.group.members.keys().copied().collect();
        let seen: Vec<(u64, Reachability)> = ids
            .into_iter()
            .map(|id| (id, self.reachability(id, leader)))
            .collect();
        let is_news = self.group.leader != leader
            || seen
                .iter()
                .any(|(id, seen)| self.group.members[id].reachability != *seen);
        if !is_news {
            return;
        }
        let mut group = Group::clone(&self.group);
        group.leader = leader;
        for (id, seen) in seen {
            if let Some(status) = group.members.get_mut(&id) {
                status.reachability = seen;
            }
        }
        self.set_group(group, out);
    }

    fn reachability(&mut self, id: u64, leader: Option<u64>) -> Reachability {
        if id == self.group.own || Some(id) == leader {
            return Reachability::Reachable;
        }
        if !self.node.is_leader() {
            return Reachability::Unknown;
        }
        // A new leader gives everybody the benefit of the doubt for as long.
        let heard = *self.heard.entry(id).or_insert(self.now);
        if self.now.since(heard) <= REACHABLE_WITHIN {
            Reachability::Reachable
        } else {
            Reachability::Unreachable
        }
    }

    fn set_group(&mut self, group: Group, out: &mut Vec<Output>) {
        if group == *self.group {
            return;
        }
        self.group = Arc::new(group);
        let event = Event::Group(Arc::clone(&self.group));
        self.core.handle(self.now, event, &mut self.effects);
        self.perform(out);
        out.push(Output::Status);
    }

    fn perform(&mut self, out: &mut Vec<Output>) {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Propose {
                    request_id,
                    actions,
                    is_whole,
                } => {
                    let entries = if is_whole {
                        entry::encode_whole(request_id.0, &actions)
                    } else {
                        entry::encode_batch(request_id.0, &actions)
                    };
                    self.propose(request_id, entries, out);
                }
                Effect::RemoveMember { raft_id } => self.remove_member(raft_id),
                Effect::Transfer { raft_id } => {
                    if let Err(error) = self.node.transfer(raft_id) {
                        tracing::warn!(error = %error, "Failed to hand leadership over");
                    }
                }
                Effect::Snapshot { index, store } => self.snapshot(index, store, out),
                Effect::Reply { to, result } => {
                    let result = self.explain(result);
                    out.push(Output::Reply { to, result });
                }
                Effect::StatusReply { to, result } => {
                    out.push(Output::StatusReply { to, result });
                }
                Effect::Send {
                    connection,
                    message,
                } => out.push(Output::Send {
                    connection,
                    message,
                }),
                Effect::Close { connection, reason } => {
                    out.push(Output::Close { connection, reason });
                }
                Effect::Publish {
                    index,
                    store,
                    changes,
                } => out.push(Output::Publish {
                    index,
                    store,
                    changes,
                }),
            }
        }
    }

    fn propose(&mut self, request_id: RequestId, entries: Vec<Vec<u8>>, out: &mut Vec<Output>) {
        for data in entries {
            if let Err(error) = self.node.propose(data) {
                tracing::warn!(error = %error, "Proposal refused");
                let reason = error.to_string();
                let event = Event::Refused { request_id, reason };
                self.core.handle(self.now, event, &mut self.effects);
                return self.perform(out);
            }
        }
    }

    fn snapshot(&mut self, index: u64, store: Store, out: &mut Vec<Output>) {
        let metadata = match self.node.snapshot_at(index, bytes::Bytes::new()) {
            Ok(snapshot) => snapshot.metadata,
            Err(error) => {
                tracing::warn!(error = %error, "No snapshot taken");
                return;
            }
        };
        let kept = store
            .cluster()
            .map_or(skep_raft::SLOW_FOLLOWER_ENTRIES, |cluster| {
                cluster.spec.raft.log_entries_for_slow_followers
            });
        let compact_to = skep_raft::compaction_point(index, kept);
        let content = Box::new(SnapshotContent {
            store,
            membership: self.group.membership(),
        });
        out.push(Output::Disk(DiskRequest::Snapshot {
            content,
            metadata,
            compact_to,
        }));
    }

    /// Clients learn why the log cannot be written rather than that nobody leads.
    fn explain<T>(&self, result: Result<T, CommandError>) -> Result<T, CommandError> {
        match (&self.fault, result) {
            (Some(fault), Err(error)) => Err(CommandError {
                message: fault.clone(),
                ..error
            }),
            (_, result) => result,
        }
    }

    /// The log could not be written: clients are told, and raft starts again from what is stored.
    fn fail(&mut self, error: &DiskError, out: &mut Vec<Output>) {
        tracing::error!(error = %error, "Failed to write the raft log");
        self.is_writing = false;
        self.retry_at = self.now + FAULT_RETRY;
        self.fault = Some(format!("failed to write the raft log: {error}"));
        self.note_leadership(out);
        out.push(Output::Status);
    }

    fn retry_after_fault(&mut self, out: &mut Vec<Output>) {
        if self.fault.is_some() && !self.is_writing && self.now >= self.retry_at {
            self.is_writing = true;
            out.push(Output::Disk(DiskRequest::Restore));
        }
    }

    fn restart_raft(&mut self, restored: Result<Restored, DiskError>, out: &mut Vec<Output>) {
        self.is_writing = false;
        self.retry_at = self.now + FAULT_RETRY;
        let started = restored
            .map_err(StartError::from)
            .and_then(|restored| Ok(Node::new(self.raft_config, &restored)?));
        match started {
            Ok(node) => {
                // The core keeps its store: what it applied was committed, so it is on disk.
                self.node = node;
                self.fault = None;
                out.push(Output::Status);
                self.campaign_alone(out);
            }
            Err(error) => {
                tracing::error!(error = %error, "Failed to read the raft log back");
            }
        }
    }
}

/// Why a manager cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be read.
    #[error("failed to read the raft log")]
    Disk(#[from] DiskError),
    /// The log contradicts itself.
    #[error("failed to continue from the raft log")]
    Restore(#[from] RestoreError),
    /// The snapshot cannot be decoded or contradicts itself.
    #[error("failed to decode the snapshot: {0}")]
    Snapshot(String),
    /// No thread for the disk.
    #[error("failed to start the disk thread")]
    Thread(#[source] std::io::Error),
}
