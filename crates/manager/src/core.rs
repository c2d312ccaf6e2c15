//! The leader core: one single-threaded state machine that owns the cluster on the leader.
//!
//! Sans-IO: [`Core::handle`] takes what happened, [`Core::turn`] turns all of it into at most one
//! proposal, [`Core::next_deadline`] says when to call again. It never waits, reads no clock and
//! draws randomness only from its seed, so the simulator steps the very code the daemon runs.
//! Followers use the same core: it then only applies what was committed.
//! Design: `docs/design/leader-core.md`.

pub mod rotation;

mod admission;
mod certificates;
mod cluster;
mod dispatcher;
mod keys;
mod lead;
mod networks;
mod nodes;
pub(crate) mod revisions;
mod roles;
mod secrets;
mod services;
pub(crate) mod stacks;
mod supplies;
#[cfg(test)]
pub(crate) mod tests;

use std::{sync::Arc, time::Duration};

pub use skep_control::{Reconcile, reconcile};
use skep_model::{NodeId, Rng, Timestamp, dispatch::DispatchError, validate::Problem};
use skep_store::{Change, Store, Transaction};

use self::{
    dispatcher::{Dispatcher, Registration, not_leader},
    lead::{
        InFlight, Lead, Means, Outcome, QUEUED_COMMANDS_MAX, QUEUED_REPORTS_MAX, Report,
        SWEEP_PERIOD, last_write,
    },
    roles::Roles,
};
use crate::{
    command::{Code, Command, CommandError},
    event::{
        Bootstrap, CommittedEntry, ConnectionId, Effect, Event, FromAgent, ReplyTo, RequestId,
    },
    group::Group,
    vault::Vault,
};

/// Docker's text for a request that found no leader; with [`Code::Unavailable`] it was not carried out.
pub const NO_LEADER: &str = "The swarm does not have a leader. It's possible that too few managers \
     are online. Make sure more than half of the managers are online.";

/// Problems told of one object or document; who has more mends these first.
const PROBLEMS_MAX: usize = 100;
/// A log of large entries is cut before it has the cluster's number of them: a secret, a config or a label may have
/// a megabyte, and all are kept in memory, too, and read when a manager starts.
const SNAPSHOT_LOG_BYTES_MAX: usize = 64 << 20;
/// The shell calls at least every tick of raft. A longer pause is a stalled process, or a clock that
/// was set forward.
const STALL: Duration = Duration::from_millis(1500);

/// Settings of a core.
#[derive(Debug, Clone)]
pub struct Config {
    /// This manager's node.
    pub node_id: NodeId,
    /// Seed of ids and choices. Ids must differ between lives: the shell takes it from the system.
    pub seed: u64,
    /// Upper 16 bits of request ids, non-zero and different for each manager.
    pub request_prefix: u16,
    /// Objects of a new cluster; used only when leading an empty store.
    pub bootstrap: Option<Bootstrap>,
    /// Who decides what follows from what is stored: [`reconcile`]. The simulator puts others in to see that
    /// wrong decisions are found.
    pub reconcile: Reconcile,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Core {
    config: Config,
    store: Store,
    /// Index of the last entry in `store`.
    index: u64,
    /// Index covered by the last snapshot asked for.
    snapshot_index: u64,
    /// Bytes of the entries since then, or since this core began.
    logged_bytes: usize,
    rng: Rng,
    vault: Box<dyn Vault>,
    group: Arc<Group>,
    next_request: u64,
    /// When [`Self::turn`] was last called, whatever it did.
    last_call: Timestamp,
    /// Time of the last transaction; the next is later, since the order of tasks is read from it.
    last_turn: Timestamp,
    lead: Option<Lead>,
}

impl Core {
    /// A core whose store holds the entries up to `index`.
    pub fn new(
        config: Config,
        vault: Box<dyn Vault>,
        store: Store,
        index: u64,
        snapshot_index: u64,
    ) -> Self {
        let rng = Rng::from_seed(config.seed);
        Self {
            config,
            store,
            index,
            snapshot_index,
            logged_bytes: 0,
            rng,
            vault,
            group: Arc::default(),
            next_request: 0,
            last_call: Timestamp::ZERO,
            last_turn: Timestamp::ZERO,
            lead: None,
        }
    }

    /// The committed state.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Index of the last entry applied.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Whether this core leads and its first batch may be proposed.
    pub fn is_leading(&self) -> bool {
        self.lead.is_some()
    }

