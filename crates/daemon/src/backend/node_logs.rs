//! The logs of this node's tasks, as the cluster asks for them.
//!
//! Every log is read by a task of its own, ahead of what is needed by one batch; a slow reader slows the readers, never the containers.
//! Lines are put in the order of their times. With `follow`, tasks that come later are joined as their containers start.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use futures_util::{Stream, StreamExt};
use skep_executor::{
    engine::{Container, Engine, EngineEvent},
    runtime::{LogBatches, LogEntry, LogOptions as Wanted, OutputStream},
};
use skep_model::{NodeId, ServiceId, TaskId, Timestamp};
use skep_rpc::logs::{
    Confluence, Inlet, LogEvent, LogMessage, LogOptions, LogSelector, LogSource, Patience, Unread,
    Unreadable,
};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    task::JoinSet,
};

use crate::{backend::containers::from_runtime, error_chain::chain};

/// Lines that are handed over at once.
const BATCH: usize = 512;
/// Logs read at once for one subscription; tasks beyond are read as others end, and are in order among themselves only.
const READERS_MAX: usize = 256;
/// How long a new line waits for older ones of other containers: their monitors write it within milliseconds.
const WINDOW: Duration = Duration::from_millis(50);

const LABEL_SERVICE_ID: &str = "com.docker.swarm.service.id";
pub(crate) const LABEL_TASK_ID: &str = "com.docker.swarm.task.id";

/// See the module's documentation.
pub(crate) struct NodeLogs {
    pub(crate) engine: Arc<Engine>,
    pub(crate) node_id: NodeId,
}

impl LogSource for NodeLogs {
    fn read(
        &self,
        selector: LogSelector,
        options: LogOptions,
    ) -> Pin<Box<dyn Stream<Item = LogEvent> + Send>> {
        let patience = Patience {
            past: None,
            live: WINDOW,
        };
        let lines = Arc::new(Confluence::new(patience));
        let has_end = !options.follow;
        // Before anything is looked at, so that no start is missed.
        let events = self.engine.events();
        let mut readers = Readers {
            engine: Arc::clone(&self.engine),
            node_id: self.node_id,
            selector,
            options,
            lines: Arc::clone(&lines),
            seen: BTreeSet::new(),
            running: JoinSet::new(),
        };
        // All at once, so that the first lines of one wait for those of the others.
        readers.join_new();
        let owner = tokio::spawn(readers.run(events));
        let output = Output {
            lines,
            _owner: AbortOnDrop(owner.abort_handle()),
            events: VecDeque::new(),
            old_lines: has_end.then_some(OldLines::Given),
        };
        Box::pin(futures_util::stream::unfold(output, Output::next))
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A line, or why there are none.
enum Item {
    Line(LogMessage),
    Unreadable(Unreadable),
}

/// What the cluster gets. It owns the readers: when it goes, all of them end.
struct Output {
    lines: Arc<Confluence<TaskId, Item>>,
    _owner: AbortOnDrop,
    events: VecDeque<LogEvent>,
    old_lines: Option<OldLines>,
}

/// How far the lines are given that were there at first.
#[derive(Clone, Copy)]
enum OldLines {
    /// All were read; so many are to be given.
    Left(usize),
    /// It was said that all were given, or need not be.
    Given,
}

impl Output {
    async fn next(mut self) -> Option<(LogEvent, Self)> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some((event, self));
            }
            let items = self.lines.take(BATCH);
            let count = items.len();
            self.put(items);
            self.note_old_lines(count);
            if self.events.is_empty() && !self.lines.ready().await {
                return None;
            }
        }
    }

    fn put(&mut self, items: Vec<Item>) {
        let mut lines = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Item::Line(line) => lines.push(line),
                Item::Unreadable(unreadable) => {
                    self.events.push_back(LogEvent::Unreadable(unreadable));
                }
            }
        }
        if !lines.is_empty() {
            self.events.push_back(LogEvent::Lines(lines));
        }
    }

    /// After `count` more lines.
    fn note_old_lines(&mut self, count: usize) {
        self.old_lines = match self.old_lines {
            None => self.lines.caught_up().map(OldLines::Left),
            Some(OldLines::Left(left)) => Some(OldLines::Left(left.saturating_sub(count))),
            given => given,
        };
        if let Some(OldLines::Left(0)) = self.old_lines {
            self.old_lines = Some(OldLines::Given);
            self.events.push_back(LogEvent::CaughtUp);
        }
    }
}

struct Readers {
    engine: Arc<Engine>,
    node_id: NodeId,
    selector: LogSelector,
    options: LogOptions,
    lines: Arc<Confluence<TaskId, Item>>,
    seen: BTreeSet<TaskId>,
    running: JoinSet<()>,
}

/// Whose container it is.
#[derive(Clone, Copy)]
struct Origin {
    service_id: Option<ServiceId>,
    node_id: NodeId,
    task_id: TaskId,
}

