//! A membership's life: one task that owns agent, manager and certificate, and changes them as the
//! cluster wants. Design: `docs/design/node.md`.
//!
//! Above 300 lines because every arm of its one loop shares the same state.

use std::{future::pending, pin::Pin, sync::Arc, time::Duration};

use skep_ca::{Lock, UnlockKey, verify_chain};
use skep_docker_api::error::Result as ApiResult;
use skep_executor::{dataplane::Membership, engine::Engine};
use skep_manager::{Ended, Feed, Handle};
use skep_model::{
    CertificateState, Cluster, Role, Version, directory::Message, dispatch::DispatchError,
};
use skep_rpc::Credentials;
use tokio::{
    sync::{
        broadcast::{self, error::RecvError},
        mpsc, watch,
    },
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    certificate::{RenewError, Renewed, is_disowned, renew},
    home::Home,
    identity,
    manager::{Origin, Running, Setup, StartFailure},
    member::Member,
    node_network::{NodeNetwork, SliceFollower},
    renewal::Schedule,
    worker::{Worker, WorkerHandle},
};
use crate::{
    backend::{node_errands::NodeErrands, node_logs::NodeLogs},
    error_chain::chain,
};

/// First and longest pause before a manager that did not start is started again.
const MANAGER_RETRY_MIN: Duration = Duration::from_secs(1);
/// See above.
const MANAGER_RETRY_MAX: Duration = Duration::from_secs(30);
/// Pause before the lock is read again from a cluster that did not answer.
const LOCK_RETRY: Duration = Duration::from_secs(1);
/// Longest the loop sleeps: clocks jump, and certificates expire by the wall clock.
const NAP_MAX: Duration = Duration::from_secs(60);
/// Messages of the directory that wait to be taken in. Each may be as long as a manager makes them, so few.
const MESSAGE_COUNT_MAX: usize = 8;
/// What `docker info` says of a node that the cluster disowns.
const REMOVED: &str = "this node is not part of the swarm any more, it was removed or replaced there; \
     its containers keep running until it leaves with `docker swarm leave --force`";

/// Whose unlock key it is, as SwarmKit names it.
const MANAGERS: &str = "swarm-manager";

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a membership starts from.
pub(super) struct Parts {
    pub(super) home: Home,
    pub(super) engine: Arc<Engine>,
    pub(super) member: Arc<Member>,
    /// Which manager runs, for whoever follows it.
    pub(super) current: watch::Sender<Option<Handle>>,
    pub(super) lock: Lock,
    pub(super) is_compat: bool,
    pub(super) node_network: NodeNetwork,
}

/// See the module's documentation.
pub(super) struct Life {
    setup: Setup,
    worker: WorkerHandle,
    agent: JoinHandle<()>,
    stop_agent: CancellationToken,
    manager: Option<Running>,
    feed: Option<broadcast::Receiver<Feed>>,
    starting: Option<Boxed<Result<Running, StartFailure>>>,
    /// When a manager that did not start is tried again, and the pause after that.
    retry: (Instant, Duration),
    /// The group removed this node's manager, and no certificate since says otherwise.
    is_expelled: bool,
    lock_check: LockCheck,
    reading: Option<Boxed<Option<Lock>>>,
    schedule: Schedule,
    renewing: Option<Boxed<Result<Renewed, RenewError>>>,
    /// Version of the node's record that was last acted on, and what it said.
    acted_on: (Version, Role, CertificateState),
    /// Roots that were refused, lest each report refuse them anew.
    refused_roots: Arc<[u8]>,
}

/// Whether the keys are sealed as the cluster wants, as far as is known.
enum LockCheck {
    Done,
    /// To be looked at.
    DueAt(Instant),
}

