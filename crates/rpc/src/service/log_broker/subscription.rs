//! What one reader wants, how far each node is with it, and the lines on their way.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use skep_model::{Id, NodeId, Rng};
use skep_wire::proto::{LogMessage, LogStream, SubscriptionMessage};
use tokio::sync::{mpsc, watch};
use tonic::Status;

use crate::{
    limits::{LISTENER_WAIT, LOG_BATCH, LOG_QUEUE, LOG_WINDOW, UNREADABLE_MAX},
    logs::{
        LogOptions, LogSelector,
        confluence::{Confluence, Inlet},
        convert::time,
        merge::Patience,
        positions::Positions,
    },
};

/// A line, and the node that sent it.
pub(super) type Line = (NodeId, LogMessage);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) id: String,
    pub(super) selector: LogSelector,
    pub(super) options: LogOptions,
    pub(super) tx: mpsc::Sender<Told>,
    pub(super) nodes: watch::Sender<BTreeMap<NodeId, Progress>>,
    pub(super) lines: Confluence<NodeId, Line>,
    /// Where the lines of a node go in, by the number of its asking.
    inlets: Mutex<BTreeMap<NodeId, (u64, Inlet<Line>)>>,
    /// Locked before `lines` are taken or a source is opened: what is taken is noted before anything else happens.
    positions: Mutex<Positions>,
    /// Tasks whose logs cannot be read, and why.
    unreadable: Mutex<BTreeMap<String, String>>,
}

/// What a reader is told.
#[derive(Debug)]
pub(super) enum Told {
    /// Lines in order.
    Lines(Vec<Line>),
    /// All is read that can be; this is not.
    Warning(String),
    /// It breaks off.
    Failed(Status),
}

/// How far a node is with a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It does not listen.
    Waiting,
    /// It was asked; the number tells one asking from the next, so that a call left over from an earlier one changes nothing.
    Asked(u64),
    /// It has sent all it has.
    Done,
    /// It went away before it was done.
    Lost,
}

// === impl Subscription ===

impl Subscription {
    /// A subscription, and what its reader is told.
    pub(super) fn new(
        selector: LogSelector,
        options: LogOptions,
        positions: Positions,
    ) -> (Self, mpsc::Receiver<Told>) {
        let (tx, rx) = mpsc::channel(LOG_QUEUE);
        let patience = match options.follow {
            true => Patience {
                past: Some(LISTENER_WAIT),
                live: LOG_WINDOW,
            },
            false => Patience {
                past: None,
                live: Duration::ZERO,
            },
        };
        let subscription = Self {
            id: new_id(),
            selector,
            options,
            tx,
            nodes: watch::Sender::default(),
            lines: Confluence::new(patience),
            inlets: Mutex::default(),
            positions: Mutex::new(positions),
            unreadable: Mutex::default(),
        };
        (subscription, rx)
    }

    /// Passes lines on until there are no more, or nobody wants them.
    pub(super) async fn pump(&self) {
        while self.lines.ready().await {
            let lines = {
                let mut positions = lock(&self.positions);
                let mut lines = self.lines.take(LOG_BATCH.0);
                lines.retain(|(node_id, line)| {
                    let task = line.context.as_ref().map_or("", |it| &it.task_id);
                    positions.is_new(*node_id, task, time(line))
                });
                lines
            };
            if !lines.is_empty() && self.tx.send(Told::Lines(lines)).await.is_err() {
                return;
            }
        }
    }

    /// Begins with a node, or begins anew. What it is to be asked.
    pub(super) fn ask(&self, node_id: NodeId, number: u64) -> SubscriptionMessage {
        let mut positions = lock(&self.positions);
        let since = positions.begin_anew(node_id);
        let inlet = self.lines.open(node_id);
        drop(positions);
        lock(&self.inlets).insert(node_id, (number, inlet));
        self.set(node_id, Progress::Asked(number));
        let mut options = self.options.clone();
        if since.is_some() {
            options.since = since.max(options.since);
            options.tail = None;
        }
        SubscriptionMessage {
            id: self.id.clone(),
            selector: Some((&self.selector).into()),
            options: Some((&options).into()),
            close: false,
        }
    }

    /// What a node that is asked for something is told when it is wanted no more.
    pub(super) fn close(&self) -> SubscriptionMessage {
        SubscriptionMessage {
            id: self.id.clone(),
            selector: None,
            options: None,
            close: true,
        }
    }

    /// Where the lines of a node go in, while it is at this asking.
    pub(super) fn inlet(&self, node_id: NodeId, asked: Progress) -> Option<Inlet<Line>> {
        let inlets = lock(&self.inlets);
        let (number, inlet) = inlets.get(&node_id)?;
        (asked == Progress::Asked(*number)).then(|| inlet.clone())
    }

    /// Sorts out what nodes say of logs that they cannot read: messages of neither stream.
    pub(super) fn sort_out(&self, messages: &mut Vec<LogMessage>) {
        messages.retain(|message| {
            if message.stream() != LogStream::Unknown {
                return true;
            }
            let mut unreadable = lock(&self.unreadable);
            if unreadable.len() < UNREADABLE_MAX {
                let task = message.context.as_ref().map(|it| it.task_id.clone());
                let reason = String::from_utf8_lossy(&message.data).into_owned();
                unreadable.insert(task.unwrap_or_default(), reason);
            }
            false
        });
    }

    /// Why the logs of some tasks could not be read.
    pub(super) fn unreadable(&self) -> Vec<String> {
        let unreadable = lock(&self.unreadable);
        let reasons = unreadable.iter();
        reasons
            .map(|(task, reason)| format!("task {task}: {reason}"))
            .collect()
    }

    pub(super) fn progress(&self, node_id: NodeId) -> Option<Progress> {
        self.nodes.borrow().get(&node_id).copied()
    }

    /// Takes up a node that is concerned and does not listen; quiet when it was there already.
    pub(super) fn take_up(&self, node_id: NodeId) {
        self.nodes.send_if_modified(|nodes| {
            let is_new = !nodes.contains_key(&node_id);
            if is_new {
                self.lines.expect(node_id);
                nodes.insert(node_id, Progress::Waiting);
            }
            is_new
        });
    }

    fn set(&self, node_id: NodeId, progress: Progress) {
        self.nodes.send_modify(|nodes| {
            nodes.insert(node_id, progress);
        });
    }

    /// Changes the progress of a node that is concerned.
    pub(super) fn change(&self, node_id: NodeId, change: impl FnOnce(Progress) -> Progress) {
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
    pub(super) fn advance(&self, node_id: NodeId, from: Progress, to: Progress) {
        self.change(
            node_id,
            |progress| if progress == from { to } else { progress },
        );
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn new_id() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    let seed = RandomState::new().hash_one(());
    Id::random(&mut Rng::from_seed(seed)).to_string()
}