    /// Whether the batch proposed as `request_id` waits for its commit here, so that its entry need
    /// not be decoded.
    pub fn awaits(&self, request_id: RequestId) -> bool {
        let batch = self.lead.as_ref().and_then(|lead| lead.in_flight.as_ref());
        batch.is_some_and(|batch| batch.request_id == request_id)
    }

    /// When [`Self::turn`] must run even if nothing happens.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let lead = self.lead.as_ref().filter(|lead| lead.in_flight.is_none())?;
        if lead.has_work() {
            return Some(Timestamp::ZERO);
        }
        let deadlines = [
            lead.wakes.next_deadline(),
            lead.dispatcher.next_deadline(),
            Some(lead.next_sweep),
            lead.roles.retry_at,
            lead.rotation_retry_at,
            Some(lead.next_key_rotation),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Takes in one event. Proposals come only from [`Self::turn`].
    pub fn handle(&mut self, now: Timestamp, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Led { term: _ } => self.lead(now),
            Event::Deposed => self.depose(out),
            Event::Committed { index, entry } => self.committed(now, index, entry, out),
            Event::Refused { request_id, reason } => self.refused(request_id, &reason, out),
            Event::Restored { index, store } => self.restored(index, store, out),
            Event::Group(group) => {
                self.group = Arc::clone(&group);
                if let Some(lead) = &mut self.lead {
                    lead.roles.is_dirty = true;
                    lead.dispatcher.set_group(&self.store, group, out);
                }
            }
            Event::Command { reply_to, command } => self.enqueue(reply_to, command, out),
            Event::Agent {
                connection,
                message,
            } => {
                self.agent_message(now, connection, message, out);
            }
            Event::AgentGone { connection } => {
                if let Some(lead) = &mut self.lead {
                    lead.registrations
                        .retain(|waiting| waiting.connection != connection);
                    lead.dispatcher.disconnect(connection);
                }
            }
        }
    }

    /// Turns everything that waits into at most one proposal, unless one is under way.
    pub fn turn(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        let gap = now.since(std::mem::replace(&mut self.last_call, now));
        if gap > STALL
            && let Some(lead) = &mut self.lead
        {
            lead.dispatcher.postpone(gap);
        }
        let Some(lead) = self.lead.as_mut().filter(|lead| lead.in_flight.is_none()) else {
            return;
        };
        let now = now.max(Timestamp(self.last_turn.0.saturating_add(1)));
        self.last_turn = now;
        let own_node = self.config.node_id;
        if let Some(transfer) = lead.roles.abdicate(&self.store, own_node, &self.group, now) {
            out.push(transfer);
            return;
        }
        let mut tx = Transaction::new(&self.store, skep_model::Version(self.index), now);
        let vault = self.vault.as_mut();
        let bootstrap = self.config.bootstrap.as_ref();
        lead.begin(&mut tx, bootstrap, &mut self.rng, vault);
        lead.dispatcher.expire(&mut tx, out);
        let mut means = Means {
            rng: &mut self.rng,
            vault,
            group: &self.group,
        };
        let outcome = lead.take_in(&mut tx, &mut means, self.config.node_id);
        let is_whole = outcome.is_whole;
        if is_whole {
            // Nothing else is in its entry; the rest follows in the next.
            lead.close(&mut tx, &mut self.rng);
        } else {
            lead.follow_wishes(&mut tx, &mut means, out);
            lead.reconcile(&mut tx, self.config.reconcile, &mut self.rng);
        }
        if tx.is_empty() {
            self.settle(now, outcome, out);
            return;
        }
        let request_id = self.next_request_id();
        let (head, actions, changes) = tx.finish();
        out.push(Effect::Propose {
            request_id,
            actions,
            is_whole,
        });
        if let Some(lead) = &mut self.lead {
            lead.in_flight = Some(InFlight {
                request_id,
                head,
                changes,
                outcome,
            });
        }
    }

    fn lead(&mut self, now: Timestamp) {
        // The clock of the leader before may have been ahead of this one's.
        self.last_turn = self.last_turn.max(last_write(&self.store));
        let mut lead = Lead {
            next_sweep: now + SWEEP_PERIOD,
            next_key_rotation: now + keys::ROTATION_PERIOD,
            dispatcher: Dispatcher::new(Arc::clone(&self.group)),
            roles: Roles {
                is_dirty: true,
                ..Roles::default()
            },
            are_certificates_dirty: true,
            ..Lead::default()
        };
        lead.dirty.mark_all(&self.store);
        self.lead = Some(lead);
    }

