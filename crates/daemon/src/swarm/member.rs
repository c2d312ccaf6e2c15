//! A running membership as the API and the agent see it. [`Life`](super::life::Life) writes it.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use skep_manager::Handle;
use skep_model::{NodeId, NodeTlsInfo, Role};
use skep_rpc::{Client, Cluster, Remotes, Security};
use tokio::sync::watch;
use tracing::warn;

use super::identity::Identity;

/// See the module's documentation.
pub(crate) struct Member {
    identity: ArcSwap<Identity>,
    pub(super) security: Arc<Security>,
    pub(super) client: Client,
    manager: ArcSwapOption<Active>,
    state: watch::Sender<State>,
    tls_info: ArcSwap<NodeTlsInfo>,
}

/// This node's manager while it runs.
pub(crate) struct Active {
    pub(crate) node_id: NodeId,
    pub(crate) handle: Handle,
    /// Commands and reads, forwarded to the leader.
    pub(crate) cluster: Cluster,
    /// Port 2377.
    pub(crate) port: Arc<skep_rpc::Server>,
}

/// How a membership is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// The cluster has taken this node in since the daemon started, with its manager if it has one.
    pub(crate) is_ready: bool,
    /// What keeps the node from being a part of the cluster.
    pub(crate) error: Option<String>,
}

// === impl Member ===

impl Member {
    pub(super) fn new(identity: Identity, security: Arc<Security>, remotes: Arc<Remotes>) -> Self {
        let client = Client::new(Arc::clone(&security), remotes);
        let member = Self {
            identity: ArcSwap::from_pointee(identity),
            security,
            client,
            manager: ArcSwapOption::empty(),
            state: watch::Sender::default(),
            tls_info: ArcSwap::default(),
        };
        member.refresh_tls_info();
        member
    }

    pub(crate) fn identity(&self) -> Arc<Identity> {
        self.identity.load_full()
    }

    pub(super) fn set_identity(&self, identity: Identity) {
        self.identity.store(Arc::new(identity));
    }

    /// The managers this node knows.
    pub(crate) fn remotes(&self) -> &Arc<Remotes> {
        self.client.remotes()
    }

    /// The role its certificate gives it.
    pub(crate) fn role(&self) -> Role {
        self.security.role()
    }

    /// Its manager, while one runs.
    pub(crate) fn manager(&self) -> Option<Arc<Active>> {
        self.manager.load_full()
    }

    pub(super) fn set_manager(&self, manager: Option<Active>) {
        self.manager.store(manager.map(Arc::new));
    }

    pub(crate) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    pub(super) fn change_state(&self, change: impl FnOnce(&mut State)) {
        self.state.send_if_modified(|state| {
            let old = state.clone();
            change(state);
            *state != old
        });
    }

    /// What the node says of its certificate.
    pub(super) fn tls_info(&self) -> NodeTlsInfo {
        NodeTlsInfo::clone(&self.tls_info.load())
    }

    /// Takes up a change of certificate or roots.
    pub(super) fn refresh_tls_info(&self) {
        let (chain, roots) = (self.security.chain_pem(), self.security.roots_pem());
        match skep_ca::tls_info(chain.as_bytes(), roots.as_bytes()) {
            Ok(info) => self.tls_info.store(Arc::new(info)),
            Err(error) => warn!(error = %error, "Failed to read this node's certificate"),
        }
    }
}
