//! Networks that this node has for itself: those people make here, settings for networks of the
//! cluster (`--config-only`), and this node's part of the cluster's networks with a driver of nodes.
//!
//! [`LocalNetworks`] knows them and who is on them, keeps them in files, and has the kernel work done by
//! `skep_network::local`. Leaves out which networks a task has (`engine`). Design:
//! `docs/design/local-networks.md`.

mod addresses;
mod definition;
mod host;
mod store;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;
use skep_model::{Network, NetworkSpec, Timestamp, validate};
use skep_network::local::{Local, LocalError, LocalPlace};
use tokio::sync::Mutex;
use tracing::{info, warn};

use self::addresses::{Claims, Taken};
pub use self::definition::{Definition, Scope, Subnet};

/// Networks of one node. Each is a bridge or a few links; Docker's default pools give out thirty.
const NETWORKS_MAX: usize = 1000;
/// Longest name, in bytes. Docker has no limit.
const NAME_BYTES_MAX: usize = 255;

/// Why a network of this node cannot be made, used or removed. Texts are Docker's where it has them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is wrong.
    #[error("{}", .0.join("; "))]
    Invalid(Vec<String>),
    /// It may not be.
    #[error("{0}")]
    Forbidden(String),
    /// The name is taken.
    #[error("network with name {0} already exists")]
    NameTaken(String),
    /// There is none.
    #[error("network {0} not found")]
    NotFound(String),
    /// A network of the cluster wants settings that this node does not have.
    #[error("configuration network {0:?} does not exist")]
    NoSettings(String),
    /// No subnet is left.
    #[error("all predefined address pools have been fully subnetted")]
    PoolsExhausted,
    /// No address is left.
    #[error("no available addresses on this network's address pools: {name} ({id})")]
    AddressesExhausted {
        /// The network's name.
        name: String,
        /// Its id.
        id: String,
    },
    /// The kernel refused.
    #[error("failed to set up network {name}: {}", chain(.source))]
    Kernel {
        /// The network's name.
        name: String,
        /// The cause.
        #[source]
        source: LocalError,
    },
    /// The networks cannot be written down.
    #[error("failed to store network: {0}")]
    Files(#[from] io::Error),
}

/// A container's place on a network of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The network.
    pub network: Arc<Definition>,
    /// The container's addresses there.
    pub addresses: Vec<IpNet>,
}

/// All networks that this node has for itself.
#[derive(Debug)]
pub struct LocalNetworks {
    dir: PathBuf,
    /// Bridge of the node network.
    node_bridge: String,
    kernel: Local,
    /// Held while the kernel follows, so that a network is not removed under one who joins it.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    networks: BTreeMap<String, Arc<Definition>>,
    claims: BTreeMap<String, Claims>,
}

// === impl LocalNetworks ===

impl LocalNetworks {
    /// Opens the networks stored in `dir` and makes them in the kernel, in the network namespace of the
    /// calling thread.
    ///
    /// # Errors
    /// The directory cannot be used, or the kernel cannot be asked.
    pub async fn open(dir: &Path, node_bridge: &str) -> io::Result<Self> {
        let kernel = Local::open().await.map_err(io::Error::other)?;
        let mut networks = BTreeMap::new();
        for definition in store::read(dir)? {
            networks.insert(definition.id.clone(), Arc::new(definition));
        }
        let made = networks.iter().filter_map(|(id, definition)| {
            let network = definition.to_kernel().ok()??;
            Some((id.clone(), network))
        });
        let failures = kernel.begin(made.collect()).await;
        for (id, error) in failures.map_err(io::Error::other)? {
            warn!(network.id = %id, error = %chain(&error), "Network of this node is not whole");
        }
        let state = State {
            networks,
            claims: BTreeMap::new(),
        };
        Ok(Self {
            dir: dir.to_owned(),
            node_bridge: node_bridge.to_owned(),
            kernel,
            state: Mutex::new(state),
        })
    }

    /// All there are, by name.
    pub async fn list(&self) -> Vec<Arc<Definition>> {
        let state = self.state.lock().await;
        let mut all: Vec<_> = state.networks.values().cloned().collect();
        all.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        all
    }

