//! Rotation of the root certificate.

use skep_model::{Cluster, Timestamp};
use skep_store::Transaction;

use crate::{command::CommandError, vault::Vault};

pub(super) fn begin(
    _cluster: &mut Cluster,
    _vault: &mut dyn Vault,
    _now: Timestamp,
) -> Result<(), CommandError> {
    Ok(())
}

pub(super) fn reconcile(_tx: &mut Transaction, _vault: &mut dyn Vault) -> bool {
    false
}