impl Life {
    /// Starts the agent, and the manager of a new cluster; other managers start while it runs.
    pub(super) async fn start(parts: Parts, origin: Option<Origin>) -> ApiResult<Self> {
        let Parts {
            home,
            engine,
            member,
            current,
            lock,
            is_compat,
            node_network,
        } = parts;
        let logs = Arc::new(NodeLogs {
            engine: Arc::clone(&engine),
            node_id: member.identity().node_id,
        });
        let errands = Arc::new(NodeErrands {
            engine: Arc::clone(&engine),
        });
        let (slice, sink, index) = join_networks(&engine, &member).await;
        let of_slice = (Arc::clone(&slice), node_network.bridge);
        let (worker, handle) = Worker::new(engine, home.worker(), Arc::clone(&member), of_slice);
        let agent = worker.open()?;
        let setup = Setup {
            home,
            member: Arc::clone(&member),
            current,
            lock,
            is_compat,
        };
        let manager = match origin {
            None => None,
            Some(origin) => {
                let started = Running::start(setup.clone(), origin).await;
                Some(started.map_err(|error| {
                    let text = format!("failed to start manager: {}", chain(&error));
                    skep_docker_api::ApiError::system(text, error)
                })?)
            }
        };
        let stop_agent = CancellationToken::new();
        let logs = skep_rpc::logs::serve(member.client.clone(), logs, stop_agent.clone());
        let errands = skep_rpc::errands::serve(member.client.clone(), errands, stop_agent.clone());
        let agent = worker.run(agent, stop_agent.clone());
        let (client, stop) = (member.client.clone(), stop_agent.clone());
        let directory = skep_rpc::directory::follow(client, index, sink, stop.clone());
        let agent = tokio::spawn(async move {
            let slice = stop.run_until_cancelled(slice.run());
            tokio::join!(agent, logs, errands, directory, slice);
        });
        let feed = member.manager().map(|active| active.handle.changes());
        Ok(Self {
            lock_check: LockCheck::DueAt(Instant::now()),
            reading: None,
            schedule: schedule(&member),
            setup,
            worker: handle,
            agent,
            stop_agent,
            manager,
            feed,
            starting: None,
            retry: (Instant::now(), MANAGER_RETRY_MIN),
            is_expelled: false,
            renewing: None,
            acted_on: (Version(0), Role::Worker, CertificateState::Unknown),
            refused_roots: Arc::default(),
        })
    }

