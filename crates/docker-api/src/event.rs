//! Events and their hub: a short history and any number of live subscribers.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{StreamExt, stream};
use skep_model::Timestamp;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use crate::backend::BoxStream;

/// Events kept for `since`; Docker keeps as many, so clients know no better.
pub const HISTORY_LENGTH: usize = 256;
/// Events a slow subscriber may lag behind before it loses the oldest. About 1 KiB each.
pub const SUBSCRIBER_LAG_MAX: usize = 1024;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Kind of object: `container`, `image`, `volume`, `network`, `daemon`, `service`, `node`,
    /// `secret`, `config`.
    pub kind: &'static str,
    /// What happened: `create`, `start`, `die`, `update`, …
    pub action: String,
    /// Id of the object (images: the reference).
    pub actor_id: String,
    /// Name and details, keys as Docker's (`name`, `image`, `exitCode`, `replicas.new`, …).
    pub attributes: BTreeMap<String, String>,
    /// Who sees it.
    pub scope: EventScope,
    /// When.
    pub time: Timestamp,
}

/// Reach of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventScope {
    /// This node.
    Local,
    /// The cluster.
    Swarm,
}

impl EventScope {
    /// The lower-case name Docker's API shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Swarm => "swarm",
        }
    }
}

/// Takes events from anywhere and hands them to all subscribers.
#[derive(Debug)]
pub struct EventHub {
    /// Newest last. The lock also orders history against the channel: an event is in exactly one
    /// of "history at subscription" and "received later".
    history: Mutex<VecDeque<Arc<Event>>>,
    live: broadcast::Sender<Arc<Event>>,
}

impl Default for EventHub {
    fn default() -> Self {
        Self {
            history: Mutex::new(VecDeque::with_capacity(HISTORY_LENGTH)),
            live: broadcast::Sender::new(SUBSCRIBER_LAG_MAX),
        }
    }
}

impl EventHub {
    /// Records `event` and wakes all subscribers. Never waits.
    pub fn publish(&self, event: Event) {
        let event = Arc::new(event);
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if history.len() == HISTORY_LENGTH {
            history.pop_front();
        }
        history.push_back(event.clone());
        // No subscriber is no error.
        let _ = self.live.send(event);
    }

    /// What happened at or after `since` as far as remembered (`None`: nothing), then what happens
    /// from now on. A subscriber that lags loses the oldest events.
    pub fn subscribe(&self, since: Option<Timestamp>) -> BoxStream<Arc<Event>> {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let past: Vec<_> = match since {
            Some(since) => history
                .iter()
                .filter(|event| event.time >= since)
                .cloned()
                .collect(),
            None => Vec::new(),
        };
        let live = BroadcastStream::new(self.live.subscribe());
        drop(history);
        Box::pin(stream::iter(past).chain(live.filter_map(|event| std::future::ready(event.ok()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(second: i64) -> Event {
        Event {
            kind: "service",
            action: "create".to_owned(),
            actor_id: second.to_string(),
            attributes: BTreeMap::new(),
            scope: EventScope::Swarm,
            time: Timestamp::from_parts(second, 0),
        }
    }

    #[tokio::test]
    async fn history_and_live_events_join_without_gap_or_repetition() {
        let hub = EventHub::default();
        for second in 0..3 {
            hub.publish(event(second));
        }
        let stream = hub.subscribe(Some(Timestamp::from_parts(1, 0)));
        hub.publish(event(3));
        let ids: Vec<_> = stream
            .take(3)
            .map(|event| event.actor_id.clone())
            .collect()
            .await;
        assert_eq!(ids, ["1", "2", "3"]);
    }

    #[tokio::test]
    async fn history_is_bounded() {
        let hub = EventHub::default();
        let total = i64::try_from(HISTORY_LENGTH).expect("small") + 10;
        for second in 0..total {
            hub.publish(event(second));
        }
        let first = hub
            .subscribe(Some(Timestamp::ZERO))
            .next()
            .await
            .expect("history");
        assert_eq!(first.actor_id, "10");
    }
}
