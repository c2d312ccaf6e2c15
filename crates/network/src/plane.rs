//! The data plane of a node in a cluster: overlay networks, the containers on them, and the routing mesh.
//!
//! One value says what should be: [`Desired`], with a generation. [`Plane::update`] follows it, [`Plane::reconcile`] repairs what
//! others broke, [`Plane::doctor`] says in words what differs. Allocation, health and membership are the caller's. Design and
//! the caller's duties: `docs/design/overlay.md`.
//!
//! Threads: one owner (`skep-plane`) fed by a bounded channel, with a companion that enters namespaces, and one that serves names
//! (`skep-dns`).

use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::state::StateError;

mod balance;
mod client;
mod counters;
mod desired;
mod doctor;
mod encryption;
mod encryption_hands;
mod hands;
mod mesh;
mod mesh_hands;
mod observe;
mod owner;
mod refusal;
mod repairs;
mod report;
mod sandbox;
mod tunnels;

#[cfg(test)]
mod tests;

pub use client::Action as ContainerAction;
pub use counters::{Counters, Traffic};
pub use desired::{
    Container, DataPath, Desired, DesiredError, Health, Overlay, Place, Remote, Service,
};
pub use encryption::{
    Action as EncryptionAction, Configuration, Link as EncryptionLink, Routes as EncryptionRoutes,
};
pub use hands::ActionError;
pub use mesh::{Action as MeshAction, Back, Backends, Mesh, Peer, Published, PublishedPort};
pub(crate) use observe::mtu_of;
pub use repairs::Repair;
pub use report::{Failure, Report, Scope, Step};
pub use sandbox::{Action, Port, Remotes, Tunnel};
pub use tunnels::Action as TunnelAction;

use owner::{Command, Owner, Reply};
pub(crate) use owner::{OVERHEAD_V4, OVERHEAD_V6};

/// Requests that may wait. Each carries a whole value, so a caller that is far ahead should rather wait.
const COMMAND_COUNT_MAX: usize = 64;

/// Why a request failed as a whole. What fails for one network or container is in the [`Report`].
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The value is wrong; nothing was changed.
    #[error("the data plane's value is wrong: {}", list(.0))]
    Desired(Vec<DesiredError>),
    /// The value is older than the current one; nothing was changed.
    #[error("generation {given} is older than {current}")]
    Stale {
        /// Of the value given.
        given: u64,
        /// Of the value followed.
        current: u64,
    },
    /// The owner thread cannot be started.
    #[error("failed to start a thread")]
    Thread(#[source] Arc<std::io::Error>),
    /// The plane is closed.
    #[error("the data plane is closed")]
    Closed,
    /// Too many requests wait.
    #[error("too many requests for the data plane")]
    Busy,
    /// The run directory cannot be used.
    #[error(transparent)]
    State(#[from] Arc<StateError>),
    /// The kernel refused.
    #[error(transparent)]
    Action(#[from] Arc<ActionError>),
}

fn list(errors: &[DesiredError]) -> String {
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    errors.join("; ")
}

/// The data plane. Cheap to clone; the owner thread ends when the last clone is dropped or [`Plane::close`] is called, and
/// leaves everything in the kernel as it is, for the next `open` to adopt.
#[derive(Debug, Clone)]
pub struct Plane {
    tx: SyncSender<Command>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

// === impl Plane ===

impl Plane {
    /// Starts the owner thread in the network namespace of the calling thread. Changes nothing before the first update.
    ///
    /// `run_dir` is made if missing, belongs to one node, and must live as long as the kernel's state does (below `/run`).
    pub async fn open(run_dir: impl Into<PathBuf>) -> Result<Plane, Error> {
        let (tx, rx) = sync_channel(COMMAND_COUNT_MAX);
        let (ready_tx, ready_rx) = oneshot::channel();
        let run_dir = run_dir.into();
        let thread = std::thread::Builder::new()
            .name("skep-plane".to_owned())
            .spawn(move || Owner::run(run_dir, &rx, ready_tx))
            .map_err(|error| Error::Thread(Arc::new(error)))?;
        let plane = Plane {
            tx,
            thread: Arc::new(Mutex::new(Some(thread))),
        };
        ready_rx.await.map_err(|_| Error::Closed)??;
        Ok(plane)
    }

    /// Follows a new value. The first call after `open` compares with the kernel, later ones only with the last value.
    ///
    /// A container is reachable when the call returns without a failure of its scope or its networks'.
    pub async fn update(&self, desired: Desired) -> Result<Report, Error> {
        let desired = Box::new(desired);
        self.call(|reply| Command::Update { desired, reply }).await
    }

    /// Compares everything with the kernel and repairs it. To be called every half minute or so, and when something is off.
    pub async fn reconcile(&self) -> Result<Report, Error> {
        self.call(|reply| Command::Reconcile { reply }).await
    }

    /// Compares everything with the kernel and says in words what differs; empty when all is well. Changes nothing.
    pub async fn doctor(&self) -> Result<Vec<String>, Error> {
        self.call(|reply| Command::Doctor { reply }).await
    }

    /// What was repaired in the last ten minutes without anybody asking, in order.
    pub async fn repairs(&self) -> Result<Vec<Repair>, Error> {
        self.call(|reply| Command::Repairs { reply }).await
    }

    /// What containers of this node and its published ports carried. Reads a set of each container, and each network's links.
    pub async fn counters(&self) -> Result<Counters, Error> {
        self.call(|reply| Command::Counters { reply }).await
    }

    /// Removes everything: sandboxes, rules, files. The handle is closed.
    pub async fn remove(&self) -> Result<(), Error> {
        let outcome = self.call(|reply| Command::Remove { reply }).await;
        self.join().await;
        outcome
    }

    /// Ends the owner thread. Networks stay.
    pub async fn close(&self) {
        // A closed channel means the thread is gone already.
        let _ = self.call(|reply| Command::Close { reply }).await;
        self.join().await;
    }

    /// Makes the plane repair what tests break, as it does outside tests.
    #[cfg(test)]
    pub(crate) fn heal(&self) {
        self.tx.try_send(Command::Heal).unwrap();
    }

    /// Makes everything fail after some more actions, as a crash would.
    #[cfg(test)]
    pub(crate) async fn doom(&self, actions: u32) {
        self.tx.try_send(Command::Doom { actions }).unwrap();
    }

    async fn call<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.tx
            .try_send(command(reply))
            .map_err(|error| match error {
                TrySendError::Full(_) => Error::Busy,
                TrySendError::Disconnected(_) => Error::Closed,
            })?;
        answer.await.map_err(|_| Error::Closed)?
    }

    async fn join(&self) {
        let thread = self.thread.lock().ok().and_then(|mut thread| thread.take());
        if let Some(thread) = thread {
            // The thread is past its last command; joining takes microseconds, but blocks.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}