    /// Runs until `stop`; agent and manager are down on return, containers run on.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut report = self.worker.report.clone();
        let mut managers = self.member().remotes().changed();
        loop {
            self.start_what_is_due();
            let nap = self.nap();
            tokio::select! {
                () = stop.cancelled() => break,
                changed = report.changed() => if changed.is_ok() {
                    self.on_report();
                },
                changed = managers.changed() => if changed.is_ok() {
                    let managers = managers.borrow_and_update().clone();
                    if let Err(error) = self.setup.home.store_managers(&managers) {
                        warn!(error = %chain(&error), "Failed to remember the managers");
                    }
                },
                result = finished(&mut self.renewing) => self.on_renewed(result).await,
                result = finished(&mut self.starting) => self.on_manager_started(result),
                ended = manager_ended(&mut self.manager) => self.on_manager_ended(ended).await,
                wanted = finished(&mut self.reading) => self.on_lock_read(wanted),
                () = store_changed(&mut self.feed) => {
                    self.lock_check = LockCheck::DueAt(Instant::now());
                }
                () = tokio::time::sleep(nap) => {}
            }
        }
        // A manager that stops hands over first, so the agent needs not see it fail.
        self.starting = None;
        self.stop_agent.cancel();
        let _ = self.agent.await;
        if let Some(manager) = self.manager {
            manager.stop().await;
        }
    }

    fn member(&self) -> &Arc<Member> {
        &self.setup.member
    }

    fn wants_manager(&self) -> bool {
        self.member().role() == Role::Manager && !self.is_expelled
    }

    fn start_what_is_due(&mut self) {
        if self.renewing.is_none() && self.schedule.due_at() <= identity::now() {
            let (client, security) = (
                self.member().client.clone(),
                Arc::clone(&self.member().security),
            );
            self.renewing = Some(Box::pin(renew(client, security, self.setup.lock.clone())));
        }
        if let LockCheck::DueAt(at) = self.lock_check
            && at <= Instant::now()
            && self.manager.is_some()
            && self.reading.is_none()
        {
            self.lock_check = LockCheck::Done;
            self.reading = Some(Box::pin(read_lock(Arc::clone(self.member()))));
        }
        let is_idle = self.manager.is_none() && self.starting.is_none();
        if is_idle && self.wants_manager() && self.retry.0 <= Instant::now() {
            let starting = Running::start(self.setup.clone(), Origin::Stored);
            self.starting = Some(Box::pin(starting));
        }
    }

    /// How long there is nothing to do but wait.
    fn nap(&self) -> Duration {
        let mut nap = NAP_MAX;
        if self.renewing.is_none() {
            nap = nap.min(self.schedule.due_at().since(identity::now()));
        }
        if let (LockCheck::DueAt(at), None, Some(_)) =
            (&self.lock_check, &self.reading, &self.manager)
        {
            nap = nap.min(at.saturating_duration_since(Instant::now()));
        }
        if self.manager.is_none() && self.starting.is_none() && self.wants_manager() {
            nap = nap.min(self.retry.0.saturating_duration_since(Instant::now()));
        }
        nap
    }

    /// Whether our own manager has not stored the cluster yet that it makes: it knows of no node then.
    fn is_founding(&self) -> bool {
        let manager = self.member().manager();
        manager.is_some_and(|active| active.handle.view().store.cluster().is_none())
    }

    /// Takes up what the agent heard.
    fn on_report(&mut self) {
        let report = self.worker.report.borrow_and_update().clone();
        if report.session_id.is_some() {
            self.member().change_state(|state| state.error = None);
            self.note_readiness();
        }
        if let Some(error) = &report.error
            && matches!(
                error,
                DispatchError::NodeNotFound | DispatchError::PermissionDenied(_)
            )
            && !self.is_founding()
        {
            let text = format!("{REMOVED} ({error})");
            self.member().change_state(|state| state.error = Some(text));
        }
        if let Some(node) = &report.node
            && node.meta.version >= self.acted_on.0
            && (node.meta.version, node.role, node.certificate.state) != self.acted_on
        {
            // One version may be told in steps: first the wish for another role, then the role.
            self.acted_on = (node.meta.version, node.role, node.certificate.state);
            let must_rotate = node.certificate.state == CertificateState::Rotate;
            if must_rotate || node.role != self.member().role() || self.is_expelled {
                self.schedule.ask(identity::now());
            }
        }
        self.take_roots(&report.root_ca);
    }

    /// The node is part of the cluster once its agent is and its manager, if it shall have one.
    fn note_readiness(&self) {
        let is_registered = self.worker.report.borrow().session_id.is_some();
        if is_registered && (self.manager.is_some() || self.member().role() == Role::Worker) {
            self.member().change_state(|state| state.is_ready = true);
        }
    }

    /// Trusts other roots, if the node's own certificate holds under them.
    fn take_roots(&mut self, roots: &Arc<[u8]>) {
        let security = &self.setup.member.security;
        if roots.is_empty() || **roots == *security.roots_pem().as_bytes() {
            return;
        }
        if *roots == self.refused_roots {
            return;
        }
        let taken = || -> Result<(), RenewError> {
            verify_chain(security.chain_pem().as_bytes(), roots, identity::now())?;
            let text = String::from_utf8_lossy(roots);
            self.setup.home.store_roots(&text)?;
            Ok(security.replace_roots(&text)?)
        };
        match taken() {
            Ok(()) => {
                info!("Trusts the cluster's new root");
                self.show_certificate();
            }
            Err(error) => {
                warn!(error = %chain(&error), "Refused other root certificates");
                self.refused_roots = Arc::clone(roots);
            }
        }
    }

    fn show_certificate(&mut self) {
        self.refused_roots = Arc::default();
        self.member().refresh_tls_info();
        self.worker.redescribe();
    }

    async fn on_renewed(&mut self, result: Result<Renewed, RenewError>) {
        match result.and_then(|renewed| self.install(renewed)) {
            Ok(()) => {
                let role = self.member().role();
                info!(node.role = ?role, "Renewed the certificate");
                self.schedule = schedule(self.member());
                self.is_expelled = false;
                self.retry = (Instant::now(), MANAGER_RETRY_MIN);
                self.show_certificate();
                if role == Role::Worker {
                    self.end_manager().await;
                }
                self.note_readiness();
            }
            Err(error) => {
                warn!(error = %chain(&error), "Failed to renew the certificate");
                if is_disowned(&error) {
                    let text = format!("{REMOVED} ({error})");
                    self.member().change_state(|state| state.error = Some(text));
                }
                self.schedule.failed(identity::now());
            }
        }
    }

    fn install(&mut self, renewed: Renewed) -> Result<(), RenewError> {
        let Renewed {
            chain_pem,
            key_pem,
            lock,
        } = renewed;
        self.setup
            .home
            .store_certificate(&chain_pem, &key_pem, &lock)?;
        self.setup.lock = lock;
        let roots_pem = self.member().security.roots_pem();
        self.member().security.replace(Credentials {
            chain_pem,
            key_pem,
            roots_pem,
        })?;
        Ok(())
    }

    fn on_manager_started(&mut self, result: Result<Running, StartFailure>) {
        match result {
            Ok(manager) => {
                let active = self.member().manager();
                self.feed = active.map(|active| active.handle.changes());
                self.manager = Some(manager);
                self.retry.1 = MANAGER_RETRY_MIN;
                self.lock_check = LockCheck::DueAt(Instant::now());
                self.note_readiness();
            }
            Err(error) => {
                warn!(error = %chain(&error), "Manager did not start");
                let (_, pause) = self.retry;
                self.retry = (Instant::now() + pause, (pause * 2).min(MANAGER_RETRY_MAX));
            }
        }
    }

    async fn on_manager_ended(&mut self, ended: Ended) {
        self.feed = None;
        if let Some(manager) = self.manager.take() {
            manager.close().await;
        }
        match ended {
            Ended::Removed => {
                info!("This node is no manager any more");
                self.is_expelled = true;
                self.forget_log();
                self.schedule.ask(identity::now());
            }
            Ended::Stopped | Ended::Broken => {
                error!("Manager ended unexpectedly; starting it again");
                self.retry = (Instant::now() + MANAGER_RETRY_MIN, MANAGER_RETRY_MIN);
            }
        }
    }

    /// Stops a manager that the certificate does not allow any more.
    async fn end_manager(&mut self) {
        self.starting = None;
        self.feed = None;
        if let Some(manager) = self.manager.take() {
            manager.stop().await;
        }
        self.forget_log();
    }

    fn forget_log(&self) {
        let identity = super::Identity::clone(&self.member().identity()).without_manager();
        let stored = self.setup.home.store_identity(&identity);
        self.member().set_identity(identity);
        if let Err(error) = stored.and_then(|()| self.setup.home.remove_logs()) {
            warn!(error = %chain(&error), "Failed to remove the manager's state");
        }
    }

    /// Seals the keys as the cluster wants.
    fn on_lock_read(&mut self, wanted: Option<Lock>) {
        let Some(wanted) = wanted else {
            // Nobody leads; what was heard is asked for again.
            self.lock_check = LockCheck::DueAt(Instant::now() + LOCK_RETRY);
            return;
        };
        self.lock_check = LockCheck::Done;
        if wanted.key == self.setup.lock.key || self.member().role() == Role::Worker {
            return;
        }
        match self.setup.home.reseal(&self.setup.lock, &wanted) {
            Ok(()) => {
                info!(
                    is_locked = wanted.key.is_some(),
                    "Sealed this manager's keys anew"
                );
                self.setup.lock = wanted;
            }
            Err(error) => {
                error!(error = %chain(&error), "Failed to seal this manager's keys");
                self.lock_check = LockCheck::DueAt(Instant::now() + LOCK_RETRY);
                // Either lock may be in force now; the files say which.
                if let Ok(lock) = self.setup.home.lock_in_force([&self.setup.lock, &wanted]) {
                    self.setup.lock = lock;
                }
            }
        }
    }
}

