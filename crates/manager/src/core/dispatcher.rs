//! Sessions of agents: registration, heartbeats, assignment sets.
//!
//! Part of the leader core: all state here is about connections and dies with leadership. What an
//! agent was sent follows from the committed store alone; see `docs/design/leader-core.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use skep_control::network::lacks_node_address;
use skep_model::{
    DEFAULT_HEARTBEAT_PERIOD, NetworkAttachment, Node, NodeId, NodeState, Rng, SessionId, Task,
    TaskId, TaskState, Timestamp,
    dispatch::{
        AssignmentChange, AssignmentSequence, AssignmentsKind, AssignmentsMessage, DispatchError,
        HeartbeatResponse, SessionMessage, SessionRequest, WeightedPeer,
    },
};
use skep_store::{Change, Object, Store, Transaction};

use super::supplies::Supplies;
use crate::{
    event::{ConnectionId, Effect, ToAgent},
    group::Group,
};

/// Missed heartbeats until a node counts as down (SwarmKit's grace period).
const GRACE_HEARTBEATS: u32 = 3;
/// After a change of leader agents get twice the grace to find the new one (SwarmKit).
const GRACE_AFTER_ELECTION: u32 = 2 * GRACE_HEARTBEATS;
/// And at least this: Docker's agents wait up to 8 s between attempts to register.
const GRACE_AFTER_ELECTION_MIN: Duration = Duration::from_secs(8);
/// Heartbeat period of a small cluster whose operator left Swarm's default: a silent node is found
/// after three of them.
const HEARTBEAT_MIN: Duration = Duration::from_secs(1);
/// Nodes up to which [`HEARTBEAT_MIN`] holds; beyond, the period grows with their number up to
/// Swarm's default, so that the leader takes about as many heartbeats a second as with so many.
const FAST_HEARTBEAT_NODES: usize = 1000;
/// Registrations one node may make within [`RATE_WINDOW`] (SwarmKit): more is a broken agent.
const REGISTRATIONS_MAX: usize = 3;
/// See [`REGISTRATIONS_MAX`].
const RATE_WINDOW: Duration = Duration::from_secs(8);
/// Sessions kept; one more than the largest cluster aimed at (10,000 nodes) would need.
const SESSIONS_MAX: usize = 20_000;

/// Preference SwarmKit gives every manager.
const PEER_WEIGHT: i64 = 10;

/// Message of a node whose state a new leader does not know (Swarm's text).
pub(super) const UNKNOWN_MESSAGE: &str =
    "Node moved to \"unknown\" state due to leadership change in cluster";
const DOWN_MESSAGE: &str = "heartbeat failure";
const DOWN_FROM_UNKNOWN_MESSAGE: &str = "heartbeat failure for node in \"unknown\" state";

/// A registration waiting for its node record to be written.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) connection: ConnectionId,
    pub(super) node_id: NodeId,
    pub(super) addr: String,
    pub(super) request: Box<SessionRequest>,
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    connection: ConnectionId,
    /// The task as last sent; compared to decide whether an update says anything new.
    sent: BTreeMap<TaskId, Arc<Task>>,
    sent_node: Arc<Node>,
    supplies: Supplies,
    sequence: AssignmentSequence,
}

/// All sessions and the deadlines of all nodes.
#[derive(Debug, Default)]
pub(super) struct Dispatcher {
    group: Arc<Group>,
    sessions: BTreeMap<NodeId, Session>,
    nodes_by_connection: BTreeMap<ConnectionId, NodeId>,
    /// When a node counts as down unless heard of, and the same by time.
    deadlines: BTreeMap<NodeId, Timestamp>,
    by_deadline: BTreeSet<(Timestamp, NodeId)>,
    registrations: BTreeMap<NodeId, Vec<Timestamp>>,
}

impl Dispatcher {
    /// A dispatcher of a manager in `group`.
    pub(super) fn new(group: Arc<Group>) -> Self {
        Self {
            group,
            ..Self::default()
        }
    }