    /// Makes a network of this node alone, or settings for others.
    ///
    /// # Errors
    /// It cannot be; nothing is left of it.
    pub async fn create(
        &self,
        (id, now): (String, Timestamp),
        spec: &NetworkSpec,
        is_config_only: bool,
    ) -> Result<Arc<Definition>, Error> {
        let mut state = self.state.lock().await;
        let name = &spec.annotations.name;
        check_name(name)?;
        if state.networks.values().any(|other| other.name == *name) {
            return Err(Error::NameTaken(name.clone()));
        }
        if state.networks.len() >= NETWORKS_MAX {
            let message = format!("a node has at most {NETWORKS_MAX} networks");
            return Err(Error::Forbidden(message));
        }
        let mut definition = Definition::of(spec, (id, now));
        definition.is_config_only = is_config_only;
        if is_config_only {
            definition.check_settings(spec)?;
        } else {
            if spec.config_from.is_some() {
                definition.check_dependent()?;
                state.settle(&mut definition)?;
            }
            let mut wanted = spec.clone();
            wanted.ipam = Some(definition.ipam());
            wanted.has_ipv6 = definition.has_ipv6;
            if let Some(driver) = &mut wanted.driver {
                driver.options = definition.options.clone();
            }
            let problems = validate::local_network_spec(&wanted);
            if !problems.is_empty() {
                let texts = problems.into_iter().map(|problem| problem.0);
                return Err(Error::Invalid(texts.collect()));
            }
        }
        self.add(&mut state, definition).await
    }

    /// Removes a network of this node. Of the cluster's networks this node's part goes by itself.
    ///
    /// # Errors
    /// It is in use, or is not there.
    pub async fn remove(&self, id: &str) -> Result<Arc<Definition>, Error> {
        let mut state = self.state.lock().await;
        let network = state.networks.get(id).cloned();
        let network = network.ok_or_else(|| Error::NotFound(id.to_owned()))?;
        let name = &network.name;
        if network.is_config_only
            && state
                .networks
                .values()
                .any(|other| other.config_from == *name)
        {
            let message = format!("configuration network {name:?} is in use");
            return Err(Error::Forbidden(message));
        }
        if state
            .claims
            .get(id)
            .is_some_and(|claims| !claims.is_empty())
        {
            let message =
                format!("error while removing network: network {name} has active endpoints");
            return Err(Error::Forbidden(message));
        }
        self.take_down(&mut state, &network).await?;
        Ok(network)
    }

    /// Gives a container addresses on this node's part of a network of the cluster, which is made if
    /// there is none yet.
    ///
    /// # Errors
    /// It has none.
    pub async fn join(&self, container: &str, network: &Network) -> Result<Joined, Error> {
        let mut state = self.state.lock().await;
        let id = network.id.to_string();
        let definition = match state.networks.get(&id) {
            Some(known) => Arc::clone(known),
            None => {
                let mut definition =
                    Definition::of(&network.spec, (id.clone(), network.meta.created_at));
                definition.scope = Scope::Swarm;
                state.settle(&mut definition)?;
                self.add(&mut state, definition).await?
            }
        };
        let claims = state.claims.entry(id.clone()).or_default();
        match claims.choose(container, &definition) {
            Some(addresses) => Ok(Joined {
                network: definition,
                addresses,
            }),
            None => Err(Error::AddressesExhausted {
                name: definition.name.clone(),
                id,
            }),
        }
    }