/// Begins to follow the cluster's networks, from what an earlier daemon left: who follows the slice,
/// where the directory's messages go, and the index of what is known.
async fn join_networks(
    engine: &Arc<Engine>,
    member: &Member,
) -> (Arc<SliceFollower>, mpsc::Sender<Message>, u64) {
    let data_path = member.identity().addresses.data_path;
    let slice = Arc::new(SliceFollower::new(Arc::clone(engine), data_path));
    let (sink, messages) = mpsc::channel(MESSAGE_COUNT_MAX);
    let membership = Membership {
        node_id: member.identity().node_id,
        data_path,
        messages,
    };
    if let Some(found) = engine.dataplane().join(membership).await {
        slice.resume(found).await;
    }
    let index = engine.dataplane().index().await;
    (slice, sink, index)
}

/// Reads the lock that the cluster wants. The manager's own store may be behind, and a lock that was
/// replaced must not come back: the leader is asked.
async fn read_lock(member: Arc<Member>) -> Option<Lock> {
    let active = member.manager()?;
    let view = active.cluster.view().await.ok()?;
    view.store.cluster().map(|cluster| lock_of(cluster))
}

/// How managers' keys shall be kept.
pub(crate) fn lock_of(cluster: &Cluster) -> Lock {
    let keys = cluster.unlock_keys.iter();
    let key = keys
        .filter(|key| key.subsystem == MANAGERS)
        .find_map(|key| <[u8; 32]>::try_from(&key.key.0[..]).ok());
    Lock {
        key: key.map(UnlockKey::from_bytes),
        version: cluster.meta.version.0,
    }
}

fn schedule(member: &Member) -> Schedule {
    let chain_pem = member.security.chain_pem();
    let roots_pem = member.security.roots_pem();
    let now = identity::now();
    match verify_chain(chain_pem.as_bytes(), roots_pem.as_bytes(), now) {
        Ok(certificate) => Schedule::new(&certificate, identity::entropy()),
        Err(_) => Schedule::overdue(now),
    }
}

async fn finished<T>(future: &mut Option<Boxed<T>>) -> T {
    let Some(running) = future else {
        return pending().await;
    };
    let result = running.await;
    *future = None;
    result
}

async fn manager_ended(manager: &mut Option<Running>) -> Ended {
    match manager {
        Some(manager) => manager.ended().await,
        None => pending().await,
    }
}

/// Waits for a change of the local store; what changed is read from the store itself.
async fn store_changed(feed: &mut Option<broadcast::Receiver<Feed>>) {
    let Some(changes) = feed else {
        return pending().await;
    };
    loop {
        match changes.recv().await {
            Ok(feed) => {
                let is_cluster = |change: &skep_store::Change| {
                    matches!(change.subject(), skep_store::Object::Cluster(_))
                };
                if feed.changes.iter().any(is_cluster) {
                    return;
                }
            }
            Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => break,
        }
    }
    *feed = None;
    pending().await
}