    /// Takes up a changed group; agents hear of it when members or addresses changed.
    pub(super) fn set_group(&mut self, store: &Store, group: Arc<Group>, out: &mut Vec<Effect>) {
        let is_news = self.group.list() != group.list();
        self.group = group;
        if is_news {
            self.announce(store, out);
        }
    }

    /// Sends every agent the session data that all share.
    fn announce(&self, store: &Store, out: &mut Vec<Effect>) {
        for session in self.sessions.values() {
            out.push(session_message(session, store, &self.group));
        }
    }

    /// The earliest moment at which a node may have to be marked down.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    /// Begins a term: nodes thought ready become unknown until they are heard of.
    pub(super) fn begin(&mut self, tx: &mut Transaction) {
        let now = tx.now();
        let grace = heartbeat_period(tx.view()) * GRACE_AFTER_ELECTION;
        let grace = grace.max(GRACE_AFTER_ELECTION_MIN);
        let nodes: Vec<Arc<Node>> = tx.view().nodes().cloned().collect();
        for node in nodes {
            if node.status.state == NodeState::Down {
                continue;
            }
            self.set_deadline(node.id, Some(now + grace));
            if node.status.state != NodeState::Unknown {
                let mut node = Node::clone(&node);
                node.status.state = NodeState::Unknown;
                UNKNOWN_MESSAGE.clone_into(&mut node.status.message);
                tx.note_node(node).expect("a node just read can be written");
            }
        }
    }

    /// Checks a registration against limits; refused ones must be closed.
    pub(super) fn admit(
        &mut self,
        store: &Store,
        node_id: NodeId,
        addr: &str,
        now: Timestamp,
    ) -> Result<(), DispatchError> {
        if store.node(node_id).is_none() {
            return Err(DispatchError::NodeNotFound);
        }
        if self.sessions.len() >= SESSIONS_MAX && !self.sessions.contains_key(&node_id) {
            return Err(DispatchError::Unavailable("too many sessions".to_owned()));
        }
        if let Some(rival) = self.rival(store, node_id, addr, now) {
            tracing::warn!(node.id = %node_id, node.addr = addr, node.rival = rival, "Two machines have one identity");
            let message =
                format!("another machine with this node's identity is connected from {rival}");
            return Err(DispatchError::PermissionDenied(message));
        }
        let recent = self.registrations.entry(node_id).or_default();
        recent.retain(|at| now.since(*at) < RATE_WINDOW);
        if recent.len() >= REGISTRATIONS_MAX {
            return Err(DispatchError::RegisteredTooOften);
        }
        recent.push(now);
        Ok(())
    }

