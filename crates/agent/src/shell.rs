//! The tokio shell around [`AgentCore`]: one loop that owns it, and the jobs that do its effects.
//!
//! Jobs (calls to the dispatcher, operations on containers) live in one `JoinSet` and answer with
//! events; the loop stores a turn's changes in one transaction before it starts the turn's jobs.
//! On shutdown jobs are dropped and containers run on. No decisions are made here.

use std::{collections::BTreeMap, num::NonZeroUsize, sync::Arc};

use skep_model::{Rng, TaskId};
use tokio::{
    select,
    sync::{Notify, Semaphore, mpsc, oneshot, watch},
    task::{AbortHandle, JoinError, JoinSet},
    time::sleep_until,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::handle::{Handle, Report};
use self::{
    clock::Clock,
    jobs::{Done, Node as NodeJobs},
};
use crate::{
    core::{AgentCore, Attempt, Change, Effect, Event},
    db::{self, Db},
    dispatcher::DispatcherClient,
    exec::{Controller, Executor},
};

mod clock;
mod handle;
mod jobs;

#[cfg(test)]
mod tests;

/// Prepares, and likewise starts, that run at once per core. Starting a container costs about a core
/// for some milliseconds of every ten it takes; twice the cores keeps them busy while some wait for
/// the disk. More makes all slower and starves what already runs.
const OPS_PER_CORE: usize = 2;

/// Events handled before their changes are stored. Bounds how long an answer waits for its fsync.
const EVENTS_PER_TURN_MAX: usize = 256;

/// Leave requests that wait; the daemon sends one.
const COMMANDS_MAX: usize = 4;

/// Settings of an agent.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Seed of the reconnection jitter; different on every node, e.g. drawn from the OS.
    pub seed: u64,
    /// Cores of the node; bounds parallel prepares and starts.
    pub core_count: NonZeroUsize,
}

/// Why an agent stopped by itself. Containers run on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The worker database failed.
    #[error(transparent)]
    Db(#[from] db::Error),
    /// The agent is not running any more.
    #[error("agent has stopped")]
    Stopped,
}

/// A worker, not yet running.
pub struct Agent {
    config: AgentConfig,
    db: Arc<Db>,
    client: Arc<dyn DispatcherClient>,
    executor: Arc<dyn Executor>,
    commands: mpsc::Receiver<oneshot::Sender<()>>,
    redescribe: Arc<Notify>,
    report: watch::Sender<Report>,
    handle: Handle,
}

/// A worker, running: everything but its core.
struct Shell {
    db: Arc<Db>,
    client: Arc<dyn DispatcherClient>,
    node: NodeJobs,
    jobs: JoinSet<Done>,
    /// The attempt whose streams are read on.
    attempt: Option<Attempt>,
    /// Jobs of that attempt; dropped with it.
    session_jobs: Vec<AbortHandle>,
    configure_job: Option<AbortHandle>,
    controllers: BTreeMap<TaskId, Arc<dyn Controller>>,
    cancels: BTreeMap<TaskId, CancellationToken>,
    clock: Clock,
}

/// Whether the loop goes on.
#[derive(Debug, PartialEq, Eq)]
enum Flow {
    Continue,
    Left,
}

