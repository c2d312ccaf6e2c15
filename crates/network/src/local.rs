//! Networks that one node has for itself: bridges with a way out, and macvlans on its links.
//!
//! Role: make such networks and put containers on them, whose namespaces others made ([`crate::Network::attach_none`]); keep both as
//! they should be. Who has which address is for the caller to say. Design: `docs/design/local-networks.md`.
//!
//! Entry point: [`Local::open`], then [`Local::begin`] with all there is. One thread (`skep-local`) does the kernel work, in the
//! network namespace of the thread that opened it, and looks every few seconds whether something was broken.

mod hands;
mod owner;
mod rules;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use ipnet::IpNet;
use tokio::sync::oneshot;

use self::owner::Owner;
use crate::endpoint::Mac;
use crate::netlink::NetlinkError;
use crate::netns::NetnsError;
use crate::nft::NftError;
use crate::sysctl::SysctlError;

/// Requests that may wait for the thread. Each is a container that starts or ends.
const COMMAND_COUNT_MAX: usize = 1024;

/// A network of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalNetwork {
    /// What it is made of.
    pub kind: Kind,
    /// Its subnets, each with the gateway, where it has one.
    pub subnets: Vec<(IpNet, Option<IpAddr>)>,
    /// Whether nothing leads out of it.
    pub is_internal: bool,
    /// Bytes; none for the kernel's choice.
    pub mtu: Option<u32>,
}

/// What a network of this node is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A bridge, whose own addresses are the gateways.
    Bridge {
        /// Its name. A bridge that somebody else made is used, and left when the network is removed.
        name: String,
        /// Whether containers may talk to one another.
        has_icc: bool,
        /// Whether packets that leave the node get its address.
        has_masquerade: bool,
    },
    /// A link of its own on a link of the node for each container.
    Macvlan {
        /// That link. `<link>.<VLAN id>` is made when it does not exist.
        parent: String,
        /// Whether the link is to be made, leading nowhere.
        is_dummy: bool,
        /// Who may talk to whom.
        mode: Mode,
    },
}

/// Who may talk to whom on one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All of them, directly.
    Bridge,
    /// None of them.
    Private,
    /// All of them, through the switch outside.
    Vepa,
    /// There is one, which has the link to itself.
    Passthru,
}

/// A container's place on a network of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPlace {
    /// The container's namespace.
    pub netns_path: PathBuf,
    /// Name of the interface.
    pub interface: String,
    /// Ethernet address.
    pub mac: Mac,
    /// Addresses with their subnet's prefix length.
    pub addresses: Vec<IpNet>,
    /// Where packets to elsewhere go, one of each family; none when another interface leads out, or nothing does.
    pub gateways: Vec<IpAddr>,
}

/// Why a network of this node, or a place on it, cannot be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// The thread cannot be started.
    #[error("failed to start a thread")]
    Thread(#[source] std::io::Error),
    /// The thread has ended.
    #[error("networks of this node are closed")]
    Closed,
    /// Too many requests wait.
    #[error("too many requests for networks of this node")]
    Busy,
    /// No such network.
    #[error("network `{0}` is not on this node")]
    NoNetwork(String),
    /// The link of a macvlan does not exist.
    #[error("link `{0}` of the node does not exist")]
    NoParent(String),
    /// A link of that name is something else.
    #[error("`{0}` is a link of the node, but no bridge")]
    NoBridge(String),
    /// A netlink request failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// nft refused.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// A sysctl cannot be set.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// A namespace cannot be opened.
    #[error("failed to open `{}`", .0.display())]
    Open(PathBuf, #[source] std::io::Error),
}

type Job = Box<dyn FnOnce(&mut Owner) + Send>;

/// Networks of this node. Cheap to clone; the thread ends with the last clone and leaves everything in the kernel as it is.
#[derive(Debug, Clone)]
pub struct Local {
    jobs: SyncSender<Job>,
    _thread: Arc<JoinHandle<()>>,
}

// === impl Local ===

impl Local {
    /// Starts the thread in the calling thread's namespace. Nothing is touched yet.
    ///
    /// # Errors
    /// No thread, or no socket.
    pub async fn open() -> Result<Local, LocalError> {
        let (jobs, inbox) = sync_channel::<Job>(COMMAND_COUNT_MAX);
        let (ready, opened) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("skep-local".to_owned())
            .spawn(move || match Owner::open() {
                Ok(mut owner) => {
                    if ready.send(Ok(())).is_ok() {
                        owner.run(&inbox);
                    }
                }
                Err(error) => drop(ready.send(Err(error))),
            })
            .map_err(LocalError::Thread)?;
        opened.await.map_err(|_| LocalError::Closed)??;
        Ok(Local {
            jobs,
            _thread: Arc::new(thread),
        })
    }

    /// Makes or repairs all networks there are, by id, and removes what others of ours left. What could not be made is
    /// returned, and tried again until it can.
    ///
    /// # Errors
    /// The thread is gone.
    pub async fn begin(
        &self,
        networks: BTreeMap<String, LocalNetwork>,
    ) -> Result<BTreeMap<String, LocalError>, LocalError> {
        self.ask(|owner| owner.begin(networks)).await
    }

    /// Makes a network, or changes it.
    ///
    /// # Errors
    /// Nothing is left of a network that cannot be made.
    pub async fn set_network(&self, id: &str, network: LocalNetwork) -> Result<(), LocalError> {
        let id = id.to_owned();
        self.ask(move |owner| owner.set_network(&id, network))
            .await?
    }

    /// Removes a network. A missing one is fine.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn remove_network(&self, id: &str) -> Result<(), LocalError> {
        let id = id.to_owned();
        self.ask(move |owner| owner.remove_network(&id)).await?
    }

    /// Gives a container its place on a network, or repairs it.
    ///
    /// # Errors
    /// The container has no place there.
    pub async fn attach(
        &self,
        container: &str,
        network: &str,
        place: LocalPlace,
    ) -> Result<(), LocalError> {
        let key = (container.to_owned(), network.to_owned());
        self.ask(move |owner| owner.attach(key, place)).await?
    }

    /// Takes a container off all networks. One that is on none is fine.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn detach(&self, container: &str) -> Result<(), LocalError> {
        let container = container.to_owned();
        self.ask(move |owner| owner.detach(&container)).await?
    }

    /// What differs from what should be, in words; changes nothing.
    pub async fn doctor(&self) -> Vec<String> {
        let asked = self.ask(Owner::examine).await;
        asked.unwrap_or_default()
    }

    /// Repairs what differs.
    pub async fn heal(&self) {
        // A thread that has ended leaves everything as it is.
        let _ = self.ask(Owner::heal).await;
    }

    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Owner) -> T + Send + 'static,
    ) -> Result<T, LocalError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |owner| {
            // Whoever asked may have gone.
            let _ = reply.send(work(owner));
        });
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => LocalError::Busy,
            TrySendError::Disconnected(_) => LocalError::Closed,
        })?;
        answer.await.map_err(|_| LocalError::Closed)
    }
}

#[cfg(test)]
mod tests;