    /// Where another machine with the node's identity speaks from, if one has done so just now: a
    /// copied data directory. A node that moved to another address is silent at the old one.
    fn rival<'a>(
        &self,
        store: &'a Store,
        node_id: NodeId,
        addr: &str,
        now: Timestamp,
    ) -> Option<&'a str> {
        self.sessions.get(&node_id)?;
        let period = heartbeat_period(store);
        let heard_at = *self.deadlines.get(&node_id)?;
        let is_alive = heard_at.since(now) > period * GRACE_HEARTBEATS - period * 3 / 2;
        let known = &store.node(node_id)?.status.addr;
        (is_alive && known != addr).then_some(known)
    }

    /// Writes what a registering node says of itself, as far as it is new.
    pub(super) fn record(tx: &mut Transaction, registration: &Registration) {
        let Some(stored) = tx.view().node(registration.node_id) else {
            return;
        };
        let mut node = Node::clone(stored);
        node.status.state = NodeState::Ready;
        node.status.message.clear();
        node.status.addr.clone_from(&registration.addr);
        node.description = Some(registration.request.description.clone());
        if node == **stored {
            return;
        }
        // It was there all the time: only this leader did not know.
        let is_known = stored.status.message == UNKNOWN_MESSAGE
            && stored.status.state == NodeState::Unknown
            && stored.description == node.description;
        let written = if is_known {
            tx.note_node(node)
        } else {
            tx.update_node(node)
        };
        written.expect("a node just read can be written");
    }

    /// Opens the session of a registration whose record is committed.
    pub(super) fn open(
        &mut self,
        store: &Store,
        registration: &Registration,
        now: Timestamp,
        rng: &mut Rng,
        out: &mut Vec<Effect>,
    ) {
        let node_id = registration.node_id;
        let Some(node) = store.node(node_id) else {
            let connection = registration.connection;
            out.push(Effect::Close {
                connection,
                reason: DispatchError::NodeNotFound,
            });
            return;
        };
        self.close(node_id, DispatchError::SessionInvalid, out);
        let mut session = Session {
            id: SessionId::random(rng),
            connection: registration.connection,
            sent: BTreeMap::new(),
            sent_node: Arc::clone(node),
            supplies: Supplies::default(),
            sequence: AssignmentSequence::NONE,
        };
        out.push(session_message(&session, store, &self.group));
        let tasks = store
            .tasks_on_node(node_id)
            .filter(|task| is_sent(store, task))
            .cloned();
        session.sent = tasks.map(|task| (task.id, task)).collect();
        let mut changes = Vec::new();
        for task in session.sent.values() {
            session.supplies.note(store, task, &mut changes);
        }
        let tasks = session.sent.values().cloned();
        changes.extend(tasks.map(AssignmentChange::UpdateTask));
        out.push(session.assignments(AssignmentsKind::Complete, changes));
        self.nodes_by_connection.insert(session.connection, node_id);
        self.sessions.insert(node_id, session);
        self.set_deadline(
            node_id,
            Some(now + heartbeat_period(store) * GRACE_HEARTBEATS),
        );
    }

    /// A heartbeat came in.
    pub(super) fn heartbeat(
        &mut self,
        store: &Store,
        connection: ConnectionId,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        let Some(node_id) = self.nodes_by_connection.get(&connection).copied() else {
            out.push(Effect::Close {
                connection,
                reason: DispatchError::SessionInvalid,
            });
            return;
        };
        self.set_deadline(
            node_id,
            Some(now + heartbeat_period(store) * GRACE_HEARTBEATS),
        );
        let response = HeartbeatResponse {
            period: heartbeat_period(store),
        };
        out.push(Effect::Send {
            connection,
            message: ToAgent::Heartbeat(response),
        });
    }

    /// The node whose session runs over `connection`.
    pub(super) fn node_of(&self, connection: ConnectionId) -> Option<NodeId> {
        self.nodes_by_connection.get(&connection).copied()
    }

    /// A connection broke. The node keeps its deadline: it may come back.
    pub(super) fn disconnect(&mut self, connection: ConnectionId) {
        if let Some(node_id) = self.nodes_by_connection.remove(&connection) {
            self.sessions.remove(&node_id);
        }
    }

    /// This process stood still for `gap`: what agents said meanwhile waits to be read, so their
    /// silence is not theirs.
    pub(super) fn postpone(&mut self, gap: Duration) {
        let postponed: Vec<(NodeId, Timestamp)> = self
            .deadlines
            .iter()
            .map(|(id, deadline)| (*id, *deadline + gap))
            .collect();
        for (node_id, deadline) in postponed {
            self.set_deadline(node_id, Some(deadline));
        }
    }

    /// Marks nodes down whose deadline has passed.
    pub(super) fn expire(&mut self, tx: &mut Transaction, out: &mut Vec<Effect>) {
        while let Some((deadline, node_id)) = self.by_deadline.first().copied() {
            if deadline > tx.now() {
                break;
            }
            self.set_deadline(node_id, None);
            self.close(node_id, DispatchError::NodeNotRegistered, out);
            let Some(stored) = tx.view().node(node_id) else {
                continue;
            };
            let mut node = Node::clone(stored);
            let message = match node.status.state {
                NodeState::Unknown => DOWN_FROM_UNKNOWN_MESSAGE,
                NodeState::Down | NodeState::Ready | NodeState::Disconnected => DOWN_MESSAGE,
            };
            node.status.state = NodeState::Down;
            message.clone_into(&mut node.status.message);
            tx.update_node(node)
                .expect("a node just read can be written");
        }
    }

    /// Tells agents what committed changes mean for them.
    pub(super) fn send_changes(
        &mut self,
        store: &Store,
        changes: &[Change],
        out: &mut Vec<Effect>,
    ) {
        let mut updates: BTreeMap<NodeId, Vec<AssignmentChange>> = BTreeMap::new();
        for change in changes {
            match (&change.old, &change.new) {
                (_, Some(Object::Task(task))) => {
                    let Some(node_id) = task.node_id else {
                        continue;
                    };
                    let Some(session) = self.sessions.get_mut(&node_id) else {
                        continue;
                    };
                    let mut news = Vec::new();
                    session.note_task(store, task, &mut news);
                    if !news.is_empty() {
                        updates.entry(node_id).or_default().extend(news);
                    }
                }
                (Some(Object::Task(task)), None) => {
                    let Some(node_id) = task.node_id else {
                        continue;
                    };
                    let Some(session) = self.sessions.get_mut(&node_id) else {
                        continue;
                    };
                    if session.sent.remove(&task.id).is_some() {
                        let news = updates.entry(node_id).or_default();
                        news.push(AssignmentChange::RemoveTask(task.id));
                        session.supplies.release(task, news);
                    }
                }
                (_, Some(Object::Node(node))) => {
                    // A transaction may change a node twice; agents are told of the outcome.
                    let node = store.node(node.id).unwrap_or(node);
                    self.note_node(store, node, out);
                }
                (Some(Object::Cluster(old)), Some(Object::Cluster(new))) => {
                    let is_news = old.root_ca.ca_cert != new.root_ca.ca_cert
                        || old.network_bootstrap_keys != new.network_bootstrap_keys;
                    if is_news {
                        self.announce(store, out);
                    }
                }
                (Some(Object::Node(node)), None) => {
                    self.set_deadline(node.id, None);
                    self.close(node.id, DispatchError::NodeNotFound, out);
                }
                _ => {}
            }
        }
        for (node_id, changes) in updates {
            if let Some(session) = self.sessions.get_mut(&node_id) {
                out.push(session.assignments(AssignmentsKind::Incremental, changes));
            }
        }
    }

    /// Ends all sessions, because this manager leads no more.
    pub(super) fn close_all(&mut self, out: &mut Vec<Effect>) {
        for session in std::mem::take(&mut self.sessions).into_values() {
            let connection = session.connection;
            out.push(Effect::Close {
                connection,
                reason: not_leader(),
            });
        }
        *self = Self::new(Arc::clone(&self.group));
    }

    fn note_node(&mut self, store: &Store, node: &Arc<Node>, out: &mut Vec<Effect>) {
        let Some(session) = self.sessions.get_mut(&node.id) else {
            return;
        };
        let sent = &session.sent_node;
        let is_news = sent.spec != node.spec
            || sent.role != node.role
            || sent.certificate.state != node.certificate.state
            || sent.attachments != node.attachments;
        if is_news {
            session.sent_node = Arc::clone(node);
            out.push(session_message(session, store, &self.group));
        }
    }

    fn close(&mut self, node_id: NodeId, reason: DispatchError, out: &mut Vec<Effect>) {
        if let Some(session) = self.sessions.remove(&node_id) {
            self.nodes_by_connection.remove(&session.connection);
            out.push(Effect::Close {
                connection: session.connection,
                reason,
            });
        }
    }

    fn set_deadline(&mut self, node_id: NodeId, deadline: Option<Timestamp>) {
        let old = match deadline {
            Some(deadline) => self.deadlines.insert(node_id, deadline),
            None => self.deadlines.remove(&node_id),
        };
        if let Some(old) = old {
            self.by_deadline.remove(&(old, node_id));
        }
        self.by_deadline
            .extend(deadline.map(|deadline| (deadline, node_id)));
    }
}