// === impl Agent ===

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Agent {
    /// An agent on this node's `executor` with the tasks of `db`.
    pub fn new(
        config: AgentConfig,
        executor: Arc<dyn Executor>,
        client: Box<dyn DispatcherClient>,
        db: Db,
    ) -> Self {
        let (commands_tx, commands) = mpsc::channel(COMMANDS_MAX);
        let (report, report_rx) = watch::channel(Report::default());
        let redescribe = Arc::new(Notify::new());
        let handle = Handle::new(commands_tx, Arc::clone(&redescribe), report_rx);
        Self {
            config,
            db: Arc::new(db),
            client: Arc::from(client),
            executor,
            commands,
            redescribe,
            report,
            handle,
        }
    }

    /// A handle to the agent; works before and while it runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until `shutdown`, or until all tasks are gone after [`Handle::leave`]. Containers run on
    /// after a shutdown and are adopted by the next run.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Self {
            config,
            db,
            client,
            executor,
            mut commands,
            redescribe,
            report,
            handle,
        } = self;
        // The agent's own handle would keep the command channel open for ever.
        drop(handle);
        let loaded = load(&db).await?;
        let known = executor.known_tasks().await;
        info!(
            task.count = loaded.tasks.len(),
            container.count = known.len(),
            "Agent started"
        );
        let mut core = AgentCore::new(Rng::from_seed(config.seed), loaded.tasks, known);
        let mut shell = Shell::new(&config, db, client, executor);
        let mut leaving: Vec<oneshot::Sender<()>> = Vec::new();
        let mut effects = Vec::new();
        core.start(shell.clock.now(), &mut effects);
        let result = loop {
            match shell.perform(&mut effects).await {
                Ok(Flow::Continue) => {}
                Ok(Flow::Left) => break Ok(()),
                Err(error) => break Err(error),
            }
            handle::publish(&report, &core);
            let wake_at = shell.clock.instant(core.next_deadline());
            // Every arm is cancel-safe: an event is either taken whole or stays where it is. Jobs come
            // last because they can be ready all the time.
            let event = select! {
                biased;
                () = shutdown.cancelled() => break Ok(()),
                () = sleep_until(wake_at) => Some(Event::Tick),
                Some(reply) = commands.recv() => {
                    leaving.push(reply);
                    Some(Event::Leave)
                }
                () = redescribe.notified() => Some(Event::Redescribe),
                Some(done) = shell.jobs.join_next() => shell.event_of(done),
            };
            let now = shell.clock.now();
            event
                .into_iter()
                .for_each(|event| core.handle(now, event, &mut effects));
            for _ in 1..EVENTS_PER_TURN_MAX {
                let Some(done) = shell.jobs.try_join_next() else {
                    break;
                };
                let event = shell.event_of(done);
                event
                    .into_iter()
                    .for_each(|event| core.handle(now, event, &mut effects));
            }
        };
        shell.jobs.shutdown().await;
        if result.is_ok() && !shutdown.is_cancelled() {
            for reply in leaving {
                // Whoever asked may have stopped waiting.
                let _ = reply.send(());
            }
        }
        info!("Agent stopped");
        result
    }
}

// === impl Shell ===

impl Shell {
    fn new(
        config: &AgentConfig,
        db: Arc<Db>,
        client: Arc<dyn DispatcherClient>,
        executor: Arc<dyn Executor>,
    ) -> Self {
        let ops = config.core_count.get().saturating_mul(OPS_PER_CORE);
        let permits = || Arc::new(Semaphore::new(ops.min(Semaphore::MAX_PERMITS)));
        Self {
            db,
            client,
            node: NodeJobs {
                executor,
                prepares: permits(),
                starts: permits(),
            },
            jobs: JoinSet::new(),
            attempt: None,
            session_jobs: Vec::new(),
            configure_job: None,
            controllers: BTreeMap::new(),
            cancels: BTreeMap::new(),
            clock: Clock::new(),
        }
    }

    /// Stores the changes among `effects`, then starts the others.
    async fn perform(&mut self, effects: &mut Vec<Effect>) -> Result<Flow, Error> {
        let mut changes = Vec::new();
        let mut rest = Vec::new();
        for effect in effects.drain(..) {
            match effect {
                Effect::Persist(change) => changes.push(change),
                other => rest.push(other),
            }
        }
        for change in &changes {
            if let Change::Forget(id) = change {
                self.controllers.remove(id);
            }
        }
        if !changes.is_empty() {
            let db = Arc::clone(&self.db);
            blocking(move || db.apply(&changes)).await?;
        }
        let mut flow = Flow::Continue;
        for effect in rest {
            if effect == Effect::Left {
                flow = Flow::Left;
            }
            self.begin(effect);
        }
        Ok(flow)
    }

