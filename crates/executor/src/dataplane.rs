//! The node's data plane, fed by the cluster's directory and the node's own containers.
//!
//! [`Book`] is pure: it turns both into the value that `skep_network::plane::Plane` follows. [`Dataplane`]
//! is the handle of the [`Actor`] that owns book and plane, and what a container waits for before its
//! process starts. Leaves out the node network itself (`engine`), and where messages come from
//! (`daemon`). Design: `docs/design/directory.md`.
//!
//! Tasks: the actor, run by the composition root. Channels: commands (bounded, answered by oneshot),
//! the directory's messages (given with each membership), the status (watch).

mod actor;
mod book;
mod container;
mod keeper;
mod own_keys;
mod paths;
mod traffic;
mod waiting;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
};

use skep_model::{
    NodeId,
    directory::{Message, Slice},
};
use skep_network::tunnel::Launch;
use tokio::sync::{mpsc, oneshot, watch};

use self::actor::Command;
pub use self::{
    actor::Actor,
    book::Book,
    container::{LocalContainer, LocalName, NetworkFacts, Place},
    keeper::Codec,
    traffic::Carried,
};

/// Commands that may wait. Each is a container that starts or ends; their callers wait anyway.
const COMMAND_COUNT_MAX: usize = 256;

/// Settings of the data plane.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its directory; must live as long as the kernel's state does.
    pub run_dir: PathBuf,
    /// Bridge of the node network.
    pub bridge: String,
    /// How the directory is written to disk.
    pub codec: Codec,
    /// How the process of encrypted networks is started.
    pub launch: Launch,
}

/// A membership in a cluster, as far as the data plane is concerned.
#[derive(Debug)]
pub struct Membership {
    /// This node.
    pub node_id: NodeId,
    /// Where tunnels to it end.
    pub data_path: IpAddr,
    /// What it is told.
    pub messages: mpsc::Receiver<Message>,
}

/// How the data plane is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Index of the raft entry the directory is of; `None` before the first whole set.
    pub index: Option<u64>,
    /// Generation of the value followed; 0 before the first.
    pub generation: u64,
    /// What works less well than it should, and what could not be done. For people.
    pub problems: BTreeSet<String>,
    /// Networks with containers of this node, by name.
    pub networks: BTreeMap<String, NetworkSummary>,
    /// What the paths to other nodes carry, by their data-path address. Those that were not asked yet are missing.
    pub paths: BTreeMap<IpAddr, PathMtu>,
}

/// What the path to another node carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathMtu {
    /// Bytes of the largest packets that this node sends there.
    pub needed: u32,
    /// Bytes of the largest packets that arrive, as far as they are needed; `None` where the node does not answer echo
    /// requests.
    pub found: Option<u32>,
}

/// What there is of a network on this node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetworkSummary {
    /// Containers of this node on it.
    pub container_count: usize,
    /// Containers of other nodes on it.
    pub remote_count: usize,
    /// Services with a virtual address on it.
    pub service_count: usize,
}

/// Why a container did not get its places.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The node is in no cluster, or the daemon stops.
    #[error("this node's data plane is not running")]
    Stopped,
    /// No manager told this node of the cluster's networks.
    #[error("no manager has told this node of the cluster's networks yet")]
    NoDirectory,
    /// The place cannot be.
    #[error("network `{0}` has no address for the task")]
    NoAddress(String),
    /// A removed network whose containers are still ending has the VXLAN id. Packets of both would mix.
    #[error("network `{network}` waits for the containers of network `{other}`, which was removed")]
    VxlanId {
        /// The network to join.
        network: String,
        /// The network that goes.
        other: String,
    },
    /// The kernel refused.
    #[error("failed to join the task's networks: {0}")]
    Refused(String),
}

impl AttachError {
    /// Whether the same may succeed a little later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Stopped | Self::NoDirectory | Self::VxlanId { .. } => true,
            Self::NoAddress(_) | Self::Refused(_) => false,
        }
    }
}

/// The data plane. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Dataplane {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Arc<Status>>,
    tunnel_keys: watch::Receiver<Vec<[u8; 32]>>,
}

