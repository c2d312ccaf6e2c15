//! The manager's shell: one loop that joins clients, agents, the leader core, raft and the disk.
//!
//! No decisions here: events go into [`Core`], effects come out and are carried out. Above 300
//! lines because the loop and the effects it performs share all of its state.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use skep_model::{Timestamp, dispatch::DispatchError};
use skep_raft::{DiskError, Node, RestoreError, Restored, Storage};
use skep_store::Store;
use skep_wire::{
    SpecCache, log,
    member::{Member, encode_member},
};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior},
};
use tracing::{error, info, warn};

use crate::{
    Core,
    command::{Answer, CommandError},
    core,
    disk::{Disk, Done, Request as DiskRequest},
    entry,
    event::{CommittedEntry, ConnectionId, Effect, Event, FromAgent, ReplyTo, RequestId, ToAgent},
    handle::{FEED_LENGTH, Feed, Handle, Published, REQUESTS_MAX, Request, StatusSender},
};

/// Raft's tick; election after 10 to 20 of them (see `docs/design/raft.md`).
const TICK: Duration = Duration::from_millis(100);
/// Requests taken from the queue in one go.
const DRAIN_MAX: usize = 512;
/// Pause before a log that could not be written is tried again.
const FAULT_RETRY: Duration = Duration::from_secs(1);

/// Settings of a manager.
#[derive(Debug)]
pub struct Config {
    /// Settings of the core.
    pub core: core::Config,
    /// This member's raft id.
    pub raft_id: u64,
    /// Where others reach this member; told by the first log entry.
    pub addr: String,
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

/// A manager that owns its loop; see the module's documentation.
#[derive(Debug)]
pub struct Manager {
    raft_config: skep_raft::Config,
    core: Core,
    node: Node,
    disk: Disk,
    requests: mpsc::Receiver<Request>,
    published: Arc<ArcSwap<Published>>,
    feed: broadcast::Sender<Feed>,
    replies: HashMap<ReplyTo, oneshot::Sender<Result<Answer, CommandError>>>,
    status_replies: HashMap<ReplyTo, StatusSender>,
    agents: HashMap<ConnectionId, mpsc::Sender<Result<ToAgent, DispatchError>>>,
    effects: Vec<Effect>,
    next_reply: u64,
    is_writing: bool,
    /// Set while the log cannot be written.
    fault: Option<String>,
    /// When the log is tried again.
    retry_at: Instant,
    last_now: Timestamp,
}

impl Manager {
    /// Reads the log and prepares the loop; `run` must follow.
    ///
    /// # Errors
    /// The log is unreadable, or belongs to a newer format or another key.
    pub fn open(
        config: Config,
        mut storage: Box<dyn Storage>,
    ) -> Result<(Self, Handle), StartError> {
        let mut restored = storage.restored()?;
        if restored.is_empty() {
            let (raft_id, node_id) = (config.raft_id, config.core.node_id);
            let member = Member {
                raft_id,
                node_id,
                addr: config.addr.clone(),
            };
            restored = Restored::new_group(raft_id, encode_member(&member));
            storage.bootstrap(&restored)?;
        }
        let raft_config = skep_raft::Config::new(config.raft_id, config.core.seed);
        let node = Node::new(raft_config, &restored)?;
        let (store, index) = store_from(&restored)?;
        let core = Core::new(config.core, store.clone(), index, index);
        let disk = Disk::spawn(storage).map_err(StartError::Thread)?;
        let (requests_tx, requests) = mpsc::channel(REQUESTS_MAX);
        let published = Published {
            index,
            store,
            is_leader: false,
            fault: None,
        };
        let published = Arc::new(ArcSwap::from_pointee(published));
        let (feed, _) = broadcast::channel(FEED_LENGTH);
        let handle = Handle {
            requests: requests_tx,
            published: Arc::clone(&published),
            feed: feed.clone(),
            next_connection: Arc::new(AtomicU64::new(1)),
        };
        let manager = Self {
            raft_config,
            core,
            node,
            disk,
            requests,
            published,
            feed,
            replies: HashMap::new(),
            status_replies: HashMap::new(),
            agents: HashMap::new(),
            effects: Vec::new(),
            next_reply: 0,
            is_writing: false,
            fault: None,
            retry_at: Instant::now(),
            last_now: Timestamp::ZERO,
        };
        Ok((manager, handle))
    }

