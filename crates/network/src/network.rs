//! The handle others hold: asynchronous calls over a bounded channel to the owner thread. No decisions here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::config::{Config, Given, Layout};
use crate::endpoint::{Attachment, EndpointInfo};
use crate::error::{Error, Report};
use crate::owner::{Command, Owner, Reply, Request};
use crate::ports::HostPort;

/// Requests that may wait for the owner thread. One costs about a kilobyte and a millisecond of work; a node holds at most
/// 1023 endpoints. Beyond, callers get [`Error::Busy`] at once.
const COMMAND_COUNT_MAX: usize = 4096;

/// The node network. Cheap to clone; the owner thread ends when the last clone is dropped or [`Network::close`] is called, and
/// leaves everything in the kernel as it is, for the next `open` to adopt.
#[derive(Debug, Clone)]
pub struct Network {
    tx: SyncSender<Command>,
    thread: Arc<std::sync::Mutex<Option<JoinHandle<()>>>>,
}

// === impl Network ===

impl Network {
    /// Makes or repairs bridge, rules and the endpoints of the state file, removes what belongs to no endpoint, and starts
    /// the owner thread, all in the network namespace of the calling thread.
    ///
    /// Fails when the configuration is wrong, another process owns the run directory, or the kernel refuses a step.
    pub async fn open(config: Config) -> Result<Network, Error> {
        let (tx, rx) = sync_channel(COMMAND_COUNT_MAX);
        let (ready_tx, ready_rx) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("skep-network".to_owned())
            .spawn(move || Owner::run(config, &rx, ready_tx))
            .map_err(Error::Thread)?;
        let network = Network {
            tx,
            thread: Arc::new(std::sync::Mutex::new(Some(thread))),
        };
        ready_rx.await.map_err(|_| Error::Closed)??;
        Ok(network)
    }

    /// Gives a container a namespace with an address and published ports. When this returns the endpoint is reachable.
    ///
    /// The address is `given`, or the node's own choice. One that a detached endpoint still has is freed first; one that an
    /// endpoint has is waited for, for some seconds.
    ///
    /// The same id with the same ports and address is the same attachment, repaired if need be; with others it is
    /// [`Error::AlreadyAttached`]. Many concurrent calls are cheaper than as many calls in turn.
    pub async fn attach(
        &self,
        endpoint_id: &str,
        ports: &[HostPort],
        given: Option<Given>,
    ) -> Result<Attachment, Error> {
        let id = endpoint_id.to_owned();
        let request = Request {
            ports: ports.to_vec(),
            given,
        };
        self.call(|reply| Command::Attach { id, request, reply })
            .await
    }

    /// Gives a container a namespace with a loopback interface only, and returns its path.
    pub async fn attach_none(&self, endpoint_id: &str) -> Result<PathBuf, Error> {
        let id = endpoint_id.to_owned();
        self.call(|reply| Command::AttachNone { id, reply }).await
    }

    /// Takes everything of an endpoint away. One that does not exist is fine.
    ///
    /// When this returns its ports are closed and free; its link and namespace go a moment later, together with others', and
    /// its address is not used again before. Processes still in the namespace lose their network.
    pub async fn detach(&self, endpoint_id: &str) -> Result<(), Error> {
        let id = endpoint_id.to_owned();
        self.call(|reply| Command::Detach { id, reply }).await
    }

    /// Compares everything with the kernel and repairs it. To be called every half minute or so, and when something is off.
    pub async fn reconcile(&self) -> Result<Report, Error> {
        self.call(|reply| Command::Reconcile { reply }).await
    }

    /// Compares everything with the kernel and says in words what differs, and what others do that is in the way; empty when all
    /// is well. Changes nothing but what detached endpoints left to be removed.
    pub async fn doctor(&self) -> Result<Vec<String>, Error> {
        self.call(|reply| Command::Doctor { reply }).await
    }

    /// The addresses and MTU in force. Without IPv6 in the kernel there are no IPv6 addresses.
    pub async fn layout(&self) -> Result<Layout, Error> {
        self.call(|reply| Command::Layout { reply }).await
    }

    /// Gives the node network other addresses, as when the node joins or leaves a cluster, and remembers them for the next
    /// [`Network::open`]. An equal layout changes nothing.
    ///
    /// Addresses change only while no endpoint has one, else this is [`Error::InUse`]. Another MTU is that of the bridge and of
    /// later endpoints. When the kernel refuses a step the layout is in force all the same; reconciliation tries again.
    pub async fn resize(&self, layout: Layout) -> Result<(), Error> {
        self.call(|reply| Command::Resize { layout, reply }).await
    }

    /// All endpoints by id, for the owner of the containers to detach those it does not know.
    pub async fn endpoints(&self) -> Result<BTreeMap<String, EndpointInfo>, Error> {
        self.call(|reply| Command::Endpoints { reply }).await
    }

    /// Detaches every endpoint and removes bridge, rules and files: nothing of this node network is left. The handle is closed.
    pub async fn remove(&self) -> Result<(), Error> {
        let outcome = self.call(|reply| Command::Remove { reply }).await;
        self.join().await;
        outcome
    }

    /// Finishes pending removals and ends the owner thread. Endpoints stay.
    pub async fn close(&self) {
        // A closed channel means the thread is gone already.
        let _ = self.call(|reply| Command::Close { reply }).await;
        self.join().await;
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

#[cfg(test)]
mod tests;