    fn depose(&mut self, out: &mut Vec<Effect>) {
        let Some(mut lead) = self.lead.take() else {
            return;
        };
        lead.dispatcher.close_all(out);
        for waiting in lead.registrations {
            let connection = waiting.connection;
            out.push(Effect::Close {
                connection,
                reason: not_leader(),
            });
        }
        for report in lead.reports {
            out.push(Effect::StatusReply {
                to: report.reply_to,
                result: Err(not_leader()),
            });
        }
        for (to, _) in lead.commands {
            out.push(Effect::Reply {
                to,
                result: Err(lost_leadership()),
            });
        }
        let Some(batch) = lead.in_flight else { return };
        for (to, result) in batch.outcome.replies {
            // What was refused was refused; what was proposed may be committed by the next leader.
            let result = result.and_then(|_| Err(lost_under_way()));
            out.push(Effect::Reply { to, result });
        }
        for to in batch.outcome.reported {
            out.push(Effect::StatusReply {
                to,
                result: Err(not_leader()),
            });
        }
        for waiting in batch.outcome.registered {
            let connection = waiting.connection;
            out.push(Effect::Close {
                connection,
                reason: not_leader(),
            });
        }
    }

    fn committed(
        &mut self,
        now: Timestamp,
        index: u64,
        entry: Option<CommittedEntry>,
        out: &mut Vec<Effect>,
    ) {
        assert!(index > self.index, "entries are committed in order");
        self.index = index;
        let Some(entry) = entry else { return };
        self.logged_bytes = self.logged_bytes.saturating_add(entry.bytes);
        let own = self.lead.as_mut().and_then(|lead| {
            lead.in_flight
                .take_if(|batch| batch.request_id == entry.request_id)
        });
        let (changes, outcome) = match own {
            Some(batch) => {
                self.store = batch.head;
                (batch.changes, batch.outcome)
            }
            None => (self.apply(&entry), Outcome::default()),
        };
        if let Some(lead) = &mut self.lead {
            lead.dispatcher.send_changes(&self.store, &changes, out);
        }
        let changes = Arc::new(changes);
        out.push(Effect::Publish {
            index,
            store: self.store.clone(),
            changes: Some(changes),
        });
        self.settle(now, outcome, out);
        self.snapshot_if_due(out);
    }

    /// A batch did not reach the log: its waiters are told, and all of it is thought over again.
    fn refused(&mut self, request_id: RequestId, reason: &str, out: &mut Vec<Effect>) {
        let Some(lead) = &mut self.lead else { return };
        let Some(batch) = lead
            .in_flight
            .take_if(|batch| batch.request_id == request_id)
        else {
            return;
        };
        for (to, _) in batch.outcome.replies {
            let result = Err(CommandError::new(Code::ResourceExhausted, reason));
            out.push(Effect::Reply { to, result });
        }
        for to in batch.outcome.reported {
            out.push(Effect::StatusReply {
                to,
                result: Err(unavailable()),
            });
        }
        for waiting in batch.outcome.registered {
            let connection = waiting.connection;
            out.push(Effect::Close {
                connection,
                reason: unavailable(),
            });
        }
        lead.dirty.mark_all(&self.store);
    }

    /// Applies an entry of another leader, or of an earlier life.
    ///
    /// # Panics
    /// When the entry contradicts the store: this replica has diverged and must not go on.
    fn apply(&mut self, entry: &CommittedEntry) -> Vec<Change> {
        let apply = |action| match self.store.apply(action) {
            Ok(change) => change,
            Err(error) => panic!("committed entry does not fit the store: {error}"),
        };
        let changes: Vec<Change> = entry.actions.iter().map(apply).collect();
        if let Some(lead) = &mut self.lead {
            changes.iter().for_each(|change| lead.dirty.mark(change));
        }
        changes
    }

    fn restored(&mut self, index: u64, store: Store, out: &mut Vec<Effect>) {
        assert!(self.lead.is_none(), "a leader never restores a snapshot");
        self.index = index;
        self.snapshot_index = index;
        self.logged_bytes = 0;
        self.store = store.clone();
        out.push(Effect::Publish {
            index,
            store,
            changes: None,
        });
    }

