//! A node's side: hears what lines are wanted, reads and sends them.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt as _};
use skep_wire::proto::{
    self, ListenSubscriptionsRequest, PublishLogsMessage, SubscriptionMessage,
    log_broker_client::LogBrokerClient,
};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    Client, RpcError,
    connection::Connection,
    error::ErrorChain,
    limits::{
        CALL_TIMEOUT, LISTEN_RETRY, LOG_BATCH, LOG_QUEUE, PUBLISHERS_MAX, RESPONSE_BYTES_MAX,
    },
    logs::{LogEvent, LogMessage, LogOptions, LogSelector, LogSource},
};

type Events = Pin<Box<dyn Stream<Item = LogEvent> + Send>>;

/// Serves log subscriptions of the cluster from `source` until `shutdown`.
pub async fn serve(client: Client, source: Arc<dyn LogSource>, shutdown: CancellationToken) {
    let work = async {
        loop {
            if let Err(error) = listen(&client, &source).await {
                debug!(error = %ErrorChain(&error), "Log subscriptions are not heard");
            }
            sleep(LISTEN_RETRY).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = shutdown.cancelled() => {}
    }
}

/// Hears one manager until it fails.
async fn listen(client: &Client, source: &Arc<dyn LogSource>) -> Result<(), RpcError> {
    let (addr, connection) = client.connect().await?;
    let mut broker =
        LogBrokerClient::new(connection.clone()).max_decoding_message_size(RESPONSE_BYTES_MAX);
    let call = timeout(
        CALL_TIMEOUT,
        broker.listen_subscriptions(ListenSubscriptionsRequest {}),
    );
    let mut subscriptions = call
        .await
        .map_err(|_| RpcError::Deadline(addr))??
        .into_inner();
    let mut publishers = Publishers {
        connection,
        source,
        running: BTreeMap::new(),
        tasks: JoinSet::new(),
    };
    loop {
        tokio::select! {
            message = subscriptions.message() => match message? {
                Some(message) => publishers.take(message),
                None => return Ok(()),
            },
            Some(_) = publishers.tasks.join_next() => publishers.tidy(),
        }
    }
}

/// What is read for whom. Dropping it ends all reading.
struct Publishers<'l> {
    connection: Connection,
    source: &'l Arc<dyn LogSource>,
    running: BTreeMap<String, AbortHandle>,
    tasks: JoinSet<()>,
}

impl Publishers<'_> {
    fn take(&mut self, message: SubscriptionMessage) {
        if message.close {
            if let Some(task) = self.running.remove(&message.id) {
                task.abort();
            }
            return;
        }
        if self.running.contains_key(&message.id) || self.running.len() >= PUBLISHERS_MAX {
            return;
        }
        let selector = message.selector.unwrap_or_default();
        let events: Events = match LogSelector::try_from(selector) {
            Ok(selector) => {
                let options = LogOptions::from(message.options.unwrap_or_default());
                self.source.read(selector, options)
            }
            Err(error) => {
                debug!(error = %error, "Log subscription refused");
                Box::pin(futures_util::stream::empty())
            }
        };
        let connection = self.connection.clone();
        let task = self
            .tasks
            .spawn(publish(connection, message.id.clone(), events));
        self.running.insert(message.id, task);
    }

    fn tidy(&mut self) {
        self.running.retain(|_, task| !task.is_finished());
    }
}

/// Sends lines in batches and then says that there are no more.
async fn publish(connection: Connection, id: String, mut events: Events) {
    let (tx, rx) = mpsc::channel(LOG_QUEUE);
    let read = async move {
        while let Some(event) = events.next().await {
            let batches = match event {
                LogEvent::Lines(lines) => batches(lines),
                // Without lines and without an end: what SwarmKit's managers take for nothing.
                LogEvent::CaughtUp => vec![Vec::new()],
                LogEvent::Unreadable(unreadable) => vec![vec![unreadable.into()]],
            };
            for batch in batches {
                if tx.send(message(&id, batch, false)).await.is_err() {
                    return;
                }
            }
        }
        let _ = tx.send(message(&id, Vec::new(), true)).await;
    };
    let mut broker = LogBrokerClient::new(connection);
    let send = broker.publish_logs(ReceiverStream::new(rx));
    let (sent, ()) = tokio::join!(send, read);
    if let Err(status) = sent {
        debug!(reason = status.message(), "Log lines were not taken");
    }
}

/// Lines in batches that are not too large.
fn batches(lines: Vec<LogMessage>) -> Vec<Vec<proto::LogMessage>> {
    let (count_max, bytes_max) = LOG_BATCH;
    let mut batches = Vec::new();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for line in lines {
        bytes += line.data.len();
        batch.push(line.into());
        if bytes >= bytes_max || batch.len() >= count_max {
            bytes = 0;
            batches.push(std::mem::take(&mut batch));
        }
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

fn message(id: &str, messages: Vec<proto::LogMessage>, close: bool) -> PublishLogsMessage {
    PublishLogsMessage {
        subscription_id: id.to_owned(),
        messages,
        close,
    }
}
