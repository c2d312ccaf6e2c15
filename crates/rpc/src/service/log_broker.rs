//! The leader's log broker: readers subscribe, nodes listen for subscriptions and publish lines.
//!
//! One task per subscription ([`conductor`]) keeps asking the nodes concerned and ends it when all of them are done. Lines pass
//! from a node's call straight into the reader's short queue, so a slow reader holds the nodes back. Everything ends when this
//! manager stops leading: nodes and readers find the next leader.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use skep_manager::Handle;
use skep_model::{Id, NodeId, Rng, Timestamp};
use skep_wire::proto::{
    self, ListenSubscriptionsRequest, PublishLogsMessage, PublishLogsResponse,
    SubscribeLogsMessage, SubscribeLogsRequest, SubscriptionMessage, log_broker_server,
    logs_server,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, async_trait, codegen::BoxStream};

use crate::{
    convert::no_leader,
    limits::{LISTENER_QUEUE, LOG_QUEUE, SUBSCRIPTIONS_MAX},
    logs::{LogOptions, LogSelector},
    service::{caller, handle},
};

mod conductor;

use self::conductor::Conductor;

/// See the module's documentation. Clones are the same broker.
#[derive(Debug, Clone, Default)]
pub(super) struct LogBroker(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    listeners: BTreeMap<NodeId, Listener>,
    subscriptions: BTreeMap<String, Arc<Subscription>>,
    next_listener: u64,
}

/// A node that hears of subscriptions.
#[derive(Debug, Clone)]
struct Listener {
    number: u64,
    tx: mpsc::Sender<SubscriptionMessage>,
    /// Ends its stream.
    gone: CancellationToken,
}

/// What one reader wants.
#[derive(Debug)]
struct Subscription {
    id: String,
    selector: LogSelector,
    options: LogOptions,
    tx: mpsc::Sender<Result<SubscribeLogsMessage, Status>>,
    nodes: watch::Sender<BTreeMap<NodeId, Progress>>,
    /// When the newest line of each node was written: a node that comes back goes on from there.
    newest: Mutex<BTreeMap<NodeId, Timestamp>>,
}

/// How far a node is with a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// It does not listen.
    Waiting,
    /// It was asked; the number tells one asking from the next, so that a call left over from an earlier one changes nothing.
    Asked(u64),
    /// It has sent all it has.
    Done,
    /// It went away before it was done.
    Lost,
}

impl LogBroker {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listens(&self, node_id: NodeId) -> bool {
        self.lock().listeners.contains_key(&node_id)
    }

    /// Tells a node something. One that lags is taken for gone: its stream ends, and it comes back.
    fn ask(&self, node_id: NodeId, message: SubscriptionMessage) {
        let listener = self.lock().listeners.get(&node_id).cloned();
        if let Some(listener) = listener
            && listener.tx.try_send(message).is_err()
        {
            self.forget_listener(node_id, listener.number);
        }
    }

    /// Forgets a listener, unless a newer one took its place. What it was asked for is lost.
    fn forget_listener(&self, node_id: NodeId, number: u64) {
        let mut state = self.lock();
        let is_ours = |listener: &Listener| listener.number == number;
        if !state.listeners.get(&node_id).is_some_and(is_ours) {
            return;
        }
        if let Some(listener) = state.listeners.remove(&node_id) {
            listener.gone.cancel();
        }
        let subscriptions: Vec<_> = state.subscriptions.values().cloned().collect();
        drop(state);
        for subscription in subscriptions {
            subscription.change(node_id, |progress| match progress {
                Progress::Asked(_) => Progress::Lost,
                other => other,
            });
        }
    }

