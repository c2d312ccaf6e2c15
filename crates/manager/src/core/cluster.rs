//! Commands on the cluster object: settings, join tokens, unlock key, root of certificates.

use skep_model::{
    Cluster, ClusterSpec, EncryptionKey, Node, Role, Version, reserved::JoinPolicy, validate,
};
use skep_store::Transaction;

use super::{refuse_problems, refuse_store_error, rotation};
use crate::{
    command::{Answer, Code, CommandError, Rotate},
    vault::Vault,
};

/// Whom the unlock key serves, as SwarmKit names it.
const UNLOCK_SUBSYSTEM: &str = "swarm-manager";

/// Replaces the cluster's spec and, where asked, its secrets.
pub(super) fn update(
    tx: &mut Transaction,
    vault: &mut dyn Vault,
    version: Version,
    spec: ClusterSpec,
    rotate: Rotate,
) -> Result<Answer, CommandError> {
    let Some(stored) = tx.view().cluster() else {
        return Err(CommandError::new(Code::NotFound, "cluster not found"));
    };
    refuse_problems(&validate::cluster_spec(&spec))?;
    let mut cluster = Cluster::clone(stored);
    cluster.meta.version = version;
    let old = std::mem::replace(&mut cluster.spec, spec);
    lift_limits(&mut cluster.spec, &old, rotate);
    let root = &mut cluster.root_ca;
    if rotate.worker_token {
        root.join_tokens.worker = vault.join_token(&root.ca_cert);
    }
    if rotate.manager_token {
        root.join_tokens.manager = vault.join_token(&root.ca_cert);
    }
    set_unlock_key(&mut cluster, vault, rotate.unlock_key);
    rotation::begin(&mut cluster, vault, tx.now())?;
    tx.update_cluster(cluster)
        .map_err(|error| refuse_store_error(&error))?;
    Ok(Answer::Done)
}

/// A new token begins without the limits of the one it replaces, unless new ones come with it.
fn lift_limits(spec: &mut ClusterSpec, old: &ClusterSpec, rotate: Rotate) {
    let rotated = [
        (rotate.worker_token, Role::Worker),
        (rotate.manager_token, Role::Manager),
    ];
    for (is_rotated, role) in rotated {
        let labels = &mut spec.annotations.labels;
        let before = JoinPolicy::read(&old.annotations.labels, role);
        if is_rotated && JoinPolicy::read(labels, role) == before {
            JoinPolicy::lift(labels, role);
        }
    }
}

/// Makes the unlock key follow the setting: none while managers are not locked.
pub(super) fn set_unlock_key(cluster: &mut Cluster, vault: &mut dyn Vault, is_rotated: bool) {
    if !cluster.spec.auto_lock_managers {
        cluster.unlock_keys.clear();
    } else if cluster.unlock_keys.is_empty() || is_rotated {
        cluster.unlock_keys = vec![EncryptionKey {
            subsystem: UNLOCK_SUBSYSTEM.to_owned(),
            key: vault.unlock_key(),
            lamport_time: 0,
        }];
    }
}

/// Refuses the certificate of a node that is being removed, for as long as it could be valid.
pub(super) fn blacklist(tx: &mut Transaction, node: &Node) {
    let Some(stored) = tx.view().cluster() else {
        return;
    };
    let mut cluster = Cluster::clone(stored);
    cluster.blacklist(node, tx.now());
    tx.update_cluster(cluster)
        .expect("the cluster just read can be written");
}
