//! The manager's shell: one loop that joins clients, agents, other managers and the disk.
//!
//! No decisions here: what happens goes into [`Replica`], outputs come out and are carried out.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use skep_model::{Timestamp, dispatch::DispatchError};
use skep_raft::{Message, Restored, Storage};
use skep_wire::member::{Member, encode_member};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior},
};
use tracing::{error, info};

use crate::{
    command::{Answer, CommandError},
    core,
    disk::Disk,
    event::{Bootstrap, ConnectionId, Event, FromAgent, ReplyTo, ToAgent},
    handle::{FEED_LENGTH, Feed, Handle, Published, REQUESTS_MAX, Request, StatusSender},
    replica::{self, DiskRequest, Joined, Output, Replica, StartError, StepRefused, TICK},
    vault::Vault,
};

/// Requests taken from the queue in one go.
const DRAIN_MAX: usize = 512;
/// Raft messages on their way to other managers; more are dropped, as a network does.
const OUTBOX_LENGTH: usize = 4096;
/// Longest wait for a successor when a leader stops.
const HAND_OVER_MAX: Duration = Duration::from_secs(1);

/// How a manager begins.
#[derive(Debug)]
pub enum Start {
    /// As the first manager of a new cluster; continues where a crash left it.
    New(Bootstrap),
    /// From its own log.
    Restored,
    /// As a member that was just added to a group, with whatever is in its log.
    Joined {
        /// All members, as told by the leader.
        members: Vec<Member>,
    },
}

/// Settings of a manager.
#[derive(Debug)]
pub struct Config {
    /// Settings of the core; `bootstrap` is set from `start`.
    pub core: core::Config,
    /// This member's raft id.
    pub raft_id: u64,
    /// Where others reach this member; told by the first log entry of a new cluster.
    pub addr: String,
    /// How it begins.
    pub start: Start,
    /// See [`replica::Config::is_compat`].
    pub is_compat: bool,
}

/// A raft message for another manager.
#[derive(Debug)]
pub struct Outbound {
    /// Whom it is for.
    pub to: Member,
    /// What.
    pub message: Message,
}

/// Raft messages to be carried to other managers.
pub type Outbox = mpsc::Receiver<Outbound>;

/// Why a manager's loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop.
    Stopped,
    /// It is not a member of the group any more.
    Removed,
    /// Its disk thread died.
    Broken,
}

/// A manager that owns its loop; see the module's documentation.
#[derive(Debug)]
pub struct Manager {
    replica: Replica,
    disk: Disk,
    requests: mpsc::Receiver<Request>,
    outbox: mpsc::Sender<Outbound>,
    published: Arc<ArcSwap<Published>>,
    feed: broadcast::Sender<Feed>,
    group: watch::Sender<Arc<crate::group::Group>>,
    applied: watch::Sender<u64>,
    replies: HashMap<ReplyTo, oneshot::Sender<Result<Answer, CommandError>>>,
    joins: HashMap<ReplyTo, oneshot::Sender<Result<Joined, CommandError>>>,
    status_replies: HashMap<ReplyTo, StatusSender>,
    agents: HashMap<ConnectionId, mpsc::Sender<Result<ToAgent, DispatchError>>>,
    outputs: Vec<Output>,
    next_reply: u64,
    /// Others say that this member was removed.
    is_expelled: bool,
    /// Raft's tick.
    tick: Duration,
}