impl Session {
    /// Remembers the task as sent and adds what the agent must hear of it.
    fn note_task(&mut self, store: &Store, task: &Arc<Task>, news: &mut Vec<AssignmentChange>) {
        if !is_sent(store, task) {
            return;
        }
        self.supplies.note(store, task, news);
        let is_news = self
            .sent
            .get(&task.id)
            .is_none_or(|sent| !is_same_for_agent(sent, task));
        if is_news {
            self.sent.insert(task.id, Arc::clone(task));
            news.push(AssignmentChange::UpdateTask(Arc::clone(task)));
        }
        if task.status.state.is_terminal() {
            self.supplies.release(task, news);
        }
    }

    fn assignments(&mut self, kind: AssignmentsKind, changes: Vec<AssignmentChange>) -> Effect {
        let applies_to = self.sequence;
        self.sequence = applies_to.next();
        let message = AssignmentsMessage {
            kind,
            applies_to,
            results_in: self.sequence,
            changes,
        };
        Effect::Send {
            connection: self.connection,
            message: ToAgent::Assignments(message),
        }
    }
}

fn session_message(session: &Session, store: &Store, group: &Group) -> Effect {
    let cluster = store.cluster();
    let message = SessionMessage {
        session_id: session.id,
        node: Some(Arc::clone(&session.sent_node)),
        managers: managers(group),
        network_bootstrap_keys: cluster
            .map(|cluster| cluster.network_bootstrap_keys.clone())
            .unwrap_or_default(),
        root_ca: cluster
            .map(|cluster| cluster.root_ca.ca_cert.clone())
            .unwrap_or_default(),
    };
    Effect::Send {
        connection: session.connection,
        message: ToAgent::Session(Arc::new(message)),
    }
}

