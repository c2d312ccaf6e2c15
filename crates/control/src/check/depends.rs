//! A service gets to nodes only once what it waits for was there.

use skep_store::Store;

use super::Violation;
use crate::depends;

/// What is wrong with the step from `before` to `after`: a first task given to a node while a condition
/// held neither before nor after.
pub(super) fn check_step(before: &Store, after: &Store, found: &mut Vec<Violation>) {
    for service in after.services() {
        let id = service.id;
        let has_begun = depends::waits(&service.spec)
            && depends::has_passed(after, id)
            && before.service(id).is_some()
            && !depends::has_passed(before, id);
        if !has_begun {
            continue;
        }
        let missing = depends::unmet_of(after, service);
        let was_missing = depends::unmet_of(before, service);
        if let (Some(_), Some(reason)) = (missing, was_missing) {
            found.push(Violation::StartedEarly {
                service: id,
                reason,
            });
        }
    }
}