    /// Runs until `shutdown` turns true or the disk thread dies.
    pub async fn run(mut self, shutdown: watch::Receiver<bool>) {
        self.serve(shutdown).await;
        self.disk.close().await;
    }

    async fn serve(&mut self, mut shutdown: watch::Receiver<bool>) {
        let mut ticker = tokio::time::interval(TICK);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut drained = Vec::with_capacity(DRAIN_MAX);
        self.campaign_alone();
        loop {
            self.progress();
            let deadline = self.next_deadline();
            tokio::select! {
                count = self.requests.recv_many(&mut drained, DRAIN_MAX) => {
                    if count == 0 {
                        return;
                    }
                    for request in drained.drain(..) {
                        self.request(request);
                    }
                }
                done = self.disk.done() => match done {
                    Some(done) => self.disk_done(done),
                    None => {
                        error!("Raft disk thread has died");
                        return;
                    }
                },
                _ = ticker.tick() => self.node.tick(),
                () = tokio::time::sleep_until(deadline) => self.retry_after_fault(),
                _ = shutdown.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// A group of one need not wait for an election timeout.
    fn campaign_alone(&mut self) {
        // What is stored must be taken up first: it tells who the members are.
        self.progress();
        let is_alone = self.node.members().voters == [self.raft_config.id];
        if is_alone && let Err(error) = self.node.campaign() {
            warn!(error = %error, "Failed to campaign");
        }
    }

    /// Steps core and raft until both wait for something outside.
    fn progress(&mut self) {
        loop {
            self.note_leadership();
            let now = self.now();
            self.core.turn(now, &mut self.effects);
            let has_acted = !self.effects.is_empty();
            self.perform();
            if !self.step_raft() && !has_acted {
                return;
            }
        }
    }

    /// Takes raft's next round of work; false when there is none to take now.
    fn step_raft(&mut self) -> bool {
        if self.is_writing || self.fault.is_some() {
            return false;
        }
        let Some(mut ready) = self.node.ready() else {
            return false;
        };
        let committed = std::mem::take(&mut ready.committed);
        let number = ready.number;
        if ready.must_write() {
            self.is_writing = true;
            self.disk.send(DiskRequest::Write(ready));
        } else {
            // A group of one has nobody to send messages to.
            let _ = self.node.persisted(number);
        }
        for entry in committed {
            self.committed(&entry);
        }
        true
    }

    fn committed(&mut self, raft_entry: &skep_raft::Entry) {
        if raft_entry.index <= self.core.index() {
            // Handed out again because raft was started anew.
            return;
        }
        let entry = raft_entry.is_command().then(|| {
            let request_id = RequestId(entry::request_id(&raft_entry.data));
            let is_own = self.core.awaits(request_id);
            let actions = if is_own {
                Vec::new()
            } else {
                decode(raft_entry)
            };
            CommittedEntry {
                request_id,
                actions,
            }
        });
        let now = self.now();
        let event = Event::Committed {
            index: raft_entry.index,
            entry,
        };
        self.core.handle(now, event, &mut self.effects);
        self.perform();
    }

    fn note_leadership(&mut self) {
        let leads = self.fault.is_none() && self.node.is_leader_ready();
        if leads == self.core.is_leading() {
            return;
        }
        let now = self.now();
        let event = if leads {
            info!(raft.term = self.node.term(), "Leads the cluster");
            Event::Led {
                term: self.node.term(),
            }
        } else {
            info!(raft.term = self.node.term(), "Leads the cluster no more");
            Event::Deposed
        };
        self.core.handle(now, event, &mut self.effects);
        self.perform();
        self.publish_role();
    }

    fn publish_role(&self) {
        let current = self.published.load();
        let published = Published {
            is_leader: self.core.is_leading(),
            fault: self.fault.clone(),
            ..Published::clone(&current)
        };
        self.published.store(Arc::new(published));
    }

    fn request(&mut self, request: Request) {
        let event = match request {
            Request::Command { command, reply } => {
                let reply_to = self.next_reply();
                self.replies.insert(reply_to, reply);
                Event::Command { reply_to, command }
            }
            Request::Connect { register, outbox } => {
                let connection = register.connection;
                self.agents.insert(connection, outbox);
                let message = FromAgent::Register {
                    node_id: register.node_id,
                    addr: register.addr,
                    request: register.request,
                };
                Event::Agent {
                    connection,
                    message,
                }
            }
            Request::Heartbeat { connection } => Event::Agent {
                connection,
                message: FromAgent::Heartbeat,
            },
            Request::Statuses {
                connection,
                updates,
                reply,
            } => {
                let reply_to = self.next_reply();
                self.status_replies.insert(reply_to, reply);
                Event::Agent {
                    connection,
                    message: FromAgent::Statuses { reply_to, updates },
                }
            }
            Request::Gone { connection } => {
                self.agents.remove(&connection);
                Event::AgentGone { connection }
            }
        };
        let now = self.now();
        self.core.handle(now, event, &mut self.effects);
        self.perform();
    }

    fn next_reply(&mut self) -> ReplyTo {
        self.next_reply += 1;
        ReplyTo(self.next_reply)
    }

    fn perform(&mut self) {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Propose {
                    request_id,
                    actions,
                } => self.propose(request_id, &actions),
                Effect::Reply { to, result } => {
                    if let Some(reply) = self.replies.remove(&to) {
                        let _ = reply.send(self.explain(result));
                    }
                }
                Effect::StatusReply { to, result } => {
                    if let Some(reply) = self.status_replies.remove(&to) {
                        let _ = reply.send(result);
                    }
                }
                Effect::Send {
                    connection,
                    message,
                } => self.send(connection, message),
                Effect::Close { connection, reason } => {
                    if let Some(agent) = self.agents.remove(&connection) {
                        let _ = agent.try_send(Err(reason));
                    }
                }
                Effect::Publish {
                    index,
                    store,
                    changes,
                } => {
                    let is_leader = self.core.is_leading();
                    let published = Published {
                        index,
                        store,
                        is_leader,
                        fault: None,
                    };
                    self.published.store(Arc::new(published));
                    let _ = self.feed.send(Feed { index, changes });
                }
                Effect::Snapshot { index, store } => self.snapshot(index, store),
            }
        }
    }

    /// Clients learn why the log cannot be written rather than that nobody leads.
    fn explain(&self, result: Result<Answer, CommandError>) -> Result<Answer, CommandError> {
        match (&self.fault, result) {
            (Some(fault), Err(error)) => Err(CommandError {
                message: fault.clone(),
                ..error
            }),
            (_, result) => result,
        }
    }

    fn propose(&mut self, request_id: RequestId, actions: &[skep_store::Action]) {
        for data in entry::encode_batch(request_id.0, actions) {
            if let Err(error) = self.node.propose(data) {
                warn!(error = %error, "Proposal refused");
                let now = self.now();
                let reason = error.to_string();
                self.core.handle(
                    now,
                    Event::Refused { request_id, reason },
                    &mut self.effects,
                );
                return;
            }
        }
    }

    fn send(&mut self, connection: ConnectionId, message: ToAgent) {
        let Some(agent) = self.agents.get(&connection) else {
            return;
        };
        if agent.try_send(Ok(message)).is_err() {
            // It lags or is gone; it will come back and get a complete set.
            self.agents.remove(&connection);
            let now = self.now();
            self.core
                .handle(now, Event::AgentGone { connection }, &mut self.effects);
        }
    }

    fn snapshot(&self, index: u64, store: Store) {
        let placed = self.node.snapshot_at(index, Bytes::new());
        let metadata = match placed {
            Ok(snapshot) => snapshot.metadata,
            Err(error) => {
                warn!(error = %error, "No snapshot taken");
                return;
            }
        };
        let kept = store
            .cluster()
            .map_or(skep_raft::SLOW_FOLLOWER_ENTRIES, |cluster| {
                cluster.spec.raft.log_entries_for_slow_followers
            });
        let compact_to = skep_raft::compaction_point(index, kept);
        let encode = Box::new(move || Bytes::from(entry::encode_snapshot(&store)));
        self.disk.send(DiskRequest::Snapshot {
            encode,
            metadata,
            compact_to,
        });
    }

    fn disk_done(&mut self, done: Done) {
        match done {
            Done::Written(number) => {
                self.is_writing = false;
                let _ = self.node.persisted(number);
            }
            Done::WriteFailed(error) => self.fail(&error),
            Done::SnapshotSaved {
                metadata,
                compact_to,
            } => {
                info!(raft.index = metadata.index, "Snapshot saved");
                self.node.snapshot_saved(&metadata, compact_to);
            }
            Done::SnapshotFailed(error) => {
                warn!(error = %error, "Snapshot failed; the log grows until the next one");
            }
            Done::Restored(restored) => self.restart_raft(restored),
        }
    }

    /// The log could not be written: clients are told, and raft starts again from what is stored.
    fn fail(&mut self, error: &DiskError) {
        error!(error = %error, "Failed to write the raft log");
        self.is_writing = false;
        self.retry_at = Instant::now() + FAULT_RETRY;
        self.fault = Some(format!("failed to write the raft log: {error}"));
        self.note_leadership();
        self.publish_role();
    }

    fn retry_after_fault(&mut self) {
        if self.fault.is_some() && !self.is_writing && Instant::now() >= self.retry_at {
            self.is_writing = true;
            self.disk.send(DiskRequest::Restore);
        }
    }

    fn restart_raft(&mut self, restored: Result<Restored, DiskError>) {
        self.is_writing = false;
        self.retry_at = Instant::now() + FAULT_RETRY;
        let started = restored
            .map_err(StartError::from)
            .and_then(|restored| Ok(Node::new(self.raft_config, &restored)?));
        match started {
            Ok(node) => {
                // The core keeps its store: what it applied was committed, so it is on disk.
                self.node = node;
                self.fault = None;
                self.campaign_alone();
            }
            Err(error) => error!(error = %error, "Failed to read the raft log back"),
        }
    }

    fn next_deadline(&self) -> Instant {
        if self.fault.is_some() {
            return if self.is_writing {
                Instant::now() + FAULT_RETRY
            } else {
                self.retry_at
            };
        }
        let wait = match self.core.next_deadline() {
            Some(deadline) => deadline.since(now()),
            None => TICK,
        };
        Instant::now() + wait
    }

    /// The wall clock, kept from going back.
    fn now(&mut self) -> Timestamp {
        self.last_now = self.last_now.max(now());
        self.last_now
    }
}

/// # Panics
/// When a committed entry is unreadable: every replica fails alike, and going on would lose an
/// acknowledged write.
fn decode(raft_entry: &skep_raft::Entry) -> Vec<skep_store::Action> {
    match log::decode_actions(&raft_entry.data, &mut SpecCache::new()) {
        Ok((_, actions)) => actions,
        Err(error) => panic!(
            "committed entry {} is unreadable: {error}",
            raft_entry.index
        ),
    }
}

fn now() -> Timestamp {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::ZERO + elapsed
}

fn store_from(restored: &Restored) -> Result<(Store, u64), StartError> {
    let Some(snapshot) = &restored.snapshot else {
        return Ok((Store::default(), 0));
    };
    let objects = entry::decode_snapshot(&snapshot.data)
        .map_err(|error| StartError::Snapshot(error.to_string()))?;
    let store =
        Store::from_objects(objects).map_err(|error| StartError::Snapshot(error.to_string()))?;
    Ok((store, snapshot.index()))
}
