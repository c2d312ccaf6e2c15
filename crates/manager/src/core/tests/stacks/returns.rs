//! Where a rollback leads, and how far a stack is from its revision.

use super::*;
use crate::command::ServiceChange;

impl Harness {
    fn previous(&self) -> u64 {
        let standing = stacks::find(self.core.store(), "app").unwrap();
        standing.stack.previous
    }
}

#[test]
fn a_second_rollback_undoes_the_first() {
    let mut harness = Harness::with_agent();
    harness.deploy(&application(b"one")).unwrap();
    let error = harness.roll_back(None).unwrap_err();
    assert_eq!(
        error.message,
        "stack app has nothing to return to from revision 1: kept are 1"
    );
    harness.deploy(&application(b"two")).unwrap();
    harness.deploy(&application(b"three")).unwrap();
    for number in [2, 3, 2] {
        assert_eq!(harness.roll_back(None).unwrap().revision, number);
    }
    // A repeat of what is in force is no step.
    harness.deploy(&application(b"two")).unwrap();
    assert_eq!(harness.roll_back(None).unwrap().revision, 3);
    assert_eq!(harness.roll_back(Some(1)).unwrap().revision, 1);
    assert_eq!(harness.roll_back(None).unwrap().revision, 3);
}

#[test]
fn what_a_rollback_leads_to_is_kept() {
    let mut harness = Harness::with_agent();
    for number in 0..skep_model::stack::REVISIONS_KEPT {
        let password = number.to_string();
        harness.deploy(&application(password.as_bytes())).unwrap();
    }
    harness.roll_back(Some(1)).unwrap();
    let outcome = harness.deploy(&application(b"last")).unwrap();
    assert_eq!((outcome.revision, harness.previous()), (11, 1));
    let kept = stacks::revisions(harness.core.store(), "app");
    let numbers: Vec<u64> = kept.iter().map(|kept| kept.number).collect();
    assert_eq!(numbers, [1, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    assert_eq!(harness.roll_back(None).unwrap().revision, 1);
}

#[test]
fn services_that_went_back_are_astray() {
    let mut harness = Harness::with_agent();
    harness.deploy(&application(b"one")).unwrap();
    harness.deploy(&application(b"two")).unwrap();
    let astray = |harness: &Harness| {
        let place = (harness.core.store(), harness.index);
        stacks::astray(place, &Group::default(), "app")
    };
    assert_eq!(astray(&harness), [""; 0]);
    let web = harness.core.store().service_by_name("app_web").unwrap();
    let back = Command::UpdateService {
        id: web.id,
        version: web.meta.version,
        change: ServiceChange::Rollback,
    };
    harness.command(back);
    harness.settle();
    assert_eq!(harness.secret_of("app_web"), "app_pw");
    assert_eq!(astray(&harness), ["app_web"]);
    // Returning the whole stack leaves none behind.
    harness.roll_back(None).unwrap();
    assert_eq!(astray(&harness), [""; 0]);
}
