//! Kept specs of services: what is noted when, what goes, and what one may return to.

use skep_model::{UpdateState, object::ServiceRevision, reserved::service::rollout::REVISIONS};

use super::*;
use crate::command::ServiceChange;

impl Harness {
    fn change(&mut self, id: ServiceId, change: ServiceChange) -> Result<(), String> {
        let version = self.core.store().service(id).unwrap().meta.version;
        let to = self.command(Command::UpdateService {
            id,
            version,
            change,
        });
        self.settle();
        match self.reply(to) {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(error.message.clone()),
            None => panic!("no answer"),
        }
    }

    fn set_image(&mut self, id: ServiceId, image: &str) {
        let mut spec = ServiceSpec::clone(&self.core.store().service(id).unwrap().spec);
        let task = Arc::make_mut(&mut spec.task);
        image.clone_into(&mut task.container.image);
        let change = ServiceChange::Spec(Box::new(spec));
        self.change(id, change).unwrap();
    }

    fn set_label(&mut self, id: ServiceId, value: &str) {
        let mut spec = ServiceSpec::clone(&self.core.store().service(id).unwrap().spec);
        let labels = &mut Arc::make_mut(&mut spec.annotations).labels;
        labels.insert(REVISIONS.to_owned(), value.to_owned());
        let change = ServiceChange::Spec(Box::new(spec));
        self.change(id, change).unwrap();
    }

    fn kept(&self, id: ServiceId) -> Vec<ServiceRevision> {
        crate::revisions(self.core.store(), id)
    }

    /// Number and image of what is kept.
    #[track_caller]
    fn check(&self, id: ServiceId, expected: &[(u64, &str)]) {
        let kept = self.kept(id);
        let kept: Vec<_> = kept
            .iter()
            .map(|kept| (kept.number, kept.spec.task.container.image.as_str()))
            .collect();
        assert_eq!(kept, expected);
    }
}

#[test]
fn every_spec_is_kept_and_can_be_returned_to() {
    let mut harness = Harness::leading();
    let id = harness.create_service("web", 1);
    harness.check(id, &[(1, "app:1")]);
    harness.set_image(id, "app:2");
    harness.set_image(id, "app:3");
    harness.check(id, &[(1, "app:1"), (2, "app:2"), (3, "app:3")]);

    harness.change(id, ServiceChange::RollbackTo(1)).unwrap();
    let service = Arc::clone(harness.core.store().service(id).unwrap());
    assert_eq!(service.spec.task.container.image, "app:1");
    assert_eq!(service.spec_version, harness.kept(id)[0].spec_version);
    assert_eq!(
        service.previous_spec.as_ref().unwrap().task.container.image,
        "app:3"
    );
    let status = service.update_status.as_ref().unwrap();
    assert_eq!(status.message, "manually requested rollback to revision 1");
    assert_eq!(status.state, UpdateState::RollbackStarted);
    // Nothing new is kept for a spec that came back, by this way or Docker's.
    harness.change(id, ServiceChange::Rollback).unwrap();
    harness.check(id, &[(1, "app:1"), (2, "app:2"), (3, "app:3")]);
    harness.set_image(id, "app:4");
    harness.check(
        id,
        &[(1, "app:1"), (2, "app:2"), (3, "app:3"), (4, "app:4")],
    );
    let before: Vec<_> = harness.kept(id).iter().map(|kept| kept.previous).collect();
    assert_eq!(before, [None, Some(1), Some(2), Some(3)]);
}

#[test]
fn the_oldest_go_and_no_number_comes_back() {
    let mut harness = Harness::leading();
    let id = harness.create_service("web", 1);
    harness.set_label(id, "2");
    harness.set_image(id, "app:2");
    harness.check(id, &[(2, "app:1"), (3, "app:2")]);
    // What is in force stays, though it is the oldest.
    harness.change(id, ServiceChange::RollbackTo(2)).unwrap();
    harness.set_image(id, "app:3");
    harness.check(id, &[(2, "app:1"), (4, "app:3")]);
    assert_eq!(harness.kept(id)[1].previous, Some(2));
    harness.set_label(id, "0");
    harness.check(id, &[(4, "app:3"), (5, "app:3")]);
}

#[test]
fn runs_by_hand_push_nothing_out() {
    let mut harness = Harness::leading();
    let id = harness.create_service("web", 1);
    harness.set_image(id, "app:2");
    for _ in 0..20 {
        let mut spec = ServiceSpec::clone(&harness.core.store().service(id).unwrap().spec);
        Arc::make_mut(&mut spec.task).force_update += 1;
        let change = ServiceChange::Spec(Box::new(spec));
        harness.change(id, change).unwrap();
    }
    harness.check(
        id,
        &[(1, "app:1"), (2, "app:2"), (21, "app:2"), (22, "app:2")],
    );
    harness.set_image(id, "app:3");
    harness.check(
        id,
        &[(1, "app:1"), (2, "app:2"), (22, "app:2"), (23, "app:3")],
    );
}

#[test]
fn there_is_no_return_to_what_is_not_kept_or_not_possible() {
    let mut harness = Harness::leading();
    let id = harness.create_service("web", 1);
    harness.set_label(id, "2");
    harness.set_image(id, "app:2");
    let mut refuse = |number| {
        let answer = harness.change(id, ServiceChange::RollbackTo(number));
        answer.unwrap_err()
    };
    assert_eq!(refuse(1), "service web has no revision 1: kept are 2, 3");
    assert_eq!(refuse(3), "service web is at revision 3");
}

#[test]
fn revisions_go_with_their_service() {
    let mut harness = Harness::leading();
    let web = harness.create_service("web", 1);
    let db = harness.create_service("db", 1);
    harness.set_image(web, "app:2");
    let to = harness.command(Command::RemoveService { id: web });
    harness.settle();
    assert!(matches!(harness.reply(to), Some(Ok(_))));
    harness.check(web, &[]);
    harness.check(db, &[(1, "app:1")]);
}

#[test]
fn a_service_that_had_no_revisions_gets_them_with_its_next_spec() {
    let mut harness = Harness::leading();
    let id = harness.create_service("web", 1);
    harness.set_image(id, "app:2");
    // As a cluster of Docker leaves it.
    let mut tx = Transaction::new(harness.core.store(), skep_model::Version(1000), harness.now);
    super::super::revisions::forget(&mut tx, id);
    let actions = tx.actions().to_vec();
    assert_eq!(actions.len(), 2);
    harness.commit(RequestId(0), actions);
    harness.check(id, &[]);
    harness.set_image(id, "app:3");
    harness.check(id, &[(1, "app:2"), (2, "app:3")]);
}