    fn begin(&mut self, effect: Effect) {
        let client = Arc::clone(&self.client);
        match effect {
            Effect::Persist(_) | Effect::Left => {}
            Effect::Describe => {
                self.jobs
                    .spawn(jobs::describe(Arc::clone(&self.node.executor)));
            }
            Effect::OpenSession { attempt, request } => {
                self.attempt = Some(attempt);
                self.spawn_in_session(jobs::open_session(client, attempt, request));
            }
            Effect::OpenAssignments {
                attempt,
                session_id,
            } => {
                self.spawn_in_session(jobs::open_assignments(client, attempt, session_id));
            }
            Effect::CloseSession(_) => {
                self.attempt = None;
                self.session_jobs.drain(..).for_each(|job| job.abort());
            }
            Effect::SendHeartbeat { attempt, request } => {
                self.spawn_in_session(jobs::heartbeat(client, attempt, request));
            }
            Effect::SendStatuses { attempt, update } => {
                self.spawn_in_session(jobs::update_statuses(client, attempt, update));
            }
            Effect::ManagersChanged(managers) => {
                self.jobs.spawn(jobs::managers_changed(client, managers));
            }
            Effect::Configure(node) => {
                // Only the newest settings matter.
                self.configure_job
                    .take()
                    .into_iter()
                    .for_each(|job| job.abort());
                let job = jobs::configure(Arc::clone(&self.node.executor), node);
                self.configure_job = Some(self.jobs.spawn(job));
            }
            Effect::Supply(supplies) => self.node.executor.supply(supplies),
            Effect::Run { task, op } => {
                let cancel = CancellationToken::new();
                self.cancels.insert(task.id, cancel.clone());
                let controller = self.controllers.get(&task.id).cloned();
                self.jobs
                    .spawn(self.node.clone().run_op(controller, task, op, cancel));
            }
            Effect::Cancel(id) => {
                self.cancels
                    .get(&id)
                    .into_iter()
                    .for_each(CancellationToken::cancel);
            }
            Effect::RemoveOrphan(id) => {
                self.jobs
                    .spawn(jobs::remove_orphan(Arc::clone(&self.node.executor), id));
            }
        }
    }

    fn spawn_in_session(&mut self, job: impl Future<Output = Done> + Send + 'static) {
        self.session_jobs.retain(|job| !job.is_finished());
        self.session_jobs.push(self.jobs.spawn(job));
    }

    /// The event a finished job brings; reads on where it was a stream's message.
    fn event_of(&mut self, done: Result<Done, JoinError>) -> Option<Event> {
        let done = match done {
            Ok(done) => done,
            Err(error) if error.is_cancelled() => return None,
            // Release builds abort on panic, so do not limp on in others.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        match done {
            Done::Nothing => None,
            Done::Event(event) => {
                if let Event::OpDone { task, .. } = &event {
                    self.cancels.remove(task);
                }
                Some(event)
            }
            Done::Resolved {
                task,
                controller,
                event,
            } => {
                self.controllers.insert(task, controller);
                self.cancels.remove(&task);
                Some(event)
            }
            Done::Session {
                attempt,
                stream,
                message,
            } => {
                self.spawn_in_session(jobs::next_session_message(attempt, stream));
                Some(Event::Session { attempt, message })
            }
            Done::Assignments {
                attempt,
                stream,
                message,
            } => {
                self.spawn_in_session(jobs::next_assignments(attempt, stream));
                Some(Event::Assignments { attempt, message })
            }
        }
    }
}

async fn load(db: &Arc<Db>) -> Result<db::Loaded, Error> {
    if let Some(path) = db.quarantined() {
        warn!(path = %path.display(), "Worker database was damaged and set aside");
    }
    let reader = Arc::clone(db);
    let loaded = blocking(move || reader.load()).await?;
    for (task, reason) in &loaded.damaged {
        warn!(task.id = %task, error = %reason, "Record of a task was damaged and dropped");
    }
    Ok(loaded)
}

/// Runs `work` on a thread that may block. It cannot be cancelled, so it is always awaited.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, db::Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Error::Stopped),
    }
}