impl Readers {
    async fn run(mut self, mut events: broadcast::Receiver<EngineEvent>) {
        loop {
            if !self.options.follow && self.running.is_empty() {
                break;
            }
            tokio::select! {
                Some(_) = self.running.join_next() => self.join_new(),
                event = events.recv(), if self.options.follow => match event {
                    Ok(event) if event.action != "start" => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => self.join_new(),
                    Err(RecvError::Closed) => break,
                },
            }
        }
        self.lines.finish();
    }

    /// Starts a reader for every selected container that has none yet.
    fn join_new(&mut self) {
        for container in self.engine.containers() {
            if self.running.len() >= READERS_MAX {
                return;
            }
            let Some(origin) = origin(&container.record().labels, self.node_id) else {
                continue;
            };
            if is_selected(&self.selector, origin) && self.seen.insert(origin.task_id) {
                let inlet = self.lines.open(origin.task_id);
                let batches = self.open(&container);
                self.running.spawn(async move {
                    // Nobody reads it: that is an end like any other.
                    let _ = pass_on(batches, origin, inlet).await;
                });
            }
        }
    }

    /// The log of a container, or why it cannot be read.
    fn open(&self, container: &Container) -> Result<LogBatches, String> {
        let options = Wanted {
            stdout: self.options.stdout,
            stderr: self.options.stderr,
            since: self.options.since.map(|time| time.0),
            until: None,
            tail: self.options.tail,
            follow: self.options.follow && !container.status().has_ended(),
        };
        let opened = container.handle().log_batches(options);
        opened.map_err(|error| from_runtime(error).message)
    }
}

fn origin(labels: &BTreeMap<String, String>, node_id: NodeId) -> Option<Origin> {
    let parse = |key| labels.get(key).map(String::as_str);
    Some(Origin {
        service_id: parse(LABEL_SERVICE_ID).and_then(|id| id.parse().ok()),
        node_id,
        task_id: parse(LABEL_TASK_ID)?.parse().ok()?,
    })
}

fn is_selected(selector: &LogSelector, origin: Origin) -> bool {
    selector.tasks.contains(&origin.task_id)
        || selector.nodes.contains(&origin.node_id)
        || origin
            .service_id
            .is_some_and(|id| selector.services.contains(&id))
}

async fn pass_on(
    batches: Result<LogBatches, String>,
    origin: Origin,
    inlet: Inlet<Item>,
) -> Result<(), Unread> {
    let mut batches = match batches {
        Ok(batches) => batches,
        Err(reason) => {
            inlet.send(vec![unreadable(origin, reason)]).await?;
            return inlet.end().await;
        }
    };
    while let Some(batch) = batches.next().await {
        match batch {
            Ok(batch) if batch.is_empty() => inlet.catch_up().await?,
            Ok(batch) => {
                let lines = batch.into_iter().map(|entry| line(origin, entry));
                inlet.send(lines.collect()).await?;
            }
            Err(error) => {
                let reason = chain(&error).to_string();
                inlet.send(vec![unreadable(origin, reason)]).await?;
                break;
            }
        }
    }
    inlet.end().await
}

fn line(origin: Origin, entry: LogEntry) -> (Timestamp, Item) {
    let time = Timestamp(entry.time);
    let line = LogMessage {
        service_id: origin.service_id,
        node_id: origin.node_id,
        task_id: origin.task_id,
        time,
        is_stderr: entry.stream == OutputStream::Stderr,
        data: entry.bytes,
        attributes: entry.details.into_iter().collect(),
    };
    (time, Item::Line(line))
}

/// Before all lines, so that it waits for none.
fn unreadable(origin: Origin, reason: String) -> (Timestamp, Item) {
    let unreadable = Unreadable {
        service_id: origin.service_id,
        node_id: origin.node_id,
        task_id: origin.task_id,
        reason,
    };
    (Timestamp(i64::MIN), Item::Unreadable(unreadable))
}

#[cfg(test)]
mod tests {
    use skep_model::Rng;

    use super::*;

    #[test]
    fn containers_are_selected_by_task_service_and_node() {
        let mut rng = Rng::from_seed(1);
        let (service, task) = (ServiceId::random(&mut rng), TaskId::random(&mut rng));
        let node_id = NodeId::random(&mut rng);
        let labels = BTreeMap::from([
            (LABEL_SERVICE_ID.to_owned(), service.to_string()),
            (LABEL_TASK_ID.to_owned(), task.to_string()),
        ]);
        let found = origin(&labels, node_id).unwrap();
        let check = |selector: LogSelector, expect| {
            assert_eq!(is_selected(&selector, found), expect, "{selector:?}");
        };
        check(LogSelector::default(), false);
        for (services, nodes, tasks) in [
            (vec![service], vec![], vec![]),
            (vec![], vec![node_id], vec![]),
            (vec![], vec![], vec![task]),
        ] {
            let selector = LogSelector {
                services,
                nodes,
                tasks,
            };
            check(selector, true);
        }
        let other = LogSelector {
            tasks: vec![TaskId::random(&mut rng)],
            ..LogSelector::default()
        };
        check(other, false);
        assert!(origin(&BTreeMap::new(), node_id).is_none(), "no task's");
    }
}