impl Manager {
    /// Reads the log and prepares the loop; `run` must follow.
    ///
    /// # Errors
    /// The log is unreadable, or belongs to a newer format or another key.
    pub fn open(
        config: Config,
        mut storage: Box<dyn Storage>,
        vault: Box<dyn Vault>,
    ) -> Result<(Self, Handle, Outbox), StartError> {
        let mut restored = storage.restored()?;
        let mut core = config.core;
        let mut members = Vec::new();
        match config.start {
            Start::New(bootstrap) => {
                core.bootstrap = Some(bootstrap);
                if restored.is_empty() {
                    let member = Member {
                        raft_id: config.raft_id,
                        node_id: core.node_id,
                        addr: config.addr,
                    };
                    restored = Restored::new_group(config.raft_id, encode_member(&member));
                    storage.bootstrap(&restored)?;
                }
            }
            Start::Restored => {}
            Start::Joined { members: told } => members = told,
        }
        let config = replica::Config {
            core,
            raft_id: config.raft_id,
            members,
            is_compat: config.is_compat,
        };
        let tick = config.tick();
        let replica = Replica::new(config, vault, &restored)?;
        let disk = Disk::spawn(storage).map_err(StartError::Thread)?;
        let (requests_tx, requests) = mpsc::channel(REQUESTS_MAX);
        let published = Published {
            index: replica.core().index(),
            store: replica.core().store().clone(),
            is_leader: false,
            fault: None,
            group: Arc::clone(replica.group()),
        };
        let (feed, _) = broadcast::channel(FEED_LENGTH);
        let (outbox, messages) = mpsc::channel(OUTBOX_LENGTH);
        let applied = watch::Sender::new(published.index);
        let group = watch::Sender::new(Arc::clone(replica.group()));
        let published = Arc::new(ArcSwap::from_pointee(published));
        let handle = Handle {
            requests: requests_tx,
            published: Arc::clone(&published),
            feed: feed.clone(),
            group: group.subscribe(),
            applied: applied.subscribe(),
            next_connection: Arc::new(AtomicU64::new(1)),
        };
        let manager = Self {
            replica,
            disk,
            requests,
            outbox,
            published,
            feed,
            group,
            applied,
            replies: HashMap::new(),
            joins: HashMap::new(),
            status_replies: HashMap::new(),
            agents: HashMap::new(),
            outputs: Vec::new(),
            next_reply: 0,
            is_expelled: false,
            tick,
        };
        Ok((manager, handle, messages))
    }

