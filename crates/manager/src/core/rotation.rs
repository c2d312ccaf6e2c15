//! Rotation of the root certificate: what begins one, which nodes are told to renew, when it ends.
//!
//! Nothing is remembered between turns: the cluster object holds the rotation, each node what it
//! reports of its issuer and when it was last told, so a new leader goes on where the old one was.
//! Making and judging roots is the [`Vault`]'s. Design: `docs/design/ca.md`.

#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

use skep_model::{
    CertificateState, Cluster, JoinTokens, Node, NodeId, NodeState, RootCa, Timestamp,
    object::RootRotation,
};
use skep_store::{Store, Transaction};

use crate::{
    command::{Code, CommandError},
    vault::{Issuer, Vault},
};

/// Nodes that renew at the same time (SwarmKit's number): all at once they would keep the leader
/// from everything else.
const RENEWALS_MAX: usize = 30;
/// A node that was told to renew and did not in this time makes room for the next one, and is told
/// again if it was issued a certificate and does not use it. A renewal takes seconds.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(30);
/// Time between looks at nodes during a rotation (SwarmKit's): makes up for what no change tells.
const PERIOD: Duration = Duration::from_secs(3);
/// Nodes named in an explanation: what fits a few lines of a terminal.
const NAMES_MAX: usize = 10;

/// Lets a rotation begin, be replaced or end, if the cluster's spec, just replaced, asks for it.
///
/// # Errors
/// The root wanted is unfit; the texts are Docker's.
pub(super) fn begin(
    cluster: &mut Cluster,
    vault: &mut dyn Vault,
    now: Timestamp,
) -> Result<(), CommandError> {
    let wanted = &mut cluster.spec.ca;
    let is_given = !wanted.signing_ca_cert.is_empty()
        || !wanted.signing_ca_key.0.is_empty()
        || !wanted.external_cas.is_empty();
    let root = &mut cluster.root_ca;
    if !is_given && wanted.force_rotate == root.last_forced_rotation {
        return Ok(());
    }
    let refused = |text| CommandError::new(Code::InvalidArgument, text);
    let new = vault.rotate_root(root, wanted, now).map_err(refused)?;
    match &mut root.root_rotation {
        // Back to the root that is still trusted. Nodes that have moved are trusted through the
        // cross-signed certificate until they renew.
        rotation if new.ca_cert == root.ca_cert => {
            root.ca_key = new.ca_key;
            *rotation = None;
        }
        // The same goal again: those that have moved stay where they are.
        Some(rotation) if new.ca_cert == rotation.ca_cert => rotation.ca_key = new.ca_key,
        rotation => *rotation = Some(new),
    }
    root.last_forced_rotation = wanted.force_rotate;
    // Done with; one copy of the key in the log is enough.
    wanted.signing_ca_cert.clear();
    wanted.signing_ca_key.0.clear();
    Ok(())
}

/// Tells nodes to renew, or ends the rotation when all have. Says when to look again, if one is in
/// progress.
pub(super) fn reconcile(tx: &mut Transaction, vault: &mut dyn Vault) -> Option<Timestamp> {
    let stored = tx.view().cluster()?;
    let rotation = stored.root_ca.root_rotation.as_ref()?;
    let goal = Goal::new(rotation, vault)?;
    let (now, mut room) = (tx.now(), RENEWALS_MAX);
    let mut candidates = Vec::new();
    let mut is_done = true;
    for node in tx.view().nodes().filter(|node| !goal.is_reached_by(node)) {
        is_done = false;
        match goal.step(node, now) {
            Step::Tell => candidates.push(node.id),
            Step::Renewing => room = room.saturating_sub(1),
            Step::Away => {}
        }
    }
    if is_done {
        let mut cluster = Cluster::clone(stored);
        finish(&mut cluster.root_ca, vault);
        tx.update_cluster(cluster)
            .expect("the cluster just read can be written");
        return None;
    }
    for node_id in candidates.into_iter().take(room) {
        let node = tx.view().node(node_id).expect("the node was just listed");
        let mut node = Node::clone(node);
        node.certificate.state = CertificateState::Rotate;
        tx.update_node(node)
            .expect("a node just read can be written");
    }
    Some(now + PERIOD)
}

