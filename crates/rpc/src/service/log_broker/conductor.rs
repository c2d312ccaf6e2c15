//! One subscription: which nodes it concerns, whether they were asked, and when all is read.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use skep_manager::Handle;
use skep_model::{NodeId, NodeState, TaskId, TaskState};
use skep_store::Store;
use skep_wire::proto::SubscriptionMessage;
use tokio::{
    sync::broadcast::error::RecvError,
    time::{Instant, sleep, sleep_until},
};
use tonic::Status;

use crate::{
    convert::no_leader,
    limits::{FOLLOW_PERIOD, LISTENER_WAIT},
    logs::LogSelector,
    service::log_broker::{LogBroker, Progress, Subscription, deposed},
};

/// How long the last lines of something that is no more may take.
const FOLLOW_END: Duration = Duration::from_secs(1);

/// Owns a subscription's life.
pub(super) struct Conductor {
    broker: LogBroker,
    handle: Handle,
    subscription: Arc<Subscription>,
    /// How often nodes were asked.
    askings: u64,
}

impl Conductor {
    pub(super) fn new(broker: LogBroker, handle: Handle, subscription: Arc<Subscription>) -> Self {
        Self {
            broker,
            handle,
            subscription,
            askings: 0,
        }
    }

    pub(super) async fn run(mut self) {
        let end = self.conduct().await;
        let Self {
            broker,
            subscription,
            ..
        } = self;
        broker.lock().subscriptions.remove(&subscription.id);
        let asked: Vec<NodeId> = {
            let nodes = subscription.nodes.borrow();
            let asked = nodes.iter().filter(|(_, it)| **it != Progress::Done);
            asked.map(|(id, _)| *id).collect()
        };
        for node_id in asked {
            let close = SubscriptionMessage {
                close: true,
                ..subscription.message(node_id)
            };
            broker.ask(node_id, close);
        }
        if let Some(status) = end {
            let _ = subscription.tx.send(Err(status)).await;
        }
    }

    /// Runs until the end; what the reader is told of it.
    async fn conduct(&mut self) -> Option<Status> {
        let subscription = Arc::clone(&self.subscription);
        let mut changes = self.handle.changes();
        let mut progress = subscription.nodes.subscribe();
        let mut patience = Instant::now() + LISTENER_WAIT;
        let mut is_ending = false;
        let lost = deposed(self.handle.clone());
        let mut lost = std::pin::pin!(lost);
        loop {
            // Before anything is looked at, so that no news is lost.
            progress.mark_unchanged();
            let is_past = Instant::now() >= patience;
            self.ask_nodes();
            if !subscription.options.follow && self.is_read(is_past) {
                return self.missing();
            }
            if is_ending && is_past {
                return None;
            }
            if !is_ending && subscription.options.follow && !self.may_come() {
                // The last lines are still on their way.
                is_ending = true;
                patience = Instant::now() + FOLLOW_END;
                continue;
            }
            tokio::select! {
                changed = changes.recv() => {
                    if let Err(RecvError::Closed) = changed {
                        return Some(no_leader());
                    }
                    sleep(FOLLOW_PERIOD).await;
                    changes = changes.resubscribe();
                }
                _ = progress.changed() => {}
                () = sleep_until(patience), if !is_past => {}
                () = subscription.tx.closed() => return None,
                () = &mut lost => return Some(no_leader()),
            }
        }
    }

    /// Asks every node that is concerned, listens and was not asked yet.
    fn ask_nodes(&mut self) {
        let subscription = Arc::clone(&self.subscription);
        let view = self.handle.view();
        for node_id in concerned(&view.store, &subscription.selector) {
            let known = subscription.nodes.borrow().get(&node_id).copied();
            let known = known.unwrap_or(Progress::Waiting);
            // In this order, because the answer may come before the next line.
            if known != Progress::Waiting {
                continue;
            }
            if !self.broker.listens(node_id) {
                subscription.take_up(node_id, Progress::Waiting);
                continue;
            }
            self.askings += 1;
            subscription.set(node_id, Progress::Asked(self.askings));
            self.broker.ask(node_id, subscription.message(node_id));
        }
    }

    /// Whether what is followed may still write lines.
    fn may_come(&self) -> bool {
        let selector = &self.subscription.selector;
        let view = self.handle.view();
        let is_alive = |id: &TaskId| {
            let task = view.store.task(*id);
            task.is_some_and(|task| !task.status.state.is_terminal())
        };
        !selector.nodes.is_empty()
            || selector.tasks.iter().any(is_alive)
            || selector
                .services
                .iter()
                .any(|id| view.store.service(*id).is_some())
    }

    /// Whether nothing more will come. Nodes that do not listen get until `is_past`, dead ones nothing.
    fn is_read(&self, is_past: bool) -> bool {
        let view = self.handle.view();
        let is_down = |id: &NodeId| {
            let node = view.store.node(*id);
            node.is_none_or(|node| node.status.state == NodeState::Down)
        };
        let nodes = self.subscription.nodes.borrow();
        nodes.iter().all(|(id, progress)| match progress {
            Progress::Done => true,
            Progress::Lost | Progress::Waiting => is_past || is_down(id),
            Progress::Asked(_) => is_down(id),
        })
    }

    /// What the reader is told of nodes that did not deliver. Docker's clients show the text.
    fn missing(&self) -> Option<Status> {
        let nodes = self.subscription.nodes.borrow();
        let missing = nodes.iter().filter(|(_, it)| **it != Progress::Done);
        let missing: Vec<String> = missing
            .map(|(id, _)| format!("node {id} is not available"))
            .collect();
        if missing.is_empty() {
            return None;
        }
        let missing = missing.join(", ");
        Some(Status::unknown(format!(
            "warning: incomplete log stream. some logs could not be retrieved for the following reasons: {missing}"
        )))
    }
}

/// The nodes that may have lines of what `selector` names.
fn concerned(store: &Store, selector: &LogSelector) -> BTreeSet<NodeId> {
    let of_services = selector
        .services
        .iter()
        .flat_map(|id| store.tasks_of_service(*id));
    let named = selector.tasks.iter().filter_map(|id| store.task(*id));
    let tasks = of_services
        .chain(named)
        .filter(|task| task.status.state >= TaskState::Assigned);
    let nodes = tasks.filter_map(|task| task.node_id);
    nodes
        .chain(selector.nodes.iter().copied())
        .filter(|id| store.node(*id).is_some())
        .collect()
}