    /// Puts a container on a network it has joined.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn attach(
        &self,
        container: &str,
        network: &Definition,
        place: LocalPlace,
    ) -> Result<(), Error> {
        let attached = self.kernel.attach(container, &network.id, place).await;
        attached.map_err(|source| Error::Kernel {
            name: network.name.clone(),
            source,
        })
    }

    /// A container that was found has these addresses.
    pub async fn adopt(&self, container: &str, network: &str, addresses: &[IpNet]) {
        let mut state = self.state.lock().await;
        let claims = state.claims.entry(network.to_owned()).or_default();
        claims.insert(container, addresses);
    }

    /// Takes a container off all networks of this node. What was there for it alone goes. Returns the
    /// networks it was on.
    pub async fn leave(&self, container: &str) -> Vec<Arc<Definition>> {
        let mut state = self.state.lock().await;
        let mut left = Vec::new();
        for (id, claims) in &mut state.claims {
            if claims.remove(container) {
                left.push(id.clone());
            }
        }
        if left.is_empty() {
            return Vec::new();
        }
        if let Err(error) = self.kernel.detach(container).await {
            warn!(container.id = container, error = %chain(&error), "Container not taken off a network");
        }
        let networks = left.iter().filter_map(|id| state.networks.get(id).cloned());
        let networks: Vec<_> = networks.collect();
        self.remove_unused(&mut state).await;
        networks
    }

    /// Removes this node's parts of networks of the cluster that nobody is on, as after a reboot.
    pub async fn prune(&self) {
        let mut state = self.state.lock().await;
        self.remove_unused(&mut state).await;
    }

    /// What differs from what should be, in words; changes nothing.
    pub async fn doctor(&self) -> Vec<String> {
        self.kernel.doctor().await
    }

    /// Repairs it.
    pub async fn heal(&self) {
        self.kernel.heal().await;
    }

    async fn remove_unused(&self, state: &mut State) {
        let is_unused = |network: &&Arc<Definition>| {
            let claims = state.claims.get(&network.id);
            network.scope == Scope::Swarm && claims.is_none_or(Claims::is_empty)
        };
        let unused: Vec<_> = state.networks.values().filter(is_unused).cloned().collect();
        for network in unused {
            if let Err(error) = self.take_down(state, &network).await {
                warn!(network.id = %network.id, error = %error, "Unused network not removed");
            }
        }
    }

    /// Chooses what the definition leaves open, writes it down and makes it.
    async fn add(
        &self,
        state: &mut State,
        mut definition: Definition,
    ) -> Result<Arc<Definition>, Error> {
        if !definition.is_config_only {
            let host = host::Host::read(&self.node_bridge);
            let others = state.networks.values().map(|network| &**network);
            Taken::new(&host, others).complete(&mut definition)?;
        }
        let network = definition.to_kernel()?;
        store::write(&self.dir, &definition)?;
        if let Some(network) = network
            && let Err(source) = self.kernel.set_network(&definition.id, network).await
        {
            store::remove(&self.dir, &definition.id)?;
            let name = definition.name;
            return Err(Error::Kernel { name, source });
        }
        info!(network.id = %definition.id, network.name = %definition.name, "Network of this node made");
        let definition = Arc::new(definition);
        let id = definition.id.clone();
        state.networks.insert(id, Arc::clone(&definition));
        Ok(definition)
    }

    async fn take_down(&self, state: &mut State, network: &Definition) -> Result<(), Error> {
        let removed = self.kernel.remove_network(&network.id).await;
        removed.map_err(|source| Error::Kernel {
            name: network.name.clone(),
            source,
        })?;
        state.networks.remove(&network.id);
        state.claims.remove(&network.id);
        store::remove(&self.dir, &network.id)?;
        Ok(())
    }
}

// === impl State ===

impl State {
    /// Takes the settings of the network that `definition` names.
    fn settle(&self, definition: &mut Definition) -> Result<(), Error> {
        let name = &definition.config_from;
        if name.is_empty() {
            return Ok(());
        }
        let mut networks = self.networks.values();
        let settings = networks.find(|network| network.is_config_only && network.name == *name);
        let settings = settings.ok_or_else(|| Error::NoSettings(name.clone()))?;
        definition.take_settings(settings);
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    let problem = if name.trim().is_empty() {
        "invalid name: name is empty"
    } else if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        "invalid name: at most 255 bytes, no control characters"
    } else {
        return Ok(());
    };
    Err(Error::Invalid(vec![problem.to_owned()]))
}

/// An error with all its causes, for people who see nothing else of it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