    /// Takes one node's lines for one subscription.
    async fn publish(
        &self,
        node_id: NodeId,
        mut batches: Streaming<PublishLogsMessage>,
    ) -> Result<(), Status> {
        let mut known: Option<(Arc<Subscription>, Progress)> = None;
        let result = loop {
            let batch = match batches.message().await {
                Ok(Some(batch)) => batch,
                Ok(None) => break Err(Status::invalid_argument("lines end without a close")),
                Err(status) => break Err(status),
            };
            let (subscription, asked) = match &known {
                Some(known) if known.0.id == batch.subscription_id => known,
                Some(_) => break Err(Status::invalid_argument("subscription changed")),
                None => {
                    let found = self
                        .lock()
                        .subscriptions
                        .get(&batch.subscription_id)
                        .cloned();
                    let asked = found.as_ref().and_then(|it| it.progress(node_id));
                    let (Some(found), Some(asked @ Progress::Asked(_))) = (found, asked) else {
                        return Err(Status::not_found("subscription not found"));
                    };
                    known.insert((found, asked))
                }
            };
            if subscription.progress(node_id) != Some(*asked) {
                return Err(Status::aborted("the node was asked anew"));
            }
            if batch.close {
                subscription.advance(node_id, *asked, Progress::Done);
                return Ok(());
            }
            if !batch.messages.iter().all(|message| is_of(node_id, message)) {
                break Err(Status::permission_denied("lines of another node"));
            }
            let messages = batch.messages;
            subscription.note_newest(node_id, &messages);
            let sent = subscription
                .tx
                .send(Ok(SubscribeLogsMessage { messages }))
                .await;
            if sent.is_err() {
                return Err(Status::not_found("subscription not found"));
            }
        };
        if let Some((subscription, asked)) = known {
            subscription.advance(node_id, asked, Progress::Lost);
        }
        result
    }
}

impl Subscription {
    /// What `node_id` is asked.
    fn message(&self, node_id: NodeId) -> SubscriptionMessage {
        let mut options = self.options.clone();
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(newest) = newest.get(&node_id) {
            options.since = Some(Timestamp(newest.0.saturating_add(1)));
            options.tail = None;
        }
        SubscriptionMessage {
            id: self.id.clone(),
            selector: Some((&self.selector).into()),
            options: Some((&options).into()),
            close: false,
        }
    }

    fn note_newest(&self, node_id: NodeId, messages: &[proto::LogMessage]) {
        let times = messages.iter().filter_map(|message| message.timestamp);
        let newest = times
            .map(|at| Timestamp::from_parts(at.seconds, at.nanos))
            .max();
        if let Some(newest) = newest {
            let mut all = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
            let known = all.entry(node_id).or_insert(newest);
            *known = newest.max(*known);
        }
    }

    fn progress(&self, node_id: NodeId) -> Option<Progress> {
        self.nodes.borrow().get(&node_id).copied()
    }

    /// Takes up a node that is concerned; quiet when it was there already.
    fn take_up(&self, node_id: NodeId, progress: Progress) {
        self.nodes.send_if_modified(|nodes| {
            let is_new = !nodes.contains_key(&node_id);
            nodes.entry(node_id).or_insert(progress);
            is_new
        });
    }

    fn set(&self, node_id: NodeId, progress: Progress) {
        self.nodes.send_modify(|nodes| {
            nodes.insert(node_id, progress);
        });
    }

    /// Changes the progress of a node that is concerned.
    fn change(&self, node_id: NodeId, change: impl FnOnce(Progress) -> Progress) {
        self.nodes
            .send_if_modified(|nodes| match nodes.get_mut(&node_id) {
                Some(progress) => {
                    let old = *progress;
                    *progress = change(old);
                    *progress != old
                }
                None => false,
            });
    }

    /// Sets a node's progress if it is at `from`.
    fn advance(&self, node_id: NodeId, from: Progress, to: Progress) {
        self.change(
            node_id,
            |progress| if progress == from { to } else { progress },
        );
    }
}

fn is_of(node_id: NodeId, message: &proto::LogMessage) -> bool {
    let context = message.context.as_ref();
    context.is_some_and(|context| context.node_id == node_id.as_str())
}

