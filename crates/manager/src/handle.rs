//! What the rest of the daemon holds of a manager.

use std::sync::Arc;

use arc_swap::ArcSwap;
use skep_control::rebalance;
use skep_model::{
    NodeId, TaskId, TaskStatus, Timestamp,
    dispatch::{DispatchError, SessionRequest},
    stack::{ApplyOptions, StackSpec},
};
use skep_store::{Change, Store};
use skep_wire::member::Member;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::{
    command::{Answer, Code, Command, CommandError},
    core::{
        lost_leadership,
        stacks::{self, StackPlan},
    },
    event::{ConnectionId, ToAgent},
    group::Group,
    manager::StepSender,
    replica::{Joined, StepRefused},
};

/// Requests on their way to the manager's loop; more wait in their callers.
pub(crate) const REQUESTS_MAX: usize = 4096;
/// Batches of changes a slow reader of the feed may lag behind before it must re-read the store.
pub(crate) const FEED_LENGTH: usize = 1024;
/// Messages to one agent that may wait in its connection; an agent that lags further is cut off.
const AGENT_QUEUE: usize = 256;

/// The committed state as readers see it.
#[derive(Debug, Clone)]
pub struct Published {
    /// Index of the last entry in `store`.
    pub index: u64,
    /// The state; cheap to clone.
    pub store: Store,
    /// Whether this manager leads and takes commands.
    pub is_leader: bool,
    /// Why commands are refused, when the manager cannot write its log.
    pub fault: Option<String>,
    /// The raft group.
    pub group: Arc<Group>,
}

impl Published {
    /// The moves that would spread running tasks better, one after the other, whatever the cluster's labels say.
    pub fn planned_moves(&self, now: Timestamp) -> Vec<rebalance::Move> {
        rebalance::preview(&self.store, now)
    }

    /// What a deploy of a stack would do; nothing is written.
    ///
    /// # Errors
    /// Those of the deploy.
    pub fn plan_stack(
        &self,
        spec: StackSpec,
        options: ApplyOptions,
        now: Timestamp,
    ) -> Result<StackPlan, CommandError> {
        stacks::plan((&self.store, self.index), &self.group, (spec, options), now)
    }

    /// Services of a stack that are not as its revision in force says. Costs as much as a deploy.
    pub fn astray(&self, stack: &str) -> Vec<String> {
        stacks::astray((&self.store, self.index), &self.group, stack)
    }
}

/// Changes of one committed entry, as the feed tells them.
#[derive(Debug, Clone)]
pub struct Feed {
    /// Index of the entry.
    pub index: u64,
    /// The state after it.
    pub store: Store,
    /// What it did; nothing when [`Self::is_whole`].
    pub changes: Arc<Vec<Change>>,
    /// The state came whole, from a snapshot: what changed is not known.
    pub is_whole: bool,
}

/// A request to the manager's loop.
pub(crate) enum Request {
    Command {
        command: Command,
        reply: oneshot::Sender<Result<Answer, CommandError>>,
    },
    Connect {
        register: Register,
        outbox: mpsc::Sender<Result<ToAgent, DispatchError>>,
    },
    Heartbeat {
        connection: ConnectionId,
    },
    Statuses {
        connection: ConnectionId,
        updates: Updates,
        reply: StatusSender,
    },
    Gone {
        connection: ConnectionId,
    },
    Join {
        node_id: NodeId,
        addr: String,
        reply: oneshot::Sender<Result<Joined, CommandError>>,
    },
    Step {
        message: Box<skep_raft::Message>,
        reply: StepSender,
    },
    Unreachable {
        raft_id: u64,
    },
    SnapshotSent {
        raft_id: u64,
        is_delivered: bool,
    },
    PeerLost {
        raft_id: u64,
    },
    Expelled,
    Contact {
        member: Member,
    },
}

pub(crate) type Updates = Vec<(TaskId, TaskStatus)>;
pub(crate) type StatusSender = oneshot::Sender<Result<(), DispatchError>>;

/// An agent's registration as it reaches the loop.
pub(crate) struct Register {
    pub(crate) connection: ConnectionId,
    pub(crate) node_id: NodeId,
    pub(crate) addr: String,
    pub(crate) request: Box<SessionRequest>,
}

/// Access to a running manager. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) published: Arc<ArcSwap<Published>>,
    pub(crate) feed: broadcast::Sender<Feed>,
    pub(crate) group: watch::Receiver<Arc<Group>>,
    pub(crate) applied: watch::Receiver<u64>,
    pub(crate) next_connection: Arc<std::sync::atomic::AtomicU64>,
}

impl Handle {
    /// Carries out a command; returns after its commit.
    ///
    /// # Errors
    /// The command was refused, or it is not known whether it was carried out (`Unavailable`).
    pub async fn command(&self, command: Command) -> Result<Answer, CommandError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Command { command, reply };
        self.requests.send(request).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// The committed state as of now.
    pub fn view(&self) -> Arc<Published> {
        self.published.load_full()
    }

    /// Changes committed from now on.
    pub fn changes(&self) -> broadcast::Receiver<Feed> {
        self.feed.subscribe()
    }

    /// The raft group, whenever it or the state of a member changes.
    pub fn group(&self) -> watch::Receiver<Arc<Group>> {
        self.group.clone()
    }

