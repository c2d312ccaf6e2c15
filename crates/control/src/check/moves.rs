//! A task that is moved for balance serves until its replacement is as far as the update order wants.

use skep_model::{TaskState, UpdateOrder, reserved::task::moved_by};
use skep_store::Store;

use super::{Violation, is_live, updates::has_stopped_serving};
use crate::update;

/// Tasks that stopped too early between `before` and `after`, for nothing else than a move.
pub(super) fn check_step(before: &Store, after: &Store, found: &mut Vec<Violation>) {
    for mover in after.tasks().filter(|task| is_live(task)) {
        let Some(old) = moved_by(mover).and_then(|id| after.task(id)) else {
            continue;
        };
        let service = mover.service_id.and_then(|id| after.service(id));
        let Some(service) = service.filter(|s| mover.spec_version == Some(s.spec_version)) else {
            continue;
        };
        let config = service.spec.update.as_ref();
        let enough = match config.map_or(UpdateOrder::StopFirst, |config| config.order) {
            UpdateOrder::StopFirst => TaskState::Ready,
            UpdateOrder::StartFirst => TaskState::Running,
        };
        if mover.status.state < enough
            && !update::is_active(service)
            && has_stopped_serving(before, after, old)
        {
            found.push(Violation::MovedTooEarly { task: old.id });
        }
    }
}