    /// Gives out what has become true.
    fn settle(&mut self, now: Timestamp, outcome: Outcome, out: &mut Vec<Effect>) {
        for (to, result) in outcome.replies {
            out.push(Effect::Reply { to, result });
        }
        for to in outcome.reported {
            out.push(Effect::StatusReply { to, result: Ok(()) });
        }
        let Some(lead) = &mut self.lead else { return };
        for registration in outcome.registered {
            lead.dispatcher
                .open(&self.store, &registration, now, &mut self.rng, out);
        }
    }

    fn snapshot_if_due(&mut self, out: &mut Vec<Effect>) {
        let interval = self
            .store
            .cluster()
            .map_or(0, |cluster| cluster.spec.raft.snapshot_interval);
        let is_due = self.index - self.snapshot_index >= interval
            || self.logged_bytes >= SNAPSHOT_LOG_BYTES_MAX;
        if interval == 0 || !is_due {
            return;
        }
        self.snapshot_index = self.index;
        self.logged_bytes = 0;
        out.push(Effect::Snapshot {
            index: self.index,
            store: self.store.clone(),
        });
    }

    fn enqueue(&mut self, to: ReplyTo, command: Command, out: &mut Vec<Effect>) {
        match &mut self.lead {
            None => out.push(Effect::Reply {
                to,
                result: Err(lost_leadership()),
            }),
            Some(lead) if lead.commands.len() >= QUEUED_COMMANDS_MAX => {
                let message = "too many requests are waiting for the raft log";
                let result = Err(CommandError::new(Code::ResourceExhausted, message));
                out.push(Effect::Reply { to, result });
            }
            Some(lead) => lead.commands.push_back((to, command)),
        }
    }

    fn agent_message(
        &mut self,
        now: Timestamp,
        connection: ConnectionId,
        message: FromAgent,
        out: &mut Vec<Effect>,
    ) {
        let Some(lead) = &mut self.lead else {
            if let FromAgent::Statuses { reply_to: to, .. } = message {
                out.push(Effect::StatusReply {
                    to,
                    result: Err(not_leader()),
                });
            }
            out.push(Effect::Close {
                connection,
                reason: not_leader(),
            });
            return;
        };
        match message {
            FromAgent::Register {
                node_id,
                addr,
                request,
            } => match lead.dispatcher.admit(&self.store, node_id, &addr, now) {
                Ok(()) => lead.registrations.push_back(Registration {
                    connection,
                    node_id,
                    addr,
                    request,
                }),
                Err(reason) => out.push(Effect::Close { connection, reason }),
            },
            FromAgent::Heartbeat => {
                lead.dispatcher.heartbeat(&self.store, connection, now, out);
            }
            FromAgent::Statuses { reply_to, updates } => {
                let refusal = match lead.dispatcher.node_of(connection) {
                    None => DispatchError::SessionInvalid,
                    Some(_) if lead.reports.len() >= QUEUED_REPORTS_MAX => unavailable(),
                    Some(node_id) => {
                        lead.reports.push_back(Report {
                            reply_to,
                            node_id,
                            updates,
                        });
                        return;
                    }
                };
                out.push(Effect::StatusReply {
                    to: reply_to,
                    result: Err(refusal),
                });
            }
        }
    }

    fn next_request_id(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(u64::from(self.config.request_prefix) << 48 | self.next_request)
    }
}

/// Refuses a spec with everything that is wrong with it.
fn refuse_problems(problems: &[Problem]) -> Result<(), CommandError> {
    if problems.is_empty() {
        return Ok(());
    }
    let told = problems.iter().take(PROBLEMS_MAX);
    let texts: Vec<String> = told.map(ToString::to_string).collect();
    Err(CommandError::new(Code::InvalidArgument, texts.join("; ")))
}

fn refuse_store_error(error: &skep_store::Error) -> CommandError {
    CommandError::new(Code::Unknown, error.to_string())
}

pub(crate) fn lost_leadership() -> CommandError {
    CommandError::new(Code::Unavailable, NO_LEADER)
}

/// Leadership went while the entry was on its way: the next leader may have it or not.
fn lost_under_way() -> CommandError {
    CommandError::new(
        Code::Aborted,
        "the manager lost leadership while the request was carried out; it is not known whether it \
         took effect",
    )
}

/// A queue of this manager is full; the agent tries again.
fn unavailable() -> DispatchError {
    DispatchError::Unavailable("the manager has too much to do".to_owned())
}