    /// Makes a manager a member of the raft group, or takes its new address; returns after the
    /// commit. Only the leader does it. The caller vouches for `node_id` and that `addr` answers.
    ///
    /// # Errors
    /// This manager does not lead, the node is no manager, or leadership was lost under way: ask
    /// the leader again.
    pub async fn join(&self, node_id: NodeId, addr: String) -> Result<Joined, CommandError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Join {
            node_id,
            addr,
            reply,
        };
        self.requests.send(request).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Takes a raft message of another manager, whose certificate the caller has checked.
    ///
    /// # Errors
    /// The message was not taken; the sender must stop if it was removed.
    pub async fn step(&self, message: skep_raft::Message) -> Result<(), StepRefused> {
        let (reply, answer) = oneshot::channel();
        let message = Box::new(message);
        let request = Request::Step { message, reply };
        let sent = self.requests.send(request).await;
        sent.map_err(|_| StepRefused::Stopped)?;
        answer.await.map_err(|_| StepRefused::Stopped)?
    }

    /// A message to a member could not be delivered.
    pub fn report_unreachable(&self, raft_id: u64) {
        // A report lost to a full queue is made again with the next message.
        let _ = self.requests.try_send(Request::Unreachable { raft_id });
    }

    /// How sending a snapshot to a member ended; must be told, or it gets nothing more.
    pub async fn report_snapshot(&self, raft_id: u64, is_delivered: bool) {
        let request = Request::SnapshotSent {
            raft_id,
            is_delivered,
        };
        let _ = self.requests.send(request).await;
    }

    /// The connection to a member was reset or refused: if it led, an election starts at once.
    pub fn peer_lost(&self, raft_id: u64) {
        let _ = self.requests.try_send(Request::PeerLost { raft_id });
    }

    /// Another manager refused a message because this one was removed from the group.
    pub async fn expelled(&self) {
        let _ = self.requests.send(Request::Expelled).await;
    }

    /// Where a manager says it is that sends raft messages and is not known as a member yet; see
    /// [`crate::Replica::contact`]. The caller vouches for its node.
    pub fn contact(&self, member: Member) {
        // It says so again with its next connection.
        let _ = self.requests.try_send(Request::Contact { member });
    }

    /// The index a read must have seen to show everything acknowledged before. As in Swarm the
    /// leader answers from memory: check-quorum ends a leader that is cut off within two seconds.
    ///
    /// # Errors
    /// This manager does not lead.
    pub fn read_index(&self) -> Result<u64, CommandError> {
        let view = self.view();
        if view.is_leader {
            Ok(view.index)
        } else {
            Err(lost_leadership())
        }
    }

    /// Waits until the entries up to `index` are in [`Self::view`].
    ///
    /// # Errors
    /// The manager has stopped.
    pub async fn wait_applied(&self, index: u64) -> Result<(), CommandError> {
        let mut applied = self.applied.clone();
        let waited = applied.wait_for(|applied| *applied >= index).await;
        waited.map(drop).map_err(|_| stopped())
    }

    /// Opens an agent's connection. The caller vouches for `node_id` (from its certificate, or
    /// because it is this very node).
    ///
    /// # Errors
    /// The manager has stopped.
    pub async fn connect(
        &self,
        node_id: NodeId,
        addr: String,
        request: SessionRequest,
    ) -> Result<AgentConnection, DispatchError> {
        let next = self
            .next_connection
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let connection = ConnectionId(next);
        let (outbox, inbox) = mpsc::channel(AGENT_QUEUE);
        let register = Register {
            connection,
            node_id,
            addr,
            request: Box::new(request),
        };
        let sent = self
            .requests
            .send(Request::Connect { register, outbox })
            .await;
        sent.map_err(|_| gone())?;
        Ok(AgentConnection {
            connection,
            requests: self.requests.clone(),
            inbox: Some(inbox),
        })
    }
}

/// One agent's connection to the dispatcher. Dropping it tells the dispatcher.
#[derive(Debug)]
pub struct AgentConnection {
    connection: ConnectionId,
    requests: mpsc::Sender<Request>,
    inbox: Option<mpsc::Receiver<Result<ToAgent, DispatchError>>>,
}

impl AgentConnection {
    /// The stream of what the dispatcher says; ends after an error. Can be taken once.
    pub fn take_inbox(&mut self) -> Option<mpsc::Receiver<Result<ToAgent, DispatchError>>> {
        self.inbox.take()
    }

    /// Says that the agent is alive; answered by [`ToAgent::Heartbeat`].
    ///
    /// # Errors
    /// The manager has stopped.
    pub async fn heartbeat(&self) -> Result<(), DispatchError> {
        let request = Request::Heartbeat {
            connection: self.connection,
        };
        self.requests.send(request).await.map_err(|_| gone())
    }

    /// Reports task statuses; returns when they are stored.
    ///
    /// # Errors
    /// They were not stored, or it is not known.
    pub async fn report(&self, updates: Updates) -> Result<(), DispatchError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Statuses {
            connection: self.connection,
            updates,
            reply,
        };
        self.requests.send(request).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for AgentConnection {
    fn drop(&mut self) {
        // When the queue is full the dispatcher learns it from missing heartbeats instead.
        let _ = self.requests.try_send(Request::Gone {
            connection: self.connection,
        });
    }
}

fn stopped() -> CommandError {
    CommandError::new(Code::Unavailable, "the manager has stopped")
}

fn gone() -> DispatchError {
    DispatchError::Unavailable("the manager has stopped".to_owned())
}
