//! Services.

#[allow(unused_imports, reason = "stub")]
use skep_model::{NodeId, Rng, ServiceId, Slot, TaskId, Timestamp};
use skep_store::Store;

use crate::plan::Plan;

pub(crate) fn reconcile(_view: &Store, _id: ServiceId, _now: Timestamp, _rng: &mut Rng) -> Plan {
    Plan::default()
}
