//! One subscription: which nodes it concerns, whether they were asked, and when all is read.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use skep_manager::Handle;
use skep_model::{NodeId, NodeState, Task, TaskId, TaskState};
use skep_store::Store;
use tokio::{
    sync::broadcast::error::RecvError,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    convert::no_leader,
    limits::{FOLLOW_PERIOD, LISTENER_WAIT, UNREADABLE_MAX},
    logs::LogSelector,
    service::log_broker::{LogBroker, Progress, Subscription, Told, deposed},
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
        let subscription = Arc::clone(&self.subscription);
        let conduct = async {
            let end = self.conduct().await;
            subscription.lines.finish();
            end
        };
        let (end, ()) = tokio::join!(conduct, subscription.pump());
        self.broker.lock().subscriptions.remove(&subscription.id);
        let asked: Vec<NodeId> = {
            let nodes = subscription.nodes.borrow();
            let asked = nodes.iter().filter(|(_, it)| **it != Progress::Done);
            asked.map(|(id, _)| *id).collect()
        };
        for node_id in asked {
            self.broker.ask(node_id, subscription.close());
        }
        if let Some(end) = end {
            let _ = subscription.tx.send(end).await;
        }
    }

    /// Runs until the end; what the reader is told of it.
    async fn conduct(&mut self) -> Option<Told> {
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
            self.excuse_absent(is_past);
            if !subscription.options.follow && self.is_read(is_past) {
                return self.missing();
            }
            if is_ending && is_past {
                return self.missing();
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
                        return Some(Told::Failed(no_leader()));
                    }
                    sleep(FOLLOW_PERIOD).await;
                    changes = changes.resubscribe();
                }
                _ = progress.changed() => {}
                () = sleep_until(patience), if !is_past => {}
                () = subscription.tx.closed() => return None,
                () = &mut lost => return Some(Told::Failed(no_leader())),
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
                subscription.take_up(node_id);
                continue;
            }
            self.askings += 1;
            let message = subscription.ask(node_id, self.askings);
            self.broker.ask(node_id, message);
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

    /// Whether a node is not waited for. Ones that do not listen get until `is_past`, dead ones nothing.
    fn is_absent(&self, node_id: NodeId, progress: Progress, is_past: bool) -> bool {
        let is_down = || {
            let view = self.handle.view();
            let node = view.store.node(node_id);
            node.is_none_or(|node| node.status.state == NodeState::Down)
        };
        match progress {
            Progress::Done => false,
            Progress::Lost | Progress::Waiting => is_past || is_down(),
            Progress::Asked(_) => is_down(),
        }
    }

    /// Lets the others' lines pass without those of nodes that are not waited for.
    fn excuse_absent(&self, is_past: bool) {
        let nodes = self.subscription.nodes.borrow();
        for (id, progress) in &*nodes {
            if self.is_absent(*id, *progress, is_past) {
                self.subscription.lines.excuse(*id);
            }
        }
    }

    /// Whether nothing more will come.
    fn is_read(&self, is_past: bool) -> bool {
        let nodes = self.subscription.nodes.borrow();
        nodes.iter().all(|(id, progress)| {
            *progress == Progress::Done || self.is_absent(*id, *progress, is_past)
        })
    }

    /// What the reader is told of lines that may be missing, in the words of Docker's clients and managers.
    fn missing(&self) -> Option<Told> {
        let mut missing = Vec::new();
        for (id, progress) in &*self.subscription.nodes.borrow() {
            match progress {
                Progress::Done => {}
                // One that follows is never done.
                Progress::Asked(_) if self.subscription.options.follow => {}
                Progress::Waiting => missing.push(format!("node {id} is not available")),
                Progress::Asked(_) | Progress::Lost => {
                    missing.push(format!("node {id} disconnected unexpectedly"));
                }
            }
        }
        missing.extend(self.subscription.unreadable());
        if !self.subscription.options.follow {
            let view = self.handle.view();
            missing.extend(unplaced(&view.store, &self.subscription.selector));
        }
        if missing.is_empty() {
            return None;
        }
        let missing = missing.join(", ");
        Some(Told::Warning(format!(
            "warning: incomplete log stream. some logs could not be retrieved for the following reasons: {missing}"
        )))
    }
}

/// Tasks that wait for a node, in SwarmKit's words.
fn unplaced(store: &Store, selector: &LogSelector) -> Vec<String> {
    let waiting = selected(store, selector).filter(|task| {
        task.node_id.is_none()
            && !task.status.state.is_terminal()
            && task.desired_state <= TaskState::Running
    });
    let texts = waiting.map(|task| format!("task {} has not been scheduled", task.id));
    texts.take(UNREADABLE_MAX).collect()
}

fn selected<'s>(
    store: &'s Store,
    selector: &'s LogSelector,
) -> impl Iterator<Item = &'s Arc<Task>> {
    let of_services = selector
        .services
        .iter()
        .flat_map(|id| store.tasks_of_service(*id));
    let named = selector.tasks.iter().filter_map(|id| store.task(*id));
    of_services.chain(named)
}

/// The nodes that may have lines of what `selector` names.
fn concerned(store: &Store, selector: &LogSelector) -> BTreeSet<NodeId> {
    let tasks = selected(store, selector).filter(|task| task.status.state >= TaskState::Assigned);
    let nodes = tasks.filter_map(|task| task.node_id);
    nodes
        .chain(selector.nodes.iter().copied())
        .filter(|id| store.node(*id).is_some())
        .collect()
}
