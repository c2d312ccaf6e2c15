//! What the shell's jobs do. Each is one future that ends in a [`Done`] and may be dropped any time.
//!
//! Calls to the dispatcher carry no deadline of their own: the core gives up a session whose answers
//! are overdue, which drops them.

use std::{sync::Arc, time::Duration};

use skep_model::{
    Node as NodeObject, SessionId, Task, TaskId,
    dispatch::{
        AssignmentsMessage, DispatchError, HeartbeatRequest, SessionMessage, SessionRequest,
        StatusUpdate, WeightedPeer,
    },
};
use tokio::{
    select,
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    core::{Attempt, Event},
    dispatcher::{DispatcherClient, MessageStream},
    error_chain::chain,
    exec::{Controller, ControllerError, Executor, Op, OpResult, Outcome, Waited},
};

/// How long a description of the node may take before it is tried again later.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the container's status may take to read after an operation; without it the last known
/// one is reported.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an operation may hold its permit. One that takes longer waits (for a registry, for a
/// health check) rather than computes, and must not hold up others.
const PERMIT_HOLD_MAX: Duration = Duration::from_secs(5);

/// How often an orphan's removal is tried, at 1, 2, 4, … seconds; the next start tries again.
const ORPHAN_ATTEMPTS: u32 = 8;

/// What a job brings.
pub(super) enum Done {
    /// Nothing the core needs to know.
    Nothing,
    /// An event.
    Event(Event),
    /// A task's controller, with the event that says so.
    Resolved {
        task: TaskId,
        controller: Arc<dyn Controller>,
        event: Event,
    },
    /// A message, and the stream to read on from.
    Session {
        attempt: Attempt,
        stream: MessageStream<SessionMessage>,
        message: SessionMessage,
    },
    /// A message, and the stream to read on from.
    Assignments {
        attempt: Attempt,
        stream: MessageStream<AssignmentsMessage>,
        message: AssignmentsMessage,
    },
}

/// What operations on tasks need.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) executor: Arc<dyn Executor>,
    pub(super) prepares: Arc<Semaphore>,
    pub(super) starts: Arc<Semaphore>,
}

// === impl Node ===

impl Node {
    /// Runs one operation, unless `cancel` comes first.
    pub(super) async fn run_op(
        self,
        controller: Option<Arc<dyn Controller>>,
        task: Arc<Task>,
        op: Op,
        cancel: CancellationToken,
    ) -> Done {
        let id = task.id;
        let event = |outcome| Event::OpDone {
            task: id,
            op,
            outcome,
        };
        let controller = match (op, controller) {
            (Op::Resolve, _) => {
                return match self.executor.controller(&task) {
                    Ok(controller) => {
                        let event = event(Outcome::bare(OpResult::Done));
                        Done::Resolved {
                            task: id,
                            controller,
                            event,
                        }
                    }
                    Err(error) => Done::Event(event(Outcome::bare(OpResult::Failed(error)))),
                };
            }
            (_, Some(controller)) => controller,
            (_, None) => {
                let error = ControllerError::Temporary("task has no controller".to_owned());
                return Done::Event(event(Outcome::bare(OpResult::Failed(error))));
            }
        };
        // A result that is there wins over a cancellation that came too late.
        let result = select! {
            biased;
            result = self.perform(controller.as_ref(), &task, op) => match result {
                Ok(result) => result,
                Err(error) => OpResult::Failed(error),
            },
            () = cancel.cancelled() => OpResult::Cancelled,
        };
        debug!(task.id = %id, ?op, ?result, "Operation ended");
        let mut outcome = Outcome::bare(result);
        if !matches!(op, Op::Update | Op::Remove) {
            let status = async {
                (
                    controller.container_status().await,
                    controller.port_status().await,
                )
            };
            if let Ok((container, ports)) = timeout(STATUS_TIMEOUT, status).await {
                (outcome.container, outcome.ports) = (container, ports);
            }
        }
        Done::Event(event(outcome))
    }

    async fn perform(
        &self,
        controller: &dyn Controller,
        task: &Task,
        op: Op,
    ) -> Result<OpResult, ControllerError> {
        let done = match op {
            // `run_op` has dealt with it.
            Op::Resolve => Ok(()),
            Op::Update => controller.update(task).await,
            Op::Prepare => paced(&self.prepares, controller.prepare()).await,
            Op::Start => paced(&self.starts, controller.start()).await,
            Op::Wait { is_ready } => {
                return controller.wait(is_ready).await.map(|waited| match waited {
                    Waited::Ended => OpResult::Done,
                    Waited::Ready => OpResult::Turned(None),
                    Waited::NotReady(why) => OpResult::Turned(Some(why)),
                });
            }
            Op::Shutdown => {
                // How it is to end is said by the newest task. Settings are advisory, as ever.
                if let Err(error) = controller.update(task).await {
                    debug!(task.id = %task.id, %error, "Task not updated before its end");
                }
                controller.shutdown().await
            }
            Op::Terminate => controller.terminate().await,
            Op::Remove => controller.remove().await,
        };
        done.map(|()| OpResult::Done)
    }
}

