//! What the rest of the daemon holds of a running agent: its report, and the order to leave.

use std::sync::Arc;

use skep_model::{
    Node, SessionId,
    dispatch::{DispatchError, WeightedPeer},
};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::Error;
use crate::core::AgentCore;

/// What the agent knows of its place in the cluster, for `docker info` and role changes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// The session, while registered.
    pub session_id: Option<SessionId>,
    /// Why the last session ended.
    pub error: Option<DispatchError>,
    /// The node object as last sent.
    pub node: Option<Arc<Node>>,
    /// The managers as last sent.
    pub managers: Vec<WeightedPeer>,
    /// The root certificates (PEM) as last sent, unchecked; empty before.
    pub root_ca: Arc<[u8]>,
}

/// Talks to a running agent; cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::Sender<oneshot::Sender<()>>,
    redescribe: Arc<Notify>,
    report: watch::Receiver<Report>,
}

// === impl Handle ===

impl Handle {
    pub(super) fn new(
        commands: mpsc::Sender<oneshot::Sender<()>>,
        redescribe: Arc<Notify>,
        report: watch::Receiver<Report>,
    ) -> Self {
        Self {
            commands,
            redescribe,
            report,
        }
    }

    /// Says that the executor would describe the node differently now, for instance because its
    /// certificate was renewed; the agent need not wait for its next look.
    pub fn redescribe(&self) {
        self.redescribe.notify_one();
    }

    /// Kills and deletes all tasks of the node and ends the agent; returns when they are gone.
    pub async fn leave(&self) -> Result<(), Error> {
        let (tx, rx) = oneshot::channel();
        self.commands.send(tx).await.map_err(|_| Error::Stopped)?;
        rx.await.map_err(|_| Error::Stopped)
    }

    /// The agent's place in the cluster, always the latest.
    pub fn report(&self) -> watch::Receiver<Report> {
        self.report.clone()
    }
}

/// Shows the core's state to those who watch, if it changed.
pub(super) fn publish(report: &watch::Sender<Report>, core: &AgentCore) {
    report.send_if_modified(|known| {
        let is_same = known.session_id == core.session_id()
            && known.error.as_ref() == core.session_error()
            && known.managers == core.managers()
            && *known.root_ca == *core.root_ca()
            && match (&known.node, core.node()) {
                (Some(known), Some(node)) => Arc::ptr_eq(known, node),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
        if !is_same {
            *known = Report {
                session_id: core.session_id(),
                error: core.session_error().cloned(),
                node: core.node().cloned(),
                managers: core.managers().to_vec(),
                root_ca: Arc::from(core.root_ca()),
            };
        }
        !is_same
    });
}
