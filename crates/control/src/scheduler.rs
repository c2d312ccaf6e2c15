//! Scheduler.

#[allow(unused_imports, reason = "stub")]
use skep_model::{NodeId, Rng, ServiceId, Slot, TaskId, Timestamp};
use skep_store::Store;

use crate::plan::Plan;

pub(crate) fn reconcile(_view: &Store, _now: Timestamp) -> Plan {
    Plan::default()
}

/// Why no node takes the task, as `service ps` shows it; `None` when one does or it is placed.
pub fn explain(_view: &Store, _id: TaskId, _now: Timestamp) -> Option<String> {
    None
}
