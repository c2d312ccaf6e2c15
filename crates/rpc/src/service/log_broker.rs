//! The leader's log broker: readers subscribe, nodes listen for subscriptions and publish lines.
//!
//! One task per subscription ([`conductor`]) keeps asking the nodes concerned and ends it when all of them are done, and puts their
//! lines into one order. A node's call waits until its lines are needed, so a slow reader holds the nodes back. Everything ends when
//! this manager stops leading: nodes and readers find the next leader. Design: `docs/design/logs.md`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use skep_manager::Handle;
use skep_model::NodeId;
use skep_wire::{
    peer::{LogLines, ReadLogsRequest, log_reading_server},
    proto::{
        self, ListenSubscriptionsRequest, PublishLogsMessage, PublishLogsResponse,
        SubscribeLogsMessage, SubscribeLogsRequest, SubscriptionMessage, log_broker_server,
        logs_server,
    },
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, async_trait, codegen::BoxStream};

use crate::{
    convert::no_leader,
    limits::{LISTENER_QUEUE, SUBSCRIPTIONS_MAX},
    logs::{
        LogSelector,
        confluence::Inlet,
        convert::{log_lines, read_request, time},
        positions::Positions,
    },
    service::{caller, handle},
};

mod conductor;
mod subscription;

use self::{
    conductor::Conductor,
    subscription::{Line, Progress, Subscription, Told},
};

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
        let mut known: Option<Publication> = None;
        let result = loop {
            let mut batch = match batches.message().await {
                Ok(Some(batch)) => batch,
                Ok(None) => break Err(Status::invalid_argument("lines end without a close")),
                Err(status) => break Err(status),
            };
            let publication = match &known {
                Some(known) if known.subscription.id == batch.subscription_id => known,
                Some(_) => break Err(Status::invalid_argument("subscription changed")),
                None => {
                    let found = self.publication(node_id, &batch.subscription_id);
                    known.insert(found.ok_or_else(|| Status::not_found("subscription not found"))?)
                }
            };
            let subscription = &publication.subscription;
            if subscription.progress(node_id) != Some(publication.asked) {
                return Err(Status::aborted("the node was asked anew"));
            }
            if !batch.messages.iter().all(|message| is_of(node_id, message)) {
                break Err(Status::permission_denied("lines of another node"));
            }
            let is_mark = batch.messages.is_empty();
            subscription.sort_out(&mut batch.messages);
            let messages = batch.messages.into_iter();
            let lines: Vec<_> = messages
                .map(|message| (time(&message), (node_id, message)))
                .collect();
            let inlet = &publication.inlet;
            let sent = match (batch.close, is_mark) {
                (true, _) => inlet.end().await,
                (false, true) => inlet.catch_up().await,
                (false, false) => inlet.send(lines).await,
            };
            if sent.is_err() {
                return Err(Status::not_found("subscription not found"));
            }
            if batch.close {
                subscription.advance(node_id, publication.asked, Progress::Done);
                return Ok(());
            }
        };
        if let Some(publication) = known {
            let Publication {
                subscription,
                asked,
                ..
            } = publication;
            subscription.advance(node_id, asked, Progress::Lost);
        }
        result
    }

    /// What `node_id` was asked for under this name.
    fn publication(&self, node_id: NodeId, id: &str) -> Option<Publication> {
        let subscription = self.lock().subscriptions.get(id).cloned()?;
        let asked = subscription.progress(node_id)?;
        let inlet = subscription.inlet(node_id, asked)?;
        Some(Publication {
            subscription,
            asked,
            inlet,
        })
    }

    /// Begins a reader's subscription.
    fn subscribe(
        &self,
        handle: Handle,
        request: SubscribeLogsRequest,
        known: Positions,
    ) -> Result<mpsc::Receiver<Told>, Status> {
        let selector = LogSelector::try_from(request.selector.unwrap_or_default());
        let selector = selector.map_err(|error| Status::invalid_argument(error.to_string()))?;
        if selector == LogSelector::default() {
            return Err(Status::invalid_argument("log selector is empty"));
        }
        let options = request.options.unwrap_or_default().into();
        let (subscription, rx) = Subscription::new(selector, options, known);
        let subscription = Arc::new(subscription);
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
        Ok(rx)
    }
}

/// One node's lines for one reader.
struct Publication {
    subscription: Arc<Subscription>,
    asked: Progress,
    inlet: Inlet<Line>,
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
        let told = self.subscribe(handle, request.into_inner(), Positions::default())?;
        let messages = ReceiverStream::new(told).map(|told| match told {
            Told::Lines(lines) => Ok(SubscribeLogsMessage {
                messages: lines.into_iter().map(|(_, line)| line).collect(),
            }),
            // As SwarmKit's broker ends; its clients show the text.
            Told::Warning(text) => Err(Status::unknown(text)),
            Told::Failed(status) => Err(status),
        });
        Ok(Response::new(Box::pin(messages)))
    }
}

#[async_trait]
impl log_reading_server::LogReading for LogBroker {
    async fn read(
        &self,
        request: Request<ReadLogsRequest>,
    ) -> Result<Response<BoxStream<LogLines>>, Status> {
        let handle = handle(&request)?;
        let (request, known) = read_request(request.into_inner())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let told = self.subscribe(handle, request, Positions::known(known))?;
        let messages = ReceiverStream::new(told).map(|told| match told {
            Told::Lines(lines) => Ok(log_lines(lines.into_iter().map(|(_, line)| line))),
            Told::Warning(warning) => Ok(LogLines {
                warning,
                ..LogLines::default()
            }),
            Told::Failed(status) => Err(status),
        });
        Ok(Response::new(Box::pin(messages)))
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
pub(super) async fn deposed(handle: Handle) {
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