// === impl Dataplane ===

impl Dataplane {
    /// The data plane and the actor to run. Nothing is touched before a membership begins.
    pub fn new(config: Config) -> (Self, Actor) {
        let (commands, received) = mpsc::channel(COMMAND_COUNT_MAX);
        let (told, status) = watch::channel(Arc::default());
        let (told_keys, tunnel_keys) = watch::channel(Vec::new());
        let actor = Actor::new(config, received, (told, told_keys));
        let handle = Self {
            commands,
            status,
            tunnel_keys,
        };
        (handle, actor)
    }

    /// Follows a cluster from now on. What the kernel has stays as it is until the node was told
    /// all, now or by what an earlier daemon of the same membership left on disk. Returns the slice
    /// that one had.
    pub async fn join(&self, membership: Membership) -> Option<Slice> {
        self.ask(|reply| Command::Join(membership, reply))
            .await
            .flatten()
    }

    /// Index of the raft entry after which all is as the node knows it; 0 when it knows nothing.
    pub async fn index(&self) -> u64 {
        self.ask(Command::Index).await.unwrap_or(0)
    }

    /// The cluster's data-path port, and this node's slice if its bridge has it.
    pub async fn configure(&self, port: u16, slice: Option<Slice>) {
        self.tell(|reply| Command::Configure(port, slice, reply))
            .await;
    }

    /// Takes everything down: the node is in no cluster any more.
    pub async fn leave(&self) {
        self.tell(Command::Leave).await;
    }

    /// A container that was found running, with the places it has.
    pub async fn adopt(&self, id: &str, container: LocalContainer) {
        let id = id.to_owned();
        self.tell(|reply| Command::Adopt(id, container, reply))
            .await;
    }

    /// Gives a container its places; when this returns it can reach others and be reached.
    ///
    /// # Errors
    /// It has none of them.
    pub async fn attach(&self, id: &str, container: LocalContainer) -> Result<(), AttachError> {
        let id = id.to_owned();
        let attached = self
            .ask(|reply| Command::Attach(id, container, reply))
            .await;
        attached.unwrap_or(Err(AttachError::Stopped))
    }

    /// A container has ended: nobody is led to it any more when this returns.
    pub async fn detach(&self, id: &str) {
        let id = id.to_owned();
        self.tell(|reply| Command::Detach(id, reply)).await;
    }

    /// When this returns this node leads new connections to others than the container, because it was
    /// told to. May take for ever: who waits for it waits so long.
    pub async fn parted(&self, id: &str) {
        let id = id.to_owned();
        self.tell(|done| Command::Parted(id, done)).await;
    }

    /// What differs from what should be, in words; changes nothing.
    pub async fn doctor(&self) -> Vec<String> {
        self.ask(Command::Doctor).await.unwrap_or_default()
    }

    /// What was repaired in the last minutes without anybody asking, in words, with when.
    pub async fn repairs(&self) -> Vec<String> {
        self.ask(Command::Repairs).await.unwrap_or_default()
    }

    /// What was carried up to now; nothing outside a cluster.
    pub async fn carried(&self) -> Carried {
        self.ask(Command::Carried).await.unwrap_or_default()
    }

    /// Compares everything with the kernel and repairs it.
    pub async fn heal(&self) {
        self.tell(Command::Heal).await;
    }

    /// All the node was told, as one complete set.
    pub async fn directory(&self) -> Option<Message> {
        self.ask(Command::Directory).await.flatten()
    }

    /// How it is.
    pub fn status(&self) -> watch::Receiver<Arc<Status>> {
        self.status.clone()
    }

    /// What others are to be told of this node's keys; empty without a membership.
    pub fn tunnel_keys(&self) -> watch::Receiver<Vec<[u8; 32]>> {
        self.tunnel_keys.clone()
    }

    async fn tell(&self, command: impl FnOnce(oneshot::Sender<()>) -> Command) {
        // An actor that has ended left everything in the kernel as it is.
        let _ = self.ask(command).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}

#[cfg(test)]
mod tests;