#[async_trait]
impl logs_server::Logs for LogBroker {
    async fn subscribe_logs(
        &self,
        request: Request<SubscribeLogsRequest>,
    ) -> Result<Response<BoxStream<SubscribeLogsMessage>>, Status> {
        let handle = handle(&request)?;
        let request = request.into_inner();
        let selector = LogSelector::try_from(request.selector.unwrap_or_default());
        let selector = selector.map_err(|error| Status::invalid_argument(error.to_string()))?;
        if selector == LogSelector::default() {
            return Err(Status::invalid_argument("log selector is empty"));
        }
        let (tx, rx) = mpsc::channel(LOG_QUEUE);
        let subscription = Arc::new(Subscription {
            id: new_id(),
            selector,
            options: request.options.unwrap_or_default().into(),
            tx,
            nodes: watch::Sender::default(),
            newest: Mutex::default(),
        });
        {
            let mut state = self.lock();
            if state.subscriptions.len() >= SUBSCRIPTIONS_MAX {
                return Err(Status::resource_exhausted("too many log readers"));
            }
            let id = subscription.id.clone();
            state.subscriptions.insert(id, Arc::clone(&subscription));
        }
        let conductor = Conductor::new(self.clone(), handle, subscription);
        // Ends when all is read, the reader goes or leadership does.
        tokio::spawn(conductor.run());
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }
}

#[async_trait]
impl log_broker_server::LogBroker for LogBroker {
    async fn listen_subscriptions(
        &self,
        request: Request<ListenSubscriptionsRequest>,
    ) -> Result<Response<BoxStream<SubscriptionMessage>>, Status> {
        let (node_id, handle) = (caller(&request)?, handle(&request)?);
        let (tx, rx) = mpsc::channel(LISTENER_QUEUE);
        let gone = CancellationToken::new();
        let (number, subscriptions) = {
            let mut state = self.lock();
            state.next_listener += 1;
            let number = state.next_listener;
            let listener = Listener {
                number,
                tx: tx.clone(),
                gone: gone.clone(),
            };
            if let Some(old) = state.listeners.insert(node_id, listener) {
                old.gone.cancel();
            }
            let subscriptions: Vec<_> = state.subscriptions.values().cloned().collect();
            (number, subscriptions)
        };
        for subscription in subscriptions {
            // The conductor is woken, and asks.
            subscription.change(node_id, |progress| match progress {
                Progress::Asked(_) | Progress::Lost => Progress::Waiting,
                other => other,
            });
            subscription.nodes.send_modify(|_| {});
        }
        let broker = self.clone();
        // Ends when the node goes or leadership does, or when a newer stream of the node takes its place.
        tokio::spawn(async move {
            tokio::select! {
                () = tx.closed() => {}
                () = gone.cancelled() => {}
                () = deposed(handle) => {}
            }
            broker.forget_listener(node_id, number);
        });
        // Its sender lives as long as the listener; the end of it is told as an error.
        let end = tokio_stream::once(Err(no_leader()));
        let messages = ReceiverStream::new(rx).map(Ok).chain(end);
        Ok(Response::new(Box::pin(messages)))
    }

    async fn publish_logs(
        &self,
        request: Request<Streaming<PublishLogsMessage>>,
    ) -> Result<Response<PublishLogsResponse>, Status> {
        let node_id = caller(&request)?;
        self.publish(node_id, request.into_inner()).await?;
        Ok(Response::new(PublishLogsResponse {}))
    }
}

/// Returns when this manager leads no more.
async fn deposed(handle: Handle) {
    let mut group = handle.group();
    loop {
        if !group.borrow_and_update().is_led_by_own() {
            return;
        }
        if group.changed().await.is_err() {
            return;
        }
    }
}

fn new_id() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    let seed = RandomState::new().hash_one(());
    Id::random(&mut Rng::from_seed(seed)).to_string()
}