    /// Runs until `shutdown` turns true, this member is removed, or the disk thread dies. A leader
    /// that is told to stop hands leadership over first.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) -> Ended {
        let ended = self.serve(&mut shutdown).await;
        self.disk.close().await;
        ended
    }

    async fn serve(&mut self, shutdown: &mut watch::Receiver<bool>) -> Ended {
        let mut ticker = tokio::time::interval(self.tick);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut drained = Vec::with_capacity(DRAIN_MAX);
        let mut give_up_at = None;
        self.replica.campaign_alone(&mut self.outputs);
        loop {
            // A heartbeat that waits here is not late.
            for _ in 0..DRAIN_MAX {
                let Ok(request) = self.requests.try_recv() else {
                    break;
                };
                self.request(request);
            }
            self.replica.progress(now(), &mut self.outputs);
            self.perform();
            if self.is_expelled || self.replica.is_removed() {
                info!("Removed from the raft group");
                return Ended::Removed;
            }
            let is_handed_over = !self.replica.raft().is_leader();
            if give_up_at.is_some_and(|at| is_handed_over || Instant::now() >= at) {
                return Ended::Stopped;
            }
            let deadline = self.next_deadline();
            tokio::select! {
                count = self.requests.recv_many(&mut drained, DRAIN_MAX) => {
                    if count == 0 {
                        return Ended::Stopped;
                    }
                    for request in drained.drain(..) {
                        self.request(request);
                    }
                }
                done = self.disk.done() => match done {
                    Some(done) => self.replica.disk_done(now(), done, &mut self.outputs),
                    None => {
                        error!("Raft disk thread has died");
                        return Ended::Broken;
                    }
                },
                _ = ticker.tick() => self.replica.tick(now()),
                () = tokio::time::sleep_until(deadline) => {}
                _ = shutdown.wait_for(|stop| *stop), if give_up_at.is_none() => {
                    if !self.replica.hand_over() {
                        return Ended::Stopped;
                    }
                    info!("Hands leadership over");
                    give_up_at = Some(Instant::now() + HAND_OVER_MAX);
                }
            }
        }
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
            peer => return self.peer_request(peer),
        };
        self.replica.handle(now(), event, &mut self.outputs);
    }

    /// What other managers, or the transport to them, say.
    fn peer_request(&mut self, request: Request) {
        match request {
            Request::Join {
                node_id,
                addr,
                reply,
            } => {
                let to = self.next_reply();
                self.joins.insert(to, reply);
                self.replica
                    .join(now(), to, node_id, addr, &mut self.outputs);
            }
            Request::Step { message, reply } => {
                let result = self.replica.step(now(), *message);
                let _ = reply.send(result);
            }
            Request::Unreachable { raft_id } => self.replica.report_unreachable(raft_id),
            Request::SnapshotSent {
                raft_id,
                is_delivered,
            } => self.replica.report_snapshot(raft_id, is_delivered),
            Request::PeerLost { raft_id } => self.replica.peer_lost(now(), raft_id),
            Request::Expelled => self.is_expelled = true,
            Request::Contact { member } => self.replica.contact(member),
            Request::Command { .. }
            | Request::Connect { .. }
            | Request::Heartbeat { .. }
            | Request::Statuses { .. }
            | Request::Gone { .. } => {}
        }
    }

    fn next_reply(&mut self) -> ReplyTo {
        self.next_reply += 1;
        ReplyTo(self.next_reply)
    }

    /// Carries out what the replica wants. Sending to an agent that lags makes more of it.
    fn perform(&mut self) {
        while !self.outputs.is_empty() {
            for output in std::mem::take(&mut self.outputs) {
                self.perform_one(output);
            }
        }
    }

    fn perform_one(&mut self, output: Output) {
        match output {
            Output::Message { to, message } => {
                let _ = self.outbox.try_send(Outbound { to, message });
            }
            Output::Disk(request) => self.disk_request(request),
            Output::Reply { to, result } => {
                if let Some(reply) = self.replies.remove(&to) {
                    let _ = reply.send(result);
                }
            }
            Output::Joined { to, result } => {
                if let Some(reply) = self.joins.remove(&to) {
                    let _ = reply.send(result);
                }
            }
            Output::StatusReply { to, result } => {
                if let Some(reply) = self.status_replies.remove(&to) {
                    let _ = reply.send(result);
                }
            }
            Output::Send {
                connection,
                message,
            } => self.send(connection, message),
            Output::Close { connection, reason } => {
                if let Some(agent) = self.agents.remove(&connection) {
                    let _ = agent.try_send(Err(reason));
                }
            }
            Output::Publish {
                index,
                store,
                changes,
            } => {
                let current = self.published.load();
                let published = Published {
                    index,
                    store: store.clone(),
                    ..Published::clone(&current)
                };
                self.published.store(Arc::new(published));
                self.applied.send_replace(index);
                let _ = self.feed.send(Feed {
                    index,
                    store,
                    is_whole: changes.is_none(),
                    changes: changes.unwrap_or_default(),
                });
            }
            Output::Status => self.publish_status(),
        }
    }

    fn disk_request(&mut self, request: DiskRequest) {
        let receiver = match &request {
            DiskRequest::Attach(message) => Some(message.to),
            _ => None,
        };
        if !self.disk.send(request)
            && let Some(raft_id) = receiver
        {
            self.replica.report_snapshot(raft_id, false);
        }
    }

    fn publish_status(&mut self) {
        let current = self.published.load();
        let published = Published {
            is_leader: self.replica.core().is_leading(),
            fault: self.replica.fault().map(ToOwned::to_owned),
            group: Arc::clone(self.replica.group()),
            ..Published::clone(&current)
        };
        self.published.store(Arc::new(published));
        self.group.send_replace(Arc::clone(self.replica.group()));
    }

    fn send(&mut self, connection: ConnectionId, message: ToAgent) {
        let Some(agent) = self.agents.get(&connection) else {
            return;
        };
        if agent.try_send(Ok(message)).is_err() {
            // It lags or is gone; it will come back and get a complete set.
            self.agents.remove(&connection);
            let event = Event::AgentGone { connection };
            self.replica.handle(now(), event, &mut self.outputs);
        }
    }

    fn next_deadline(&self) -> Instant {
        let wait = match self.replica.next_deadline() {
            Some(deadline) => deadline.since(now()),
            None => TICK,
        };
        Instant::now() + wait
    }
}

/// The wall clock; [`Replica`] keeps it from going back.
fn now() -> Timestamp {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::ZERO + elapsed
}

/// What the loop answers to a raft message.
pub(crate) type StepSender = oneshot::Sender<Result<(), StepRefused>>;
