//! Stacks that others have a hand in: Docker's command makes them of labels, and removes their objects one by one.

use super::*;

/// What removes each object of the stack `app`, as `docker stack rm` sends it.
fn removals(store: &Store) -> Vec<Command> {
    let is_of = |annotations: &Annotations| {
        let of = annotations.labels.get(NAMESPACE_LABEL);
        of.is_some_and(|stack| stack == "app")
    };
    let services = store.services();
    let services = services.filter(|service| is_of(&service.spec.annotations));
    let services = services.map(|service| Command::RemoveService { id: service.id });
    let secrets = store.secrets().all();
    let secrets = secrets.filter(|secret| is_of(&secret.spec.annotations));
    let secrets = secrets.map(|secret| Command::RemoveSecret { id: secret.id });
    let networks = store.networks().all();
    let networks = networks.filter(|network| is_of(&network.spec.annotations));
    let networks = networks.map(|network| Command::RemoveNetwork { id: network.id });
    services.chain(secrets).chain(networks).collect()
}

impl Harness {
    #[track_caller]
    fn done(&mut self, command: Command) {
        let to = self.command(command);
        self.settle();
        let reply = self.reply(to);
        assert!(matches!(reply, Some(Ok(_))), "{reply:?}");
    }

    fn has_stack(&self) -> bool {
        let store = self.core.store();
        let is_there = stacks::find(store, "app").is_some();
        assert_eq!(!stacks::revisions(store, "app").is_empty(), is_there);
        is_there
    }
}

#[test]
fn a_stack_goes_with_the_last_object_that_is_removed_from_outside() {
    let mut harness = Harness::with_agent();
    harness.deploy(&application(b"one")).unwrap();
    harness.deploy(&application(b"two")).unwrap();
    let mut removals = removals(harness.core.store());
    assert_eq!(removals.len(), 5, "two services, two secrets, a network");
    let last = removals.pop().unwrap();
    for removal in removals {
        harness.done(removal);
        assert!(harness.has_stack(), "something is left");
    }
    harness.done(last);
    assert!(!harness.has_stack());
    assert_eq!(harness.deploy(&application(b"one")).unwrap().revision, 1);
}

#[test]
fn a_new_leader_forgets_a_stack_whose_objects_the_old_one_removed() {
    let mut harness = Harness::with_agent();
    harness.deploy(&application(b"one")).unwrap();
    let mut removals = removals(harness.core.store());
    let last = removals.pop().unwrap();
    for removal in removals {
        harness.done(removal);
    }
    harness.command(last);
    // The leader is lost when the first of what it wrote is stored.
    let (request_id, mut written) = harness.turn().unwrap();
    let is_network = |action: &Action| matches!(action.object, skep_store::Object::Network(_));
    written.retain(is_network);
    assert_eq!(written.len(), 1);
    harness.handle(Event::Deposed);
    harness.commit(RequestId(request_id.0 + 1), written);
    assert!(harness.has_stack());
    harness.handle(Event::Led { term: 3 });
    harness.settle();
    assert!(!harness.has_stack());
}

#[test]
fn a_stack_that_was_given_no_objects_is_not_taken_for_removed() {
    let mut harness = Harness::with_agent();
    let none = StackSpec {
        name: "app".to_owned(),
        ..StackSpec::default()
    };
    harness.deploy(&none).unwrap();
    let Command::CreateService { mut spec } = create("app_extra", 1) else {
        panic!("no service");
    };
    let annotations = Arc::make_mut(&mut spec.annotations);
    let label = (NAMESPACE_LABEL.to_owned(), "app".to_owned());
    annotations.labels.extend([label]);
    harness.done(Command::CreateService { spec });
    for removal in removals(harness.core.store()) {
        harness.done(removal);
    }
    harness.handle(Event::Led { term: 3 });
    harness.settle();
    assert!(harness.has_stack());
    // Nor is one that its own document empties.
    harness.deploy(&application(b"one")).unwrap();
    let options = ApplyOptions {
        prune: true,
        ..ApplyOptions::default()
    };
    harness.deploy_with(&none, options).unwrap();
    harness.settle();
    assert!(harness.has_stack());
}

#[test]
fn what_others_made_is_the_revision_before_the_first_deploy() {
    let mut harness = Harness::with_agent();
    harness.deploy(&application(b"one")).unwrap();
    // As Docker's command leaves it: the objects without the stack.
    let id = stacks::find(harness.core.store(), "app").unwrap().id;
    let prefix = "stack/app".to_owned();
    let mut own: Vec<_> = harness
        .core
        .store()
        .resources_by_name_prefix(prefix)
        .cloned()
        .collect();
    assert_eq!(own[0].id, id);
    let gone = own.drain(..).map(|resource| Action {
        kind: skep_store::ActionKind::Remove,
        object: skep_store::Object::Resource(resource),
    });
    let gone = gone.collect();
    harness.commit(RequestId(u64::MAX), gone);
    assert!(!harness.has_stack());
    let was = |harness: &Harness| {
        let web = harness.core.store().service_by_name("app_web");
        web.unwrap().spec.clone()
    };
    let found = was(&harness);

    let outcome = harness.deploy(&application(b"two")).unwrap();
    assert_eq!(outcome.revision, 2);
    assert_ne!(was(&harness), found);
    let kept = stacks::revisions(harness.core.store(), "app");
    assert!(kept[0].is_found() && !kept[1].is_found());
    assert_eq!(kept[0].spec.services[1].task.networks[0].target, "app_net");
    let outcome = harness.roll_back(None).unwrap();
    assert_eq!(outcome.revision, 1);
    assert_eq!(was(&harness), found);
    assert_eq!(harness.secret_of("app_db"), "app_pw");
    assert_eq!(harness.roll_back(None).unwrap().revision, 2);
}
