//! This node's membership in a cluster: none, worker or manager. What `init`, `join`, `leave` and
//! the like ask for happens here; what runs meanwhile is [`life`]. Design: `docs/design/node.md`.

mod address;
mod alone;
mod backup;
mod certificate;
mod found;
mod home;
mod identity;
mod join;
mod leave;
mod life;
mod link;
mod manager;
mod member;
mod node_network;
mod read_log;
mod renewal;
mod restore;
mod switch;
mod worker;

use std::{path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use skep_ca::{JoinToken, Lock, UnlockKey};
use skep_docker_api::{
    backend::{InitRequest, JoinRequest},
    error::{ApiError, ErrorKind, Result},
};
use skep_executor::engine::Engine;
use skep_manager::{
    Handle,
    command::{Command, CommandError},
};
use skep_model::{NodeId, Role};
use skep_rpc::{Remotes, Security};
use tokio::{
    sync::{Mutex, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::{
    address::Asked,
    home::{Home, HomeError},
    life::{Life, Parts},
    manager::Origin,
};
pub(crate) use self::{
    identity::Identity,
    life::lock_of,
    member::{Active, Member},
    node_network::NodeNetwork,
    restore::back_up,
};
use crate::error_chain::chain;

/// Docker's text for `swarm init` on a member.
const ALREADY_PART: &str = "This node is already part of a swarm. Use \"docker swarm leave\" to \
     leave this swarm and join another one.";
const NOT_PART: &str = "This node is not part of a swarm";
const NOT_A_MANAGER: &str = "This node is not a swarm manager. Worker nodes can't be used to view or modify \
     cluster state. Please run this command on a manager node or promote the current node to a \
     manager.";
const STILL_JOINING: &str = "Timeout was reached before node joined. The attempt to join the swarm \
     will continue in the background. Use the \"docker info\" command to see the current swarm \
     status of your node.";
const EXPIRED: &str = "Swarm certificates have expired. To replace them, leave the swarm and join \
     again.";
const WRONG_KEY: &str = "swarm could not be unlocked: invalid key provided";
/// Docker's limit for starting a node.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a starting daemon waits for its cluster before it serves clients without it.
const RESUME_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a leaving manager tries to tell the others.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// Where this node stands.
pub(crate) enum Membership {
    /// Not part of a cluster.
    Inactive,
    /// Asks for a certificate; with the managers asked.
    Joining,
    /// Part of one.
    Member(Arc<Member>),
    /// Waits for the unlock key.
    Locked(Identity),
    /// Part of one that could not be started.
    Failed(String),
}

/// See the module's documentation.
pub(crate) struct Swarm {
    home: Home,
    engine: Arc<Engine>,
    is_compat: bool,
    node_network: NodeNetwork,
    membership: ArcSwap<Membership>,
    running: Mutex<Option<Running>>,
    /// Held by whoever joins or leaves: these take long and exclude each other.
    changing: Mutex<()>,
    /// The newest manager's handle, for whoever follows its changes.
    current: watch::Sender<Option<Handle>>,
}

/// What a membership needs of the daemon.
pub(crate) struct Settings {
    /// Parent of the membership's files.
    pub(crate) data_dir: PathBuf,
    pub(crate) engine: Arc<Engine>,
    /// Raft ticks as Docker's managers.
    pub(crate) is_compat: bool,
    pub(crate) node_network: NodeNetwork,
}

/// The task of a membership, or of an attempt to get one.
struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Swarm {
    /// Continues the membership found in `<data_dir>/swarm`, if there is one.
    ///
    /// # Errors
    /// The directory cannot be used at all.
    pub(crate) async fn open(settings: Settings) -> anyhow::Result<Arc<Self>> {
        let swarm = Arc::new(Self {
            home: Home::new(settings.data_dir.join("swarm")),
            engine: settings.engine,
            is_compat: settings.is_compat,
            node_network: settings.node_network,
            membership: ArcSwap::from_pointee(Membership::Inactive),
            running: Mutex::new(None),
            changing: Mutex::new(()),
            current: watch::Sender::new(None),
        });
        match swarm.home.identity() {
            Ok(Some(identity)) => swarm.resume(identity).await,
            Ok(None) => {
                swarm.home.set_aside()?;
                swarm.clear_networks().await;
            }
            Err(error) => swarm.fail(&error, "failed to read identity"),
        }
        Ok(swarm)
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn membership(&self) -> Arc<Membership> {
        self.membership.load_full()
    }

    /// The running membership.
    pub(crate) fn member(&self) -> Option<Arc<Member>> {
        match &*self.membership() {
            Membership::Member(member) => Some(Arc::clone(member)),
            Membership::Inactive
            | Membership::Joining
            | Membership::Locked(_)
            | Membership::Failed(_) => None,
        }
    }

    /// Follows which manager runs.
    pub(crate) fn current(&self) -> watch::Receiver<Option<Handle>> {
        self.current.subscribe()
    }

    /// Makes this node the only manager of a new cluster; returns once that is committed.
    pub(crate) async fn init(&self, request: InitRequest) -> Result<NodeId> {
        let _changing = self.changing.lock().await;
        if request.force_new_cluster
            && let Some(member) = self.member()
        {
            return self.force_new_cluster(&member, &request).await;
        }
        self.check_inactive()?;
        let addresses = asked(&request).on_init()?;
        let (identity, bootstrap) =
            found::found(&self.home, &request, addresses, &self.node_network)?;
        let node_id = identity.node_id;
        let lock = Lock::default();
        let started = async {
            let member = self.open_member(identity.clone(), &lock)?;
            self.live(member, lock, Some(Origin::Found(bootstrap)))
                .await
        };
        let result = match started.await {
            Ok(member) => wait_until_ready(&member, START_TIMEOUT).await,
            Err(error) => Err(error),
        };
        let stored = result.and_then(|()| self.home.store_identity(&identity).map_err(system));
        if let Err(error) = stored {
            self.end().await;
            let _ = self.home.clear();
            return Err(error);
        }
        info!(node.id = %node_id, "Started a new cluster");
        Ok(node_id)
    }

    /// Makes this node part of the cluster of the managers named. Returns when it is, or after
    /// Docker's limit, while the attempt goes on.
    pub(crate) async fn join(self: &Arc<Self>, request: JoinRequest) -> Result<()> {
        let changing = self.changing.lock().await;
        self.check_inactive()?;
        let token: JoinToken = request
            .join_token
            .parse()
            .map_err(|error: skep_ca::InvalidJoinToken| ApiError::invalid(error.to_string()))?;
        let asked = Asked {
            listen: &request.listen_addr,
            advertise: &request.advertise_addr,
            data_path: &request.data_path_addr,
        };
        let remote = request.remote_addrs.first().map_or("", String::as_str);
        let addresses = asked.on_join(remote).await?;
        self.membership.store(Arc::new(Membership::Joining));
        let stop = CancellationToken::new();
        let (swarm, stopped) = (Arc::clone(self), stop.clone());
        let (answer_tx, answer) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let joining = Box::pin(swarm.enter(&request, &token, addresses));
            let Some(entered) = stopped.run_until_cancelled(joining).await else {
                return;
            };
            match entered {
                Ok((member, life)) => {
                    let ready = wait_until_ready(&member, START_TIMEOUT);
                    let life = life.run(stopped.clone());
                    let told = async {
                        let _ = answer_tx.send(ready.await);
                    };
                    tokio::join!(life, told);
                }
                Err(error) => {
                    swarm.give_up(&error, answer_tx.is_closed());
                    let _ = answer_tx.send(Err(error));
                }
            }
        });
        *self.running.lock().await = Some(Running { stop, task });
        let answer = tokio::time::timeout(START_TIMEOUT, answer).await;
        drop(changing);
        match answer {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(ApiError::unavailable(NOT_PART)),
            Err(_) => Err(ApiError::unavailable(STILL_JOINING)),
        }
    }

    /// Gets a certificate and starts living by it.
    async fn enter(
        &self,
        request: &JoinRequest,
        token: &JoinToken,
        addresses: address::Addresses,
    ) -> Result<(Arc<Member>, Life)> {
        let admitted = join::join(&self.home, request, token, addresses).await;
        let admitted = admitted.map_err(|error| {
            ApiError::unavailable(format!("failed to join the swarm: {}", chain(&error)))
        })?;
        let member = admitted.member;
        let parts = self.parts(&member, admitted.lock);
        let life = Life::start(parts, None).await?;
        let membership = Membership::Member(Arc::clone(&member));
        self.membership.store(Arc::new(membership));
        Ok((member, life))
    }

    /// An attempt to join failed. Who still waits for it is told; else the state tells.
    fn give_up(&self, error: &ApiError, is_unheard: bool) {
        warn!(error = %error, "Failed to join");
        let _ = self.home.clear();
        let membership = if is_unheard {
            Membership::Failed(error.message.clone())
        } else {
            Membership::Inactive
        };
        self.membership.store(Arc::new(membership));
    }

    /// Opens the keys of a locked manager and starts it.
    pub(crate) async fn unlock(&self, key: &str) -> Result<()> {
        let _changing = self.changing.lock().await;
        let Membership::Locked(identity) = &*self.membership() else {
            return Err(ApiError::conflict("swarm is not locked"));
        };
        let key: UnlockKey = key
            .parse()
            .map_err(|_| ApiError::invalid("invalid key string"))?;
        let lock = Lock {
            key: Some(key),
            version: 0,
        };
        if !self.home.opens(&lock).map_err(system)? {
            return Err(ApiError::new(ErrorKind::Unauthorized, WRONG_KEY));
        }
        let member = self.open_member(identity.clone(), &lock)?;
        let member = self.live(member, lock, None).await?;
        // Others may still be locked, and without them there is no quorum: that is no failure.
        let _ = wait_until_ready(&member, RESUME_TIMEOUT).await;
        Ok(())
    }

    /// Gives up the membership, its state and its tasks' containers.
    pub(crate) async fn leave(&self, is_forced: bool) -> Result<()> {
        let _changing = self.changing.lock().await;
        match &*self.membership() {
            Membership::Inactive => return Err(ApiError::unavailable(NOT_PART)),
            Membership::Locked(_) if !is_forced => {
                return Err(ApiError::unavailable(leave::LOCKED));
            }
            Membership::Member(member) if member.role() == Role::Manager => {
                if !is_forced {
                    return Err(ApiError::unavailable(refusal(member).await));
                }
                say_farewell(member).await;
            }
            Membership::Member(_)
            | Membership::Joining
            | Membership::Locked(_)
            | Membership::Failed(_) => {}
        }
        self.end().await;
        self.home.clear().map_err(system)?;
        self.engine.remove_task_containers().await;
        self.clear_networks().await;
        info!("Left the cluster");
        Ok(())
    }

    /// Stops manager and agent; containers keep running.
    pub(crate) async fn stop(&self) {
        let Some(running) = self.running.lock().await.take() else {
            return;
        };
        running.stop.cancel();
        let _ = running.task.await;
    }

    /// Takes down what the node has of a cluster's networks.
    async fn clear_networks(&self) {
        self.engine.dataplane().leave().await;
        self.engine.forget_slice();
        if let Err(error) = self.engine.network().resize(self.node_network.alone).await {
            warn!(error = %chain(&error), "The node network keeps its slice");
        }
    }

    async fn end(&self) {
        self.stop().await;
        self.membership.store(Arc::new(Membership::Inactive));
    }

    fn check_inactive(&self) -> Result<()> {
        match *self.membership() {
            Membership::Inactive => Ok(()),
            Membership::Joining
            | Membership::Member(_)
            | Membership::Locked(_)
            | Membership::Failed(_) => Err(ApiError::unavailable(ALREADY_PART)),
        }
    }

    /// Continues a stored membership, at the start of the daemon.
    async fn resume(&self, identity: Identity) {
        match self.home.is_locked() {
            Ok(false) => {}
            Ok(true) => {
                info!("This node's keys are locked; it waits for `docker swarm unlock`");
                return self
                    .membership
                    .store(Arc::new(Membership::Locked(identity)));
            }
            Err(error) => return self.fail(&error, "failed to read this node's keys"),
        }
        let started = async {
            let member = self.open_member(identity.readdressed(), &Lock::default())?;
            self.live(member, Lock::default(), None).await
        };
        match started.await {
            Ok(member) => {
                if wait_until_ready(&member, RESUME_TIMEOUT).await.is_err() {
                    warn!("The cluster does not answer yet; serving clients without it");
                }
            }
            Err(error) => self.fail(&error, "failed to continue as part of the cluster"),
        }
    }

    fn fail(&self, error: &(dyn std::error::Error + 'static), what: &str) {
        error!(error = %chain(error), "Membership cannot be continued: {what}");
        let text = match chain(error) {
            text if text == EXPIRED => text,
            text => format!("{what}: {text}"),
        };
        self.membership.store(Arc::new(Membership::Failed(text)));
    }

    /// A member from the files.
    fn open_member(&self, identity: Identity, lock: &Lock) -> Result<Arc<Member>> {
        let credentials = self.home.credentials(lock).map_err(system)?;
        let is_expired = skep_ca::verify_chain(
            credentials.chain_pem.as_bytes(),
            credentials.roots_pem.as_bytes(),
            identity::now(),
        );
        if let Err(skep_ca::CertificateError::Expired(_)) = is_expired {
            return Err(ApiError::unavailable(EXPIRED));
        }
        let security = Security::new(credentials).map_err(|error| {
            let text = format!("this node's certificate cannot be used: {}", chain(&error));
            ApiError::system(text, error)
        })?;
        let mut managers = self.home.managers();
        // A manager that just starts has nothing to tell itself, unless it is the only one.
        managers.retain(|peer| peer.node_id != identity.node_id);
        if managers.is_empty() {
            managers.push(skep_model::dispatch::WeightedPeer {
                node_id: identity.node_id,
                addr: identity.manager_addr(),
                weight: 10,
            });
        }
        let remotes = Remotes::new(managers);
        Ok(Arc::new(Member::new(identity, security, remotes)))
    }

    fn parts(&self, member: &Arc<Member>, lock: Lock) -> Parts {
        Parts {
            home: self.home.clone(),
            engine: Arc::clone(&self.engine),
            member: Arc::clone(member),
            current: self.current.clone(),
            lock,
            is_compat: self.is_compat,
            node_network: self.node_network.clone(),
        }
    }

    /// Starts the life of a member.
    async fn live(
        &self,
        member: Arc<Member>,
        lock: Lock,
        origin: Option<Origin>,
    ) -> Result<Arc<Member>> {
        let life = Life::start(self.parts(&member, lock), origin).await?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(life.run(stop.clone()));
        *self.running.lock().await = Some(Running { stop, task });
        let membership = Membership::Member(Arc::clone(&member));
        self.membership.store(Arc::new(membership));
        Ok(member)
    }
}

fn asked(request: &InitRequest) -> Asked<'_> {
    Asked {
        listen: &request.listen_addr,
        advertise: &request.advertise_addr,
        data_path: &request.data_path_addr,
    }
}

fn system(error: HomeError) -> ApiError {
    ApiError::system(
        format!("failed to access swarm state: {}", chain(&error)),
        error,
    )
}

/// Waits until the cluster has taken the node in.
async fn wait_until_ready(member: &Member, limit: Duration) -> Result<()> {
    let mut state = member.state();
    let ready = state.wait_for(|state| state.is_ready);
    match tokio::time::timeout(limit, ready).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(ApiError::unavailable(STILL_JOINING)),
    }
}

/// Why a manager does not leave unless it is forced.
async fn refusal(member: &Member) -> String {
    let active = member.manager();
    let view = match &active {
        Some(active) => tokio::time::timeout(FAREWELL_TIMEOUT, active.cluster.view()).await,
        None => return leave::refusal(None, false, member.identity().node_id),
    };
    let view = view
        .ok()
        .and_then(|view: Result<_, CommandError>| view.ok());
    let group = view.map(|view| Arc::clone(&view.group));
    leave::refusal(group.as_deref(), true, member.identity().node_id)
}

/// A manager that leaves takes itself out of the group, so that no dead member stays behind.
async fn say_farewell(member: &Member) {
    let Some(active) = member.manager() else {
        return;
    };
    if active.handle.view().group.members.len() < 2 {
        return;
    }
    match tokio::time::timeout(FAREWELL_TIMEOUT, leave_group(member, &active)).await {
        Ok(Ok(())) => info!("The other managers go on without this one"),
        Ok(Err(error)) => warn!(error, "Leaves without the other managers' consent"),
        Err(_) => warn!("Leaves without an answer of the other managers"),
    }
}

/// Returns when this manager is no member any more. Errors are for the log.
async fn leave_group(member: &Member, active: &Active) -> std::result::Result<(), String> {
    let view = active.handle.view();
    let node_id = active.node_id;
    if view.is_leader {
        let said = active.handle.command(Command::LeaveGroup { node_id }).await;
        said.map_err(|error| error.to_string())?;
    } else {
        let own = view.group.by_node(node_id).map(|own| own.member.clone());
        let own = own.ok_or("it is no member")?;
        let said = member.client.leave_group(&own).await;
        said.map_err(|error| chain(&error))?;
    }
    let mut group = active.handle.group();
    // The group's end is that of the manager, which a removal brings.
    let _ = group
        .wait_for(|group| group.by_node(node_id).is_none())
        .await;
    Ok(())
}