/// The new root becomes the root. Tokens carry a root's digest, so there are new ones.
fn finish(root: &mut RootCa, vault: &mut dyn Vault) {
    let Some(rotation) = root.root_rotation.take() else {
        return;
    };
    root.ca_cert = rotation.ca_cert;
    root.ca_key = rotation.ca_key;
    root.ca_cert_hash = vault.hash(&root.ca_cert);
    root.join_tokens = JoinTokens {
        worker: vault.join_token(&root.ca_cert),
        manager: vault.join_token(&root.ca_cert),
    };
}

/// Where nodes are to go.
struct Goal<'a> {
    rotation: &'a RootRotation,
    issuer: Issuer,
}

/// What a node that has not moved needs.
enum Step {
    /// To be told.
    Tell,
    /// Time: it was told, or has a certificate it has not reported yet.
    Renewing,
    /// To come back, or to make up its mind: telling it, or telling it again, has no effect.
    Away,
}

// === impl Goal ===

impl<'a> Goal<'a> {
    /// `None` if the new root is unreadable, which no leader wrote.
    fn new(rotation: &'a RootRotation, vault: &dyn Vault) -> Option<Self> {
        let issuer = vault.issuer(&rotation.ca_cert)?;
        Some(Self { rotation, issuer })
    }

    fn is_reached_by(&self, node: &Node) -> bool {
        let description = node.description.as_ref();
        let info = description.and_then(|description| description.tls_info.as_ref());
        info.is_some_and(|info| {
            info.cert_issuer_subject == self.issuer.subject
                && info.cert_issuer_public_key == self.issuer.public_key
        })
    }

    fn step(&self, node: &Node, now: Timestamp) -> Step {
        if node.status.state != NodeState::Ready {
            return Step::Away;
        }
        let is_recent = now < node.meta.updated_at + RENEWAL_PATIENCE;
        match node.certificate.state {
            CertificateState::Rotate | CertificateState::Renew | CertificateState::Pending => {
                if is_recent {
                    Step::Renewing
                } else {
                    Step::Away
                }
            }
            // Certificates of the new root end with its cross-signed certificate.
            CertificateState::Issued
                if is_recent
                    && (node.certificate.certificate)
                        .ends_with(&self.rotation.cross_signed_ca_cert) =>
            {
                Step::Renewing
            }
            CertificateState::Issued | CertificateState::Unknown | CertificateState::Failed => {
                Step::Tell
            }
        }
    }
}

/// How far a rotation is; `Display` tells an operator what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Nodes of the cluster.
    pub node_count: usize,
    /// Those whose certificate the old root signed.
    pub waited_for: Vec<Waited>,
}

/// A node that a rotation waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waited {
    /// Which.
    pub node_id: NodeId,
    /// Its host name.
    pub hostname: String,
    /// Its state: one that is down holds the rotation up until it returns or is removed.
    pub state: NodeState,
}

/// How far the rotation is; `None` if there is none.
pub fn progress(store: &Store, vault: &dyn Vault) -> Option<Progress> {
    let rotation = store.cluster()?.root_ca.root_rotation.as_ref()?;
    let goal = Goal::new(rotation, vault)?;
    let waited_for = store
        .nodes()
        .filter(|node| !goal.is_reached_by(node))
        .map(|node| Waited {
            node_id: node.id,
            hostname: node.hostname().to_owned(),
            state: node.status.state,
        });
    Some(Progress {
        node_count: store.nodes().count(),
        waited_for: waited_for.collect(),
    })
}

/// The nodes the rotation in progress waits for.
pub fn waited_for(store: &Store, vault: &dyn Vault) -> Vec<NodeId> {
    let progress = progress(store, vault).map(|progress| progress.waited_for);
    let waited = progress.into_iter().flatten();
    waited.map(|waited| waited.node_id).collect()
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moved = self.node_count - self.waited_for.len();
        write!(
            f,
            "root rotation: {moved} of {} nodes have moved",
            self.node_count
        )?;
        let away: Vec<&Waited> = self
            .waited_for
            .iter()
            .filter(|waited| waited.state != NodeState::Ready)
            .collect();
        if away.is_empty() {
            return Ok(());
        }
        f.write_str("; it cannot end before these return or are removed: ")?;
        for (index, waited) in away.iter().take(NAMES_MAX).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{} ({})", waited.node_id, waited.hostname)?;
        }
        match away.len().saturating_sub(NAMES_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