/// Runs `work` with a permit, which it gives back after a while even if it goes on.
async fn paced<T>(permits: &Semaphore, work: impl Future<Output = T> + Unpin) -> T {
    let mut work = work;
    let permit = permits.acquire().await;
    if let Ok(value) = timeout(PERMIT_HOLD_MAX, &mut work).await {
        return value;
    }
    drop(permit);
    work.await
}

pub(super) async fn describe(executor: Arc<dyn Executor>) -> Done {
    let description = match timeout(DESCRIBE_TIMEOUT, executor.describe()).await {
        Ok(Ok(description)) => Some(description),
        Ok(Err(error)) => {
            warn!(error = %chain(&error), "Node could not be described");
            None
        }
        Err(_) => {
            warn!("Description of the node timed out");
            None
        }
    };
    Done::Event(Event::Described(description))
}

pub(super) async fn configure(executor: Arc<dyn Executor>, node: Arc<NodeObject>) -> Done {
    if let Err(error) = executor.configure(&node).await {
        warn!(error = %chain(&error), "Node could not be configured");
    }
    Done::Nothing
}

pub(super) async fn remove_orphan(executor: Arc<dyn Executor>, task: TaskId) -> Done {
    for attempt in 0..ORPHAN_ATTEMPTS {
        match executor.remove_orphan(task).await {
            Ok(()) => return Done::Nothing,
            Err(error) => {
                warn!(task.id = %task, %error, "Container of an unknown task could not be removed");
            }
        }
        sleep(Duration::from_secs(1 << attempt)).await;
    }
    Done::Nothing
}

pub(super) async fn managers_changed(
    client: Arc<dyn DispatcherClient>,
    managers: Vec<WeightedPeer>,
) -> Done {
    client.managers_changed(managers).await;
    Done::Nothing
}

pub(super) async fn open_session(
    client: Arc<dyn DispatcherClient>,
    attempt: Attempt,
    request: SessionRequest,
) -> Done {
    match client.session(request).await {
        Ok(stream) => next_session_message(attempt, stream).await,
        Err(error) => Done::Event(Event::SessionEnded { attempt, error }),
    }
}

pub(super) async fn next_session_message(
    attempt: Attempt,
    mut stream: MessageStream<SessionMessage>,
) -> Done {
    match stream.recv().await.unwrap_or_else(|| Err(ended("session"))) {
        Ok(message) => Done::Session {
            attempt,
            stream,
            message,
        },
        Err(error) => Done::Event(Event::SessionEnded { attempt, error }),
    }
}

pub(super) async fn open_assignments(
    client: Arc<dyn DispatcherClient>,
    attempt: Attempt,
    session_id: SessionId,
) -> Done {
    match client.assignments(session_id).await {
        Ok(stream) => next_assignments(attempt, stream).await,
        Err(error) => Done::Event(Event::SessionEnded { attempt, error }),
    }
}

pub(super) async fn next_assignments(
    attempt: Attempt,
    mut stream: MessageStream<AssignmentsMessage>,
) -> Done {
    match stream
        .recv()
        .await
        .unwrap_or_else(|| Err(ended("assignments")))
    {
        Ok(message) => Done::Assignments {
            attempt,
            stream,
            message,
        },
        Err(error) => Done::Event(Event::SessionEnded { attempt, error }),
    }
}

pub(super) async fn heartbeat(
    client: Arc<dyn DispatcherClient>,
    attempt: Attempt,
    request: HeartbeatRequest,
) -> Done {
    let result = client.heartbeat(request).await;
    Done::Event(Event::Heartbeat { attempt, result })
}

pub(super) async fn update_statuses(
    client: Arc<dyn DispatcherClient>,
    attempt: Attempt,
    update: StatusUpdate,
) -> Done {
    let result = client.update_statuses(update).await;
    Done::Event(Event::StatusesSent { attempt, result })
}

fn ended(stream: &str) -> DispatchError {
    DispatchError::Unavailable(format!("{stream} stream ended"))
}
