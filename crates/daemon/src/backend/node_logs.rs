//! The logs of this node's tasks, as the cluster asks for them.
//!
//! Every log is read by a task of its own into one bounded queue; a slow reader slows the readers,
//! never the containers. With `follow`, tasks that come later are joined as their containers start.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::Arc,
};

use futures_util::{Stream, StreamExt};
use skep_docker_api::{
    backend::{self as api, Tail},
    error::Result as ApiResult,
};
use skep_executor::engine::Engine;
use skep_model::{NodeId, ServiceId, TaskId};
use skep_rpc::logs::{LogMessage, LogOptions, LogSelector, LogSource};
use tokio::{
    sync::{
        broadcast::error::RecvError,
        mpsc::{self, error::SendError},
    },
    task::JoinSet,
};
use tokio_stream::wrappers::ReceiverStream;
use tracing::warn;

use crate::{backend::containers::log_stream, error_chain::chain};

/// Lines that may wait for the cluster.
const QUEUE: usize = 256;
/// Logs read at once for one subscription; tasks beyond are read as others end.
const READERS_MAX: usize = 256;

const LABEL_SERVICE_ID: &str = "com.docker.swarm.service.id";
const LABEL_TASK_ID: &str = "com.docker.swarm.task.id";

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
    ) -> Pin<Box<dyn Stream<Item = LogMessage> + Send>> {
        let (lines, rx) = mpsc::channel(QUEUE);
        let merger = Merger {
            engine: Arc::clone(&self.engine),
            node_id: self.node_id,
            selector,
            options,
            lines,
            seen: BTreeSet::new(),
            readers: JoinSet::new(),
        };
        let owner = tokio::spawn(merger.run());
        // The stream owns the merger: when the reader goes, both end.
        let guard = AbortOnDrop(owner.abort_handle());
        Box::pin(ReceiverStream::new(rx).map(move |line| {
            let _ = &guard;
            line
        }))
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Merger {
    engine: Arc<Engine>,
    node_id: NodeId,
    selector: LogSelector,
    options: LogOptions,
    lines: mpsc::Sender<LogMessage>,
    seen: BTreeSet<TaskId>,
    readers: JoinSet<()>,
}

/// Whose container it is.
#[derive(Clone, Copy)]
struct Origin {
    service_id: Option<ServiceId>,
    node_id: NodeId,
    task_id: TaskId,
}

impl Merger {
    async fn run(mut self) {
        let mut events = self.engine.events();
        self.join_new();
        loop {
            if !self.options.follow && self.readers.is_empty() {
                return;
            }
            tokio::select! {
                Some(_) = self.readers.join_next() => self.join_new(),
                event = events.recv(), if self.options.follow => match event {
                    Ok(event) if event.action != "start" => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => self.join_new(),
                    Err(RecvError::Closed) => return,
                },
                () = self.lines.closed() => return,
            }
        }
    }

    /// Starts a reader for every selected container that has none yet.
    fn join_new(&mut self) {
        for container in self.engine.containers() {
            if self.readers.len() >= READERS_MAX {
                return;
            }
            let Some(origin) = origin(&container.record().labels, self.node_id) else {
                continue;
            };
            if is_selected(&self.selector, origin) && self.seen.insert(origin.task_id) {
                let (options, lines) = (self.options.clone(), self.lines.clone());
                self.readers.spawn(async move {
                    match log_stream(&container, api_options(&options)) {
                        Ok(stream) => drop(pass_on(stream, origin, lines).await),
                        Err(error) => warn!(error = %chain(&error), "Failed to read a log"),
                    }
                });
            }
        }
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
    mut stream: api::BoxStream<ApiResult<api::LogMessage>>,
    origin: Origin,
    lines: mpsc::Sender<LogMessage>,
) -> Result<(), SendError<LogMessage>> {
    while let Some(line) = stream.next().await {
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                warn!(task.id = %origin.task_id, error = %chain(&error), "Failed to read a log");
                return Ok(());
            }
        };
        let message = LogMessage {
            service_id: origin.service_id,
            node_id: origin.node_id,
            task_id: origin.task_id,
            time: line.time,
            is_stderr: line.source == api::LogSource::Stderr,
            data: line.data,
            attributes: line.attributes,
        };
        lines.send(message).await?;
    }
    Ok(())
}

fn api_options(options: &LogOptions) -> api::LogOptions {
    api::LogOptions {
        stdout: options.stdout,
        stderr: options.stderr,
        follow: options.follow,
        since: options.since,
        until: None,
        tail: options.tail.map_or(Tail::All, Tail::Lines),
        details: false,
    }
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
