//! Logs of services and tasks: the lines of all their containers on this node, as they come.
//!
//! Every log is read by a task of its own into one bounded queue; a slow client slows the readers,
//! never the containers. With `follow`, tasks that come later are joined from the change feed.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::StreamExt;
use skep_docker_api::{
    backend::{BoxStream, LogMessage, LogOptions, LogOrigin, LogSelector},
    error::{ApiError, Result},
};
use skep_executor::engine::Engine;
use skep_model::{Task, TaskId};
use skep_store::Store;
use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    task::JoinSet,
};
use tokio_stream::wrappers::ReceiverStream;

use crate::{backend::containers::log_stream, swarm::Active};

/// Lines that may wait for the client.
const QUEUE: usize = 256;
/// Logs read at once; tasks beyond are read as others end.
const READERS_MAX: usize = 256;

/// The lines of everything `selector` names.
pub(crate) fn stream(
    active: &Arc<Active>,
    engine: &Arc<Engine>,
    selector: LogSelector,
    options: LogOptions,
) -> BoxStream<Result<LogMessage>> {
    let (lines, rx) = mpsc::channel(QUEUE);
    let merger = Merger {
        active: Arc::clone(active),
        engine: Arc::clone(engine),
        selector,
        options,
        lines,
        seen: BTreeSet::new(),
        readers: JoinSet::new(),
    };
    let owner = tokio::spawn(merger.run());
    // The stream owns the merger: when the client goes, both end.
    let guard = AbortOnDrop(owner.abort_handle());
    Box::pin(ReceiverStream::new(rx).map(move |line| {
        let _ = &guard;
        line
    }))
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Merger {
    active: Arc<Active>,
    engine: Arc<Engine>,
    selector: LogSelector,
    options: LogOptions,
    lines: mpsc::Sender<Result<LogMessage>>,
    seen: BTreeSet<TaskId>,
    readers: JoinSet<()>,
}

impl Merger {
    async fn run(mut self) {
        let mut feed = self.active.handle.changes();
        self.join_new(&self.active.handle.view().store.clone());
        loop {
            if !self.options.follow && self.readers.is_empty() {
                return;
            }
            tokio::select! {
                Some(_) = self.readers.join_next() => {
                    self.join_new(&self.active.handle.view().store.clone());
                    if self.options.follow && self.readers.is_empty() && !self.may_come() {
                        return;
                    }
                }
                change = feed.recv(), if self.options.follow => match change {
                    Ok(_) | Err(RecvError::Lagged(_)) => {
                        self.join_new(&self.active.handle.view().store.clone());
                        if self.readers.is_empty() && !self.may_come() {
                            return;
                        }
                    }
                    Err(RecvError::Closed) => return,
                },
                () = self.lines.closed() => return,
            }
        }
    }

    /// Starts a reader for every selected task with a container here that has none yet.
    fn join_new(&mut self, store: &Store) {
        for task in selected(store, &self.selector) {
            if self.readers.len() >= READERS_MAX {
                return;
            }
            let is_here = task.node_id == Some(self.active.node_id);
            if !is_here || task.status.container.is_none() || !self.seen.insert(task.id) {
                continue;
            }
            let (Some(service), Some(node)) = (task.service_id, task.node_id) else {
                continue;
            };
            let origin = LogOrigin {
                node,
                service,
                task: task.id,
            };
            let reader = read(
                Arc::clone(&self.engine),
                origin,
                self.options,
                self.lines.clone(),
            );
            self.readers.spawn(reader);
        }
    }

    /// Whether a selected task may still get a container.
    fn may_come(&self) -> bool {
        let view = self.active.handle.view();
        let services = &self.selector.services;
        services.iter().any(|id| view.store.service(*id).is_some())
            || self.selector.tasks.iter().any(|id| {
                view.store
                    .task(*id)
                    .is_some_and(|task| !task.status.state.is_terminal())
            })
    }
}

fn selected(store: &Store, selector: &LogSelector) -> Vec<Arc<Task>> {
    let of_services = selector
        .services
        .iter()
        .flat_map(|id| store.tasks_of_service(*id))
        .cloned();
    let named = selector
        .tasks
        .iter()
        .filter_map(|id| store.task(*id))
        .cloned();
    of_services.chain(named).collect()
}

async fn read(
    engine: Arc<Engine>,
    origin: LogOrigin,
    options: LogOptions,
    lines: mpsc::Sender<Result<LogMessage>>,
) {
    let Some(container) = engine.container_of_task(origin.task) else {
        return;
    };
    let mut stream = match log_stream(&container, options) {
        Ok(stream) => stream,
        Err(error) => {
            let _ = lines.send(Err(error)).await;
            return;
        }
    };
    while let Some(line) = stream.next().await {
        let line: Result<LogMessage, ApiError> = line.map(|line| LogMessage {
            origin: Some(origin),
            ..line
        });
        if lines.send(line).await.is_err() {
            return;
        }
    }
}
