//! Opt-in limits of join tokens: expiry and number of uses, kept in labels of the cluster.

use skep_model::{Cluster, Role, reserved::JoinPolicy};
use skep_store::Transaction;

use super::refuse_store_error;
use crate::command::{Code, CommandError};

/// Counts one use of the token for `role`, or refuses it.
pub(super) fn take_use(tx: &mut Transaction, role: Role) -> Result<(), CommandError> {
    let Some(stored) = tx.view().cluster() else {
        return Ok(());
    };
    let labels = &stored.spec.annotations.labels;
    let policy = JoinPolicy::read(labels, role)
        .map_err(|error| CommandError::new(Code::FailedPrecondition, error.to_string()))?;
    let left = policy
        .admit(tx.now())
        .map_err(|refusal| CommandError::new(Code::PermissionDenied, refusal.to_string()))?;
    let Some(left) = left else {
        return Ok(());
    };
    let mut cluster = Cluster::clone(stored);
    JoinPolicy::store_uses(&mut cluster.spec.annotations.labels, role, left);
    tx.update_cluster(cluster)
        .map_err(|error| refuse_store_error(&error))
}