/// Agents hear of tasks once they are placed. Never of one with a place that lacks something: a
/// dockerd would crash on it, at every start. Nor of one that has yet to get its address in the
/// node's slice, unless the agent knows it already.
fn is_sent(store: &Store, task: &Task) -> bool {
    let has_all = |place: &NetworkAttachment| place.network.is_complete();
    let waits = task.status.state == TaskState::Assigned && lacks_node_address(store, task);
    task.status.state >= TaskState::Assigned && task.networks.iter().all(has_all) && !waits
}

/// Status and bookkeeping come from the agent itself; sending them back says nothing.
fn is_same_for_agent(a: &Task, b: &Task) -> bool {
    a.desired_state == b.desired_state
        && a.node_id == b.node_id
        && (Arc::ptr_eq(&a.spec, &b.spec) || a.spec == b.spec)
        && a.endpoint == b.endpoint
        && a.annotations == b.annotations
        && a.service_annotations == b.service_annotations
        && a.log_driver == b.log_driver
        && a.assigned_generic_resources == b.assigned_generic_resources
        && a.networks == b.networks
}

/// The period agents are told. An operator's own value is kept; Swarm's default is shortened while
/// the cluster is small enough, so that dead nodes are found sooner.
fn heartbeat_period(store: &Store) -> Duration {
    let period = store.cluster().map(|cluster| cluster.spec.heartbeat_period);
    match period.unwrap_or(DEFAULT_HEARTBEAT_PERIOD) {
        DEFAULT_HEARTBEAT_PERIOD => {
            let load = store.node_count().div_ceil(FAST_HEARTBEAT_NODES);
            let load = u32::try_from(load).unwrap_or(u32::MAX).max(1);
            HEARTBEAT_MIN
                .saturating_mul(load)
                .min(DEFAULT_HEARTBEAT_PERIOD)
        }
        own => own,
    }
}

/// All managers: an agent forgets those that are not listed.
fn managers(group: &Group) -> Vec<WeightedPeer> {
    let peer = |member: skep_wire::member::Member| WeightedPeer {
        node_id: member.node_id,
        addr: member.addr,
        weight: PEER_WEIGHT,
    };
    group.list().into_iter().map(peer).collect()
}

/// What agents and clients hear from a manager that does not lead.
pub(super) fn not_leader() -> DispatchError {
    DispatchError::NoLeader("this manager does not lead the cluster".to_owned())
}
